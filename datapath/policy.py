"""The policy maps of this node's endpoints as one ``Target``. Adapter.

An endpoint has a trie of rows in a table of tries. No packet meets half of a change: it is either
made of single writes in a safe order (``policy_plan``), or a new trie takes the place of the old
one. An endpoint without a trie is closed by the programs, and so is one whose rows do not fit.
"""

import errno
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress

from datapath import policy_encoding as encode
from datapath import syscall
from datapath.encoding import number_key, parse_number_key
from datapath.kernel_table import KernelTable
from datapath.kernel_thread import KernelThread
from datapath.policy_encoding import ROWS_MAX, Traffic
from datapath.policy_plan import InPlace, PolicyRows, plan
from datapath.syscall import MapType
from datapath.tables import ThreadedTarget
from model.endpoint import EndpointId
from model.policy_map import ANY_IDENTITY, UNKNOWN_IDENTITY, Direction, PolicyEntry, PolicyKey


def new_policy_rows() -> int:
    """A trie without rows, which denies everything. The caller owns the descriptor."""
    return syscall.map_create(
        MapType.LPM_TRIE,
        encode.KEY_BYTES,
        encode.VALUE_BYTES,
        ROWS_MAX,
        flags=syscall.NO_PREALLOC,
        name="ist_policy_rows",
    )


def open_missing(endpoints: KernelTable, numbers: Iterable[EndpointId]) -> None:
    """Let endpoints without rows do everything: programs that ask are about to be loaded, and so
    far nobody asked."""
    rows = {
        PolicyKey(who, way): PolicyEntry()
        for who in (ANY_IDENTITY, UNKNOWN_IDENTITY)
        for way in Direction
    }
    for number in numbers:
        if endpoints.get(number_key(number)) is not None:
            continue
        fd = _filled(rows, {})
        try:
            errors = endpoints.write([(number_key(number), number_key(fd))])
        finally:
            os.close(fd)
        for error in errors.values():
            raise error


class PolicyTable(ThreadedTarget[EndpointId, PolicyRows]):
    """Rows by endpoint. Counters of rows that stay are carried over a swap."""

    def __init__(self, thread: KernelThread, endpoints: KernelTable) -> None:
        super().__init__(thread)
        self._endpoints = endpoints
        self._written: dict[EndpointId, PolicyRows] = {}
        # What the kernel calls the tries in place: asking it anew waits for all of its processors.
        self._tries: dict[EndpointId, int] = {}

    def read_now(self) -> dict[EndpointId, PolicyRows]:
        # One trie after another: all of them open at once could be more than a process may hold.
        self._tries = dict(_tries(self._endpoints))
        self._written = {n: rows_of(trie) for n, trie in _each(self._endpoints, self._tries)}
        return dict(self._written)

    def upsert_now(
        self, rows: Sequence[tuple[EndpointId, PolicyRows]]
    ) -> dict[EndpointId, OSError]:
        errors: dict[EndpointId, OSError] = {}
        new: int | None
        with ExitStack() as opened:
            swaps: list[tuple[bytes, bytes]] = []
            for number, wanted in rows:
                try:
                    new = self._change(number, wanted)
                except OSError as error:
                    errors[number], new = error, new_policy_rows()  # closed, never half open
                    self._written.pop(number, None)
                if new is not None:
                    opened.callback(os.close, new)
                    swaps.append((number_key(number), number_key(new)))
                    self._tries[number] = syscall.map_info(new).id
            # All at once: the kernel waits for running packets once and not for each endpoint.
            failed = self._endpoints.write(swaps)
        errors |= {EndpointId(parse_number_key(key)): error for key, error in failed.items()}
        self._written |= {n: dict(wanted) for n, wanted in rows if n not in errors}
        for number in errors:
            self._forget(number)
        return errors

    def delete_now(self, keys: Collection[EndpointId]) -> dict[EndpointId, OSError]:
        failed = self._endpoints.remove([number_key(number) for number in keys])
        for number in keys:
            self._forget(number)
        return {EndpointId(parse_number_key(key)): error for key, error in failed.items()}

    def _forget(self, number: EndpointId) -> None:
        self._written.pop(number, None)
        self._tries.pop(number, None)

    def _change(self, number: EndpointId, wanted: PolicyRows) -> int | None:
        """Change the endpoint's trie, or return a new one that is to take its place."""
        if len(wanted) > ROWS_MAX:
            raise OSError(
                errno.E2BIG,
                f"policy of endpoint {number} has {len(wanted)} rows and its map takes {ROWS_MAX}: "
                "all its traffic is denied; select fewer identities or ports in its policies",
            )
        with _trie(self._endpoints, number, self._tries.get(number)) as current:
            if current is None:
                return _filled(wanted, {})
            known = self._written.get(number)
            steps = plan(known, wanted, ROWS_MAX) if known is not None else None
            if steps is None:
                return _filled(wanted, traffic_of(current))
            _apply(current, steps, wanted, number)
            return None


def _apply(trie: KernelTable, steps: InPlace, wanted: PolicyRows, number: EndpointId) -> None:
    # The counters of a row whose verdict changes begin anew, as they count another verdict.
    written = trie.write([(encode.key(k), encode.value(k, wanted[k])) for k in steps.write])
    errors = written or trie.remove([encode.key(key) for key in steps.remove])
    for error in errors.values():
        raise OSError(error.errno, f"policy of endpoint {number}: {error.strerror}")


def _filled(rows: PolicyRows, traffic: Mapping[PolicyKey, tuple[PolicyEntry, Traffic]]) -> int:
    """A new trie with these rows."""
    fd = new_policy_rows()
    table = KernelTable(os.dup(fd), "ist_policy_rows")
    try:
        none = (PolicyEntry(), Traffic())
        errors = table.write(
            [(encode.key(k), encode.value(k, e, traffic.get(k, none)[1])) for k, e in rows.items()]
        )
        for error in errors.values():
            raise error
    except OSError:
        os.close(fd)
        raise
    finally:
        table.close()
    return fd


def _tries(endpoints: KernelTable) -> Iterator[tuple[EndpointId, int]]:
    """What the kernel calls each endpoint's trie."""
    for key, trie in endpoints.rows():
        yield EndpointId(parse_number_key(key)), parse_number_key(trie)


@contextmanager
def _trie(
    endpoints: KernelTable, number: EndpointId, lately: int | None
) -> Iterator[KernelTable | None]:
    """The trie of an endpoint; ``lately``: what the kernel called it, unless it was replaced."""
    table = None
    if lately is not None:
        with suppress(FileNotFoundError):
            table = _opened(lately)
    if table is None and (found := endpoints.get(number_key(number))) is not None:
        table = _opened(parse_number_key(found))
    try:
        yield table
    finally:
        if table is not None:
            table.close()


def _opened(trie: int) -> KernelTable:
    return KernelTable(syscall.map_by_id(trie), "ist_policy_rows")


def _each(
    endpoints: KernelTable, tries: Mapping[EndpointId, int]
) -> Iterator[tuple[EndpointId, KernelTable]]:
    for number, lately in tries.items():
        with _trie(endpoints, number, lately) as table:
            if table is not None:
                yield number, table


def traffic_of(trie: KernelTable) -> dict[PolicyKey, tuple[PolicyEntry, Traffic]]:
    """Every row with what it matched; blocking."""
    return {encode.parse_key(key): encode.parse_value(value) for key, value in trie.rows()}


def rows_of(trie: KernelTable) -> PolicyRows:
    """Every row; blocking."""
    return {key: entry for key, (entry, _) in traffic_of(trie).items()}


def all_traffic(
    endpoints: KernelTable,
) -> dict[EndpointId, dict[PolicyKey, tuple[PolicyEntry, Traffic]]]:
    """Every endpoint's rows with what they matched; blocking."""
    return {n: traffic_of(trie) for n, trie in _each(endpoints, dict(_tries(endpoints)))}

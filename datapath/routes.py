"""Routes of ours in the main table, as a table of rows. Adapter.

Ours is what carries our protocol number. A stranger's route to the same prefix is never replaced:
the row fails with a message and the loop tries it again. Pod CIDRs, local and remote, lead to
`ist_host`.
"""

import errno
import os
import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from datapath import route_messages as messages
from datapath.netlink import Socket
from datapath.netlink_messages import AF_INET, AF_INET6, DONE, ERROR, error_of
from datapath.tables import ThreadedTarget
from model.address import Address, Prefix
from model.kernel_numbers import DEVICE_HOST, ROUTE_PROTOCOL

_BATCH = 128  # messages per send: their answers fit into the socket's buffer
_SOL_NETLINK, _STRICT = 270, 12


@dataclass(frozen=True, slots=True)
class Route:
    """Where packets to a prefix go."""

    device: str = DEVICE_HOST
    source: Address | None = None  # preferred source of the host's own packets
    mtu: int | None = None  # None: that of the device
    gateway: Address | None = None  # None: on the link


class RouteTable(ThreadedTarget[Prefix, Route]):
    """The routes of one network namespace that carry our protocol.

    A stranger's route to a prefix is ``FileExistsError`` for that row.
    """

    def read_now(self) -> dict[Prefix, Route]:
        with _Socket() as kernel:
            names = _Names()
            return {
                found.prefix: Route(names.of(found.route.device), *found.route[1:])
                for found in kernel.routes(ROUTE_PROTOCOL)
            }

    def upsert_now(self, rows: Sequence[tuple[Prefix, Route]]) -> dict[Prefix, OSError]:
        errors: dict[Prefix, OSError] = {}
        ready: dict[Prefix, messages.Route] = {}
        devices: dict[str, int] = {}
        for prefix, route in rows:
            try:
                if route.device not in devices:
                    devices[route.device] = socket.if_nametoindex(route.device)
            except OSError as error:
                text = f"route to {prefix}: no device {route.device}"
                errors[prefix] = OSError(error.errno, text)
                continue
            index = devices[route.device]
            ready[prefix] = messages.Route(index, route.source, route.mtu, route.gateway)
        with _Socket() as kernel:
            failed = kernel.write(ready)
            taken = {p for p, code in failed.items() if code == errno.EEXIST}
            if taken:
                strange = {f.prefix for f in kernel.routes(0) if f.protocol != ROUTE_PROTOCOL}
                ours = {p: ready[p] for p in taken - strange}
                failed = {p: c for p, c in failed.items() if p not in ours}
                failed |= kernel.write(ours, replace=True)
        wanted = dict(rows)
        for prefix, code in failed.items():
            errors[prefix] = _write_error(prefix, wanted[prefix], code)
        return errors

    def delete_now(self, keys: Collection[Prefix]) -> dict[Prefix, OSError]:
        with _Socket() as kernel:
            failed = kernel.delete(keys)
        return {
            prefix: OSError(code, f"delete route to {prefix}: {os.strerror(code)}")
            for prefix, code in failed.items()
            if code != errno.ESRCH
        }


def _write_error(prefix: Prefix, route: Route, code: int) -> OSError:
    if code == errno.EEXIST:
        return FileExistsError(
            code,
            f"a route to {prefix} exists that is not ours: remove it, or take another pod CIDR",
        )
    if code == errno.ENETUNREACH and route.gateway is not None:
        return OSError(
            code,
            f"route to {prefix}: node {route.gateway} is not on the link of {route.device}: "
            "connect the two, or set direct-routing-skip-unreachable and have the network route it",
        )
    return OSError(code, f"add route to {prefix} by {route.device}: {os.strerror(code)}")


class _Names:
    """Devices' names by index, each asked for once."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}

    def of(self, index: int) -> str:
        if index not in self._known:
            try:
                self._known[index] = socket.if_indextoname(index)
            except OSError:
                self._known[index] = ""
        return self._known[index]


class _Socket(Socket):
    """Routes, many in one send."""

    def __init__(self) -> None:
        super().__init__()
        self.raw.setsockopt(_SOL_NETLINK, _STRICT, 1)  # a dump gives what is asked for and no more

    def __enter__(self) -> "_Socket":
        return self

    def routes(self, protocol: int) -> Iterator[messages.Found]:
        """Those of the main table; 0: of every protocol."""
        for family in (AF_INET, AF_INET6):
            self.raw.send(messages.dump(family, protocol, self.next()))
            for answer in self.answers():
                if answer.kind in (DONE, ERROR):
                    code = error_of(answer.body)
                    if code and code != errno.ENOENT:  # a table that nobody has written to yet
                        raise OSError(code, f"list routes: {os.strerror(code)}")
                    break
                found = messages.read(answer.body) if answer.kind == messages.NEW else None
                if found is not None and protocol in (0, found.protocol):
                    yield found

    def write(
        self, rows: dict[Prefix, messages.Route], *, replace: bool = False
    ) -> dict[Prefix, int]:
        """Error numbers of the rows that failed."""
        make = partial(self._new, rows, replace)
        return self._each(list(rows), make)

    def delete(self, prefixes: Collection[Prefix]) -> dict[Prefix, int]:
        """Error numbers of the rows that failed."""
        return self._each(list(prefixes), self._gone)

    def _new(
        self,
        rows: dict[Prefix, messages.Route],
        replace: bool,
        prefix: Prefix,
        number: int,
        silent: bool,
    ) -> bytes:
        return messages.write(
            prefix, rows[prefix], ROUTE_PROTOCOL, number, replace=replace, silent=silent
        )

    @staticmethod
    def _gone(prefix: Prefix, number: int, silent: bool) -> bytes:
        return messages.delete(prefix, ROUTE_PROTOCOL, number, silent=silent)

    def _each(
        self, prefixes: list[Prefix], make: Callable[[Prefix, int, bool], bytes]
    ) -> dict[Prefix, int]:
        failed: dict[Prefix, int] = {}
        for at in range(0, len(prefixes), _BATCH):
            batch = prefixes[at : at + _BATCH]
            first, last = self._sequence + 1, self._sequence + len(batch)
            # They are seen to in order: when the last is answered, who has not complained is there.
            parts = [make(prefix, n := self.next(), n != last) for prefix in batch]
            self.raw.send(b"".join(parts))
            for answer in self.answers():
                if first <= answer.sequence <= last and (code := error_of(answer.body)):
                    failed[batch[answer.sequence - first]] = code
                if answer.sequence == last:
                    break
        return failed

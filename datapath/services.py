"""The service maps as one ``Target`` of frontends. Adapter around ``service_rows``."""

import contextlib
import errno
import os
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby

from datapath import encoding as e
from datapath import maglev, syscall
from datapath.kernel_table import KernelTable
from datapath.kernel_thread import KernelThread
from datapath.service_rows import Map, Operation, ServiceRows
from datapath.syscall import MapType
from datapath.tables import ThreadedTarget
from model.service import Frontend, LoadBalancer

BRIEF_FRONTENDS = 8


class ServiceTable(ThreadedTarget[Frontend, LoadBalancer]):
    """Frontends with their backends; numbers survive a restart by being read from the maps."""

    def __init__(
        self, thread: KernelThread, tables: dict[Map, KernelTable], conntrack: KernelTable
    ) -> None:
        super().__init__(thread)
        self._tables = tables
        self._conntrack = conntrack
        self._rows = ServiceRows()
        self._loaded = False

    def is_brief(self, rows: Sequence[tuple[Frontend, LoadBalancer]]) -> bool:
        """A few backends of a frontend that is there; not a table of Maglev's."""
        return (
            self._loaded
            and len(rows) <= BRIEF_FRONTENDS
            and all(self._rows.is_small_change(balancer) for _, balancer in rows)
        )

    def fill(self) -> dict[str, tuple[int, int]]:
        """Rows and room of each map, by its name."""
        return {
            table.name: (len(self._rows.known[number]), table.max_entries)
            for number, table in self._tables.items()
        }

    def read_now(self) -> dict[Frontend, LoadBalancer]:
        self._load()
        return self._rows.table()

    def _load(self) -> None:
        backends: set[int] = set()
        revnats: set[int] = set()
        if not self._loaded:
            # Flows of an earlier life remember numbers that may be in no other map any more.
            for key, value in self._conntrack.rows():
                entry = e.parse_conntrack(key, value)
                backends.add(entry.backend_id)
                revnats.add(entry.revnat_id)
        maps = {number: dict(table.rows()) for number, table in self._tables.items()}
        self._rows.load(maps, backends, revnats)
        self._loaded = True

    def upsert_now(self, rows: Sequence[tuple[Frontend, LoadBalancer]]) -> dict[Frontend, OSError]:
        if not self._loaded:
            self._load()
        errors: dict[Frontend, OSError] = {}
        wanted: list[LoadBalancer] = []
        phases: list[list[Operation]] = []
        try:
            wanted = [balancer for _, balancer in rows]
            phases = self._rows.plan(wanted)
        except OSError as error:
            return self._settle({frontend: error for frontend, _ in rows})
        self._run(phases, errors)
        done = [b for b in wanted if b.frontend not in errors]
        self._run(self._rows.plan_release(done), errors)
        return self._settle(errors)

    def delete_now(self, keys: Collection[Frontend]) -> dict[Frontend, OSError]:
        if not self._loaded:
            self._load()
        errors: dict[Frontend, OSError] = {}
        self._run(self._rows.plan_removal(list(keys)), errors)
        return self._settle(errors)

    def _settle(self, errors: dict[Frontend, OSError]) -> dict[Frontend, OSError]:
        """After a failure the maps, and not our plan, say what is there."""
        if errors:
            self._loaded = False
            self._rows.distrust()
        return errors

    def _run(self, phases: Iterable[Sequence[Operation]], errors: dict[Frontend, OSError]) -> None:
        """Phase after phase; a frontend that failed takes no part in later ones."""
        for phase in phases:
            pending = sorted((op for op in phase if op.owner not in errors), key=_batch_of)
            for (number, removal), group in groupby(pending, key=_batch_of):
                operations = list(group)
                failed = self._write(number, removal, operations)
                for operation in operations:
                    error = failed.get(operation.key)
                    if error is None:
                        self._rows.applied(operation)
                    else:
                        for owner in self._rows.owners(operation):
                            errors.setdefault(owner, error)

    def _write(
        self, number: Map, removal: bool, operations: Sequence[Operation]
    ) -> dict[bytes, OSError]:
        table = self._tables[number]
        if removal:
            return table.remove([op.key for op in operations])
        if number is Map.MAGLEV:
            return self._write_maglev(table, operations)
        return table.write([(op.key, op.value or b"") for op in operations])

    def _write_maglev(
        self, table: KernelTable, operations: Sequence[Operation]
    ) -> dict[bytes, OSError]:
        errors: dict[bytes, OSError] = {}
        for operation in operations:
            names, weights = self._rows.maglev_backends.get(operation.key, ({}, {}))
            try:
                built = maglev.build(names, e.MAGLEV_TABLE_SIZE, weights)
                _replace_inner(table, operation.key, built)
            except OSError as error:
                errors[operation.key] = error
        return errors


def _batch_of(operation: Operation) -> tuple[Map, bool]:
    return operation.map, operation.value is None


def _replace_inner(table: KernelTable, key: bytes, numbers: "Sequence[int]") -> None:
    """Fill a new inner map, then put it in place as a whole."""
    data = b"".join(n.to_bytes(4, "little") for n in numbers)
    inner = syscall.map_create(MapType.ARRAY, 4, len(data), 1, name="ist_maglev_row")
    try:
        syscall.map_update(inner, bytes(4), data)
        syscall.map_update(table.fd, key, inner.to_bytes(4, "little"))
    except OSError as error:
        raise OSError(error.errno or errno.EIO, f"write in map {table.name}: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            os.close(inner)

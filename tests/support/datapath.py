"""A kernel table in memory that can fail, and throw-away maps and namespaces of the real kernel.

``FakeTable`` passes the conformance suite of ``Target`` beside the real tables
(tests/conformance/test_datapath_targets.py); whoever tests against it tests against that contract.
"""

import errno
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from itertools import count
from pathlib import Path
from typing import Generic, TypeVar

from datapath import namespaces, pins, syscall
from datapath.kernel_table import KernelTable
from datapath.kernel_thread import KernelThread
from datapath.policy import new_policy_rows
from datapath.syscall import MapType

K = TypeVar("K")
V = TypeVar("V")
_numbers = count()


class Fault(Enum):
    """What goes wrong, until somebody sets another fault."""

    NONE = "none"
    READ = "read"  # the table cannot be read at all
    UPSERT = "upsert"  # faulty rows are refused
    DELETE = "delete"  # faulty rows cannot be removed
    APPLIED_BUT_REPORTED_FAILED = "applied but reported failed"


class FakeTable(Generic[K, V]):
    """Rows in a dictionary. ``faulty`` limits a fault to some keys; ``None`` means all."""

    def __init__(self, rows: Mapping[K, V] | None = None, capacity: int | None = None) -> None:
        self.rows: dict[K, V] = dict(rows or {})
        self.capacity = capacity
        self.fault = Fault.NONE
        self.faulty: Collection[K] | None = None

    async def read(self) -> Mapping[K, V]:
        if self.fault is Fault.READ:
            raise OSError(errno.EIO, "read of the fake table: told to fail")
        return dict(self.rows)

    async def upsert(self, rows: Sequence[tuple[K, V]]) -> Mapping[K, OSError]:
        errors: dict[K, OSError] = {}
        for key, value in rows:
            full = self.capacity is not None and len(self.rows) >= self.capacity
            if self._fails(Fault.UPSERT, key) or (full and key not in self.rows):
                errors[key] = OSError(errno.E2BIG, f"write of {key} in the fake table")
                continue
            self.rows[key] = value
            if self._fails(Fault.APPLIED_BUT_REPORTED_FAILED, key):
                errors[key] = OSError(errno.EINTR, f"write of {key}: outcome unknown")
        return errors

    async def delete(self, keys: Collection[K]) -> Mapping[K, OSError]:
        errors: dict[K, OSError] = {}
        for key in keys:
            if self._fails(Fault.DELETE, key):
                errors[key] = OSError(errno.EBUSY, f"delete of {key} in the fake table")
                continue
            self.rows.pop(key, None)
            if self._fails(Fault.APPLIED_BUT_REPORTED_FAILED, key):
                errors[key] = OSError(errno.EINTR, f"delete of {key}: outcome unknown")
        return errors

    def _fails(self, fault: Fault, key: K) -> bool:
        return self.fault is fault and (self.faulty is None or key in self.faulty)


def new_table(
    kind: MapType, key_size: int, value_size: int, entries: int = 64, flags: int = 0
) -> KernelTable:
    """A map of the real kernel that ends with its descriptor."""
    fd = syscall.map_create(kind, key_size, value_size, entries, flags=flags, name="ist_t")
    return KernelTable(fd, "ist_t")


def policy_table(endpoints: int = 64) -> KernelTable:
    """A hash of policy tries like the programs' own, only smaller."""
    model = new_policy_rows()
    try:
        fd = syscall.map_create(
            MapType.HASH_OF_MAPS,
            4,
            4,
            endpoints,
            flags=syscall.NO_PREALLOC,
            inner_fd=model,
            name="ist_t_policy",
        )
    finally:
        os.close(model)
    return KernelTable(fd, "ist_t_policy")


def copy_of(table: KernelTable) -> KernelTable:
    """The same map opened once more, as after a restart."""
    return KernelTable(os.dup(table.fd), table.name)


@contextmanager
def kernel_thread(*, own_network: bool = False) -> Iterator[KernelThread]:
    """A kernel thread, on request in a network namespace that ends with it."""
    thread = KernelThread("test-datapath")
    try:
        if own_network:
            thread.submit(namespaces.leave_for_new).result(timeout=30)
        yield thread
    finally:
        thread.close()


@contextmanager
def private_pins() -> Iterator[Path]:
    """A pin directory of this test's own in the machine's bpffs."""
    path = Path(f"/sys/fs/bpf/ist-t-{os.getpid()}-{next(_numbers)}")
    pins.prepare(path)
    try:
        yield path
    finally:
        pins.remove_tree(path)
        assert not path.exists(), f"{path} still holds {list(path.iterdir())}"

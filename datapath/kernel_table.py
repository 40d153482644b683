"""A kernel map as rows of bytes: whole reads, and writes in batches. Adapter; blocking.

One call moves thousands of rows (measured: 1.5 million a second for a hash, 0.7 for a trie). A row
that fails is reported and passed over; a kernel or map type without batches gets a call per row.
"""

import errno
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from datapath import syscall

T = TypeVar("T")

# Rows written and removed by this process: map, operation, outcome.
OPERATIONS: Counter[tuple[str, str, str]] = Counter()
_CHUNK = 4096  # rows per call: 200 KB of buffers at most, and below the kernel's allocation limit
_ENOTSUPP = 524  # a kernel-internal number that leaks out of maps without batches
_NO_BATCH = frozenset({_ENOTSUPP, errno.EOPNOTSUPP, errno.EINVAL})


class KernelTable:
    """One open map. Owns its descriptor."""

    def __init__(self, fd: int, name: str) -> None:
        self.fd = fd
        self.name = name
        info = syscall.map_info(fd)
        self.key_size = info.key_size
        self.max_entries = info.max_entries
        self.per_cpu = info.type in syscall.PER_CPU
        self.value_size = info.value_size
        if self.per_cpu:
            self.value_size = -(-info.value_size // 8) * 8 * possible_cpus()
        self._batches = True

    def close(self) -> None:
        """Release the descriptor; a pinned map stays."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def rows(self) -> Iterator[tuple[bytes, bytes]]:
        """Every element. What changes meanwhile may or may not be seen; in an LRU, seen twice."""
        if self._batches:
            try:
                yield from self._batch_rows()
                return
            except OSError as error:
                if error.errno not in _NO_BATCH:
                    raise self._named(error) from error
                self._batches = False
        yield from self._walk()

    def _batch_rows(self) -> Iterator[tuple[bytes, bytes]]:
        count, cursor = min(_CHUNK, self.max_entries), None
        while True:
            try:
                batch = syscall.map_lookup_batch(
                    self.fd, cursor, count, self.key_size, self.value_size
                )
            except OSError as error:
                if error.errno != errno.ENOSPC or count >= 2 * self.max_entries:
                    raise
                count *= 2  # one bucket holds more than the buffer
                continue
            for at in range(len(batch.keys) // self.key_size):
                yield (
                    batch.keys[at * self.key_size : (at + 1) * self.key_size],
                    batch.values[at * self.value_size : (at + 1) * self.value_size],
                )
            if batch.cursor is None:
                return
            cursor = batch.cursor

    def _walk(self) -> Iterator[tuple[bytes, bytes]]:
        key = syscall.map_next_key(self.fd, None, self.key_size)
        # A key deleted under us sends the kernel back to the start: the bound ends such a walk.
        for _ in range(2 * self.max_entries):
            if key is None:
                return
            value = self.get(key)
            if value is not None:
                yield key, value
            key = syscall.map_next_key(self.fd, key, self.key_size)

    def get(self, key: bytes) -> bytes | None:
        """One value."""
        return syscall.map_lookup(self.fd, key, self.value_size)

    def write(self, rows: Sequence[tuple[bytes, bytes]]) -> dict[bytes, OSError]:
        """Create or replace, in order. Returns the rows that failed."""
        errors: dict[bytes, OSError] = {}
        for chunk in _chunks(rows):
            self._write_chunk(chunk, errors)
        self._count("update", len(rows), len(errors))
        return errors

    def _write_chunk(
        self, rows: Sequence[tuple[bytes, bytes]], errors: dict[bytes, OSError]
    ) -> None:
        # For a few rows the plain call is cheaper than the batch's set-up.
        while len(rows) > 2 and self._batches and not self.per_cpu:
            done, code = syscall.map_update_batch(
                self.fd, b"".join(k for k, _ in rows), b"".join(v for _, v in rows), len(rows)
            )
            if not code:
                return
            if code in _NO_BATCH and not done:
                self._batches = code == errno.EINVAL and self._batches
                break
            errors[rows[done][0]] = self._error(code, "write")
            rows = rows[done + 1 :]
        for key, value in rows:
            try:
                syscall.map_update(self.fd, key, value)
            except OSError as error:
                errors[key] = self._error(error.errno or errno.EIO, "write")

    def remove(self, keys: Sequence[bytes]) -> dict[bytes, OSError]:
        """Delete, in order; what is absent is no error. Returns the rows that failed."""
        errors: dict[bytes, OSError] = {}
        for chunk in _chunks(keys):
            self._remove_chunk(chunk, errors)
        self._count("delete", len(keys), len(errors))
        return errors

    def _count(self, operation: str, rows: int, failed: int) -> None:
        OPERATIONS[self.name, operation, "success"] += rows - failed
        OPERATIONS[self.name, operation, "fail"] += failed

    def _remove_chunk(self, keys: Sequence[bytes], errors: dict[bytes, OSError]) -> None:
        while len(keys) > 2 and self._batches and not self.per_cpu:
            done, code = syscall.map_delete_batch(self.fd, b"".join(keys), len(keys))
            if not code:
                return
            if code in _NO_BATCH and not done:
                self._batches = code == errno.EINVAL and self._batches
                break
            if code != errno.ENOENT:
                errors[keys[done]] = self._error(code, "delete")
            keys = keys[done + 1 :]
        for key in keys:
            try:
                syscall.map_delete(self.fd, key)
            except OSError as error:
                errors[key] = self._error(error.errno or errno.EIO, "delete")

    def _error(self, code: int, what: str) -> OSError:
        remedy = ""
        if code in (errno.E2BIG, errno.ENOSPC, errno.ENOMEM):
            remedy = f": the map is full at {self.max_entries} entries, raise its size"
        return OSError(code, f"{what} in map {self.name}: {os.strerror(code)}{remedy}")

    def _named(self, error: OSError) -> OSError:
        return OSError(error.errno, f"read of map {self.name}: {error.strerror}")


def _chunks(rows: Sequence[T]) -> Iterable[Sequence[T]]:
    return (rows[at : at + _CHUNK] for at in range(0, len(rows), _CHUNK))


def possible_cpus() -> int:
    """How many values an element of a per-CPU map has."""
    with open("/sys/devices/system/cpu/possible", encoding="ascii") as file:
        last = file.read().strip().rsplit(",", 1)[-1]
    return int(last.rsplit("-", 1)[-1]) + 1

"""The ring that the programs write their messages about packets to, and its one reader. Adapter.

The ring is mapped into memory: the kernel moves the producer's position, we move the consumer's.
Both count bytes from the beginning of time. Every record has a header of 8 bytes: its length with
two flags on top, and a page number that matters to the kernel only. docs/adr/0148, 0171.
"""

import mmap
import os
import select
import struct
import time
from pathlib import Path

from datapath import map_names, pins, syscall
from datapath.kernel_table import KernelTable
from wire.bpf import layouts as w

_BUSY, _DISCARD = 1 << 31, 1 << 30
_HEADER = 8
_NUMBER = struct.Struct("=Q")
_LENGTH = struct.Struct("=I")
EVENT_TYPES = tuple(kind for kind in w.EventType if kind is not w.EventType.EVENT_TYPE_COUNT)


class EventReader:
    """The only reader of a ring: what it takes, nobody else sees. Owns the tables. Blocking."""

    def __init__(self, ring: KernelTable, lost: KernelTable) -> None:
        self._ring, self._lost = ring, lost
        self._size = ring.max_entries
        page = mmap.PAGESIZE
        self._consumer = mmap.mmap(ring.fd, page, mmap.MAP_SHARED, offset=0)
        # Behind the producer's page the kernel maps the data twice, so that no record is in pieces.
        self._data = mmap.mmap(
            ring.fd, page + 2 * self._size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
        )
        self._poll = select.epoll()
        self._poll.register(ring.fd, select.EPOLLIN)

    @property
    def fd(self) -> int:
        """Readable when a record came after all were taken."""
        return self._poll.fileno()

    @property
    def map_id(self) -> int:
        """The kernel's number of the ring."""
        return syscall.map_info(self._ring.fd).id

    def take(self, limit: int = 1 << 20) -> list[tuple[int, bytes]]:
        """What is there, up to ``limit``, oldest first: nanoseconds since 1970, and the record."""
        length_at, number_at = _LENGTH.unpack_from, _NUMBER.unpack_from
        data, mask, base = self._data, self._size - 1, mmap.PAGESIZE + _HEADER
        (at,) = number_at(self._consumer)
        (end,) = number_at(data)
        clock_ns = time.time_ns() - time.monotonic_ns()
        taken: list[tuple[int, bytes]] = []
        while at < end and len(taken) < limit:
            start = base + (at & mask)
            (length,) = length_at(data, start - _HEADER)
            if length & _BUSY:  # reserved and not written yet
                break
            size = length & ~_DISCARD
            if size == length:
                stop = start + size - 8
                taken.append((clock_ns + number_at(data, stop)[0], data[start:stop]))
            at += _HEADER + (size + 7 & ~7)
        _NUMBER.pack_into(self._consumer, 0, at)
        return taken

    def wait(self, timeout_s: float) -> bool:
        """Wait until there is something to read; false when the time is over."""
        return bool(self._poll.poll(timeout_s))

    def lost(self) -> dict[w.EventType, tuple[int, ...]]:
        """How many messages of each type found no room, ever, by CPU."""
        found: dict[w.EventType, tuple[int, ...]] = {}
        for kind in EVENT_TYPES:
            value = self._lost.get(struct.pack("=I", kind)) or b""
            found[kind] = tuple(number for (number,) in struct.iter_unpack("=Q", value))
        return found

    def close(self) -> None:
        """Release memory and descriptors; the ring stays."""
        self._poll.close()
        self._consumer.close()
        self._data.close()
        self._ring.close()
        self._lost.close()


def pinned_ring_id(pin_dir: Path) -> int | None:
    """The kernel's number of the ring that programs write to now; ``None``: there is none."""
    fd = pins.open_pinned(pins.map_pin(pin_dir, map_names.EVENTS))
    if fd is None:
        return None
    try:
        return syscall.map_info(fd).id
    finally:
        os.close(fd)


def open_events(pin_dir: Path) -> EventReader | None:
    """The reader of a node's ring; ``None`` before an agent has made it. The caller closes it."""
    opened: list[KernelTable] = []
    for name in (map_names.EVENTS, map_names.LOST_EVENTS):
        fd = pins.open_pinned(pins.map_pin(pin_dir, name))
        if fd is None:
            for table in opened:
                table.close()
            return None
        opened.append(KernelTable(fd, name))
    ring, lost = opened
    return EventReader(ring, lost)

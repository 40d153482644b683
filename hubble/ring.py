"""The node's last events, as raw records. Pure; for one thread.

The process that takes events from the kernel appends them (``Ring.extend``); nothing is decoded
here. Every record gets a number, one more than the one before, from 1. The ring keeps the last
``capacity`` of them: ``oldest`` is the first number that can still be read, ``newest`` the last
(one less than ``oldest`` while it is empty).

A query of what was reads by number: ``ring.at(number)``, forwards from ``first_since(time_ns)`` or
backwards from ``newest``. Who follows holds a ``Follower``: ``take()`` gives what came since, and
how many records were overwritten before it came back for them; that is the loss to be reported as
``HUBBLE_RING_BUFFER``. ``ring.watch(wake)`` has ``wake()`` called after records were appended; it
returns the function that ends this.

Records begin with their type (``EventType`` of wire.bpf.layouts for those from the kernel, the
``RECORD_*`` numbers here for the others); ``hubble.decode`` reads them. Times are nanoseconds
since 1970.
"""

import struct
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

CAPACITY_DEFAULT: Final = 4095
CAPACITY_MAX: Final = 65535

RECORD_ACCESS_LOG: Final = 129  # then JSON: a proxy's record of a request or response
RECORD_AGENT: Final = 130  # then a serialized flow.AgentEvent
RECORD_LOST: Final = 255  # then LOST

SOURCE_KERNEL: Final = 1  # PERF_EVENT_RING_BUFFER of Hubble's API: the kernel's ring was full
SOURCE_QUEUE: Final = 2  # OBSERVER_EVENTS_QUEUE
SOURCE_RING: Final = 3  # HUBBLE_RING_BUFFER: a reader was overtaken

_LOST = struct.Struct("=BBHIQ")  # type, source, nothing, CPU, how many
_FLOW_TYPES: Final = frozenset((1, 3, 4, 5, 7, RECORD_ACCESS_LOG))
_RATE_S: Final = 60

# Number of the first record of a batch, and (time, record) of each.
Tap = Callable[[int, Sequence[tuple[int, bytes]]], None]


class Entry(NamedTuple):
    """One record of the ring."""

    number: int
    time_ns: int
    record: bytes


class Lost(NamedTuple):
    """Events that were lost before they came here."""

    source: int
    cpu: int
    number: int


def lost_record(lost: Lost) -> bytes:
    """``lost`` as a record."""
    return _LOST.pack(RECORD_LOST, lost.source, 0, lost.cpu, lost.number)


def parse_lost(record: bytes) -> Lost:
    """The reverse of ``lost_record``. ``ValueError``: it is none."""
    if len(record) != _LOST.size:
        raise ValueError(f"a loss of {len(record)} bytes")
    _, source, _, cpu, number = _LOST.unpack(record)
    return Lost(source, cpu, number)


def is_flow(record: bytes) -> bool:
    """Does the record describe a flow (and not a loss, or something of the agent)?"""
    return record[0] in _FLOW_TYPES


class Ring:
    """The last ``capacity`` records; ``ValueError`` unless that is 2^n-1, at most 65,535."""

    def __init__(
        self, capacity: int = CAPACITY_DEFAULT, kinds: frozenset[int] = frozenset()
    ) -> None:
        """``kinds``: only records of these types are kept, and losses; none: all."""
        if not 1 <= capacity <= CAPACITY_MAX or capacity & (capacity + 1):
            raise ValueError(
                f"hubble-event-buffer-capacity {capacity}: must be one of 1, 3, 7, ... "
                f"{CAPACITY_DEFAULT}, ... {CAPACITY_MAX} (2^n-1)"
            )
        self.capacity: Final = capacity
        self._kinds = kinds | {RECORD_LOST} if kinds else kinds
        self.newest = 0
        self.flows_seen = 0  # ever
        self.overtaken = 0  # records that followers lost, ever
        self._records = [b""] * (capacity + 1)
        self._times = array("q", bytes(8 * (capacity + 1)))
        self._mask = capacity
        self._watchers: dict[int, Callable[[], None]] = {}
        self._taps: dict[int, Tap] = {}
        self._watch_id = 0

    def extend(self, events: Iterable[tuple[int, bytes]]) -> None:
        """Append (time, record) pairs in the order they are to be read in. No record is empty."""
        batch = events if isinstance(events, list) else list(events)
        if self._kinds:
            batch = [event for event in batch if event[1][0] in self._kinds]
        records, times, mask = self._records, self._times, self._mask
        number = before = self.newest
        flows = 0
        for time_ns, record in batch:
            number += 1
            records[number & mask] = record
            times[number & mask] = time_ns
            flows += record[0] in _FLOW_TYPES
        if number == before:
            return
        self.newest = number
        self.flows_seen += flows
        for tap in tuple(self._taps.values()):
            tap(before + 1, batch)
        for wake in tuple(self._watchers.values()):
            wake()

    @property
    def oldest(self) -> int:
        """The first number that can still be read."""
        return max(1, self.newest - self.capacity + 1)

    def __len__(self) -> int:
        return min(self.newest, self.capacity)

    def at(self, number: int) -> Entry | None:
        """The record of this number; ``None`` when it is overwritten, or yet to come."""
        if not self.oldest <= number <= self.newest:
            return None
        place = number & self._mask
        return Entry(number, self._times[place], self._records[place])

    def first_since(self, time_ns: int) -> int:
        """The number from which on no record is older than ``time_ns``; ``newest + 1``: none is.

        Walks back from the newest: times of several CPUs are in order nearly, not always.
        """
        number = self.newest
        while number >= self.oldest and self._times[number & self._mask] >= time_ns:
            number -= 1
        return number + 1

    def flows_rate(self, now_ns: int) -> float:
        """Flows per second: of the last minute, or of the time since the oldest flow kept."""
        horizon = now_ns - _RATE_S * 10**9
        flows, first_ns = 0, now_ns
        for number in range(self.newest, self.oldest - 1, -1):
            place = number & self._mask
            if self._times[place] < horizon:
                return flows / _RATE_S
            if self._records[place][0] in _FLOW_TYPES:
                flows, first_ns = flows + 1, self._times[place]
        return flows / max((now_ns - first_ns) / 1e9, 1e-9) if flows else 0.0

    def tap(self, put: Tap) -> Callable[[], None]:
        """Have ``put`` called with each batch, until the returned function is called."""
        self._watch_id += 1
        key = self._watch_id
        self._taps[key] = put
        return lambda: self._taps.pop(key, None) and None

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have ``wake`` called after each append, until the returned function is called."""
        self._watch_id += 1
        key = self._watch_id
        self._watchers[key] = wake
        return lambda: self._watchers.pop(key, None) and None


class Follower:
    """Reads on from ``start`` as records come, at its own pace."""

    def __init__(self, ring: Ring, start: int | None = None) -> None:
        self._ring = ring
        self.next = ring.newest + 1 if start is None else start

    def take(self, limit: int = 1024) -> tuple[int, list[Entry]]:
        """How many records were overwritten unread, and then the next ones, up to ``limit``."""
        ring = self._ring
        oldest = ring.oldest
        lost = max(0, oldest - self.next)
        ring.overtaken += lost
        first = self.next + lost
        last = min(ring.newest, first + limit - 1)
        taken = [entry for number in range(first, last + 1) if (entry := ring.at(number))]
        self.next = max(first, last + 1)
        return lost, taken

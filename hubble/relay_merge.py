"""Answers of many nodes into one stream in order of time. Pure.

An answer may go as soon as every node that speaks has told of a later time, or when it has waited
long enough. A node that is silent for as long is not waited for until it speaks again; one whose
clock is behind delays nobody for longer either, and what one whose clock is ahead tells counts as
of its arrival. Answers are passed on as the bytes they are; only their time is read.
"""

import heapq
from collections import Counter, deque
from collections.abc import Iterable

_TIME_FIELD = 1001 << 3 | 2
_LENGTH_DELIMITED = 2
_NO_TIME_YET = 1 << 63  # later than any


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """(number, place behind it)."""
    number = shift = 0
    while True:
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def time_ns(answer: bytes) -> int:
    """The time of a GetFlowsResponse, 0 when it has none; ``ValueError``: it is none."""
    place, size = 0, len(answer)
    try:
        while place < size:
            tag, place = _varint(answer, place)
            if tag & 7 != _LENGTH_DELIMITED:
                raise ValueError(f"field {tag >> 3} is not of a GetFlowsResponse")
            length, place = _varint(answer, place)
            if place + length > size:
                raise ValueError("cut short")
            if tag == _TIME_FIELD:
                return _timestamp(answer[place : place + length])
            place += length
    except IndexError:
        raise ValueError("cut short") from None
    return 0


def _timestamp(data: bytes) -> int:
    place, seconds, nanos = 0, 0, 0
    while place < len(data):
        tag, place = _varint(data, place)
        number, place = _varint(data, place)
        if tag == 8:
            seconds = number
        elif tag == 16:
            nanos = number
    return seconds * 10**9 + nanos


class Merger:
    """Holds what must wait, for ``wait_s`` at most, by any clock in seconds."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._heap: list[tuple[int, int, str, bytes]] = []  # time, order of arrival, node, answer
        self._order = 0
        self._latest: dict[str, int] = {}  # by node that still speaks
        self._spoke_s: dict[str, float] = {}  # when it did last
        self._held: Counter[str] = Counter()
        self._arrivals: deque[tuple[float, int]] = deque()  # when, and the latest time of then
        self._overdue_ns = -1  # what is not later has waited long enough

    def __len__(self) -> int:
        return len(self._heap)

    def held(self, node: str) -> int:
        """How many answers of the node wait for others."""
        return self._held[node]

    def open(self, node: str, now_s: float) -> None:
        """The node will speak."""
        self._latest.setdefault(node, 0)
        self._spoke_s[node] = now_s

    def close(self, node: str) -> None:
        """The node says no more."""
        self._latest.pop(node, None)

    def push(
        self, node: str, answers: Iterable[bytes], now_s: float, wall_ns: int = _NO_TIME_YET
    ) -> None:
        """Answers of a node, as they came; ``wall_ns``: what no answer can be later than.

        ``ValueError``: one is none, the rest is not kept.
        """
        latest = self._latest.get(node, 0)
        for answer in answers:
            time = min(time_ns(answer), wall_ns)
            self._order += 1
            heapq.heappush(self._heap, (time, self._order, node, answer))
            self._held[node] += 1
            latest = max(latest, time)
        self._latest[node], self._spoke_s[node] = latest, now_s
        self._arrivals.append((now_s, latest))

    def pop(self, now_s: float) -> list[bytes]:
        """What may go now, in order."""
        since_s = now_s - self._wait_s
        while self._arrivals and self._arrivals[0][0] <= since_s:
            self._overdue_ns = max(self._overdue_ns, self._arrivals.popleft()[1])
        awaited = [t for node, t in self._latest.items() if self._spoke_s[node] > since_s]
        heap, held, ready = self._heap, self._held, []
        limit = max(min(awaited), self._overdue_ns) if awaited else None
        while heap and (limit is None or heap[0][0] <= limit):
            _, _, node, answer = heapq.heappop(heap)
            held[node] -= 1
            ready.append(answer)
        return ready

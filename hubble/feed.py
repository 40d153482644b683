"""The records of a ring for one reader inside the process, each exactly once. Pure.

A follower of the ring is overtaken by a burst larger than the ring; a feed keeps the batches
themselves, up to a number of records, and counts what found no room. Appending is one step for a
whole batch, whatever its reader does.
"""

from collections import deque
from collections.abc import Callable, Sequence

from hubble.ring import Entry, Ring

ROOM = 65_536


class Feed:
    """What was appended since the reader took last. ``close()`` ends it."""

    def __init__(self, ring: Ring, wake: Callable[[], None], room: int = ROOM) -> None:
        self._batches: deque[tuple[int, Sequence[tuple[int, bytes]]]] = deque()
        self._room, self._waiting, self._wake = room, 0, wake
        self.lost = 0  # records that found no room, ever
        self.close = ring.tap(self._put)

    def _put(self, first: int, batch: Sequence[tuple[int, bytes]]) -> None:
        """``first``: the number of the batch's first record."""
        if self._waiting + len(batch) > self._room:
            self.lost += len(batch)
            return
        self._waiting += len(batch)
        self._batches.append((first, batch))
        self._wake()

    def take(self, limit: int = 1024) -> list[Entry]:
        """The next records, up to about ``limit``; none: all were taken."""
        taken: list[Entry] = []
        while self._batches and len(taken) < limit:
            first, batch = self._batches.popleft()
            part = batch[: limit - len(taken)]
            if len(part) < len(batch):
                self._batches.appendleft((first + len(part), batch[len(part) :]))
            taken += (Entry(first + n, at_ns, record) for n, (at_ns, record) in enumerate(part))
        self._waiting -= len(taken)
        return taken

"""From a write in etcd to the row in the kernel's map: how long each change takes. Adapter.

A change is timed from the moment before its write is sent. The maps are looked at every
millisecond, so a figure is up to a millisecond too large.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from kind.simulate.churn import Change, Effect, Table

LOOK_S = 0.001
LATE_S = 10.0


@dataclass(frozen=True, slots=True)
class _Pending:
    kind: str
    effect: Effect
    since_s: float


class Observer:
    """What is under way, and how long the rest took (seconds, by kind)."""

    def __init__(self, shows: Callable[[Effect], bool]) -> None:
        self._shows = shows
        self._pending: dict[tuple[Table, bytes | int], _Pending] = {}
        self.took_s: dict[str, list[float]] = defaultdict(list)
        self._idle = asyncio.Event()
        self.superseded = 0  # the same row was changed again before the kernel had it

    @property
    def busy(self) -> dict[tuple[Table, bytes | int], _Pending]:
        """The rows whose last change is under way."""
        return self._pending

    def expect(self, change: Change) -> None:
        """A change is about to be written."""
        effect = change.effect
        if effect is None:
            return
        place = (effect.table, effect.key)
        self.superseded += place in self._pending
        self._idle.clear()
        self._pending[place] = _Pending(change.kind, effect, time.monotonic())

    def look(self) -> None:
        """Take the time of everything that has arrived."""
        arrived = [place for place, p in self._pending.items() if self._shows(p.effect)]
        now = time.monotonic()
        for place in arrived:
            pending = self._pending.pop(place)
            self.took_s[pending.kind].append(now - pending.since_s)
        if not self._pending:
            self._idle.set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            if self._pending:
                self.look()
            await asyncio.sleep(LOOK_S)

    async def settle(self) -> None:
        """Wait until everything has arrived, or is late."""
        if self._pending:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LATE_S):
                    await self._idle.wait()

    def late(self) -> list[str]:
        """What has not arrived."""
        return [p.kind for p in self._pending.values()]

"""The one loop that brings tables to what is wanted, in a fixed order.

Rows are written table after table in the given order, what is referred to first; rows are removed
in the reverse order. So nothing in a later table ever points to what an earlier one lacks.

What changes after a quiet while is written at once. What goes on changing is written together, in
rounds that keep a gap: a round costs as much for one row as for fifty. After a long round the gap
is longer: while a mesh is read, the backends of a global service change with every cluster. Who
waits for a row (``Table.attempted``) is not made to wait for the gap.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from reconcile.table import Table

IDLE_S = 60.0
GAP_OF_ROUND, LONGEST_GAP_S = 4.0, 0.4  # a gap is as long as so many rounds, and no longer


class Loop:
    """Runs rounds until cancelled."""

    def __init__(self, tables: Sequence[Table[Any, Any]], gap_s: float = 0.0) -> None:
        """``gap_s``: how long to gather what changes after a round."""
        self.tables = tuple(tables)
        self._gap_s = gap_s
        self._wake, self._hurry, self._soon = asyncio.Event(), asyncio.Event(), asyncio.Event()
        # Told after each round that had work: how long it took, and whether all rows are well.
        self.on_round: Callable[[float, bool], None] = lambda took_s, well: None
        for table in self.tables:
            table.wake, table.hurry, table.soon = self._wake.set, self._hurried, self._soon.set

    def _hurried(self) -> None:
        self._hurry.set()
        self._soon.set()

    async def round(self) -> None:
        """One pass over all tables."""
        due = [table for table in self.tables if table.due_in_s() <= 0]
        begun_s = asyncio.get_running_loop().time()
        for table in due:
            await table.write()
        for table in reversed(due):
            await table.remove()
        if due:
            took_s = asyncio.get_running_loop().time() - begun_s
            self.on_round(took_s, all(table.status.healthy for table in due))

    async def run(self) -> None:
        """Round after round: when something is marked, or a row or a read is due."""
        now = asyncio.get_running_loop().time
        while True:
            # Before the round, so that a change during it is not lost.
            self._wake.clear()
            self._hurry.clear()
            self._soon.clear()
            begun_s = now()
            await self.round()
            ended_s = now()
            delay_s = min((table.due_in_s() for table in self.tables), default=IDLE_S)
            if delay_s <= 0 and not self._wake.is_set():
                # A row that became due during the round: let other tasks run in between.
                await asyncio.sleep(0)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(min(delay_s, IDLE_S)):
                    await self._wake.wait()
            if self._gap_s:
                await self._gather(ended_s, ended_s - begun_s)

    async def _gather(self, ended_s: float, took_s: float) -> None:
        """Let changes come together: only for as long as the round took where one is for soon."""
        long_s = max(self._gap_s, min(LONGEST_GAP_S, GAP_OF_ROUND * took_s))
        for until_s, sign in ((min(took_s, long_s), self._hurry), (long_s, self._soon)):
            with suppress(TimeoutError):
                async with asyncio.timeout_at(ended_s + until_s):
                    await sign.wait()

"""The one loop that brings tables to what is wanted, in a fixed order.

Rows are written table after table in the given order, what is referred to first; rows are removed
in the reverse order. So nothing in a later table ever points to what an earlier one lacks.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from reconcile.table import Table

IDLE_S = 60.0


class Loop:
    """Runs rounds until cancelled."""

    def __init__(self, tables: Sequence[Table[Any, Any]]) -> None:
        self.tables = tuple(tables)
        self._wake = asyncio.Event()
        for table in self.tables:
            table.wake = self._wake.set

    async def round(self) -> None:
        """One pass over all tables."""
        due = [table for table in self.tables if table.due_in_s() <= 0]
        for table in due:
            await table.write()
        for table in reversed(due):
            await table.remove()

    async def run(self) -> None:
        """Round after round: at once when something is marked, else when a row or a read is due."""
        while True:
            self._wake.clear()  # before the round, so that a change during it is not lost
            await self.round()
            delay_s = min((table.due_in_s() for table in self.tables), default=IDLE_S)
            if delay_s <= 0 and not self._wake.is_set():
                # A row that became due during the round: let other tasks run in between.
                await asyncio.sleep(0)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(min(delay_s, IDLE_S)):
                    await self._wake.wait()

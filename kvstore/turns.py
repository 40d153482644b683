"""How many listings are in hand at once. Adapter: keeps the event loop's clock.

Hundreds of clusters that are listed at the same time are read no sooner than one after the other,
but all their pages lie in memory together. A cluster that answers slowly does not hold the others
up: its turn ends by itself.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

AT_ONCE = 4  # one is decoded while others are on their way
PATIENCE_S = 1.0


class Turns:
    """Whose turn it is, first come, first served."""

    def __init__(self, at_once: int = AT_ONCE, patience_s: float = PATIENCE_S) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._patience_s = patience_s

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Wait for a turn; after ``patience_s`` seconds the next has it as well."""
        await self._free.acquire()
        held = True

        def release() -> None:
            nonlocal held
            if held:
                held = False
                self._free.release()

        timer = asyncio.get_running_loop().call_later(self._patience_s, release)
        try:
            yield
        finally:
            timer.cancel()
            release()

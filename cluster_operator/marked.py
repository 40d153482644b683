"""Names that need to be looked at again, one by one and with patience. Adapter.

Whatever may change what a name should be marks it; a marked name is brought up to date from all
that is known then. One that fails is tried again by itself, after a while that doubles.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from model.service import ServiceName
from reconcile.tasks import TaskGroup

log = logging.getLogger("operator.marked")

RETRY_FIRST_S, RETRY_LAST_S = 0.2, 30.0


class Marked:
    """The names, and who works them off while ``run`` lives."""

    def __init__(
        self,
        bring_up: Callable[[ServiceName], Awaitable[None]],
        workers: int = 1,
        gather_s: float = 0.0,
    ) -> None:
        """``bring_up`` raises ``OSError`` or ``ValueError`` to be called again; never twice at once
        for one name. ``gather_s``: how long to wait for more after the first mark."""
        self._bring_up = bring_up
        self._workers, self._gather_s = workers, gather_s
        self._dirty: dict[ServiceName, None] = {}
        self._busy: set[ServiceName] = set()
        self._failures: dict[ServiceName, int] = {}
        self._wake = asyncio.Event()

    def mark(self, name: ServiceName) -> None:
        """Something that concerns this name may have changed."""
        self._dirty[name] = None
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with TaskGroup() as tasks:
            for _ in range(self._workers):
                tasks.create_task(self._work())

    async def _work(self) -> None:
        while True:
            name = next((n for n in self._dirty if n not in self._busy), None)
            if name is None:
                self._wake.clear()
                await self._wake.wait()
                await asyncio.sleep(self._gather_s)
                continue
            del self._dirty[name]
            self._busy.add(name)
            try:
                await self._attempt(name)
            finally:
                self._busy.discard(name)
                if name in self._dirty:
                    self._wake.set()

    async def _attempt(self, name: ServiceName) -> None:
        try:
            await self._bring_up(name)
            self._failures.pop(name, None)
        except (OSError, ValueError) as error:
            count = self._failures[name] = self._failures.get(name, 0) + 1
            log.warning('event=failed service=%s count=%d error="%s"', name, count, error)
            delay = min(RETRY_FIRST_S * 2 ** min(count - 1, 10), RETRY_LAST_S)
            asyncio.get_running_loop().call_later(delay, self.mark, name)

"""What a session does beside following, without a task for what only waits. Adapter.

An agent has hundreds of sessions, and a task that sleeps takes ten times the memory of a timer.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from reconcile.tasks import TaskGroup

Work: TypeAlias = Coroutine[Any, Any, None]


class Duties:
    """Work that belongs to a group of tasks, some of it at a later time. End it with the group."""

    __slots__ = ("_tasks", "_timers")

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def begin(self, work: Work) -> None:
        """Now."""
        self._tasks.create_task(work)

    def later(self, name: str, delay_s: float, work: Callable[[], Work]) -> None:
        """One work of a name is waited for; another delay takes the place of the earlier one."""

        def due() -> None:
            del self._timers[name]
            self.begin(work())

        self.drop(name)
        self._timers[name] = asyncio.get_running_loop().call_later(delay_s, due)

    def drop(self, name: str) -> None:
        """Not any more."""
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def end(self) -> None:
        """Nothing begins any more."""
        for name in list(self._timers):
            self.drop(name)


class Signal:
    """Wakes one who waits; nobody waits later for what was said before."""

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None

    def give(self) -> None:
        """To whoever waits now."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        """Until it is given."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

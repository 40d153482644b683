"""One thread for the blocking kernel calls of an adapter. Adapter.

State that belongs to kernel tables is touched by one function at a time, so it needs no lock of its
own, and calls happen in the order in which they were awaited. Functions run in the thread; one that
takes microseconds may run where it is called, when nothing else is under way: to hand it over and
to be woken again costs ten times as much.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class KernelThread:
    """Runs functions one after another in its own thread."""

    def __init__(self, name: str = "datapath") -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._counting, self._running = threading.Lock(), threading.Lock()
        self._waiting = 0  # functions that were handed over and have not ended

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await ``function(*args)``. A cancelled caller does not stop what has begun."""
        return await asyncio.wrap_future(self.submit(function, *args, **kwargs))

    async def call_brief(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As ``call``, for what takes microseconds and needs no namespace of the thread's."""
        with self._counting:
            free = not self._waiting
            taken = free and self._running.acquire(blocking=False)
        if not taken:
            return await self.call(function, *args, **kwargs)
        try:
            return function(*args, **kwargs)
        finally:
            self._running.release()

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """As ``call``, for those outside an event loop."""

        def run() -> T:
            try:
                with self._running:
                    return function(*args, **kwargs)
            finally:
                self._count(-1)

        self._count(1)
        try:
            found = self._pool.submit(run)
        except RuntimeError:  # closed
            self._count(-1)
            raise
        found.add_done_callback(self._forget_cancelled)
        return found

    def _count(self, more: int) -> None:
        with self._counting:
            self._waiting += more

    def _forget_cancelled(self, found: "Future[T]") -> None:
        """One that was cancelled before it began never runs."""
        if found.cancelled():
            self._count(-1)

    def close(self) -> None:
        """Let running calls finish; take no more."""
        self._pool.shutdown(wait=True)

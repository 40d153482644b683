"""One thread for the blocking kernel calls of an adapter. Adapter.

All state that belongs to kernel tables is touched in this thread only, so it needs no lock, and
calls happen in the order in which they were awaited.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class KernelThread:
    """Runs functions one after another in its own thread."""

    def __init__(self, name: str = "datapath") -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await ``function(*args)``. A cancelled caller does not stop what has begun."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: function(*args, **kwargs))

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """As ``call``, for those outside an event loop."""
        return self._pool.submit(function, *args, **kwargs)

    def close(self) -> None:
        """Let running calls finish; take no more."""
        self._pool.shutdown(wait=True)

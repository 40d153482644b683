"""Runs one controller: keys that need a look, one worker per key at a time, retries. Adapter."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Protocol

from kind.apiserver.objects import Obj
from kind.controllers.hub import Hub, Key
from kube.port import ApiError
from reconcile.tasks import TaskGroup

log = logging.getLogger(__name__)
_RETRY_FIRST_S, _RETRY_LAST_S = 0.01, 5.0
WORKERS = 4


class Controller(Protocol):
    """Brings one object's world in line with its spec."""

    name: str

    def keys(self, table: str, old: Obj | None, new: Obj | None) -> Iterable[Key]:
        """Which keys a change concerns. Called often; cheap."""
        ...

    async def reconcile(self, key: Key) -> float | None:
        """Act; seconds after which to look again, if nothing happens before."""
        ...


class Runner:
    """Feeds a controller from the hub."""

    def __init__(self, hub: Hub, controller: Controller) -> None:
        self._controller = controller
        self._waiting: dict[Key, None] = {}  # in order of arrival, each once
        self._busy: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()
        hub.listen(self._on_change)

    def _on_change(self, table: str, old: Obj | None, new: Obj | None) -> None:
        for key in self._controller.keys(table, old, new):
            self.add(key)

    def add(self, key: Key) -> None:
        """Look at a key soon."""
        self._waiting[key] = None
        self._wake.set()

    def _later(self, key: Key, delay_s: float) -> None:
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_later(delay_s, self._due, key)

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def run(self) -> None:
        """Until cancelled."""
        async with TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work())

    def _next(self) -> Key | None:
        """A key that no other worker is at."""
        key = next((k for k in self._waiting if k not in self._busy), None)
        if key is not None:
            del self._waiting[key]
        return key

    async def _work(self) -> None:
        while True:
            key = self._next()
            if key is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            self._busy.add(key)
            try:
                await self._one(key)
            finally:
                self._busy.discard(key)
                self._wake.set()

    async def _one(self, key: Key) -> None:
        try:
            again_s = await self._controller.reconcile(key)
        except OSError as error:
            if isinstance(error, ApiError) and "is being terminated" in error.message:
                return  # the namespace goes, and this object with it
            count = self._failures[key] = self._failures.get(key, 0) + 1
            delay_s = min(_RETRY_FIRST_S * 2.0 ** min(count, 16), _RETRY_LAST_S)
            if not (isinstance(error, ApiError) and error.conflict) or count > 3:
                log.warning(
                    "event=retry controller=%s key=%s/%s error=%s in_s=%.2f",
                    self._controller.name,
                    *key,
                    error,
                    delay_s,
                )
            self._later(key, delay_s)
            return
        self._failures.pop(key, None)
        if again_s is not None:
            self._later(key, again_s)

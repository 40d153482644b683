"""The probes of one pod's containers: which run, and what their verdicts do. Adapter.

Readiness sets a flag, liveness and startup end the container; starting it again is the worker's
business, as after any other end.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from kind.kubelet import probes
from kind.kubelet.status import ContainerState
from reconcile.tasks import TaskGroup

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the probes need of the pod's worker."""

    execute: Callable[[Json, list[str]], Awaitable[int]]  # a command in a container: its exit code
    event: Callable[[str, str, str], Awaitable[None]]  # type, reason, message
    end: Callable[[ContainerState], Awaitable[None]]  # with grace; cancelled when it ended in time
    wake: Callable[[], None]  # a state changed


class Prober:
    """Tasks by container; all of them belong to the worker's group."""

    def __init__(self, tasks: TaskGroup, hooks: Hooks) -> None:
        self._group = tasks
        self._hooks = hooks
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, container: Json, state: ContainerState, address: str) -> None:
        """Begin to probe a container that runs."""
        self.stop(state.name)
        task = self._group.create_task(self._container(container, state, address))
        self._tasks[state.name] = task

    def stop(self, name: str) -> None:
        """Stop probing a container; none is no error."""
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()

    def stop_all(self) -> None:
        """Stop probing."""
        for name in list(self._tasks):
            self.stop(name)

    async def _container(self, container: Json, state: ContainerState, address: str) -> None:
        async with TaskGroup() as group:
            if "startupProbe" in container and not state.started:
                await self._started(group, container, state, address)
            state.started = True
            if "readinessProbe" in container:

                async def ready(good: bool, why: str) -> None:
                    state.ready = good
                    self._hooks.wake()
                    if not good:
                        text = f"Readiness probe failed: {why}"
                        await self._hooks.event("Warning", "Unhealthy", text)

                group.create_task(self._watch("readinessProbe", container, address, ready, True))
            else:
                state.ready = True
            self._hooks.wake()
            if "livenessProbe" in container:

                async def alive(good: bool, why: str) -> None:
                    if not good:
                        await self._unhealthy(state, "Liveness", why)

                group.create_task(self._watch("livenessProbe", container, address, alive, False))

    async def _started(
        self, group: TaskGroup, container: Json, state: ContainerState, address: str
    ) -> None:
        """Wait for the startup probe's success."""
        passed = asyncio.Event()

        async def started(good: bool, why: str) -> None:
            if good:
                passed.set()
            else:
                await self._unhealthy(state, "Startup", why)

        watcher = group.create_task(
            self._watch("startupProbe", container, address, started, eager=True)
        )
        await passed.wait()
        watcher.cancel()

    async def _watch(
        self,
        field: str,
        container: Json,
        address: str,
        verdict: Callable[[bool, str], Awaitable[None]],
        eager: bool,
    ) -> None:
        probe = probes.parse(container[field])

        async def execute(argv: list[str], timeout_s: float) -> int:
            return await self._hooks.execute(container, argv)

        async def once() -> str:
            return await probes.attempt(probe, container, address, execute)

        await probes.watch(probe, once, verdict, eager, time.monotonic)

    async def _unhealthy(self, state: ContainerState, kind: str, why: str) -> None:
        await self._hooks.event("Warning", "Unhealthy", f"{kind} probe failed: {why}")
        text = f"container {state.name} failed its {kind.lower()} probe"
        await self._hooks.event("Normal", "Killing", text)
        await self._hooks.end(state)

"""The containers of one pod: their states, and what is done with them. Adapter.

Each call of ``advance`` looks at the latest states and starts what should run and does not; ends
are told by the runtime, and what an earlier kubelet started is taken over.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from kind.kubelet import launch as launching
from kind.kubelet import podspec, status
from kind.kubelet.events import Recorder, timestamp
from kind.kubelet.podspec import SpecError
from kind.kubelet.prober import Hooks, Prober
from kind.kubelet.sandbox import Sandbox
from kind.kubelet.status import ContainerState
from kind.kubelet.tools import Tools, backoff_s
from kind.runtime.records import Launch, Record
from reconcile.tasks import TaskGroup

Json = dict[str, Any]

# Short, because a lab is for trying things: a real kubelet waits from 10 s to 5 minutes.
BACKOFF_FIRST_S, BACKOFF_CAP_S, GOOD_RUN_S = 0.1, 10.0, 30.0


class Containers:
    """Those of one pod. ``pod`` and ``sandbox`` are the latest, as the pod's worker sets them."""

    def __init__(self, tools: Tools, pod: Json, events: Recorder, wake: Callable[[], None]) -> None:
        """``wake``: a state changed."""
        self._tools, self._config = tools, tools.config
        self.pod = pod
        self.sandbox: Sandbox | None = None
        self._events, self._wake = events, wake
        self._uid: str = pod["metadata"]["uid"]
        self.initialized = False  # the init containers have done their work
        self._envs: dict[str, dict[str, str]] = {}
        self._prober: Prober | None = None
        self._due: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self.states = {
            container["name"]: ContainerState(container["name"], container.get("image", ""))
            for container in self._all()
        }

    @property
    def inits(self) -> list[ContainerState]:
        """States of the init containers."""
        return [self.states[c["name"]] for c in self.pod["spec"].get("initContainers") or []]

    @property
    def mains(self) -> list[ContainerState]:
        """States of the containers that are to stay."""
        return [self.states[c["name"]] for c in self.pod["spec"]["containers"]]

    def phase(self) -> str:
        """Of the pod."""
        policy = self.pod["spec"].get("restartPolicy", "Always")
        return status.phase(policy, self.inits, self.mains)

    def running(self, name: str) -> tuple[Json, ContainerState, dict[str, str]] | None:
        """Specification, state and environment of a container that runs; by name, or the first."""
        for container in self._all():
            state = self.states[container["name"]]
            if (not name or container["name"] == name) and state.state == status.RUNNING:
                return container, state, self._environment(container)
        return None

    def state(self, name: str) -> ContainerState | None:
        """The state of a container; by name, or the first."""
        return self.states.get(name) if name else self.mains[0]

    def say(self, message: str) -> None:
        """Why those that wait do so."""
        for state in self.states.values():
            if state.state == status.WAITING:
                state.message = message

    # Life

    async def advance(self) -> float | None:
        """Start what is due; returns after how long to look again, ``None``: when woken."""
        for container in self.pod["spec"].get("initContainers") or []:
            state = self.states[container["name"]]
            if state.state == status.TERMINATED and state.exit_code == 0:
                continue
            if self.phase() == "Failed":
                return None
            return await self._keep(container, restart=True)
        self.initialized = True
        delays = []
        for container in self.pod["spec"]["containers"]:
            delay_s = await self._keep(container, self._restarts(container["name"]))
            if delay_s is not None:
                delays.append(delay_s)
        return min(delays, default=None)

    def record_changed(self, record: Record) -> None:
        """A container of ours ended (or was found ended)."""
        _, name, attempt = record.launch.id.split(".")
        state = self.states.get(name)
        if state is None or state.container_id != record.launch.id or record.state != "exited":
            return
        if state.state == status.TERMINATED:
            return
        self._stop_probes(name)
        state.state = status.TERMINATED
        state.exit_code = record.exit_code or 0
        state.reason = status.exit_reason(state.exit_code)
        state.message = self._last_words(name, int(attempt), state.exit_code)
        state.finished_at = timestamp(record.finished_at)
        state.ready = state.started = False
        ran_s = record.finished_at - record.started_at
        failures = 0 if ran_s > GOOD_RUN_S else self._failures.get(name, 0)
        self._failures[name] = failures + 1
        self._due[name] = time.monotonic() + min(BACKOFF_CAP_S, BACKOFF_FIRST_S * 2**failures)
        self._wake()

    def _all(self) -> list[Json]:
        spec = self.pod["spec"]
        return [*(spec.get("initContainers") or []), *spec["containers"]]

    def _restarts(self, name: str) -> bool:
        policy = self.pod["spec"].get("restartPolicy", "Always")
        if policy == "OnFailure":
            return self.states[name].exit_code != 0
        return bool(policy == "Always")

    def _environment(self, container: Json) -> dict[str, str]:
        name = container["name"]
        if name not in self._envs:
            sources = self._tools.sources(self.pod["metadata"]["namespace"])
            assert self.sandbox is not None
            made = launching.container_launch(
                self._config, self.pod, container, 0, self.sandbox, sources
            )
            self._envs[name] = made.env
        return self._envs[name]

    async def _keep(self, container: Json, restart: bool) -> float | None:
        """Start a container that should run; returns when to look again."""
        state = self.states[container["name"]]
        if state.state == status.RUNNING:
            return None
        due = self._due.get(state.name, 0.0) - time.monotonic()
        if state.state == status.TERMINATED:
            if not restart:
                return None
            if due > 0:
                if self._failures.get(state.name, 0) > 2:
                    state.last = state.as_state()
                    state.state, state.reason = status.WAITING, "CrashLoopBackOff"
                    state.message = f"back-off {due:.1f}s restarting failed container"
                return due
            state.last = state.as_state()
            state.restarts += 1
        elif state.last and state.reason == "CrashLoopBackOff":
            if due > 0:
                return due
            state.restarts += 1
        elif due > 0:
            return due
        return await self._start(container, state)

    async def _start(self, container: Json, state: ContainerState) -> float | None:
        assert self.sandbox is not None
        try:
            wanted = launching.container_launch(
                self._config,
                self.pod,
                container,
                state.restarts,
                self.sandbox,
                self._tools.sources(self.pod["metadata"]["namespace"]),
            )
        except launching.UnknownImage as error:
            return await self._cannot_start(state, "ErrImagePull", str(error))
        except (SpecError, OSError) as error:
            return await self._cannot_start(state, "CreateContainerConfigError", str(error))
        if state.restarts > 1:
            old = launching.container_id(self._uid, state.name, state.restarts - 2)
            await self._tools.runtime.remove(old)
            log_file = launching.log_path(self._config, self.pod, state.name, state.restarts - 2)
            log_file.unlink(missing_ok=True)
        self._envs[state.name] = wanted.env
        record = await self._tools.runtime.run(wanted)
        state.container_id = wanted.id
        state.started_at = timestamp(record.started_at)
        state.state, state.reason, state.message = status.RUNNING, "", ""
        if record.state == "exited":
            self.record_changed(record)
            if record.message:
                state.reason, state.message = "StartError", record.message
                await self._events.record("Warning", "Failed", record.message)
            return 0.0
        self._start_probes(container)
        return None

    async def _cannot_start(self, state: ContainerState, reason: str, message: str) -> float:
        state.state, state.reason, state.message = status.WAITING, reason, message
        await self._events.record("Warning", "Failed", message)
        failures = self._failures.get(state.name, 0) + 1
        self._failures[state.name] = failures
        delay_s = backoff_s(failures)
        self._due[state.name] = time.monotonic() + delay_s
        return delay_s

    def _last_words(self, name: str, attempt: int, exit_code: int) -> str:
        """The end of a failed container's log, for those who asked for it in the status."""
        for container in self._all():
            if container["name"] == name:
                policy = container.get("terminationMessagePolicy")
                if exit_code == 0 or policy != "FallbackToLogsOnError":
                    return ""
        path = launching.log_path(self._config, self.pod, name, attempt)
        try:
            return path.read_text(errors="replace")[-2048:]
        except OSError:
            return ""

    def adopt(self, found: list[Record]) -> None:
        """Take over what an earlier kubelet started."""
        before = {
            item["name"]: item
            for field in ("initContainerStatuses", "containerStatuses")
            for item in (self.pod.get("status") or {}).get(field) or []
        }
        latest: dict[str, Record] = {}
        for record in found:
            _, name, attempt = record.launch.id.split(".")
            if name in self.states and int(attempt) >= self._attempt(latest.get(name)):
                latest[name] = record
        for name, record in latest.items():
            state = self.states[name]
            state.restarts = self._attempt(record)
            if record.state == "created":
                continue  # the runtime was killed while it started it: it is asked again
            state.container_id = record.launch.id
            state.started_at = timestamp(record.started_at)
            state.state, state.reason = status.RUNNING, ""
            known = before.get(name) or {}
            if record.state == "running" and known.get("containerID", "").endswith(
                record.launch.id
            ):
                # The probe speaks again soon; until then its last word counts.
                state.ready = bool(known.get("ready"))
                state.started = bool(known.get("started"))
                state.last = known.get("lastState") or {}
            self._envs[name] = record.launch.env
            self.record_changed(record)
        self.initialized = any(state.container_id for state in self.mains)
        if self.initialized:
            for state in self.inits:
                if not state.container_id:
                    state.state, state.reason = status.TERMINATED, "Completed"

    @staticmethod
    def _attempt(record: Record | None) -> int:
        return -1 if record is None else int(record.launch.id.rpartition(".")[2])

    # Probes

    def begin_probes(self, tasks: TaskGroup) -> None:
        """Of those that run already, and from now on of those that are started."""
        hooks = Hooks(self._execute, self._events.record, self._end_container, self._wake)
        self._prober = Prober(tasks, hooks)
        for container in self._all():
            if self.states[container["name"]].state == status.RUNNING:
                self._start_probes(container)

    def end_probes(self) -> None:
        """Of all."""
        if self._prober is not None:
            self._prober.stop_all()

    def _start_probes(self, container: Json) -> None:
        if container in (self.pod["spec"].get("initContainers") or []):
            return
        assert self._prober is not None
        assert self.sandbox is not None
        self._prober.start(container, self.states[container["name"]], self.sandbox.pod_ip)

    def _stop_probes(self, name: str) -> None:
        if self._prober is not None:
            self._prober.stop(name)

    async def _end_container(self, state: ContainerState) -> None:
        """End a container that a probe condemned; cancelled when it ends in its grace."""
        await self._tools.runtime.signal(state.container_id, signal.SIGTERM)
        spec = self.pod["spec"]
        await asyncio.sleep(spec.get("terminationGracePeriodSeconds", podspec.TERMINATION_GRACE_S))
        await self._tools.runtime.kill(state.container_id)

    async def _execute(self, container: Json, argv: list[str]) -> int:
        state = self.states[container["name"]]
        wanted = self.exec_launch(container, state, argv)
        null = os.open(os.devnull, os.O_RDWR)
        try:
            running = await self._tools.runtime.execute(
                wanted, state.container_id, (null, null, null)
            )
        finally:
            os.close(null)
        try:
            return await running.wait()
        finally:
            running.close()

    def exec_launch(self, container: Json, state: ContainerState, argv: list[str]) -> Launch:
        """A further command for a container that runs."""
        return launching.exec_launch(
            self._config,
            self.pod,
            container,
            int(state.container_id.rpartition(".")[2]),
            argv,
            self._environment(container),
        )

    # The end

    async def stop(self, grace_s: Callable[[], float], woken: asyncio.Event) -> None:
        """End them all; ``grace_s`` may become shorter meanwhile."""
        began = time.monotonic()

        def running() -> list[ContainerState]:
            return [item for item in self.states.values() if item.state == status.RUNNING]

        if grace_s() > 0:
            await self._pre_stop(running(), grace_s)
            for state in running():
                await self._tools.runtime.signal(state.container_id, signal.SIGTERM)
        killed = False
        while running():
            woken.clear()
            left_s = began + grace_s() - time.monotonic()
            if left_s <= 0 and not killed:
                killed = True
                for state in running():
                    await self._tools.runtime.kill(state.container_id)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0 if killed else left_s):
                    await woken.wait()
                continue
            for record in await self._tools.runtime.list():  # an end that nobody told us
                if record.launch.id.startswith(self._uid + "."):
                    self.record_changed(record)
            known = {record.launch.id for record in await self._tools.runtime.list()}
            for state in running():
                if state.container_id not in known:
                    state.state = status.TERMINATED

    async def _pre_stop(self, states: list[ContainerState], grace_s: Callable[[], float]) -> None:
        names = {state.name for state in states}
        for container in self._all():
            hook = ((container.get("lifecycle") or {}).get("preStop")) or {}
            if container["name"] not in names or not hook:
                continue
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(grace_s()):
                    if "exec" in hook:
                        await self._execute(container, list(hook["exec"]["command"]))
                    elif "sleep" in hook:
                        await asyncio.sleep(float(hook["sleep"]["seconds"]))

"""One pod of the node, from its object to its processes and back to its status. Adapter.

A worker is one task that looks at the latest object and the latest state of the containers, does
the next thing that is missing, writes the status, and waits to be woken. Nothing depends on having
seen each event, so that a new kubelet goes on where the one before it ended.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kind.kubelet import launch as launching
from kind.kubelet import podspec, status, volumes
from kind.kubelet import sandbox as sandboxes
from kind.kubelet.api import Api, ApiError
from kind.kubelet.config import Config
from kind.kubelet.events import Recorder, timestamp
from kind.kubelet.link import Link
from kind.kubelet.podspec import Facts, Sources, SpecError
from kind.kubelet.prober import Hooks, Prober
from kind.kubelet.sandbox import Network, Sandbox, SandboxError
from kind.kubelet.status import ContainerState
from kind.runtime.records import Launch, Record

log = logging.getLogger(__name__)

Json = dict[str, Any]

# Short, because a lab is for trying things: a real kubelet waits from 10 s to 5 minutes.
BACKOFF_FIRST_S, BACKOFF_CAP_S, GOOD_RUN_S = 0.1, 10.0, 30.0
SETUP_RETRY_FIRST_S, SETUP_RETRY_CAP_S = 0.1, 2.0
STATUS_RETRY_S = 0.5
DEL_ATTEMPTS = 20  # with the pause below some seconds: the plugin queues what it cannot do at once
DEL_RETRY_S = 0.25
TOKEN_LIFETIME_S, TOKEN_RENEW_S = 86400, 43200


@dataclass(frozen=True, slots=True)
class Tools:
    """What every worker of a kubelet uses."""

    config: Config
    api: Api
    runtime: Link
    network: Network
    sources: Callable[[str], Sources]  # by namespace


def _backoff_s(failures: int) -> float:
    return min(SETUP_RETRY_CAP_S, SETUP_RETRY_FIRST_S * float(2 ** min(failures, 8)))


class PodWorker:
    """Everything about one pod."""

    def __init__(self, tools: Tools, pod: Json, found: list[Record]) -> None:
        self._tools = tools
        self._config = tools.config
        self.pod = podspec.with_service_account(pod)
        self.uid: str = pod["metadata"]["uid"]
        self._gone = False
        self._wake = asyncio.Event()
        self._sandbox: Sandbox | None = None
        self._token = ""
        self._token_at = 0.0
        self._sources_changed = True
        self._initialized = False
        self._deleting = False
        self._message = ""
        self._setup_failures = 0
        self._start_time = (pod.get("status") or {}).get("startTime") or timestamp()
        self._posted: Json = {}
        self._conditions: list[Json] = list((pod.get("status") or {}).get("conditions") or [])
        self._envs: dict[str, dict[str, str]] = {}
        self._prober: Prober | None = None
        self._due: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._events = Recorder(tools.api, tools.config.node, pod)
        spec = pod["spec"]
        self._states = {
            container["name"]: ContainerState(container["name"], container.get("image", ""))
            for container in [*(spec.get("initContainers") or []), *spec["containers"]]
        }
        self._adopt(found)

    # What others tell the worker

    def update(self, pod: Json) -> None:
        """A newer object."""
        self.pod = podspec.with_service_account(pod)
        self._wake.set()

    def removed(self) -> None:
        """The object is gone without waiting for us: end everything now."""
        self._gone = True
        self._wake.set()

    def sources_changed(self) -> None:
        """A ConfigMap or Secret of a volume changed."""
        self._sources_changed = True
        self._wake.set()

    def record_changed(self, record: Record) -> None:
        """A container of ours ended (or was found ended)."""
        _, name, attempt = record.launch.id.split(".")
        state = self._states.get(name)
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
        self._wake.set()

    @property
    def references(self) -> set[tuple[str, str]]:
        """Which ConfigMaps and Secrets the volumes show."""
        return podspec.referenced(self.pod)

    @property
    def namespace(self) -> str:
        """The pod's namespace."""
        return str(self.pod["metadata"]["namespace"])

    def running_container(self, name: str) -> tuple[Json, ContainerState, dict[str, str]] | None:
        """Specification, state and environment of a container that runs; by name, or the first."""
        for container in self._all_containers():
            state = self._states[container["name"]]
            if (not name or container["name"] == name) and state.state == status.RUNNING:
                return container, state, self._environment(container)
        return None

    def container_state(self, name: str) -> ContainerState | None:
        """The state of a container; by name, or the first."""
        if name:
            return self._states.get(name)
        return self._states[self.pod["spec"]["containers"][0]["name"]]

    # The task

    async def run(self) -> None:
        """Bring the pod to life, keep it there, and end it; returns when it is gone."""
        async with asyncio.TaskGroup() as tasks:
            hooks = Hooks(self._execute, self._events.record, self._end_container, self._wake.set)
            self._prober = Prober(tasks, hooks)
            for container in self._all_containers():
                if self._states[container["name"]].state == status.RUNNING:
                    self._start_probes(container)
            while not (self._gone or self.pod["metadata"].get("deletionTimestamp")):
                self._wake.clear()
                try:
                    delay_s = await self._sync()
                except OSError as error:  # the runtime was away
                    log.warning("pod not advanced pod=%s error=%s", self._name(), error)
                    delay_s = STATUS_RETRY_S
                posted = await self._post()
                if not posted:
                    delay_s = STATUS_RETRY_S
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay_s):
                        await self._wake.wait()
            self._prober.stop_all()
            while True:
                try:
                    await self._terminate()
                except OSError as error:
                    log.warning("end of pod failed pod=%s error=%s", self._name(), error)
                    await asyncio.sleep(STATUS_RETRY_S)
                else:
                    return

    async def _sync(self) -> float | None:
        """Do what is missing; returns after how long to look again, ``None``: when woken."""
        if self._phase() in ("Succeeded", "Failed"):
            return None
        try:
            await self._prepare()
        except (SpecError, OSError) as error:
            self._setup_failures += 1
            self._message = str(error)
            reason = "FailedCreatePodSandBox" if isinstance(error, SandboxError) else "FailedMount"
            if not self._message.startswith("network is not ready"):
                await self._events.record("Warning", reason, self._message)
            for state in self._states.values():
                if state.state == status.WAITING:
                    state.message = self._message
            return _backoff_s(self._setup_failures)
        if self._setup_failures:
            self._setup_failures, self._message = 0, ""
            for state in self._states.values():
                state.message = "" if state.state == status.WAITING else state.message
        for container in self.pod["spec"].get("initContainers") or []:
            state = self._states[container["name"]]
            if state.state == status.TERMINATED and state.exit_code == 0:
                continue
            if self._phase() == "Failed":
                return None
            return await self._keep(container, restart=True)
        self._initialized = True
        delays = []
        for container in self.pod["spec"]["containers"]:
            delay_s = await self._keep(container, self._restarts(container["name"]))
            if delay_s is not None:
                delays.append(delay_s)
        return min(delays, default=None)

    def _restarts(self, name: str) -> bool:
        policy = self.pod["spec"].get("restartPolicy", "Always")
        if policy == "OnFailure":
            return self._states[name].exit_code != 0
        return bool(policy == "Always")

    def _phase(self) -> str:
        policy = self.pod["spec"].get("restartPolicy", "Always")
        inits = [self._states[c["name"]] for c in self.pod["spec"].get("initContainers") or []]
        mains = [self._states[c["name"]] for c in self.pod["spec"]["containers"]]
        return status.phase(policy, inits, mains)

    async def _prepare(self) -> None:
        """Sandbox and volumes; nothing when both are there."""
        now = time.monotonic()
        if self.pod["spec"].get("automountServiceAccountToken") is not False and (
            not self._token or now - self._token_at > TOKEN_RENEW_S
        ):
            self._token = await self._request_token()
            self._token_at = now
            self._sources_changed = True
        if self._sandbox is None:
            self._sandbox = await self._make_sandbox()
            self._sources_changed = True
        if self._sources_changed:
            await self._write_volumes()
            self._sources_changed = False

    async def _write_volumes(self) -> None:
        try:
            launching.write_volumes(
                self._config,
                self.pod,
                self._facts(),
                self._tools.sources(self.namespace),
                self._token,
                time.time_ns(),
            )
        except SpecError as error:
            if not self._initialized:
                raise
            # What ran with the old files goes on with them, as a real kubelet has it.
            await self._events.record("Warning", "FailedMount", str(error))

    def _facts(self) -> Facts:
        return launching.facts_of(self._config, self.pod, self._sandbox)

    async def _make_sandbox(self) -> Sandbox:
        directory = launching.pod_directory(self._config, self.uid)
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "sandbox.json"
        known = sandboxes.load(path)
        if known is not None:
            if known.pod_ip and sandboxes.exists(known):
                return known
            # A half-made network is undone first, as the CNI specification asks.
            await self._tools.network.delete(self.pod, known)
            path.unlink()
        identifier = self.uid.replace("-", "")
        if self.pod["spec"].get("hostNetwork"):
            made = Sandbox(self._config.netns, self._config.node_ip, True, identifier, [])
        else:
            planned = self._tools.network.plan(self.pod, identifier)
            sandboxes.save(path, planned)
            made = await self._tools.network.add(self.pod, planned)
        sandboxes.save(path, made)
        return made

    async def _request_token(self) -> str:
        account = self.pod["spec"].get("serviceAccountName") or "default"
        metadata = self.pod["metadata"]
        answer = await self._tools.api.call(
            "POST",
            f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{account}/token",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {
                    "expirationSeconds": TOKEN_LIFETIME_S,
                    "boundObjectRef": {
                        "apiVersion": "v1",
                        "kind": "Pod",
                        "name": metadata["name"],
                        "uid": metadata["uid"],
                    },
                },
            },
        )
        return str(answer["status"]["token"])

    # Containers

    def _all_containers(self) -> list[Json]:
        spec = self.pod["spec"]
        return [*(spec.get("initContainers") or []), *spec["containers"]]

    def _environment(self, container: Json) -> dict[str, str]:
        name = container["name"]
        if name not in self._envs:
            sources = self._tools.sources(self.namespace)
            assert self._sandbox is not None
            made = launching.container_launch(
                self._config, self.pod, container, 0, self._sandbox, sources
            )
            self._envs[name] = made.env
        return self._envs[name]

    async def _keep(self, container: Json, restart: bool) -> float | None:
        """Start a container that should run; returns when to look again."""
        state = self._states[container["name"]]
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
        assert self._sandbox is not None
        try:
            wanted = launching.container_launch(
                self._config,
                self.pod,
                container,
                state.restarts,
                self._sandbox,
                self._tools.sources(self.namespace),
            )
        except launching.UnknownImage as error:
            return await self._cannot_start(state, "ErrImagePull", str(error))
        except (SpecError, OSError) as error:
            return await self._cannot_start(state, "CreateContainerConfigError", str(error))
        if state.restarts > 1:
            old = launching.container_id(self.uid, state.name, state.restarts - 2)
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
        delay_s = _backoff_s(failures)
        self._due[state.name] = time.monotonic() + delay_s
        return delay_s

    def _last_words(self, name: str, attempt: int, exit_code: int) -> str:
        """The end of a failed container's log, for those who asked for it in the status."""
        for container in self._all_containers():
            if container["name"] == name:
                policy = container.get("terminationMessagePolicy")
                if exit_code == 0 or policy != "FallbackToLogsOnError":
                    return ""
        path = launching.log_path(self._config, self.pod, name, attempt)
        try:
            return path.read_text(errors="replace")[-2048:]
        except OSError:
            return ""

    def _adopt(self, found: list[Record]) -> None:
        """Take over the network and the containers that an earlier kubelet made."""
        known_path = launching.pod_directory(self._config, self.uid) / "sandbox.json"
        sandbox = sandboxes.load(known_path)
        if sandbox is not None and sandbox.pod_ip and sandboxes.exists(sandbox):
            self._sandbox = sandbox
        before = {
            item["name"]: item
            for field in ("initContainerStatuses", "containerStatuses")
            for item in (self.pod.get("status") or {}).get(field) or []
        }
        latest: dict[str, Record] = {}
        for record in found:
            _, name, attempt = record.launch.id.split(".")
            if name in self._states and int(attempt) >= self._attempt(latest.get(name)):
                latest[name] = record
        for name, record in latest.items():
            state = self._states[name]
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
        mains = [self._states[c["name"]] for c in self.pod["spec"]["containers"]]
        self._initialized = any(state.container_id for state in mains)
        if self._initialized:
            for container in self.pod["spec"].get("initContainers") or []:
                state = self._states[container["name"]]
                if not state.container_id:
                    state.state, state.reason = status.TERMINATED, "Completed"

    @staticmethod
    def _attempt(record: Record | None) -> int:
        return -1 if record is None else int(record.launch.id.rpartition(".")[2])

    # Probes

    def _start_probes(self, container: Json) -> None:
        if container in (self.pod["spec"].get("initContainers") or []):
            return
        assert self._prober is not None
        assert self._sandbox is not None
        self._prober.start(container, self._states[container["name"]], self._sandbox.pod_ip)

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
        state = self._states[container["name"]]
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

    # Status

    async def _post(self) -> bool:
        """Write the status when it changed; false when it must be tried again."""
        spec = self.pod["spec"]
        foreign = [
            item
            for item in (self.pod.get("status") or {}).get("conditions") or []
            if item["type"] not in {own["type"] for own in self._conditions}
        ]
        pod = self.pod | {"status": {"conditions": [*foreign, *self._conditions]}}
        view = status.PodView(
            pod=pod,
            inits=[self._states[c["name"]] for c in spec.get("initContainers") or []],
            mains=[self._states[c["name"]] for c in spec["containers"]],
            initialized=self._initialized,
            deleting=self._deleting,
            host_ip=self._config.node_ip,
            pod_ip=self._sandbox.pod_ip if self._sandbox else "",
            start_time=self._start_time,
            message=self._message,
        )
        wanted = status.pod_status(view, timestamp())
        if wanted == self._posted:
            return True
        body = {"metadata": {"uid": self.uid}, "status": {"message": None} | wanted}
        try:
            await self._tools.api.merge(self._path("/status"), body)
        except ApiError as error:
            if error.status in (404, 409):
                return True  # deleted, or another pod of that name: the watch will say so
            log.warning("status not written pod=%s error=%s", self._name(), error)
            return False
        self._posted = wanted
        own = {"PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"}
        self._conditions = [
            item for item in wanted["conditions"] if item["type"] in own | {"PodScheduled"}
        ]
        return True

    def _path(self, rest: str = "") -> str:
        name = self.pod["metadata"]["name"]
        return f"/api/v1/namespaces/{self.namespace}/pods/{name}{rest}"

    def _name(self) -> str:
        return f"{self.namespace}/{self.pod['metadata']['name']}"

    # The end

    async def _terminate(self) -> None:
        """End the containers with grace, undo the network, remove the files and the object."""
        self._deleting = True
        for state in self._states.values():
            state.ready = False
        if not self._gone:
            await self._post()  # endpoints go first
        await self._stop_containers()
        await self._remove_network()
        for record in await self._tools.runtime.list():
            if record.launch.id.startswith(self.uid + "."):
                await self._tools.runtime.remove(record.launch.id)
        with contextlib.suppress(OSError):
            os.rmdir(f"{self._config.cgroup}/{self.uid}")
        if not self._gone:
            await self._post()
            await self._delete_object()
        volumes.remove_tree(launching.pod_directory(self._config, self.uid))
        volumes.remove_tree(launching.log_directory(self._config, self.pod))

    def _grace_s(self) -> float:
        if self._gone:
            return 0.0
        metadata = self.pod["metadata"]
        return float(metadata.get("deletionGracePeriodSeconds", podspec.TERMINATION_GRACE_S))

    async def _stop_containers(self) -> None:
        began = time.monotonic()

        def running() -> list[ContainerState]:
            return [item for item in self._states.values() if item.state == status.RUNNING]

        if self._grace_s() > 0:
            await self._pre_stop(running())
            for state in running():
                await self._tools.runtime.signal(state.container_id, signal.SIGTERM)
        killed = False
        while running():
            self._wake.clear()
            left_s = began + self._grace_s() - time.monotonic()
            if left_s <= 0 and not killed:
                killed = True
                for state in running():
                    await self._tools.runtime.kill(state.container_id)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0 if killed else left_s):
                    await self._wake.wait()
                continue
            for record in await self._tools.runtime.list():  # an end that nobody told us
                if record.launch.id.startswith(self.uid + "."):
                    self.record_changed(record)
            known = {record.launch.id for record in await self._tools.runtime.list()}
            for state in running():
                if state.container_id not in known:
                    state.state = status.TERMINATED

    async def _pre_stop(self, states: list[ContainerState]) -> None:
        names = {state.name for state in states}
        for container in self._all_containers():
            hook = ((container.get("lifecycle") or {}).get("preStop")) or {}
            if container["name"] not in names or not hook:
                continue
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(self._grace_s()):
                    if "exec" in hook:
                        await self._execute(container, list(hook["exec"]["command"]))
                    elif "sleep" in hook:
                        await asyncio.sleep(float(hook["sleep"]["seconds"]))

    async def _remove_network(self) -> None:
        directory = launching.pod_directory(self._config, self.uid)
        sandbox = self._sandbox or sandboxes.load(directory / "sandbox.json")
        if sandbox is None:
            return
        for attempt in range(DEL_ATTEMPTS):
            try:
                await self._tools.network.delete(self.pod, sandbox)
            except OSError as error:
                log.warning(
                    "CNI DEL failed pod=%s attempt=%d error=%s", self._name(), attempt, error
                )
                await asyncio.sleep(DEL_RETRY_S)
            else:
                return
        log.error("network namespace removed without CNI DEL pod=%s", self._name())
        await asyncio.to_thread(sandboxes.remove_netns, sandbox.netns)

    async def _delete_object(self) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": self.uid},
        }
        while not self._gone:
            try:
                await self._tools.api.call("DELETE", self._path(), body)
            except ApiError as error:
                if error.status in (404, 409):
                    return
                log.warning("pod not deleted pod=%s error=%s", self._name(), error)
                await asyncio.sleep(STATUS_RETRY_S)
            else:
                return

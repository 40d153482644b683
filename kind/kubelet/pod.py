"""One pod of the node, from its object to its processes and back to its status. Adapter.

A worker is one task that looks at the latest object and the latest state of the containers, does
the next thing that is missing, writes the status, and waits to be woken. Nothing depends on having
seen each event, so that a new kubelet goes on where the one before it ended.
"""

import asyncio
import contextlib
import logging
import os
import time
from typing import Any

from kind.kubelet import launch as launching
from kind.kubelet import podnet, podspec, status, volumes
from kind.kubelet.api import ApiError
from kind.kubelet.containers import Containers
from kind.kubelet.events import Recorder, timestamp
from kind.kubelet.podspec import Facts, SpecError
from kind.kubelet.sandbox import SandboxError
from kind.kubelet.tools import Tools, backoff_s
from kind.runtime.records import Record
from reconcile.tasks import TaskGroup

log = logging.getLogger(__name__)

Json = dict[str, Any]

STATUS_RETRY_S = 0.5
TOKEN_LIFETIME_S, TOKEN_RENEW_S = 86400, 43200


class PodWorker:
    """Everything about one pod."""

    def __init__(self, tools: Tools, pod: Json, found: list[Record]) -> None:
        self._tools = tools
        self._config = tools.config
        self.pod = podspec.with_service_account(pod)
        self.uid: str = pod["metadata"]["uid"]
        self._gone = False
        self._wake = asyncio.Event()
        self._token = ""
        self._token_at = 0.0
        self._sources_changed = True
        self._deleting = False
        self._message = ""
        self._setup_failures = 0
        self._start_time = (pod.get("status") or {}).get("startTime") or timestamp()
        self._posted: Json = {}
        self._conditions: list[Json] = list((pod.get("status") or {}).get("conditions") or [])
        self._events = Recorder(tools.api, tools.config.node, pod)
        self.containers = Containers(tools, self.pod, self._events, self._wake.set)
        self.containers.sandbox = podnet.find(tools, self.pod)
        self.containers.adopt(found)

    # What others tell the worker

    def update(self, pod: Json) -> None:
        """A newer object."""
        self.pod = self.containers.pod = podspec.with_service_account(pod)
        self._wake.set()

    def removed(self) -> None:
        """The object is gone without waiting for us: end everything now."""
        self._gone = True
        self._wake.set()

    def sources_changed(self) -> None:
        """A ConfigMap or Secret of a volume changed."""
        self._sources_changed = True
        self._wake.set()

    @property
    def references(self) -> set[tuple[str, str]]:
        """Which ConfigMaps and Secrets the volumes show."""
        return podspec.referenced(self.pod)

    @property
    def namespace(self) -> str:
        """The pod's namespace."""
        return str(self.pod["metadata"]["namespace"])

    # The task

    async def run(self) -> None:
        """Bring the pod to life, keep it there, and end it; returns when it is gone."""
        async with TaskGroup() as tasks:
            self.containers.begin_probes(tasks)
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
            self.containers.end_probes()
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
        if self.containers.phase() in ("Succeeded", "Failed"):
            return None
        try:
            await self._prepare()
        except (SpecError, OSError) as error:
            self._setup_failures += 1
            self._message = str(error)
            reason = "FailedCreatePodSandBox" if isinstance(error, SandboxError) else "FailedMount"
            if not self._message.startswith("network is not ready"):
                await self._events.record("Warning", reason, self._message)
            self.containers.say(self._message)
            return backoff_s(self._setup_failures)
        if self._setup_failures:
            self._setup_failures, self._message = 0, ""
            self.containers.say("")
        return await self.containers.advance()

    async def _prepare(self) -> None:
        """Sandbox and volumes; nothing when both are there."""
        now = time.monotonic()
        if self.pod["spec"].get("automountServiceAccountToken") is not False and (
            not self._token or now - self._token_at > TOKEN_RENEW_S
        ):
            self._token = await self._request_token()
            self._token_at = now
            self._sources_changed = True
        if self.containers.sandbox is None:
            self.containers.sandbox = await podnet.make(self._tools, self.pod)
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
            if not self.containers.initialized:
                raise
            # What ran with the old files goes on with them, as a real kubelet has it.
            await self._events.record("Warning", "FailedMount", str(error))

    def _facts(self) -> Facts:
        return launching.facts_of(self._config, self.pod, self.containers.sandbox)

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

    # Status

    async def _post(self) -> bool:
        """Write the status when it changed; false when it must be tried again."""
        sandbox = self.containers.sandbox
        foreign = [
            item
            for item in (self.pod.get("status") or {}).get("conditions") or []
            if item["type"] not in {own["type"] for own in self._conditions}
        ]
        pod = self.pod | {"status": {"conditions": [*foreign, *self._conditions]}}
        view = status.PodView(
            pod=pod,
            inits=self.containers.inits,
            mains=self.containers.mains,
            initialized=self.containers.initialized,
            deleting=self._deleting,
            host_ips=self._config.node_ips,
            pod_ips=sandbox.pod_ips if sandbox else [],
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
        for state in self.containers.states.values():
            state.ready = False
        if not self._gone:
            await self._post()  # endpoints go first
        await self.containers.stop(self._grace_s, self._wake)
        await podnet.remove(self._tools, self.pod, self.containers.sandbox)
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

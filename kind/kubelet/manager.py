"""All pods of the node: which workers there are, and who is told what. Adapter."""

import asyncio
import logging
import shutil
from typing import Any

from kind.kubelet.api import key_of
from kind.kubelet.events import timestamp
from kind.kubelet.link import Link
from kind.kubelet.pod import PodWorker
from kind.kubelet.podspec import Sources
from kind.kubelet.tools import Tools
from kind.runtime.records import Record
from reconcile.tasks import TaskGroup

log = logging.getLogger(__name__)

Json = dict[str, Any]

MAX_LOG_BYTES = 32 << 20  # the lab's files are in memory; a log that grows past this begins anew
HOUSEKEEPING_S = 30.0


class ObjectCache:
    """ConfigMaps and Secrets of the cluster, as the watches give them."""

    def __init__(self) -> None:
        self._items: dict[tuple[str, str], Json] = {}  # (kind, namespace/name)
        self.synced: dict[str, asyncio.Event] = {}

    def kind(self, kind: str) -> asyncio.Event:
        """Announce a kind; the event is set when it has been listed once."""
        return self.synced.setdefault(kind, asyncio.Event())

    def apply(self, kind: str, change: str, item: Json) -> set[str]:
        """Take a change; returns the keys that changed."""
        if change == "SYNCED":
            lost: set[str] = {key for k, key in self._items if k == kind} - item["keys"]
            for key in lost:
                del self._items[(kind, key)]
            self.kind(kind).set()
            return lost
        key = key_of(item)
        if change == "DELETED":
            self._items.pop((kind, key), None)
        else:
            self._items[(kind, key)] = item
        return {key}

    def sources(self, namespace: str) -> Sources:
        """What a pod of a namespace can refer to."""
        return Sources(
            config_map=lambda name: self._items.get(("configmap", f"{namespace}/{name}")),
            secret=lambda name: self._items.get(("secret", f"{namespace}/{name}")),
        )


class Manager:
    """The workers of one kubelet; all methods run on its event loop."""

    def __init__(self, tools: Tools, runtime: Link, cache: ObjectCache) -> None:
        self._tools = tools
        self._runtime = runtime
        self._cache = cache
        self._workers: dict[str, PodWorker] = {}  # by uid
        self._records: dict[str, list[Record]] = {}  # what was found at start, by uid

    async def load(self) -> None:
        """Look at what runs already; before the first pod arrives."""
        for record in await self._runtime.list():
            parts = record.launch.id.split(".")
            if len(parts) == 3:
                self._records.setdefault(parts[0], []).append(record)

    def workers(self) -> list[PodWorker]:
        """All workers."""
        return list(self._workers.values())

    def find(self, namespace: str, name: str) -> PodWorker | None:
        """The pod of a name."""
        for worker in self._workers.values():
            if worker.namespace == namespace and worker.pod["metadata"]["name"] == name:
                return worker
        return None

    def pod_changed(self, tasks: TaskGroup, change: str, item: Json) -> None:
        """Take one change of the watch on this node's pods."""
        if change == "SYNCED":
            for worker in self._workers.values():
                if key_of(worker.pod) not in item["keys"]:
                    worker.removed()
            self._remove_orphans(tasks)
            return
        uid = item["metadata"]["uid"]
        known = self._workers.get(uid)
        if change == "DELETED":
            if known is not None:
                known.removed()
            return
        for other in self._workers.values():
            if other.uid != uid and key_of(other.pod) == key_of(item):
                other.removed()  # replaced while the watch was away
        if known is not None:
            known.update(item)
            return
        phase = (item.get("status") or {}).get("phase")
        ended = phase in ("Succeeded", "Failed") and "deletionTimestamp" not in item["metadata"]
        if ended and uid not in self._records:
            return  # before we came
        worker = PodWorker(self._tools, item, self._records.pop(uid, []))
        self._workers[uid] = worker
        tasks.create_task(self._run(worker))

    async def _run(self, worker: PodWorker) -> None:
        await worker.run()
        self._workers.pop(worker.uid, None)

    def _remove_orphans(self, tasks: TaskGroup) -> None:
        """End what an earlier kubelet started for pods that are no more."""
        for uid in {path.name for path in self._tools.config.pods.glob("*")} | set(self._records):
            if uid not in self._workers:
                records = self._records.pop(uid, [])
                worker = PodWorker(self._tools, _ghost(uid, records), records)
                worker.removed()
                self._workers[uid] = worker
                tasks.create_task(self._run(worker))

    def object_changed(self, kind: str, change: str, item: Json) -> None:
        """Take one change of a ConfigMap or Secret."""
        for key in self._cache.apply(kind, change, item):
            namespace, _, name = key.partition("/")
            for worker in self._workers.values():
                if worker.namespace == namespace and (kind, name) in worker.references:
                    worker.sources_changed()

    async def containers_changed(self, name: str | None) -> None:
        """A container ended; ``None``: look at all of them."""
        for record in await self._runtime.list():
            if name is None or record.launch.id == name:
                worker = self._workers.get(record.launch.id.split(".")[0])
                if worker is not None and record.launch.id.count(".") == 2:
                    worker.containers.record_changed(record)

    async def housekeeping(self) -> None:
        """Keep logs from filling the memory, for ever."""
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            for path in self._tools.config.logs.rglob("*.log"):
                try:
                    if path.stat().st_size > MAX_LOG_BYTES:
                        # Writers append, so a truncated file simply begins anew.
                        shutil.copyfile(path, path.with_suffix(".log.1"))
                        path.write_bytes(b"")
                except OSError as error:
                    log.warning("log not truncated path=%s error=%s", path, error)


def _ghost(uid: str, records: list[Record]) -> Json:
    """A pod object for containers whose own is gone; only good for ending them."""
    names = sorted({record.launch.id.split(".")[1] for record in records}) or ["none"]
    return {
        "metadata": {"uid": uid, "name": uid, "namespace": "unknown"},
        "spec": {"containers": [{"name": name} for name in names], "volumes": []},
        "status": {"startTime": timestamp()},
    }

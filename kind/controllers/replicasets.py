"""ReplicaSets: as many pods as they say. Adapter."""

import asyncio
from collections.abc import Coroutine, Iterable

from kind.apiserver.objects import Obj, dig, labels_of
from kind.controllers.hub import Hub, Key, key_of
from kind.controllers.owned import (
    age_key,
    is_active,
    is_ready,
    owned_by,
    owner_reference,
    owners_named,
    pod_from,
)

TABLE = "replicasets.apps"
_BURST = 50  # pods made or deleted in one round


def deletion_order(pod: Obj) -> tuple[bool, bool, bool]:
    """Which surplus pods go first: unassigned, not running, not ready; then the youngest."""
    running = dig(pod, "status", "phase") == "Running"
    return (bool(dig(pod, "spec", "nodeName")), running, is_ready(pod))


def surplus(pods: list[Obj], wanted: int) -> list[Obj]:
    """The pods to delete. Pure."""
    youngest = sorted(pods, key=age_key, reverse=True)
    return sorted(youngest, key=deletion_order)[: max(0, len(pods) - wanted)]


def status_of(owner: Obj, pods: list[Obj]) -> Obj:
    """The status that the pods give. Pure."""
    wanted = labels_of(dig(owner, "spec", "template") or {}).items()
    ready = sum(1 for p in pods if is_ready(p))
    return {
        "replicas": len(pods),
        "fullyLabeledReplicas": sum(1 for p in pods if wanted <= labels_of(p).items()),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "observedGeneration": owner["metadata"].get("generation", 0),
    }


class ReplicaSetController:
    """One key per ReplicaSet."""

    name = "replicaset"

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def keys(self, table: str, old: Obj | None, new: Obj | None) -> Iterable[Key]:
        if table == TABLE and new is not None:
            return [key_of(new)]
        if table == "pods":
            return owners_named("ReplicaSet", old, new)
        return ()

    async def reconcile(self, key: Key) -> None:
        owner = self._hub.get(TABLE, key)
        if owner is None:
            return
        mine = owned_by(self._hub.within("pods", key[0]), owner["metadata"]["uid"])
        pods = [p for p in mine if is_active(p)]
        if not owner["metadata"].get("deletionTimestamp"):
            await self._scale(owner, pods)
            mine = owned_by(self._hub.within("pods", key[0]), owner["metadata"]["uid"])
            pods = [p for p in mine if is_active(p)]
        status = status_of(owner, pods)
        if {k: v for k, v in (owner.get("status") or {}).items() if k in status} != status:
            await self._hub.merge(TABLE, owner, {"status": status}, "status")

    async def _scale(self, owner: Obj, pods: list[Obj]) -> None:
        wanted = int(dig(owner, "spec", "replicas") or 0)
        reference = owner_reference("apps/v1", "ReplicaSet", owner)
        pod = pod_from(dig(owner, "spec", "template") or {}, owner, reference, {})
        missing = min(_BURST, wanted - len(pods))
        await in_parallel([self._hub.create("pods", pod) for _ in range(missing)])
        for extra in surplus(pods, wanted)[:_BURST]:
            await self._hub.delete("pods", extra)


async def in_parallel(calls: list[Coroutine[object, object, Obj]]) -> None:
    """All at once; the first error is raised when all have ended."""
    errors: list[OSError] = []

    async def one(call: Coroutine[object, object, Obj]) -> None:
        try:
            await call
        except OSError as error:
            errors.append(error)

    async with asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(one(call))
    if errors:
        raise errors[0]

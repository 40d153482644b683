"""ReplicaSets: as many pods as they say. Adapter."""

from kind.apiserver.objects import Obj, dig, labels_of
from kind.controllers.hub import Key
from kind.controllers.owned import age_key, is_active, is_ready
from kind.controllers.pod_owner import PodOwner, in_parallel

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


class ReplicaSetController(PodOwner):
    """One key per ReplicaSet."""

    name, kind, table = "replicaset", "ReplicaSet", TABLE

    async def reconcile(self, key: Key) -> None:
        owner = self._hub.get(TABLE, key)
        if owner is None:
            return
        if not owner["metadata"].get("deletionTimestamp"):
            await self._scale(owner, self._active(owner))
        await self._report(owner, status_of(owner, self._active(owner)))

    def _active(self, owner: Obj) -> list[Obj]:
        return [pod for pod in self._pods(owner) if is_active(pod)]

    async def _scale(self, owner: Obj, pods: list[Obj]) -> None:
        wanted = int(dig(owner, "spec", "replicas") or 0)
        pod = self._pod(owner, {})
        missing = min(_BURST, wanted - len(pods))
        await in_parallel([self._hub.create("pods", pod) for _ in range(missing)])
        for extra in surplus(pods, wanted)[:_BURST]:
            await self._hub.delete("pods", extra)

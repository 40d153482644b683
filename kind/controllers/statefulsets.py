"""StatefulSets: pods with numbers, started and ended in order; no volumes. Adapter."""

from kind.apiserver.objects import Obj, dig, labels_of
from kind.controllers.hub import Key
from kind.controllers.owned import is_active, is_finished, is_ready, is_terminating, safe_hash
from kind.controllers.pod_owner import PodOwner

TABLE = "statefulsets.apps"
HASH_LABEL = "controller-revision-hash"


def _ordinal(pod: Obj) -> int:
    text = str(pod["metadata"]["name"]).rpartition("-")[2]
    return int(text) if text.isdigit() else -1


class StatefulSetController(PodOwner):
    """One key per StatefulSet."""

    name, kind, table = "statefulset", "StatefulSet", TABLE

    async def reconcile(self, key: Key) -> None:
        owner = self._hub.get(TABLE, key)
        if owner is None:
            return
        word = safe_hash(dig(owner, "spec", "template"))
        if not owner["metadata"].get("deletionTimestamp"):
            await self._step(owner, self._pods(owner), word)
        pods = [p for p in self._pods(owner) if is_active(p)]
        ready = sum(1 for p in pods if is_ready(p))
        updated = sum(1 for p in pods if labels_of(p).get(HASH_LABEL) == word)
        status = {
            "replicas": len(pods),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "currentReplicas": updated,
            "updatedReplicas": updated,
            "currentRevision": word,
            "updateRevision": word,
            "observedGeneration": owner["metadata"].get("generation", 0),
        }
        await self._report(owner, status)

    async def _step(self, owner: Obj, pods: list[Obj], word: str) -> None:
        """One move at a time, unless pods are to be managed in parallel."""
        wanted = int(dig(owner, "spec", "replicas") or 0)
        parallel = dig(owner, "spec", "podManagementPolicy") == "Parallel"
        by_number = {_ordinal(p): p for p in pods}
        for number in range(wanted):
            pod = by_number.get(number)
            if pod is None:
                await self._hub.create("pods", self._numbered(owner, number, word))
            elif is_finished(pod) and not is_terminating(pod):
                await self._hub.delete("pods", pod)
            if not parallel and (pod is None or not is_ready(pod)):
                return
        extra = sorted((n for n in by_number if n >= wanted), reverse=True)
        for number in extra:
            if not is_terminating(by_number[number]):
                await self._hub.delete("pods", by_number[number])
            if not parallel:
                return
        if dig(owner, "spec", "updateStrategy", "type") == "OnDelete":
            return
        for number in sorted(by_number, reverse=True):
            pod = by_number[number]
            if is_terminating(pod) or not is_ready(pod):
                return
            if labels_of(pod).get(HASH_LABEL) != word:
                await self._hub.delete("pods", pod)
                return

    def _numbered(self, owner: Obj, number: int, word: str) -> Obj:
        name = f"{owner['metadata']['name']}-{number}"
        labels = {
            HASH_LABEL: word,
            "statefulset.kubernetes.io/pod-name": name,
            "apps.kubernetes.io/pod-index": str(number),
        }
        pod = self._pod(owner, labels)
        del pod["metadata"]["generateName"]
        pod["metadata"]["name"] = name
        extra = {"hostname": name}
        if service := dig(owner, "spec", "serviceName"):
            extra["subdomain"] = service
        pod["spec"] = pod["spec"] | extra
        return pod

"""DaemonSets: one pod on every node that the template selects, whatever the taints. Adapter."""

from collections.abc import Iterable

from kind.apiserver.objects import Obj, dig, labels_of
from kind.controllers import placement
from kind.controllers.hub import Key, key_of
from kind.controllers.owned import (
    is_finished,
    is_ready,
    is_terminating,
    percent,
    safe_hash,
)
from kind.controllers.pod_owner import PodOwner, in_parallel

TABLE = "daemonsets.apps"
HASH_LABEL = "controller-revision-hash"


def _node_of(pod: Obj) -> str:
    return str(dig(pod, "spec", "nodeName") or "")


def desired_nodes(owner: Obj, nodes: Iterable[Obj]) -> set[str]:
    """Where it runs. Pure."""
    spec = dig(owner, "spec", "template", "spec") or {}
    return {n["metadata"]["name"] for n in nodes if placement.wants_node(spec, n)}


def outdated(owner: Obj, pods: list[Obj], word: str) -> list[Obj]:
    """Pods of an old template that may be replaced now. Pure."""
    strategy = dig(owner, "spec", "updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        return []
    old = [p for p in pods if labels_of(p).get(HASH_LABEL) != word and not is_terminating(p)]
    rolling = strategy.get("rollingUpdate") or {}
    budget = max(1, percent(rolling.get("maxUnavailable", 1), len(pods), up=True))
    down = sum(1 for p in pods if not is_ready(p) or is_terminating(p))
    broken = [p for p in old if not is_ready(p)]
    healthy = [p for p in old if is_ready(p)]
    return broken + healthy[: max(0, budget - down)]


class DaemonSetController(PodOwner):
    """One key per DaemonSet."""

    name, kind, table = "daemonset", "DaemonSet", TABLE

    def keys(self, table: str, old: Obj | None, new: Obj | None) -> Iterable[Key]:
        if table == "nodes" and (old is None or new is None or labels_of(old) != labels_of(new)):
            return [key_of(d) for d in self._hub.all(TABLE)]
        return super().keys(table, old, new)

    async def reconcile(self, key: Key) -> None:
        owner = self._hub.get(TABLE, key)
        if owner is None:
            return
        word = safe_hash(dig(owner, "spec", "template"))
        wanted = desired_nodes(owner, self._hub.all("nodes"))
        if not owner["metadata"].get("deletionTimestamp"):
            await self._place(owner, wanted, word)
        await self._report(owner, _status(owner, self._pods(owner), wanted, word))

    async def _place(self, owner: Obj, wanted: set[str], word: str) -> None:
        by_node: dict[str, list[Obj]] = {}
        for pod in self._pods(owner):
            by_node.setdefault(_node_of(pod), []).append(pod)
        gone = [
            p
            for node, pods in by_node.items()
            for i, p in enumerate(pods)
            if node not in wanted or i > 0 or is_finished(p)
        ]
        for pod in gone:
            if not is_terminating(pod):
                await self._hub.delete("pods", pod)
        alive = [p for p in self._pods(owner) if p not in gone]
        for pod in outdated(owner, alive, word):
            await self._hub.delete("pods", pod)
        # A node's new pod waits until the old one is gone: both may want the same host ports.
        taken = {_node_of(p) for p in self._pods(owner)}
        calls = []
        for node in sorted(wanted - taken):
            pod = self._pod(owner, {HASH_LABEL: word})
            tolerations = [*(pod["spec"].get("tolerations") or []), {"operator": "Exists"}]
            pod["spec"] = pod["spec"] | {"nodeName": node, "tolerations": tolerations}
            calls.append(self._hub.create("pods", pod))
        await in_parallel(calls)


def _status(owner: Obj, pods: list[Obj], wanted: set[str], word: str) -> Obj:
    alive = [p for p in pods if not is_terminating(p)]
    placed = {_node_of(p) for p in alive} & wanted
    ready = {_node_of(p) for p in alive if is_ready(p)} & wanted
    return {
        "currentNumberScheduled": len(placed),
        "desiredNumberScheduled": len(wanted),
        "numberMisscheduled": len({_node_of(p) for p in alive} - wanted),
        "numberReady": len(ready),
        "numberAvailable": len(ready),
        "numberUnavailable": len(wanted) - len(ready),
        "updatedNumberScheduled": len(
            {_node_of(p) for p in alive if labels_of(p).get(HASH_LABEL) == word} & wanted
        ),
        "observedGeneration": owner["metadata"].get("generation", 0),
    }

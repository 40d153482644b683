"""Gives pods without a node one. Adapter around ``placement``."""

from collections.abc import Iterable
from datetime import UTC, datetime

from kind.apiserver.objects import Obj, condition, dicts, dig
from kind.controllers import placement
from kind.controllers.hub import Hub, Key, key_of
from kind.controllers.owned import is_finished, is_terminating, set_condition
from kube.port import ApiError


class Scheduler:
    """One key per pod that waits."""

    name = "scheduler"

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._assumed: dict[str, str] = {}  # pod UID → node, until the watch shows it

    def keys(self, table: str, old: Obj | None, new: Obj | None) -> Iterable[Key]:
        if table == "pods":
            obj = new or old
            assert obj is not None
            if new is None or dig(new, "spec", "nodeName"):
                self._assumed.pop(obj["metadata"]["uid"], None)
            if (
                new is not None
                and _waits(new)
                and (old is None or old.get("spec") != new.get("spec"))
            ):
                return [key_of(new)]
            if new is None or is_finished(new):
                return self._waiting(unschedulable_only=True)
        elif table == "nodes" and _facts(old) != _facts(new):
            return self._waiting(unschedulable_only=False)
        return ()

    def _waiting(self, *, unschedulable_only: bool) -> list[Key]:
        found = (p for p in self._hub.all("pods") if _waits(p))
        return [
            key_of(p)
            for p in found
            if not unschedulable_only or condition(p, "PodScheduled") is not None
        ]

    async def reconcile(self, key: Key) -> None:
        pod = self._hub.get("pods", key)
        if pod is None or not _waits(pod) or pod["metadata"]["uid"] in self._assumed:
            return
        placed = []
        for other in self._hub.all("pods"):
            at = dig(other, "spec", "nodeName") or self._assumed.get(other["metadata"]["uid"])
            if at and not is_finished(other):
                placed.append((other, str(at)))
        verdict = placement.choose(pod, self._hub.all("nodes"), placed)
        if not verdict.node:
            await self._refuse(pod, verdict.message)
            return
        uid = pod["metadata"]["uid"]
        self._assumed[uid] = verdict.node
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": key[1], "namespace": key[0], "uid": uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": verdict.node},
        }
        try:
            await self._hub.post("pods", key, "binding", body)
        except OSError as error:
            self._assumed.pop(uid, None)
            if not (isinstance(error, ApiError) and (error.not_found or error.conflict)):
                raise

    async def _refuse(self, pod: Obj, message: str) -> None:
        old = dicts(dig(pod, "status", "conditions"))
        wanted = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
        }
        conditions = set_condition(old, wanted, datetime.now(UTC))
        if conditions != old:
            try:
                await self._hub.merge(
                    "pods", pod, {"status": {"conditions": conditions}}, "status", pinned=True
                )
            except ApiError as error:
                if not error.not_found:
                    raise


def _waits(pod: Obj) -> bool:
    spec = pod.get("spec") or {}
    return (
        not spec.get("nodeName")
        and not is_terminating(pod)
        and not is_finished(pod)
        and spec.get("schedulerName", "default-scheduler") == "default-scheduler"
    )


def _facts(node: Obj | None) -> object:
    """What of a node decides where pods may go."""
    if node is None:
        return None
    return placement.taints_of(node), node["metadata"].get("labels")

"""What controllers whose objects own pods have in common. Adapter."""

from collections.abc import Coroutine, Iterable, Mapping

from kind.apiserver.objects import Obj, dig
from kind.controllers.hub import Hub, Key, key_of
from kind.controllers.owned import owned_by, owner_reference, owners_named, pod_from
from reconcile.tasks import TaskGroup


class PodOwner:
    """One key per object; a change of a pod is a change of its owner."""

    name: str
    kind: str
    api_version = "apps/v1"
    table: str

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def keys(self, table: str, old: Obj | None, new: Obj | None) -> Iterable[Key]:
        """The owners that a change concerns."""
        if table == self.table and new is not None:
            return [key_of(new)]
        if table == "pods":
            return owners_named(self.kind, old, new)
        return ()

    def _pods(self, owner: Obj) -> list[Obj]:
        """Its pods as they are known now, oldest first."""
        meta = owner["metadata"]
        return owned_by(self._hub.within("pods", meta["namespace"]), meta["uid"])

    def _pod(self, owner: Obj, labels: Mapping[str, str]) -> Obj:
        """One more, of its template."""
        reference = owner_reference(self.api_version, self.kind, owner)
        return pod_from(dig(owner, "spec", "template") or {}, owner, reference, labels)

    async def _report(self, owner: Obj, status: Obj) -> None:
        """Write what differs of a status."""
        known = owner.get("status") or {}
        if {key: value for key, value in known.items() if key in status} != status:
            await self._hub.merge(self.table, owner, {"status": status}, "status")


async def in_parallel(calls: list[Coroutine[object, object, Obj]]) -> None:
    """All at once; the first error is raised when all have ended."""
    errors: list[OSError] = []

    async def one(call: Coroutine[object, object, Obj]) -> None:
        try:
            await call
        except OSError as error:
            errors.append(error)

    async with TaskGroup() as group:
        for call in calls:
            group.create_task(one(call))
    if errors:
        raise errors[0]

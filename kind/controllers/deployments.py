"""Deployments: one ReplicaSet per template, scaled over step by step. Adapter of ``rollout``."""

from collections.abc import Iterable
from datetime import UTC, datetime

from kind.apiserver.objects import Obj
from kind.controllers import replicasets, rollout
from kind.controllers.hub import Hub, Key, key_of
from kind.controllers.owned import owned_by, owners_named
from kube.port import ApiError

TABLE = "deployments.apps"


class DeploymentController:
    """One key per Deployment."""

    name = "deployment"

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def keys(self, table: str, old: Obj | None, new: Obj | None) -> Iterable[Key]:
        if table == TABLE and new is not None:
            return [key_of(new)]
        if table == replicasets.TABLE:
            return owners_named("Deployment", old, new)
        return ()

    def _sets(self, deployment: Obj) -> list[Obj]:
        namespace = deployment["metadata"]["namespace"]
        found = self._hub.within(replicasets.TABLE, namespace)
        return owned_by(found, deployment["metadata"]["uid"])

    async def reconcile(self, key: Key) -> None:
        deployment = self._hub.get(TABLE, key)
        if deployment is None or deployment["metadata"].get("deletionTimestamp"):
            return
        sets = self._sets(deployment)
        new = rollout.find_new(deployment, sets)
        old = [s for s in sets if s is not new]
        if new is None and not deployment["spec"].get("paused"):
            first = rollout.first_scale(deployment, old)
            new = await self._create(rollout.new_set(deployment, sets, first))
        elif new is not None:
            new = await self._renumber(deployment, new, old)
        for name, replicas in rollout.desired_scales(deployment, new, old).items():
            found = self._hub.get(replicasets.TABLE, (key[0], name))
            if found is not None:
                await self._hub.merge(replicasets.TABLE, found, {"spec": {"replicas": replicas}})
        for extra in rollout.superfluous(deployment, old):
            await self._hub.delete(replicasets.TABLE, extra)
        await self._report(key, new)

    async def _create(self, wanted: Obj) -> Obj:
        try:
            return await self._hub.create(replicasets.TABLE, wanted)
        except ApiError as error:
            found = self._hub.get(replicasets.TABLE, key_of(wanted))
            if not error.already_exists or found is None:
                raise
            return found

    async def _renumber(self, deployment: Obj, new: Obj, old: list[Obj]) -> Obj:
        """A template that comes back (``rollout undo``) gets the newest revision again."""
        last = max((rollout.revision_of(s) for s in old), default=0)
        number = rollout.revision_of(new)
        wanted = rollout.annotations_for_set(deployment) | {
            rollout.REVISION: str(number if number > last else last + 1)
        }
        have = new["metadata"].get("annotations") or {}
        if wanted.items() <= have.items():
            return new
        return await self._hub.merge(replicasets.TABLE, new, {"metadata": {"annotations": wanted}})

    async def _report(self, key: Key, new: Obj | None) -> None:
        deployment = self._hub.get(TABLE, key)
        if deployment is None:
            return
        sets = self._sets(deployment)
        name = new["metadata"]["name"] if new else ""
        newest = next((s for s in sets if s["metadata"]["name"] == name), None)
        rest = [s for s in sets if s is not newest]
        if newest is not None:
            number = str(rollout.revision_of(newest))
            if (deployment["metadata"].get("annotations") or {}).get(rollout.REVISION) != number:
                change = {"metadata": {"annotations": {rollout.REVISION: number}}}
                deployment = await self._hub.merge(TABLE, deployment, change)
        status = rollout.status_of(deployment, newest, rest, datetime.now(UTC))
        if (deployment.get("status") or {}) != status:
            await self._hub.merge(TABLE, deployment, {"status": status}, "status")

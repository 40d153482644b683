"""Keeps EndpointSlices and Endpoints of services with a selector. Adapter around ``endpoints``.

Event-driven to the last: the change of a pod's readiness is on its way to the API server in the
same turn of the loop in which it arrived.
"""

from collections.abc import Iterable

from kind.apiserver.objects import Obj, dig, labels_of
from kind.controllers import endpoints
from kind.controllers.hub import Hub, Key, key_of
from kube.port import ApiError

SLICES = "endpointslices.discovery.k8s.io"


class ServiceController:
    """One key per service."""

    name = "endpointslice"

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def keys(self, table: str, old: Obj | None, new: Obj | None) -> Iterable[Key]:
        obj = new or old
        assert obj is not None
        if table == "services":
            return [key_of(obj)]
        if table == "pods":
            return self._of_pod(old, new)
        if table == SLICES:
            labels = labels_of(obj)
            if labels.get(endpoints.MANAGED_LABEL) == endpoints.MANAGER:
                return [(obj["metadata"]["namespace"], labels.get(endpoints.SERVICE_LABEL, ""))]
        elif table == "endpoints":
            return [key_of(obj)]
        return ()

    def _of_pod(self, old: Obj | None, new: Obj | None) -> list[Key]:
        if old is not None and new is not None and _facts(old) == _facts(new):
            return []
        namespace = key_of(new or old or {})[0]
        found = []
        for service in self._hub.within("services", namespace):
            selector = dig(service, "spec", "selector")
            if selector and any(
                p is not None and selector.items() <= labels_of(p).items() for p in (old, new)
            ):
                found.append(key_of(service))
        return found

    async def reconcile(self, key: Key) -> None:
        service = self._hub.get("services", key)
        mine = [
            s
            for s in self._hub.within(SLICES, key[0])
            if labels_of(s).get(endpoints.SERVICE_LABEL) == key[1]
            and labels_of(s).get(endpoints.MANAGED_LABEL) == endpoints.MANAGER
        ]
        if service is None:
            await self._remove(key, mine)
            return
        if not dig(service, "spec", "selector") or dig(service, "spec", "type") == "ExternalName":
            return
        pods = endpoints.selected(service, self._hub.within("pods", key[0]))
        plan = endpoints.plan_slices(service, pods, sorted(mine, key=lambda s: str(key_of(s))))
        for obj in plan.update:
            await self._hub.update(SLICES, obj)
        for obj in plan.create:
            await self._hub.create(SLICES, obj)
        for obj in plan.delete:
            await self._hub.delete(SLICES, obj)
        await self._endpoints(service, pods)

    async def _remove(self, key: Key, mine: list[Obj]) -> None:
        for obj in mine:
            await self._hub.delete(SLICES, obj)
        old = self._hub.get("endpoints", key)
        if old is not None and endpoints.MANAGED_LABEL in labels_of(old):
            await self._hub.delete("endpoints", old)

    async def _endpoints(self, service: Obj, pods: list[Obj]) -> None:
        key = key_of(service)
        subsets = endpoints.desired_endpoints(service, pods)
        old = self._hub.get("endpoints", key)
        labels = labels_of(service) | {endpoints.MANAGED_LABEL: "endpoints-controller"}
        if old is None:
            m = {"namespace": key[0], "name": key[1], "labels": labels}
            try:
                await self._hub.create("endpoints", {"metadata": m, "subsets": subsets})
            except ApiError as error:
                if not error.already_exists:
                    raise
        elif (old.get("subsets") or []) != subsets or labels_of(old) != labels:
            new = {k: v for k, v in old.items() if k != "subsets"} | {"subsets": subsets}
            new["metadata"] = old["metadata"] | {"labels": labels}
            await self._hub.update("endpoints", new)


def _facts(pod: Obj) -> tuple[object, ...]:
    """What of a pod can change an endpoint."""
    m, status = pod["metadata"], pod.get("status") or {}
    ready = next(
        (c.get("status") for c in status.get("conditions") or [] if c.get("type") == "Ready"), None
    )
    return (
        m.get("labels"),
        m.get("deletionTimestamp") is None,
        status.get("podIP"),
        status.get("podIPs"),
        status.get("phase"),
        ready,
        (pod.get("spec") or {}).get("nodeName"),
    )

"""Brings objects to the body they should have; asks the API server only if they differ. Adapter."""

import logging
from typing import Any

from kube.port import Client, PatchKind, Resource
from kube.resources import untyped
from wire.k8s.meta import K8sObject

log = logging.getLogger("operator.applier")

MANAGER = "isthmus-operator"


class Applier:
    """Remembers what it applied, and the version that made: unless that changed, it stands."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._applied: dict[tuple[str, str, str], tuple[Any, str]] = {}

    async def apply(
        self, resource: Resource[Any], body: dict[str, Any], known: K8sObject | None
    ) -> dict[str, Any] | None:
        """By server-side apply. What became of it; ``None``: it is as we left it."""
        meta = body["metadata"]
        key = (resource.kind, meta["namespace"], meta["name"])
        before = self._applied.get(key)
        if before and known and before == (body, known.metadata.resource_version):
            return None
        made = await self._client.patch(
            untyped(resource),
            meta["name"],
            body,
            meta["namespace"],
            kind=PatchKind.APPLY,
            field_manager=MANAGER,
        )
        self._applied[key] = (body, made["metadata"].get("resourceVersion", ""))
        log.info("event=applied kind=%s name=%s/%s", *key)
        return made

    async def delete(self, resource: Resource[Any], known: K8sObject) -> None:
        """Remove that very object."""
        meta = known.metadata
        self._applied.pop((resource.kind, meta.namespace, meta.name), None)
        await self._client.delete(resource, meta.name, meta.namespace, uid=meta.uid)
        log.info("event=removed kind=%s name=%s/%s", resource.kind, meta.namespace, meta.name)

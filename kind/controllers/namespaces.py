"""Namespaces that end: everything in them goes first. What every new one gets. Adapter."""

from collections.abc import Iterable

from kind.apiserver.objects import Obj, dig
from kind.controllers.hub import Hub, Key, key_of
from kube.port import ApiError

ROOT_CA = "kube-root-ca.crt"


def _ends(namespace: Obj | None) -> bool:
    return namespace is not None and bool(namespace["metadata"].get("deletionTimestamp"))


class NamespaceController:
    """One key per namespace."""

    name = "namespace"

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def keys(self, table: str, old: Obj | None, new: Obj | None) -> Iterable[Key]:
        if table == "namespaces":
            return [key_of(new)] if new is not None and _ends(new) else ()
        if new is None and old is not None:
            key = ("", str(old["metadata"].get("namespace") or ""))
            if key[1] and _ends(self._hub.get("namespaces", key)):
                return [key]
        return ()

    async def reconcile(self, key: Key) -> None:
        namespace = self._hub.get("namespaces", key)
        if namespace is None or not _ends(namespace):
            return
        for table in list(self._hub.tables.values()):
            found = list(table.within(key[1])) if table.resource.namespaced else []
            if any(not o["metadata"].get("deletionTimestamp") for o in found):
                await self._hub.delete_all(table.resource, key[1])
        if any(True for _ in self._remaining(key[1])):
            return  # the end of each object brings us here again
        # Events are in no table: there may be very many, and nothing waits for them.
        await self._hub.delete_path(f"/api/v1/namespaces/{key[1]}/events")
        body = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": key[1]},
            "spec": {"finalizers": []},
        }
        if dig(namespace, "spec", "finalizers"):
            try:
                await self._hub.put("namespaces", key, "finalize", body)
            except ApiError as error:
                if not error.not_found:
                    raise

    def _remaining(self, namespace: str) -> Iterable[Obj]:
        for table in self._hub.tables.values():
            if table.resource.namespaced:
                yield from table.within(namespace)


class AccountController:
    """The ``default`` service account and the cluster's CA in every namespace."""

    name = "serviceaccount"

    def __init__(self, hub: Hub, ca_pem: str) -> None:
        self._hub = hub
        self._ca_pem = ca_pem

    def keys(self, table: str, old: Obj | None, new: Obj | None) -> Iterable[Key]:
        if table == "namespaces" and new is not None:
            return [key_of(new)]
        if (
            new is None
            and old is not None
            and (
                (table == "serviceaccounts" and key_of(old)[1] == "default")
                or (table == "configmaps" and key_of(old)[1] == ROOT_CA)
            )
        ):
            return [("", key_of(old)[0])]
        return ()

    async def reconcile(self, key: Key) -> None:
        namespace = self._hub.get("namespaces", key)
        if namespace is None or _ends(namespace):
            return
        place = {"namespace": key[1]}
        await self._ensure("serviceaccounts", {"metadata": place | {"name": "default"}})
        if self._ca_pem:
            data = {"ca.crt": self._ca_pem}
            await self._ensure("configmaps", {"metadata": place | {"name": ROOT_CA}, "data": data})

    async def _ensure(self, table: str, obj: Obj) -> None:
        if self._hub.get(table, key_of(obj)) is None:
            try:
                await self._hub.create(table, obj)
            except ApiError as error:
                if not error.already_exists and error.status != 403:
                    raise

"""All objects of the cluster as the controllers know them, and their requests. Adapter.

One watch per resource; every change is told to the listeners in the turn of the loop in which it
arrives. What our own requests answer is taken in at once, so a controller never acts twice on a
state that it has already changed.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from kind.apiserver.objects import Obj, meta
from kube.port import ApiError, Client, Resource

log = logging.getLogger(__name__)
Key = tuple[str, str]  # namespace, name
Listener = Callable[[str, Obj | None, Obj | None], None]  # table, old, new
WATCH_S = 300
_RETRY_FIRST_S, _RETRY_LAST_S = 0.05, 2.0
_DEAD = 4096  # far more than can be on the way at one time
_decode = msgspec.json.Decoder(dict).decode


def key_of(obj: Obj) -> Key:
    """Namespace and name."""
    m = obj["metadata"]
    return m.get("namespace", ""), m["name"]


def version_of(obj: Obj) -> int:
    """The resourceVersion as a number: comparable within one cluster (KEP 5504)."""
    return int(obj["metadata"].get("resourceVersion") or 0)


@dataclass(slots=True)
class Table:
    """One resource's objects."""

    resource: Resource[Any]
    whole: bool  # keep everything, or metadata only
    objects: dict[str, dict[str, Obj]] = field(default_factory=dict)  # namespace → name → object
    dead: dict[str, None] = field(default_factory=dict)  # UIDs whose end we know, the last ones
    synced: asyncio.Event = field(default_factory=asyncio.Event)

    def get(self, key: Key) -> Obj | None:
        return self.objects.get(key[0], {}).get(key[1])

    def __iter__(self) -> Iterator[Obj]:
        for names in self.objects.values():
            yield from names.values()

    def within(self, namespace: str) -> Iterator[Obj]:
        """The objects of one namespace."""
        yield from self.objects.get(namespace, {}).values()


def table_name(group: str, plural: str) -> str:
    """``pods``, ``deployments.apps``."""
    return f"{plural}.{group}" if group else plural


class Hub:
    """Tables, listeners, requests."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.tables: dict[str, Table] = {}
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Hear of every change from now on."""
        self._listeners.append(listener)

    def add(self, resource: Resource[Any], *, whole: bool) -> Table:
        """A table to be kept by ``follow``."""
        name = table_name(resource.group, resource.plural)
        found = self.tables.get(name)
        if found is None:
            found = self.tables[name] = Table(resource, whole)
        return found

    def remove(self, name: str) -> None:
        """Forget a resource that is no longer served; its objects count as deleted."""
        table = self.tables.pop(name, None)
        for obj in list(table or ()):
            self._tell(name, obj, None)

    def get(self, table: str, key: Key) -> Obj | None:
        """The last known object."""
        found = self.tables.get(table)
        return found.get(key) if found else None

    def within(self, table: str, namespace: str) -> Iterator[Obj]:
        """The objects of a namespace."""
        return self.tables[table].within(namespace)

    def all(self, table: str) -> Iterator[Obj]:
        """All objects of a table."""
        return iter(self.tables[table])

    # What the server tells.

    async def follow(self, table: Table) -> None:
        """Keep a table as the server has it, until cancelled."""
        revision, delay_s = "", _RETRY_FIRST_S
        resource = table.resource
        while True:
            try:
                if not revision:
                    revision = await self._list(table)
                    table.synced.set()
                query = {
                    "resourceVersion": revision,
                    "allowWatchBookmarks": "true",
                    "timeoutSeconds": str(WATCH_S),
                }
                path = resource.path()
                async for lines in self._client.watch(path, query, WATCH_S + 30):
                    delay_s = _RETRY_FIRST_S
                    for line in lines:
                        revision = self._event(table, line)
            except (OSError, msgspec.MsgspecError) as error:
                if isinstance(error, ApiError):
                    revision = ""
                log.warning("event=watch_broken resource=%s error=%s", resource.plural, error)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _RETRY_LAST_S)

    async def _list(self, table: Table) -> str:
        items, revision = await self._client.list_raw(table.resource)
        listed = [_decode(raw) for raw in items]
        seen = {obj["metadata"]["uid"] for obj in listed}
        for obj in list(table):
            # What we made ourselves after the list was read is not in it.
            if obj["metadata"]["uid"] not in seen and version_of(obj) <= int(revision):
                self._drop(table, obj)
        for obj in listed:
            self._take(table, obj)
        return revision

    def _event(self, table: Table, line: bytes) -> str:
        event = _decode(line)
        obj = event["object"]
        if event["type"] == "ERROR":
            message = str(obj.get("message"))
            raise ApiError("watch", table.resource.plural, int(obj.get("code") or 500), "", message)
        if event["type"] == "DELETED":
            self._drop(table, obj)
        elif event["type"] != "BOOKMARK":
            self._take(table, obj)
        return str(obj["metadata"]["resourceVersion"])

    def _take(self, table: Table, obj: Obj) -> None:
        namespace, name = key_of(obj)
        names = table.objects.setdefault(namespace, {})
        old = names.get(name)
        if old is not None and version_of(old) >= version_of(obj):
            return
        if obj["metadata"]["uid"] in table.dead:
            return  # an answer or an event that was overtaken by the object's end
        if not table.whole:
            obj = {"metadata": obj["metadata"]}
        names[name] = obj
        if old is not None and old["metadata"]["uid"] != obj["metadata"]["uid"]:
            self._tell_of(table, old, None)
            old = None
        self._tell_of(table, old, obj)

    def _drop(self, table: Table, obj: Obj) -> None:
        namespace, name = key_of(obj)
        table.dead[obj["metadata"]["uid"]] = None
        if len(table.dead) > _DEAD:
            del table.dead[next(iter(table.dead))]
        names = table.objects.get(namespace, {})
        old = names.get(name)
        if old is not None and old["metadata"]["uid"] == obj["metadata"]["uid"]:
            del names[name]
            self._tell_of(table, old, None)

    def _tell_of(self, table: Table, old: Obj | None, new: Obj | None) -> None:
        self._tell(table_name(table.resource.group, table.resource.plural), old, new)

    def _tell(self, name: str, old: Obj | None, new: Obj | None) -> None:
        for listener in self._listeners:
            listener(name, old, new)

    # What we ask.

    async def _call(
        self,
        method: str,
        path: str,
        body: object = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Obj:
        raw = await self._client.request(
            method,
            path,
            query=query or {},
            content_type=content_type,
            body=b"" if body is None else msgspec.json.encode(body),
        )
        answer: Obj = _decode(raw)
        return answer

    async def read(self, path: str) -> Obj:
        """A raw request for what has no table: discovery."""
        return await self._call("GET", path)

    async def fetch(self, resource: Resource[Any], key: Key) -> Obj | None:
        """One object as the server has it now; ``None`` when it is gone."""
        try:
            return await self._call("GET", resource.path(*key))
        except ApiError as error:
            if error.not_found:
                return None
            raise

    async def create(self, table: str, obj: Obj) -> Obj:
        """Make an object. Raises ``ApiError``."""
        found = self.tables[table]
        resource = found.resource
        body = {"apiVersion": resource.api_version, "kind": resource.kind} | obj
        made = await self._call("POST", resource.path(meta(obj).get("namespace", "")), body)
        self._take(found, made)
        return made

    async def merge(
        self, table: str, obj: Obj, change: Obj, subresource: str = "", pinned: bool = False
    ) -> Obj:
        """A merge patch; ``pinned``: only if the object is still as we know it."""
        found = self.tables[table]
        if pinned:
            version = obj["metadata"]["resourceVersion"]
            inner = change.get("metadata") or {}
            change = change | {"metadata": inner | {"resourceVersion": version}}
        path = found.resource.path(*key_of(obj), subresource)
        made = await self._call("PATCH", path, change, "application/merge-patch+json")
        self._take(found, made)
        return made

    async def update(self, table: str, obj: Obj) -> Obj:
        """Replace an object, if it is still at its resourceVersion."""
        found = self.tables[table]
        resource = found.resource
        body = {"apiVersion": resource.api_version, "kind": resource.kind} | obj
        made = await self._call("PUT", resource.path(*key_of(obj)), body)
        self._take(found, made)
        return made

    async def post(self, table: str, key: Key, subresource: str, body: Obj) -> Obj:
        """A request to a subresource."""
        path = self.tables[table].resource.path(*key, subresource)
        return await self._call("POST", path, body)

    async def put(self, table: str, key: Key, subresource: str, body: Obj) -> Obj:
        """Replace through a subresource."""
        path = self.tables[table].resource.path(*key, subresource)
        return await self._call("PUT", path, body)

    async def delete(self, table: str, obj: Obj, propagation: str = "Background") -> None:
        """Remove this very object; one that is gone already is no error."""
        found = self.tables[table]
        uid = obj["metadata"]["uid"]
        body = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "propagationPolicy": propagation,
            "preconditions": {"uid": uid},
        }
        try:
            answer = await self._call("DELETE", found.resource.path(*key_of(obj)), body)
        except ApiError as error:
            if error.not_found or error.conflict:
                return
            raise
        if answer.get("kind") == "Status":
            self._drop(found, obj)
        else:
            self._take(found, answer)

    async def delete_all(self, resource: Resource[Any], namespace: str) -> None:
        """Begin to delete everything of a kind in a namespace."""
        await self.delete_path(resource.path(namespace))

    async def delete_path(self, path: str) -> None:
        """Begin to delete everything below a path."""
        await self._call("DELETE", path)

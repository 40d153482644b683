"""Deletes what has lost all its owners; foreground and orphaning deletion. Adapter.

Keys are (table, ``namespace/name``). Before anything is deleted the server itself is asked whether
the owner is really gone: our tables of different kinds need not be at the same revision.
"""

from collections.abc import Iterable

from kind.apiserver.objects import Obj
from kind.controllers.hub import Hub, Key, key_of

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"


def _owners(obj: Obj) -> list[Obj]:
    return obj["metadata"].get("ownerReferences") or []


def _held(obj: Obj) -> bool:
    """Being deleted, and waiting for us."""
    m = obj["metadata"]
    marks = m.get("finalizers") or []
    return bool(m.get("deletionTimestamp")) and (FOREGROUND in marks or ORPHAN in marks)


class GarbageCollector:
    """One key per object that may have to go."""

    name = "garbage"

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._at: dict[str, Key] = {}  # UID → key of the object
        self._dependents: dict[str, dict[str, Key]] = {}  # owner's UID → dependent's UID → key

    def keys(self, table: str, old: Obj | None, new: Obj | None) -> Iterable[Key]:
        obj = new or old
        assert obj is not None
        uid = obj["metadata"]["uid"]
        key = (table, "/".join(key_of(obj)))
        for ref in _owners(old) if old is not None else ():
            self._dependents.get(ref["uid"], {}).pop(uid, None)
        if new is None:
            self._at.pop(uid, None)
            out = list(self._dependents.pop(uid, {}).values())
            return out + [self._at[r["uid"]] for r in _owners(obj) if self._waits(r["uid"])]
        self._at[uid] = key
        for ref in _owners(new):
            self._dependents.setdefault(ref["uid"], {})[uid] = key
        unsure = any(r["uid"] not in self._at or self._waits(r["uid"]) for r in _owners(new))
        return [key] if unsure or _held(new) else ()

    def _object(self, key: Key) -> Obj | None:
        namespace, _, name = key[1].partition("/")
        return self._hub.get(key[0], (namespace, name))

    def _waits(self, uid: str) -> bool:
        found = self._object(self._at[uid]) if uid in self._at else None
        return found is not None and _held(found)

    async def reconcile(self, key: Key) -> None:
        obj = self._object(key)
        if obj is None:
            return
        if _held(obj):
            await self._finish(key[0], obj)
            return
        if obj["metadata"].get("deletionTimestamp") or not _owners(obj):
            return
        for ref in _owners(obj):
            if not await self._is_gone(obj, ref):
                return
        await self._hub.delete(key[0], obj)

    async def _is_gone(self, obj: Obj, ref: Obj) -> bool:
        if ref["uid"] in self._at:
            owner = self._object(self._at[ref["uid"]])
            if owner is not None:
                return _held(owner) and FOREGROUND in owner["metadata"]["finalizers"]
        group = ref["apiVersion"].rpartition("/")[0]
        table = next(
            (
                t
                for t in self._hub.tables.values()
                if (t.resource.group, t.resource.kind) == (group, ref["kind"])
            ),
            None,
        )
        if table is None:
            return False  # of a kind we cannot see: not ours to judge
        namespace = obj["metadata"].get("namespace", "") if table.resource.namespaced else ""
        owner = await self._hub.fetch(table.resource, (namespace, ref["name"]))
        return owner is None or owner["metadata"]["uid"] != ref["uid"]

    async def _finish(self, table: str, obj: Obj) -> None:
        """Let an object go for which dependents must go (or be let go) first."""
        marks = obj["metadata"]["finalizers"]
        uid = obj["metadata"]["uid"]
        for key in list(self._dependents.get(uid, {}).values()):
            dependent = self._object(key)
            if dependent is None:
                continue
            if ORPHAN in marks:
                refs = [r for r in _owners(dependent) if r["uid"] != uid]
                change = {"metadata": {"ownerReferences": refs or None}}
                await self._hub.merge(key[0], dependent, change)
            elif not dependent["metadata"].get("deletionTimestamp"):
                await self._hub.delete(key[0], dependent, "Foreground")
        if FOREGROUND in marks and self._dependents.get(uid):
            return  # the end of the last dependent brings us here again
        left = [m for m in marks if m not in (FOREGROUND, ORPHAN)]
        await self._hub.merge(table, obj, {"metadata": {"finalizers": left or None}}, pinned=True)

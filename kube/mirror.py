"""The objects of one kind as the API server last told them. Pure: lists and watch lines come in,
changes come out.

What vanished while nobody watched comes out as a deletion after the next list. An object that does
not decode is rejected alone and counted, and its last good version stays. An object that was
deleted and made again under its name comes out as both, never as a change of the old one.
"""

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeAlias, TypeVar

import msgspec

from wire.k8s.meta import K8sObject, ObjectMeta, Status

T = TypeVar("T", bound=K8sObject)

Key: TypeAlias = tuple[str, str]


class Change(NamedTuple, Generic[T]):
    """What happened to one object: ``old`` is ``None`` when it is new, ``new`` when it is gone."""

    old: T | None
    new: T | None


class ExpiredError(Exception):
    """The server no longer knows our revision: list again."""


class WatchError(OSError):
    """The server ended a watch with an error of its own."""


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Named(msgspec.Struct):
    metadata: ObjectMeta = ObjectMeta()


class Mirror(Generic[T]):
    """One kind's objects by (namespace, name)."""

    def __init__(self, type_: type[T], kind: str) -> None:
        self._kind = kind
        self._event = msgspec.json.Decoder(_Event)
        self._named = msgspec.json.Decoder(_Named)
        self._object = msgspec.json.Decoder(type_)
        self.store: dict[Key, T] = {}
        self.revision = ""  # empty: list first
        self.rejected = 0
        self.bad: dict[Key, str] = {}  # what is wrong now, by object

    def replace(self, items: Sequence[msgspec.Raw], revision: str) -> list[Change[T]]:
        """Take a whole list. Deletions come first: they free what newcomers may ask for."""
        seen: set[Key] = set()
        changes: list[Change[T]] = []
        for raw in items:
            meta = self._meta(raw)
            if meta is None:
                continue
            seen.add(meta.key)
            changes += self._upsert(meta, raw)
        for key in self.bad.keys() - seen:
            del self.bad[key]
        gone = [Change(self.store.pop(key), None) for key in self.store.keys() - seen]
        self.revision = revision
        return [*gone, *changes]

    def apply(self, line: bytes) -> list[Change[T]]:
        """Take one line of a watch.

        Raises ``ExpiredError`` when the revision is gone, ``WatchError`` for another error of the
        server or a line that is no event.
        """
        try:
            event = self._event.decode(line)
        except msgspec.MsgspecError as error:
            raise WatchError(f"watch {self._kind}: no watch event: {error}") from error
        if event.type == "ERROR":
            self._fail(event.object)
        meta = self._meta(event.object)
        if meta is None:
            return []
        changes: list[Change[T]] = []
        if event.type == "DELETED":
            self.bad.pop(meta.key, None)
            old = self.store.pop(meta.key, None)
            changes = [Change(old, None)] if old is not None else []
        elif event.type in ("ADDED", "MODIFIED"):
            changes = self._upsert(meta, event.object)
        # A bookmark carries nothing but the revision.
        self.revision = meta.resource_version or self.revision
        return changes

    def _fail(self, raw: msgspec.Raw) -> None:
        status = msgspec.json.decode(raw, type=Status)
        if status.code == 410:
            self.revision = ""
            raise ExpiredError(status.message)
        raise WatchError(f"watch {self._kind}: {status.message or status.reason} ({status.code})")

    def _meta(self, raw: msgspec.Raw) -> ObjectMeta | None:
        try:
            return self._named.decode(raw).metadata
        except msgspec.MsgspecError as error:
            self.rejected += 1
            self.bad["", "(unreadable metadata)"] = str(error)
            return None

    def _upsert(self, meta: ObjectMeta, raw: msgspec.Raw) -> list[Change[T]]:
        key = meta.key
        old = self.store.get(key)
        if old is not None and old.metadata.uid != meta.uid:
            del self.store[key]
            return [Change(old, None), *self._upsert(meta, raw)]
        if old is not None and old.metadata.resource_version == meta.resource_version:
            return []
        try:
            new = self._object.decode(raw)
        except msgspec.MsgspecError as error:
            self.rejected += 1
            self.bad[key] = str(error)
            return []
        self.bad.pop(key, None)
        self.store[key] = new
        return [Change(old, new)]

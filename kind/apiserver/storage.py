"""Objects in etcd: conditional writes, and the one watch that feeds the cache. Adapter.

Key: ``/registry/<group or core>/<plural>/[<namespace>/]<name>``; value: the object's JSON without
resourceVersion, which is the key's mod revision (ADR 0060). A single watch over all of
``/registry/`` keeps every table at one common revision.
"""

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec

from kind.apiserver.cache import Cache, Event, Item
from kind.apiserver.errors import expired
from kind.apiserver.objects import Obj, meta
from kvstore.port import (
    Batch,
    CompactedError,
    Compare,
    Delete,
    DeleteOp,
    Field,
    GetOp,
    KeyValue,
    Op,
    PutOp,
    Store,
)

log = logging.getLogger(__name__)
PREFIX = "/registry/"
EVENTS = "core/events"
EVENT_TTL_S = 3600
_RETRY_S = 0.2
_LEASE_SHARED_S = 60.0
_LEASE_KEYS = 1000  # etcd slows down with more keys on one lease
_encode = msgspec.json.Encoder().encode


class StaleError(Exception):
    """The object changed (or came, or went) between reading and writing."""


class Storage:
    """Writes go to etcd and return when the cache has seen them."""

    def __init__(self, store: Store, on_event: Callable[[str, Event], None]) -> None:
        self.cache = Cache()
        self._store = store
        self._on_event = on_event
        self._lease, self._lease_until, self._lease_keys = 0, 0.0, 0

    async def write(self, table: str, name: str, obj: Obj, expected: int) -> Item:
        """Create (``expected`` 0) or replace. Raises ``StaleError``."""
        stored = obj | {"metadata": {k: v for k, v in meta(obj).items() if k != "resourceVersion"}}
        key = _key(table, name)
        lease = await self._event_lease() if table == EVENTS else 0
        revision = await self._commit(key, PutOp(key, _encode(stored), lease), expected)
        return Item(stored, revision)

    async def erase(self, table: str, name: str, expected: int) -> int:
        """Delete. Raises ``StaleError``."""
        key = _key(table, name)
        return await self._commit(key, DeleteOp(key), expected)

    async def _event_lease(self) -> int:
        """Events go away by themselves; a lease is shared by those of one minute."""
        now = time.monotonic()
        if now >= self._lease_until or self._lease_keys >= _LEASE_KEYS:
            self._lease = await self._store.grant(EVENT_TTL_S)
            self._lease_until, self._lease_keys = now + _LEASE_SHARED_S, 0
        self._lease_keys += 1
        return self._lease

    async def _commit(self, key: str, op: Op, expected: int) -> int:
        """Returns when the cache has seen the result, also when somebody else was faster."""
        unchanged = Compare(key, Field.MOD_REVISION, expected)
        result = await self._store.txn([op], compare=[unchanged], otherwise=[GetOp(key)])
        if not result.succeeded:
            found = result.reads[0]
            await self.cache.wait_for(found.mod_revision if found else result.revision)
            raise StaleError
        await self.cache.wait_for(result.revision)
        return result.revision

    async def rows_at(self, table: str, revision: int) -> list[tuple[str, Item]]:
        """The objects of a table as of a past revision. Raises ``ApiError`` 410."""
        prefix = _key(table, "")
        try:
            found = await self._store.range(prefix, revision=revision)
        except CompactedError as e:
            raise expired(revision, e.compact_revision) from None
        decoded = [(r.key.removeprefix(prefix), self._decode(r)) for r in found.rows]
        return [(name, item) for name, item in decoded if item is not None]

    async def constant(self, name: str, make: Callable[[], bytes]) -> bytes:
        """A value made once and kept for good, outside the objects. Only before ``load``."""
        key = f"/isthmus-apiserver/{name}"
        absent = Compare(key, Field.MOD_REVISION, 0)
        await self._store.txn([PutOp(key, make())], compare=[absent])
        row = await self._store.get(key)
        assert row is not None
        return row.value

    async def load(self) -> None:
        """Fill the cache with what is stored."""
        found = await self._store.range(PREFIX)
        loaded = []
        for row in found.rows:
            table, name = _place(row.key)
            item = self._decode(row)
            if item is not None:
                loaded.append((table, name, item))
        self.cache.load(loaded, found.revision)
        for table, _, item in loaded:
            self._on_event(table, Event(item.revision, item, None))

    def _decode(self, row: KeyValue) -> Item | None:
        try:
            return Item.decode(row.value, row.mod_revision)
        except (msgspec.DecodeError, KeyError, TypeError) as e:
            log.error(
                "event=bad_object key=%s error=%s remedy=delete the key with etcdctl", row.key, e
            )
            return None

    async def follow(self) -> None:
        """Apply the store's events to the cache, for ever."""
        while True:
            try:
                async for batch in self._store.watch(PREFIX, self.cache.revision + 1):
                    self._apply(batch)
            except CompactedError as e:
                log.warning("event=relist reason=compacted revision=%d", e.compact_revision)
                await self._reload()
            except OSError as e:
                log.warning("event=watch_broken error=%s", e)
                await asyncio.sleep(_RETRY_S)

    async def _reload(self) -> None:
        try:
            await self.load()
        except OSError as e:
            log.warning("event=relist_failed error=%s", e)
            await asyncio.sleep(_RETRY_S)

    def _apply(self, batch: Batch) -> None:
        """``batch.revision`` is not used: it may be ahead of events that are still to come."""
        revision = 0
        for change in batch.events:
            if isinstance(change, Delete):
                key, item, revision = change.key, None, change.revision
            else:
                key, revision = change.row.key, change.row.mod_revision
                item = self._decode(change.row)
            table, name = _place(key)
            event = self.cache.apply(table, name, item, revision)
            if event is not None:
                self._on_event(table, event)
        self.cache.advance(revision)

    async def compact_every(self, period_s: float) -> None:
        """Let etcd forget what is older than one period."""
        while True:
            before = self.cache.revision
            await asyncio.sleep(period_s)
            try:
                await self._store.compact(before)
            except OSError as e:
                log.warning("event=compact_failed error=%s", e)


def _key(table: str, name: str) -> str:
    return f"{PREFIX}{table}/{name}"


def _place(key: str) -> tuple[str, str]:
    group, plural, name = key.removeprefix(PREFIX).split("/", 2)
    return f"{group}/{plural}", name

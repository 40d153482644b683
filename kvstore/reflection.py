"""One remote cluster, copied into our own store for our agents. Adapter over the port.

The remote's rows come as bytes and go as bytes. A copy is announced only when it is complete; while
the remote is cut off it stays as it was, and the row beside the canaries tells since when.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from kvstore.bulk import BulkStore
from kvstore.connection import Happening
from kvstore.mirrored import LEASE_TTL_S, Copy, CopyLostError, Wanted
from kvstore.port import CompactedError, StoreError
from kvstore.session import Session
from model.cluster import Capabilities, ClusterConfig, ClusterName, SliceExport
from reconcile.tasks import TaskGroup
from wire.etcd import cluster_config_v1, freshness_v1, keys
from wire.etcd.errors import RemoteWireError
from wire.etcd.freshness_v1 import Freshness

log = logging.getLogger(__name__)

RETRY_FIRST_S, RETRY_CAP_S = 0.2, 5.0  # of our own store
COMPARE_S = 600.0  # between two compares of a copy with its source
PENDING_ROWS = 20_000  # a source that changes faster than we write waits from here on
BURST_MESSAGES, BURST_S = 200, 0.1  # faster than this a backlog is awaited instead
PAUSE_S = 0.1
GRACE_S = 180.0  # agents let go of a removed cluster before its rows vanish under them
REMOVAL_RETRIES_S = (2.0, 4.0, 8.0, 16.0, 32.0)

Connect = Callable[[], Awaitable[BulkStore]]
Take = Callable[[Sequence[tuple[bytes, bytes | None]]], Awaitable[None]]


@dataclass(slots=True)
class CopyStatus:
    """What is known of the copy, for people."""

    connected: bool = False  # to our own store
    error: str = ""
    writes: int = 0
    heard: str = ""  # RFC 3339: when the remote was last heard of; empty: never
    refused: int = 0
    errors: int = 0  # our own store was lost
    queued: dict[str, int] = field(default_factory=dict)  # changes not written yet, by type


class Reflection:
    """Keeps the copy while ``run`` lives; ``remove`` takes it away."""

    def __init__(
        self,
        name: ClusterName,
        remote: Connect,
        local: Connect,
        lease_ttl_s: int = LEASE_TTL_S,
        compare_s: float = COMPARE_S,
    ) -> None:
        self.copy_status = CopyStatus()
        self.source = _Source(name, remote, self.copy_status, compare_s)
        self._name = name
        self._local = local
        self._lease_ttl_s = lease_ttl_s

    async def run(self) -> None:
        """Until cancelled. A lost store of ours is connected again and compared as a whole."""
        delay = RETRY_FIRST_S
        while True:
            try:
                store = await self._local()
                try:
                    copy = Copy(store, self._lease_ttl_s)
                    # The leases of what is there are ours to keep from now on.
                    await copy.row(keys.cluster_config(self._name))
                    for prefix in removal_prefixes(self._name):
                        await copy.listed(prefix)
                    self.copy_status.connected, self.copy_status.error = True, ""
                    delay = RETRY_FIRST_S
                    await self._serve(copy)
                finally:
                    self.copy_status.connected = False
                    await store.close()
            except* (StoreError, CopyLostError) as group:
                error = _first(group)
                self.copy_status.errors += 1
                self.copy_status.error = f"our own store: {error}"
                self.source.status.message = self.copy_status.error
                log.warning('event=copy_lost cluster=%s error="%s"', self._name, error)
            self.source.disconnected()
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_CAP_S)

    async def _serve(self, copy: Copy) -> None:
        async with TaskGroup() as tasks:
            self.source.copy, self.source.wanted = copy, Wanted()
            tasks.create_task(copy.keep())
            tasks.create_task(copy.guard(keys.cluster_config(self._name), self.source.wanted))
            tasks.create_task(self.source.run())

    async def remove(self, grace_s: float = GRACE_S) -> None:
        """Take the copy away: the announcement at once, the rows when agents have let go."""
        await self._retried([keys.cluster_config(self._name)], exact=True)
        await asyncio.sleep(grace_s)
        await self._retried(removal_prefixes(self._name), exact=False)
        log.info("event=copy_removed cluster=%s", self._name)

    async def _retried(self, where: Sequence[str], exact: bool) -> None:
        for delay in (*REMOVAL_RETRIES_S, None):
            try:
                store = await self._local()
                try:
                    for key in where:
                        await store.delete(key, prefix=not exact)
                    return
                finally:
                    await store.close()
            except StoreError as error:
                log.warning('event=removal_failed cluster=%s error="%s"', self._name, error)
            if delay is None:
                return  # its leases run out: nobody keeps them
            await asyncio.sleep(delay)


class _Source(Session[BulkStore]):
    """The remote side: what it says goes into the copy."""

    def __init__(
        self, name: ClusterName, connect: Connect, copy_status: CopyStatus, compare_s: float
    ) -> None:
        super().__init__(name, connect, keys.REQUIRED)
        self._compare_s = compare_s
        self.copy: Copy  # set anew for every connection to our own store
        self.wanted = Wanted()
        self._told: CopyStatus = copy_status

    def _begin(self) -> None:
        self._resources = keys.REQUIRED

    async def _believe(self, config: ClusterConfig) -> None:
        capabilities = replace(config.capabilities, synced_canaries=True, cached=True)
        value = cluster_config_v1.encode(replace(config, capabilities=capabilities))
        key = keys.cluster_config(self._name)
        before = await self.copy.row(key)
        if before is not None and _number(before, key) != config.id:
            log.warning("event=remote_id_changed cluster=%s id=%d", self._name, config.id)
            for prefix in removal_prefixes(self._name):
                await self.copy.remove(prefix)
        if before != value:
            await self.copy.write({key.encode(): value})
        self.wanted.value = value
        self._resources = published(config.capabilities)
        for resource in set(keys.KNOWN) - set(self._resources):
            await self.copy.remove(keys.resource_prefix(resource, self._name, cached=True))
            if resource in keys.RESOURCES:
                await self._canary(resource)  # readers wait to hear that there are none
            else:
                await self.copy.remove(keys.canary(self._name, resource, cached=True))
        await self._beat()

    async def _beat(self) -> None:
        self._told.heard = _wall()
        if self.status.ready:  # before that the copy is what it was
            await self._tell(Freshness(self._told.heard, True))

    async def _lost(self, error: BaseException) -> None:
        # Every attempt says so again: agents must tell a cluster that is cut off from a mirror
        # that is dead.
        if not self._told.heard:
            self._told.heard = await self._heard_before()
        await self._tell(Freshness(self._told.heard, False, str(error)))

    async def _heard_before(self) -> str:
        """What an earlier run wrote of its time is still right."""
        key = keys.freshness(self._name)
        before = await self.copy.row(key)
        try:
            return freshness_v1.decode(before, key).heard if before else ""
        except RemoteWireError:
            return ""

    async def _revoke(self) -> None:
        """The backends go out of the copy; the next listing brings them back."""
        for resource in (keys.SERVICES, keys.ENDPOINT_SLICES):
            await self.copy.remove(keys.resource_prefix(resource, self._name, cached=True))

    async def _tell(self, freshness: Freshness) -> None:
        key = keys.freshness(self._name).encode()
        await self.copy.write({key: freshness_v1.encode(freshness)})

    async def _canary(self, resource: str) -> None:
        key = keys.canary(self._name, resource, cached=True).encode()
        await self.copy.write({key: _wall().encode()})

    async def _follow(self, store: BulkStore, resource: str, cached: bool) -> None:
        source = keys.resource_prefix(resource, self._name, cached)
        target = keys.resource_prefix(resource, self._name, cached=True)
        while True:
            revision = await self._list(store, resource, source, target)
            await self._canary(resource)
            self._synced(resource)
            if self.status.ready:
                await self._beat()
            again = self._compare_s * self._random.uniform(0.75, 1.25) or None
            try:
                async with asyncio.timeout(again):
                    await self._events(store, resource, source, target, revision)
            except TimeoutError:  # a watch is fallible: source and copy are compared
                self.status.compares += 1
                continue
            self._move(Happening.COMPACTED)
            log.info("event=relist cluster=%s resource=%s", self._name, resource)

    async def _list(self, store: BulkStore, resource: str, source: str, target: str) -> int:
        """Bring the copy to the state of the source; its revision."""
        before = await self.copy.listed(target)
        head, cut, revision, count = target.encode(), len(source.encode()), 0, 0
        writes, again = self._told.writes, resource in self.status.synced
        # Of two pages one is written while the next is read, and never more are held.
        pages: asyncio.Queue[dict[bytes, bytes | None] | None] = asyncio.Queue(1)

        async def write() -> None:
            while (page := await pages.get()) is not None:
                await self._write(page)

        async with TaskGroup() as tasks:
            tasks.create_task(write())
            async for at, rows in store.pages(source):
                revision = at
                page: dict[bytes, bytes | None] = {}
                for row in rows:
                    key, value = head + row.key[cut:], row.value
                    if before.pop(key, None) != value:
                        page[key] = value
                count += len(rows)
                await pages.put(page)
            await pages.put(None)
        await self._write(dict.fromkeys(before))
        self.status.counts[resource] = count
        if again:
            self.status.repaired += self._told.writes - writes
        return revision

    async def _events(
        self, store: BulkStore, resource: str, source: str, target: str, revision: int
    ) -> None:
        """Copy changes, of each key the latest, until the source has forgotten where we were."""
        head, cut = target.encode(), len(source.encode())
        pending: dict[bytes, bytes | None] = {}
        some, room = asyncio.Event(), asyncio.Event()
        compacted = False

        async def take(events: Sequence[tuple[bytes, bytes | None]]) -> None:
            for key, value in events:
                pending[head + key[cut:]] = value
            self._told.queued[resource] = len(pending)
            some.set()
            if len(pending) > PENDING_ROWS:
                room.clear()
                await room.wait()

        async def read() -> None:
            nonlocal compacted
            at = revision
            try:
                while True:
                    at = await self._read(store, source, at, take)
                    await asyncio.sleep(PAUSE_S)
            except CompactedError:
                compacted = True
                some.set()

        async with TaskGroup() as tasks:
            tasks.create_task(read())
            while pending or not compacted:
                await some.wait()
                some.clear()
                rows, pending = pending, {}
                room.set()
                await self._write(rows)
                self._told.queued[resource] = len(pending)

    async def _read(self, store: BulkStore, source: str, at: int, take: Take) -> int:
        """Watch until the changes come so fast one by one that a backlog is cheaper to read.

        A store sends a watcher that is up to date a message per revision, but a late one its
        backlog a thousand revisions at a time. Returns the last revision taken.
        """
        messages, since = 0, asyncio.get_running_loop().time()
        async with aclosing(store.raw_watch(source, at + 1)) as changes:
            async for at, events in changes:
                await take(events)
                messages += 1
                if messages == BURST_MESSAGES:
                    now = asyncio.get_running_loop().time()
                    if now - since < BURST_S:
                        return at
                    messages, since = 0, now
        return at

    async def _write(self, rows: dict[bytes, bytes | None]) -> None:
        if rows:
            await self.copy.write(rows)
            self._told.writes += len(rows)
            self._told.refused = len(self.copy.refused)


def published(said: Capabilities) -> tuple[str, ...]:
    """The types that a cluster of these capabilities writes."""
    absent = {
        keys.SERVICES: said.slices is SliceExport.ONLY,
        keys.SERVICE_EXPORTS: said.service_exports is None,  # too old to know them
        keys.ENDPOINT_SLICES: said.slices is SliceExport.NONE,
    }
    return tuple(r for r in keys.KNOWN if not absent.get(r))


def removal_prefixes(cluster: str) -> tuple[str, ...]:
    """What is deleted of a copy: first the word that it is complete."""
    return (
        keys.canary_prefix(cluster),
        *(keys.resource_prefix(r, cluster, cached=True) for r in keys.KNOWN),
    )


def _number(data: bytes, where: str) -> int:
    try:
        return cluster_config_v1.decode(data, where).id
    except RemoteWireError:
        return 0


def _wall() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group

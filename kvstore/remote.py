"""One remote cluster, decoded and believed as far as it may be believed. Adapter.

What was learnt stays when the connection is lost; after a new listing, and only then, what has
vanished is taken away. A record that breaks a rule is rejected alone, counted, and shown; the last
good value of its key stays.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Protocol

from kvstore import compare
from kvstore.allowance import Limits, Pace, Purse
from kvstore.connection import Action, Happening
from kvstore.decoding import Change, Decoding
from kvstore.duties import Duties
from kvstore.late import PART_ROWS, Late
from kvstore.mirror import Heard, Mirror, Told
from kvstore.port import Batch, CompactedError, KeyValue, Put, UnavailableError
from kvstore.session import AnewError, RemoteStore, Session, now
from kvstore.turns import Turns
from model.cluster import (
    Capabilities,
    ClusterConfig,
    ClusterName,
    identity_range,
)
from wire.etcd import freshness_v1, keys

log = logging.getLogger(__name__)

PAGE_ROWS = 5_000  # of a listing, held at once
COPY_TIMEOUT_S = 240.0  # KVStoreMesh speaks at least every two minutes
BACKENDS = (keys.SERVICES, keys.ENDPOINT_SLICES)  # what new connections are sent to
READ_ROWS_PER_S = 20_000  # of a watch whose events come faster than they may be taken over


class Sink(Protocol):
    """Who learns from remote clusters. Calls come from the event loop and must not block."""

    def on_changes(self, cluster: ClusterName, resource: str, changes: Sequence[Change]) -> None:
        """Rows of one type (``wire.etcd.keys``) changed, or are gone (``None``), in this order."""
        ...

    def on_synced(self, cluster: ClusterName, resource: str) -> None:
        """A full listing of this type has been handed over; again after each new connection."""
        ...

    def on_removed(self, cluster: ClusterName) -> None:
        """Forget everything this cluster said."""
        ...

    def on_revoked(self, cluster: ClusterName) -> None:
        """Its services have been taken back as too old; so is what a former life left of them."""
        ...


class Remote(Session[RemoteStore]):
    """One remote cluster, decoded and believed as far as it may be believed."""

    def __init__(
        self,
        name: ClusterName,
        connect: Callable[[], Awaitable[RemoteStore]],
        sink: Sink,
        accept: Callable[[ClusterName, ClusterConfig], None],
        randomness: random.Random | None = None,
        limits: Limits | None = None,
        wanted: Callable[[Capabilities], tuple[str, ...]] = lambda _: keys.REQUIRED,
        turns: Turns | None = None,
        node_labels: bool = True,
    ) -> None:
        """``accept`` raises ``ValueError`` with a sentence when the announcement is unusable;
        ``wanted`` says which types are read of a cluster that can do such things; without
        ``node_labels`` those of nodes are left out."""
        super().__init__(name, connect, randomness=randomness)
        self._wanted = wanted
        self._turns = turns or Turns()
        self._limits = limits or Limits()
        self._decoding = Decoding(name, Purse(self._limits), node_labels)
        self._pace = Pace(self._limits.rows_per_s, self._limits.burst_rows)
        self._full: dict[str, int] = {}  # keys there was no room for, by type
        self._late = Late(self._pace, now, self._hand_over, partial(setattr, self.status, "late"))
        self._duties: Duties  # of the connection that stands
        self._sink = sink
        self._accept = accept
        self._mirrors = {r: Mirror() for r in keys.KNOWN}
        self._heard_s: float | None = None  # when the copy was last followed, of the loop's clock
        self._pulse_s = 0.0  # when the copy's writer spoke last
        self._copy_silent = False

    def drain(self) -> None:
        """Take back everything learnt from this cluster."""
        for mirror in self._mirrors.values():
            mirror.snapshot((), 0)
        self._decoding.forget(Purse(self._limits))
        self._full.clear()
        self._late.drop()
        self._sink.on_removed(self._name)

    def _begin(self) -> None:
        # An etcd restored from a backup, or made anew with an old identity, counts from an earlier
        # revision: across connections only the rows themselves can be compared, by who gets them.
        for mirror in self._mirrors.values():
            mirror.forget_revisions()
        self.status.freshness = None

    def _noted(self, key: str, value: bytes) -> None:
        config = self.status.config
        if not config or not config.capabilities.cached or key != keys.freshness(self._name):
            return
        withheld = self._withheld()
        try:
            found = freshness_v1.decode(value, key)
            heard = datetime.fromisoformat(found.heard).timestamp() if found.heard else None
        except ValueError as error:
            log.warning('event=rejected cluster=%s why="%s"', self._name, error)
            return
        self.status.freshness = found
        self._heard_s = None if heard is None else now() - max(0.0, time.time() - heard)
        self._pulse_s = now()
        self._judge_soon()
        if withheld and not self._withheld():
            self._move(Happening.RETURNED)
            raise AnewError("the copy follows its cluster again: read as a whole")

    def _cached(self) -> bool:
        return bool(self.status.config and self.status.config.capabilities.cached)

    def _fresh(self) -> tuple[bool, float | None]:
        copy = self.status.freshness
        if copy is None or not self._cached():
            return self.status.ready, None
        return self.status.ready and copy.connected, self._heard_s

    def _withheld(self) -> bool:
        """We read a copy whose cluster has been cut off from it for too long."""
        copy = self.status.freshness
        return bool(self.status.age.revoked and self._cached() and copy and not copy.connected)

    async def _revoke(self) -> None:
        self._late.drop(BACKENDS)
        for resource in BACKENDS:
            gone = self._mirrors[resource].snapshot((), 0)
            for first in range(0, len(gone), PART_ROWS):
                part = gone[first : first + PART_ROWS]
                self._hand_over(resource, self._mirrors[resource].prefix, part)
                await asyncio.sleep(0)
        self._sink.on_revoked(self._name)

    async def _admit(self, store: RemoteStore, cached: bool) -> None:
        """After a silence of the copy's writer its rows run out, which must not look like news."""
        if not cached or not self._copy_silent:
            return
        self.status.message = f"{store.endpoint}: waiting for a word of KVStoreMesh"
        key = keys.freshness(self._name)
        revision = (await store.range(key, limit=1)).revision
        async for batch in store.watch(key, revision + 1, exact=True):
            if any(isinstance(event, Put) for event in batch.events):
                break
        self._copy_silent = False

    async def _guard_copy(self, store: RemoteStore) -> None:
        """A copy whose writer is gone is not followed into its end."""
        silent_s = now() - self._pulse_s
        if self._cached() and self.status.freshness and silent_s >= COPY_TIMEOUT_S:
            self._copy_silent = True
            self._count_loss()
            self._move(Happening.SILENCE)
            raise UnavailableError(
                f"{store.endpoint}: no word of KVStoreMesh for {COPY_TIMEOUT_S:.0f} s: its "
                f"copy of {self._name} is not believed: look at the container kvstoremesh"
            )
        # What is no copy, or whose writer tells no age, is looked at again from time to time.
        left_s = self._pulse_s + COPY_TIMEOUT_S - now()
        delay_s = left_s if left_s > 0 else COPY_TIMEOUT_S / 4
        self._duties.later("guard", delay_s, partial(self._guard_copy, store))

    async def _believe(self, config: ClusterConfig) -> None:
        known = self._decoding.id
        if known is not None and known != config.id:
            log.warning("event=remote_id_changed cluster=%s id=%d", self._name, config.id)
            if self._move(Happening.NUMBER_CHANGED) is Action.WITHDRAW:
                self.drain()
            self._decoding.id = None
        self._accept(self._name, config)
        most = config.capabilities.max_connected_clusters
        self._decoding.believe(config.id, identity_range(config.id, most))
        self._resources = self._wanted(config.capabilities)

    async def _follow(self, store: RemoteStore, resource: str, cached: bool) -> None:
        prefix = keys.resource_prefix(resource, self._name, cached)
        mirror = self._mirrors[resource]
        # The same rows may lie elsewhere than last time: a mirror in between came or went.
        mirror.move(prefix)
        status = self.status
        within = keys.CACHE_PREFIX if cached else ""
        while True:
            again_s = now() + self._limits.relist_gap_s
            try:
                heard = Heard(await self._list(store, resource, prefix))
                self._synced(resource)
                watch = store.watch(
                    prefix,
                    heard.revision + 1,
                    within=within,
                    take=partial(self._take_at_once, resource, prefix, heard),
                )
                async for batch in watch:
                    if not heard.hear(batch):
                        # What is told twice or out of order may hide what is not told at all.
                        log.warning("event=disorder cluster=%s type=%s", self._name, resource)
                        status.disorders += 1
                        self._move(Happening.DISORDER)
                        break
                    told = self._news(resource, batch)
                    if told:
                        await self._tell(resource, prefix, told)
                    if self._full.get(resource) and self._has_room(resource):
                        log.info("event=room cluster=%s resource=%s", self._name, resource)
                        self._move(Happening.ROOM)
                        break
            except CompactedError:
                self._move(Happening.COMPACTED)
                log.info("event=relist cluster=%s resource=%s", self._name, resource)
            await asyncio.sleep(max(0.0, again_s - now()))

    def _take_at_once(self, resource: str, prefix: str, heard: Heard, batch: Batch) -> bool:
        """What a watch tells, unless there is more to it than handing it over."""
        if self._late or self._full.get(resource):
            return False
        if not self._pace.take(len(batch.events), now()) or not heard.hear(batch):
            return False
        told = self._news(resource, batch)
        if told:
            self._hand_over(resource, prefix, told)
        return True

    def _news(self, resource: str, batch: Batch) -> list[Told]:
        mirror, events = self._mirrors[resource], batch.events
        if len(mirror) + len(events) <= self._limits.rows[resource]:
            return mirror.events(events)
        return [
            change
            for event in events
            if (not isinstance(event, Put) or self._admits(resource, event.key))
            and (change := mirror.event(event)) is not None
        ]

    async def _list(self, store: RemoteStore, resource: str, prefix: str) -> int:
        """Take a full listing, page by page; the revision it stands for."""
        mirror = self._mirrors[resource]
        mirror.begin_listing()
        self._full.pop(resource, None)
        revision, start = 0, ""
        while True:
            refused = self._full.get(resource, 0)
            async with self._turns.one():
                page = await store.range(prefix, limit=PAGE_ROWS, revision=revision, start=start)
                revision = revision or page.revision
                for first in range(0, len(page.rows), PART_ROWS):
                    rows = page.rows[first : first + PART_ROWS]
                    self._take_over(resource, prefix, self._listed(resource, rows))
                    await asyncio.sleep(0)
            if not page.more:
                break
            if self._full.get(resource, 0) > refused:
                await asyncio.sleep(len(page.rows) / READ_ROWS_PER_S)
            start = page.rows[-1].key + "\0"
        self._take_over(resource, prefix, mirror.end_listing(revision))
        return revision

    def _listed(self, resource: str, rows: Sequence[KeyValue]) -> list[Told]:
        """What a part of a listing has of news, as far as there is room."""
        mirror = self._mirrors[resource]
        if len(mirror) + len(rows) <= self._limits.rows[resource]:
            return mirror.listed(rows)
        return [
            change
            for row in rows
            if self._admits(resource, row.key)
            for change in mirror.listed((row,))
        ]

    def _admits(self, resource: str, key: str) -> bool:
        """Whether a key is known, or there is room for one more."""
        mirror, most = self._mirrors[resource], self._limits.rows[resource]
        if len(mirror) < most or key in mirror:
            return True
        self._full[resource] = self._full.get(resource, 0) + 1
        self._reject(resource, f"{key}: no room: this cluster has more than {most} {resource}")
        return False

    def _has_room(self, resource: str) -> bool:
        """A tenth is free, so that a full listing is worth its price."""
        most = self._limits.rows[resource]
        return len(self._mirrors[resource]) <= most - max(1, most // 10)

    async def _tell(self, resource: str, prefix: str, rows: Sequence[Told]) -> None:
        """Hand changes over now, or, when there are too many, the latest of each key later."""
        if not self._late and self._pace.take(len(rows), now()):
            self._hand_over(resource, prefix, rows)
            return
        self._late.put(resource, prefix, rows)
        self.status.throttled += len(rows)
        # While we do not read, the other side is not asked for more.
        await asyncio.sleep(len(rows) / READ_ROWS_PER_S)

    def _catch_up(self, store: RemoteStore, duties: Duties) -> None:
        self._duties = duties
        self._pulse_s = now()
        duties.later("guard", COPY_TIMEOUT_S, partial(self._guard_copy, store))
        self._compare_later(store)
        self._late.begin(duties)

    def _compare_later(self, store: RemoteStore) -> None:
        if self._limits.compare_s:
            delay_s = self._limits.compare_s * self._random.uniform(0.75, 1.25)
            self._duties.later("compare", delay_s, partial(self._compare, store))

    async def _compare(self, store: RemoteStore) -> None:
        """Look whether the watches have told everything."""
        for resource in self._resources:
            if resource not in self.status.synced or self._withheld():
                continue
            await self._compare_type(store, resource)
        self.status.compares += 1
        self._compare_later(store)

    async def _compare_type(self, store: RemoteStore, resource: str) -> None:
        mirror = self._mirrors[resource]
        prefix = mirror.prefix
        unlike = await compare.suspects(store, prefix, mirror, not self._full.get(resource))
        if not unlike:
            return
        if len(unlike) <= compare.AT_ONCE:
            await asyncio.sleep(self._limits.compare_grace_s)  # what is under way arrives
            found = await compare.confirmed(store, unlike, mirror)
            told = [change for f in found if (change := mirror.event(f.event)) is not None]
            if found:
                self._move(Happening.DIFFERENT)
                self._different(resource, len(found))
            if told:
                await self._tell(resource, prefix, told)
            if len(told) == len(found):
                return
        else:
            self._different(resource, len(unlike))
        self._move(Happening.ASTRAY)
        raise AnewError(f"{store.endpoint}: what we know of {resource} is not what is there")

    def _different(self, resource: str, count: int) -> None:
        self.status.repaired += count
        log.warning(
            "event=repaired cluster=%s type=%s rows=%d: its watch did not tell",
            self._name,
            resource,
            count,
        )

    def _take_over(self, resource: str, prefix: str, rows: Sequence[Told]) -> None:
        """What a listing says is newer than what waits."""
        if self._late:
            self._late.forget(resource, (name for name, _ in rows))
        self._hand_over(resource, prefix, rows)

    def _synced(self, resource: str) -> None:
        super()._synced(resource)  # first: who is told may ask what has been listed so far
        self._sink.on_synced(self._name, resource)
        if self.status.ready:
            for other in self._mirrors.keys() - set(self._resources):
                # Its place was taken by another type, all of which has been heard by now.
                mirror = self._mirrors[other]
                self._take_over(other, mirror.prefix, mirror.snapshot((), 0))

    def _hand_over(self, resource: str, prefix: str, rows: Sequence[Told]) -> None:
        if resource in BACKENDS and self._withheld():
            rows = [row for row in rows if row[1] is None]
        changes = self._decoding.rows(resource, prefix, rows, partial(self._reject, resource))
        if changes:
            self._sink.on_changes(self._name, resource, changes)
        self.status.counts[resource] = len(self._mirrors[resource])

    def _reject(self, resource: str, why: str) -> None:
        count = self.status.rejected.get(resource, 0) + 1
        self.status.rejected[resource] = count
        self.status.last_rejected = self.status.examples[resource] = why[:1000]
        if count & (count - 1) == 0:  # a peer that lies for ever fills no disk
            log.warning(
                'event=rejected cluster=%s count=%d why="%s"', self._name, count, why[:1000]
            )

"""An etcd in memory: revisions, history, compaction, leases, watches; and the link to it.

``FakeStore`` passes the conformance suite of the port beside the real etcd
(tests/conformance/test_kvstore.py). The clock is the running loop's, so that it lives in virtual
time as well. What a network does to a connection is the ``Link``'s.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from enum import Enum

from kvstore import etcd
from kvstore.port import (
    Batch,
    CompactedError,
    Compare,
    Delete,
    DeleteOp,
    Event,
    Field,
    GetOp,
    KeyValue,
    LeaseNotFoundError,
    Op,
    Put,
    PutOp,
    Snapshot,
    StoreStatus,
    TxnResult,
    UnavailableError,
    prefix_end,
)
from reconcile.tasks import TaskGroup
from wire.etcd import keys

CALL_TIMEOUT_S = 10.0
KEEPALIVE_S = 40.0  # until a link that says nothing is given up


@dataclass
class Lease:
    """When it ends, and what hangs on it."""

    ttl_s: int
    ends_s: float
    keys: set[str] = field(default_factory=set)


@dataclass
class Contents:
    """All that a snapshot of the data directory holds."""

    revision: int = 1
    compacted: int = 0
    rows: dict[str, KeyValue] = field(default_factory=dict)
    history: list[tuple[int, tuple[Event, ...]]] = field(default_factory=list)
    leases: dict[int, Lease] = field(default_factory=dict)
    next_lease: int = 1


class FakeEtcd:
    """One member. ``up`` is False while it is killed."""

    def __init__(self, cluster_id: int = 1) -> None:
        self.cluster_id = cluster_id
        self.up = True
        self.boots = 0
        self._now = Contents()
        self._news = asyncio.Event()

    def kill(self) -> None:
        """Every connection breaks."""
        self.up = False
        self.boots += 1
        self._wake()

    def start(self, contents: Contents | None = None) -> None:
        """With its own data, or those of a snapshot. Leases begin anew, as etcd has it."""
        if contents is not None:
            self._now = deepcopy(contents)
        now = _clock()
        for lease in self._now.leases.values():
            lease.ends_s = now + lease.ttl_s
        self.up = True

    def save(self) -> Contents:
        """A snapshot of the data directory."""
        return deepcopy(self._now)

    def wipe(self) -> None:
        """An empty data directory: it is another etcd from now on."""
        self._now = Contents()
        self.cluster_id += 1

    @property
    def revision(self) -> int:
        """Of the last change."""
        self._expire()
        return self._now.revision

    def rows(self, prefix: str, revision: int = 0) -> list[KeyValue]:
        """In key order, as they were at a revision (0: now)."""
        self._expire()
        if revision and revision < self._now.compacted:
            raise CompactedError(f"revision {revision} is compacted", self._now.compacted)
        found = dict(self._now.rows)
        if revision:
            for at, events in reversed(self._now.history):
                if at <= revision:
                    break
                for event in reversed(events):
                    _undo(found, event)
        end = prefix_end(prefix)
        last = end.decode() if end != b"\0" else None
        return [
            found[key]
            for key in sorted(found)
            if key >= prefix and (last is None or not prefix or key < last)
        ]

    def get(self, key: str) -> KeyValue | None:
        """One row."""
        self._expire()
        return self._now.rows.get(key)

    def since(self, revision: int) -> list[tuple[int, tuple[Event, ...]]]:
        """What happened from a revision on."""
        self._expire()
        if revision < self._now.compacted:
            raise CompactedError(f"revision {revision} is compacted", self._now.compacted)
        return [found for found in self._now.history if found[0] >= revision]

    def compact(self, revision: int) -> None:
        """Forget history."""
        self._now.compacted = max(self._now.compacted, revision)
        self._now.history = [h for h in self._now.history if h[0] >= revision]

    def apply(self, ops: Sequence[Op]) -> tuple[int, tuple[KeyValue | None, ...]]:
        """All of them at one revision; what its reads found. Raises ``LeaseNotFoundError``."""
        self._expire()
        for op in ops:
            if isinstance(op, PutOp) and op.lease and op.lease not in self._now.leases:
                raise LeaseNotFoundError(f"lease {op.lease:x} has expired")
        at, events, reads = self._now.revision + 1, [], []
        for op in ops:
            match op:
                case PutOp(key, value, lease):
                    events.append(self._put(key, value, lease, at))
                case DeleteOp(key, prefix):
                    gone = [r.key for r in self.rows(key)] if prefix else [key]
                    events += [self._delete(k, at) for k in gone if k in self._now.rows]
                case GetOp(key):
                    reads.append(self._now.rows.get(key))
        if events:
            self._now.revision = at
            self._now.history.append((at, tuple(events)))
            self._wake()
        return self._now.revision, tuple(reads)

    def _put(self, key: str, value: bytes, lease: int, at: int) -> Put:
        before = self._now.rows.get(key)
        created, version = (before.create_revision, before.version) if before else (at, 0)
        row = KeyValue(key, value, created, at, version + 1, lease)
        self._unbind(before)
        if lease:
            self._now.leases[lease].keys.add(key)
        self._now.rows[key] = row
        return Put(row, before)

    def _delete(self, key: str, at: int) -> Delete:
        before = self._now.rows.pop(key)
        self._unbind(before)
        return Delete(key, at, before)

    def _unbind(self, row: KeyValue | None) -> None:
        if row is not None and row.lease in self._now.leases:
            self._now.leases[row.lease].keys.discard(row.key)

    def grant(self, ttl_s: int) -> int:
        """A new lease; its end comes by itself."""
        number = self._now.next_lease
        self._now.next_lease += 1
        self._now.leases[number] = Lease(ttl_s, _clock() + ttl_s)
        self._remind(_clock() + ttl_s)
        return number

    def keep_alive(self, number: int) -> int:
        """Raises ``LeaseNotFoundError``."""
        self._expire()
        lease = self._now.leases.get(number)
        if lease is None:
            raise LeaseNotFoundError(f"lease {number:x} has expired")
        lease.ends_s = _clock() + lease.ttl_s
        self._remind(lease.ends_s)
        return lease.ttl_s

    def revoke(self, number: int) -> None:
        """With its keys."""
        lease = self._now.leases.pop(number, None)
        if lease is not None and lease.keys:
            self.apply([DeleteOp(key) for key in sorted(lease.keys)])

    def _remind(self, when_s: float) -> None:
        asyncio.get_running_loop().call_at(when_s + 0.001, self._expire)

    def _expire(self) -> None:
        if self.up:
            now = _clock()
            for number in [n for n, lease in self._now.leases.items() if lease.ends_s <= now]:
                self.revoke(number)

    async def news(self) -> None:
        """Until something happens."""
        await self._news.wait()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class Weather(Enum):
    """What a link does."""

    FAIR = "fair"
    REFUSED = "refused"  # connections break and new ones fail at once
    SILENT = "silent"  # nothing arrives, and nobody says so


class Link:
    """The way from one client to one etcd."""

    def __init__(self, draw: random.Random | None = None, latency_s: float = 0.0) -> None:
        self.weather = Weather.FAIR
        self.mischief = 0.0  # share of deliveries that are told twice or out of order
        self.loss = 0.0  # share of deliveries of a cluster's rows that never arrive
        self.breaks = 0
        self._draw = draw
        self._latency_s = latency_s
        self._changed = asyncio.Event()

    def turn(self, weather: Weather) -> None:
        """Change the weather; refusing breaks what stands."""
        if weather is Weather.REFUSED:
            self.breaks += 1
        self.weather = weather
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def changed(self) -> None:
        """Until the weather is another."""
        await self._changed.wait()

    async def trip(self, patience_s: float = CALL_TIMEOUT_S) -> None:
        """One way through. Raises ``UnavailableError``."""
        breaks = self.breaks
        if self._draw is not None and self._latency_s:
            await asyncio.sleep(self._draw.uniform(0.1, 2.0) * self._latency_s)
        try:
            async with asyncio.timeout(patience_s):
                while self.weather is Weather.SILENT:
                    await self._changed.wait()
        except TimeoutError:
            raise UnavailableError("no answer") from None
        if self.weather is Weather.REFUSED or self.breaks != breaks:
            raise UnavailableError("connection refused")

    def deliveries(self, prefix: str, batch: Batch, told: list[Batch]) -> list[Batch]:
        """A batch as it arrives; ``told``: what has been delivered before."""
        if self._draw is None:
            return [batch]
        if self._draw.random() < self.loss and prefix.startswith(keys.STATE_PREFIX):
            return []
        if self._draw.random() >= self.mischief:
            return [batch]
        if told and self._draw.random() < 0.5:
            return [batch, self._draw.choice(told)]
        events = list(batch.events)
        self._draw.shuffle(events)
        half = len(events) // 2
        first, second = tuple(events[:half]), tuple(events[half:])
        return [Batch(batch.revision, part) for part in (first, second) if part]


class FakeStore:
    """A connection. ``kvstore.port.Store``."""

    endpoint = "fake:2379"

    def __init__(self, member: FakeEtcd, link: Link | None = None) -> None:
        self._member = member
        self._link = link or Link()
        self._boot, self._breaks = member.boots, self._link.breaks
        self._closed = False
        self.cluster_id = member.cluster_id

    def _check(self) -> None:
        gone = self._closed or not self._member.up or self._boot != self._member.boots
        if gone or self._breaks != self._link.breaks:
            raise UnavailableError(f"{self.endpoint}: the connection is gone")

    async def _there(self) -> FakeEtcd:
        self._check()
        await self._link.trip()
        self._check()
        return self._member

    async def _back(self) -> None:
        """The answer's way; when it is lost, the call may have been done."""
        await self._link.trip()
        self._check()

    async def get(self, key: str, *, within: str = "") -> KeyValue | None:
        found = (await self._there()).get(key)
        await self._back()
        return found

    async def range(
        self,
        prefix: str,
        *,
        limit: int = 0,
        revision: int = 0,
        start: str = "",
        keys_only: bool = False,
        within: str = "",
    ) -> Snapshot:
        rows: list[KeyValue] = []
        while True:
            want = min(etcd.PAGE_ROWS, limit - len(rows)) if limit else etcd.PAGE_ROWS
            member = await self._there()
            every = [r for r in member.rows(prefix, revision) if r.key >= start]
            revision = revision or member.revision
            await self._back()
            page = every[:want]
            rows += [_bare(r) for r in page] if keys_only else page
            more = len(every) > want
            if not more or (limit and len(rows) >= limit):
                return Snapshot(revision, tuple(rows), more, len(rows) - len(page) + len(every))
            start = page[-1].key + "\0"

    async def put(self, key: str, value: bytes, lease: int = 0) -> int:
        revision, _ = (await self._there()).apply([PutOp(key, value, lease)])
        await self._back()
        return revision

    async def delete(self, key: str, *, prefix: bool = False) -> int:
        revision, _ = (await self._there()).apply([DeleteOp(key, prefix)])
        await self._back()
        return revision

    async def txn(
        self,
        then: Sequence[Op],
        *,
        compare: Sequence[Compare] = (),
        otherwise: Sequence[Op] = (),
    ) -> TxnResult:
        member = await self._there()
        good = all(_holds(c, member.get(c.key)) for c in compare)
        revision, reads = member.apply(then if good else otherwise)
        await self._back()
        return TxnResult(good, revision, reads)

    async def watch(
        self,
        prefix: str,
        revision: int,
        *,
        previous: bool = False,
        progress: bool = False,
        exact: bool = False,
        within: str = "",
        take: Callable[[Batch], bool] | None = None,
    ) -> AsyncIterator[Batch]:
        member = await self._there()
        following = revision or member.revision + 1
        member.since(following)
        await self._back()
        yield Batch(member.revision, ())
        told: list[Batch] = []
        while True:
            news = member.since(following)
            events = [
                _shown(e, previous)
                for _, changes in news
                for e in changes
                if (_key(e) == prefix if exact else _key(e).startswith(prefix))
            ]
            if news:
                following = news[-1][0] + 1
            if events:
                await self._link.trip(KEEPALIVE_S)
                self._check()
                batch = Batch(following - 1, tuple(events))
                for part in self._link.deliveries(prefix, batch, told):
                    if take is None or not take(part):
                        yield part
                told.append(batch)
            else:
                await self._rest(member)

    async def _rest(self, member: FakeEtcd) -> None:
        """Until there is news, or the link breaks."""
        self._check()
        if self._link.weather is Weather.SILENT:
            await self._link.trip(KEEPALIVE_S)
            return
        async with TaskGroup() as tasks:
            waits = [tasks.create_task(member.news()), tasks.create_task(self._link.changed())]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        self._check()

    async def grant(self, ttl_s: int) -> int:
        lease = (await self._there()).grant(ttl_s)
        await self._back()
        return lease

    async def keep_alive(self, lease: int) -> int:
        ttl_s = (await self._there()).keep_alive(lease)
        await self._back()
        return ttl_s

    async def revoke(self, lease: int) -> None:
        (await self._there()).revoke(lease)
        await self._back()

    async def compact(self, revision: int) -> None:
        (await self._there()).compact(revision)
        await self._back()

    async def status(self) -> StoreStatus:
        member = await self._there()
        await self._back()
        return StoreStatus("3.5.0", member.revision, 0, member.cluster_id)

    async def close(self) -> None:
        self._closed = True


async def connect(member: FakeEtcd, link: Link | None = None) -> FakeStore:
    """A connection. Raises ``UnavailableError``."""
    link = link or Link()
    await link.trip(5.0)
    if not member.up:
        raise UnavailableError("connection refused")
    return FakeStore(member, link)


def _clock() -> float:
    return asyncio.get_running_loop().time()


def _key(event: Event) -> str:
    return event.row.key if isinstance(event, Put) else event.key


def _shown(event: Event, previous: bool) -> Event:
    if previous:
        return event
    return Put(event.row) if isinstance(event, Put) else Delete(event.key, event.revision)


def _undo(rows: dict[str, KeyValue], event: Event) -> None:
    if event.previous is not None:
        rows[_key(event)] = event.previous
    else:
        rows.pop(_key(event), None)


def _bare(row: KeyValue) -> KeyValue:
    return KeyValue(row.key, b"", row.create_revision, row.mod_revision, row.version, row.lease)


def _holds(compare: Compare, row: KeyValue | None) -> bool:
    if row is None:
        return compare.equals == 0
    return {
        Field.MOD_REVISION: row.mod_revision,
        Field.CREATE_REVISION: row.create_revision,
        Field.VERSION: row.version,
    }[compare.field] == compare.equals

"""The session with one remote cluster's store: connect, believe, follow, and never forget. Adapter.

The life of a session is the table ``TRANSITIONS``. What was learnt stays when the connection is
lost; after a new listing, and only then, what has vanished is taken away. A record that breaks a
rule is rejected alone, counted, and shown; the last good value of its key stays.
"""

import asyncio
import contextlib
import itertools
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from kvstore.allowance import Limits, Pace, Purse
from kvstore.mirror import Mirror
from kvstore.observed import OBSERVED
from kvstore.port import CompactedError, Event, Put, Store, StoreError, UnavailableError
from model.address import Prefix
from model.cluster import (
    Capabilities,
    ClusterConfig,
    ClusterId,
    ClusterName,
    IdentityRange,
    identity_range,
)
from model.identity import NumericIdentity
from model.node import NodeName
from model.service import ServiceName
from model.shared_slice import SliceName
from wire.etcd import (
    cluster_config_v1,
    endpointslice_v1,
    freshness_v1,
    identity_v1,
    ip_v1,
    keys,
    node_v1,
    service_reader,
    service_v1,
)
from wire.etcd.errors import RemoteWireError
from wire.etcd.freshness_v1 import Freshness

log = logging.getLogger(__name__)

HEARTBEAT_TIMEOUT_S = 120.0  # a writer beats once a minute
CONFIG_TIMEOUT_S = 180.0
CONFIG_POLL_S = 0.5
PAGE_ROWS = 5_000  # of a listing, held at once
PART_ROWS = 256  # of a listing, between which others have their turn: about 10 ms
READ_ROWS_PER_S = 20_000  # of a watch whose events come faster than they may be taken over
RETRY_FIRST_S, RETRY_CAP_S = 0.2, 5.0  # an attempt itself goes on for 5 s

Key: TypeAlias = NodeName | NumericIdentity | Prefix | ServiceName | SliceName
# The value: Node, Identity, EndpointAddress, SharedService, SharedSlice or None.
Change: TypeAlias = tuple[Key, Any]


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


class State(Enum):
    """Where a session stands."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    CONNECTED = "connected"  # the heartbeat was listed
    CONFIGURED = "configured"  # the cluster's announcement was accepted
    READY = "ready"  # all required types are listed


class Happening(Enum):
    """What moves a session."""

    START = "start"
    HEARTBEAT_LISTED = "heartbeat listed"
    CONFIG_ACCEPTED = "configuration accepted"
    ALL_LISTED = "all types listed"
    LOST = "lost"


TRANSITIONS: dict[tuple[State, Happening], State] = {
    (State.DISCONNECTED, Happening.START): State.CONNECTING,
    (State.CONNECTING, Happening.HEARTBEAT_LISTED): State.CONNECTED,
    (State.CONNECTED, Happening.CONFIG_ACCEPTED): State.CONFIGURED,
    (State.CONFIGURED, Happening.ALL_LISTED): State.READY,
    **{(state, Happening.LOST): State.DISCONNECTED for state in State},
}


@dataclass(slots=True)
class RemoteStatus:
    """What is known of a remote cluster, for people."""

    name: ClusterName
    state: State = State.DISCONNECTED
    message: str = "Waiting for initial connection to be established"
    endpoint: str = ""
    etcd_id: int = 0
    config: ClusterConfig | None = None
    synced: set[str] = field(default_factory=set)  # this connection's listings
    counts: dict[str, int] = field(default_factory=dict)
    failures: int = 0  # of a connection that once stood
    last_failure_s: float = 0.0  # of the loop's clock; 0: never
    last_heartbeat_s: float = 0.0
    rejected: dict[str, int] = field(default_factory=dict)  # by type
    last_rejected: str = ""
    examples: dict[str, str] = field(default_factory=dict)  # by type, the latest
    late: int = 0  # changes that wait because this cluster has said too much too fast
    throttled: int = 0  # changes that had to wait
    freshness: Freshness | None = None  # what a mirror in between says of its own connection

    @property
    def connected(self) -> bool:
        """The connection stands."""
        return self.state not in (State.DISCONNECTED, State.CONNECTING)

    @property
    def ready(self) -> bool:
        """Everything required has been read over this connection."""
        return self.state is State.READY


class RemoteStore(Store, Protocol):
    """A store that tells where it is."""

    @property
    def cluster_id(self) -> int: ...

    @property
    def endpoint(self) -> str: ...


S = TypeVar("S", bound=RemoteStore)


class Session(ABC, Generic[S]):
    """The life of a connection to one remote cluster; what is done with its rows is the heir's.

    ``run`` lives until cancelled; removal is the owner's duty.
    """

    def __init__(
        self,
        name: ClusterName,
        connect: Callable[[], Awaitable[S]],
        resources: Iterable[str] = keys.REQUIRED,
        randomness: random.Random | None = None,
    ) -> None:
        self.status = RemoteStatus(name)
        self._name = name
        self._connect = connect
        self._resources = tuple(resources)
        self._random = randomness or random.Random()  # jitter only
        self._silent = False  # the last session ended because no heartbeat came
        self._heard = asyncio.Event()
        self._changed = asyncio.Event()

    @abstractmethod
    def _begin(self) -> None:
        """Another store may answer from now on."""

    @abstractmethod
    async def _believe(self, config: ClusterConfig) -> None:
        """Take the announcement. Raises ``ValueError`` with a sentence when it is unusable."""

    @abstractmethod
    async def _follow(self, store: S, resource: str, cached: bool) -> None:
        """List and watch one type until the connection is lost; ``_synced`` after each list."""

    async def _beat(self) -> None:
        """A heartbeat has come."""

    async def _catch_up(self) -> None:
        """What the heir has to do beside following, as long as the connection stands."""

    async def _lost(self, error: BaseException) -> None:
        """The connection did not come about, or has ended."""

    def _noted(self, key: str, value: bytes) -> None:
        """A row beside the canaries."""

    async def run(self) -> None:
        """Connect, follow, and connect again."""
        errors = 0
        while True:
            self._move(Happening.START)
            failure: BaseException = UnavailableError("the session ended")
            try:
                store = await self._connect()
                OBSERVED.ran("remote-etcd", ok=True)
                try:
                    await self._session(store)
                finally:
                    await store.close()
            except* (StoreError, ValueError) as group:
                error = _first(group)
                if self.status.connected:
                    errors = 0
                    self.status.failures += 1
                    self.status.last_failure_s = _now()
                else:
                    OBSERVED.ran("remote-etcd", ok=False)
                errors += 1
                self.status.message = str(error)
                log.warning('event=remote_lost cluster=%s error="%s"', self._name, error)
                failure = error
            self.disconnected()
            await self._lost(failure)
            delay = min(RETRY_FIRST_S * 2 ** min(errors - 1, 10), RETRY_CAP_S)
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay * self._random.uniform(0.75, 1.25)):
                    await self._changed.wait()

    def try_now(self) -> None:
        """Something was mended: an attempt that waits for its time is made at once."""
        self._changed.set()

    def disconnected(self) -> None:
        """The owner ended ``run``; what was learnt stays."""
        self._move(Happening.LOST)
        self.status.synced.clear()

    def _move(self, happening: Happening) -> None:
        self.status.state = TRANSITIONS[self.status.state, happening]

    async def _session(self, store: S) -> None:
        beats = await store.range(keys.HEARTBEAT)
        self._begin()
        self.status.endpoint, self.status.etcd_id = store.endpoint, store.cluster_id
        self.status.last_heartbeat_s = _now()
        self._move(Happening.HEARTBEAT_LISTED)
        self.status.message = "connected"
        self._heard.clear()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._heartbeat(store, beats.revision))
            # The keys of a writer that is gone run out after a while, and that must not look like
            # its word: after a silence nothing is read before it speaks again.
            if self._silent:
                self.status.message = (
                    f"{store.endpoint}: waiting for a heartbeat: the remote cluster's "
                    "clustermesh-apiserver does not write"
                )
                await self._heard.wait()
            data = await self._configuration(store)
            config = cluster_config_v1.decode(data, keys.cluster_config(self._name))
            await self._believe(config)
            self.status.config = config
            tasks.create_task(self._keep_to(store, data))
            tasks.create_task(self._catch_up())
            self._move(Happening.CONFIG_ACCEPTED)
            cached = config.capabilities.cached
            if not config.capabilities.synced_canaries:
                for resource in self._resources:
                    tasks.create_task(self._follow(store, resource, cached))
                return
            started: set[str] = set()

            def start(key: str, value: bytes) -> None:
                resource = keys.canary_resource(key, self._name, cached)
                if resource in self._resources and resource not in started:
                    started.add(resource)
                    tasks.create_task(self._follow(store, resource, cached))
                elif resource is None:
                    self._noted(key, value)

            canaries = await store.range(keys.canary_prefix(self._name))
            for row in canaries.rows:
                start(row.key, row.value)
            watch = store.watch(keys.canary_prefix(self._name), canaries.revision + 1)
            async for batch in watch:
                for event in batch.events:
                    if hasattr(event, "row"):
                        start(event.row.key, event.row.value)

    async def _heartbeat(self, store: RemoteStore, revision: int) -> None:
        watch = store.watch(keys.HEARTBEAT, revision + 1)
        while True:
            try:
                # Whatever else arrives on this watch does not count.
                async with asyncio.timeout_at(self.status.last_heartbeat_s + HEARTBEAT_TIMEOUT_S):
                    batch = await anext(watch)
            except TimeoutError as error:
                self._silent = True
                OBSERVED.quorum_errors.add("no heartbeat")
                raise UnavailableError(
                    f"{store.endpoint}: no heartbeat for {HEARTBEAT_TIMEOUT_S:.0f} s: "
                    "the remote cluster's clustermesh-apiserver does not write"
                ) from error
            if any(hasattr(event, "row") for event in batch.events):
                self.status.last_heartbeat_s = _now()
                self._silent = False
                self._heard.set()
                await self._beat()

    async def _keep_to(self, store: RemoteStore, data: bytes) -> None:
        """End the session when the cluster announces itself otherwise than it was believed."""
        key = keys.cluster_config(self._name)
        # The first batch says that the watch stands: what changed before it is seen by reading.
        async for _ in store.watch(key, 0, exact=True):
            row = await store.get(key)
            if row is not None and row.value != data:
                raise UnavailableError(
                    f"{store.endpoint}: the remote cluster's configuration has changed ({key})"
                )

    async def _configuration(self, store: RemoteStore) -> bytes:
        key = keys.cluster_config(self._name)
        deadline = _now() + CONFIG_TIMEOUT_S
        while True:
            row = await store.get(key)
            if row is not None:
                return row.value
            if _now() > deadline:
                raise UnavailableError(
                    f"{store.endpoint}: remote cluster configuration required but not found "
                    f"({key}): is {self._name!r} the name that cluster gives itself?"
                )
            self.status.message = "waiting for the remote cluster's configuration"
            await asyncio.sleep(CONFIG_POLL_S)

    def _synced(self, resource: str) -> None:
        self.status.synced.add(resource)
        if self.status.state is State.CONFIGURED and self.status.synced >= set(self._resources):
            self._move(Happening.ALL_LISTED)
            self.status.message = "ready"
            log.info("event=remote_ready cluster=%s", self._name)


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
    ) -> None:
        """``accept`` raises ``ValueError`` with a sentence when the announcement is unusable;
        ``wanted`` says which types are read of a cluster that can do such things."""
        super().__init__(name, connect, randomness=randomness)
        self._wanted = wanted
        self._limits = limits or Limits()
        self._purse = Purse(self._limits)
        self._pace = Pace(self._limits.rows_per_s, self._limits.burst_rows)
        self._full: dict[str, int] = {}  # keys there was no room for, by type
        # Changes that wait, by key the latest only; (type, prefix) beside it. They outlive a
        # connection: what a mirror has told once, it does not tell again.
        self._late: dict[str, tuple[str, str, bytes | None]] = {}
        self._is_late = asyncio.Event()
        self._sink = sink
        self._accept = accept
        self._mirrors = {r: Mirror() for r in (*keys.REQUIRED, keys.ENDPOINT_SLICES)}
        self._prefixes: dict[str, str] = {}  # of the mirrors' keys
        self._id: ClusterId | None = None
        self._range: IdentityRange | None = None
        self._services = service_reader.Reader()

    def drain(self) -> None:
        """Take back everything learnt from this cluster."""
        for mirror in self._mirrors.values():
            mirror.snapshot((), 0)
        self._purse = Purse(self._limits)
        self._full.clear()
        self._late.clear()
        self.status.late = 0
        self._services = service_reader.Reader()
        self._sink.on_removed(self._name)

    def _begin(self) -> None:
        # An etcd restored from a backup, or made anew with an old identity, counts from an earlier
        # revision: across connections only the rows themselves can be compared, by who gets them.
        for mirror in self._mirrors.values():
            mirror.forget_revisions()
        self.status.freshness = None

    def _noted(self, key: str, value: bytes) -> None:
        config = self.status.config
        if config and config.capabilities.cached and key == keys.freshness(self._name):
            try:
                self.status.freshness = freshness_v1.decode(value, key)
            except RemoteWireError as error:
                log.warning('event=rejected cluster=%s why="%s"', self._name, error)

    async def _believe(self, config: ClusterConfig) -> None:
        if self._id is not None and self._id != config.id:
            log.warning("event=remote_id_changed cluster=%s id=%d", self._name, config.id)
            self.drain()
            self._id = None
        self._accept(self._name, config)
        self._id = config.id
        self._range = identity_range(config.id, config.capabilities.max_connected_clusters)
        self._resources = self._wanted(config.capabilities)

    async def _follow(self, store: RemoteStore, resource: str, cached: bool) -> None:
        prefix = keys.resource_prefix(resource, self._name, cached)
        mirror = self._mirrors[resource]
        # The same rows may lie elsewhere than last time: a mirror in between came or went.
        mirror.move(self._prefixes.get(resource, prefix), prefix)
        self._prefixes[resource] = prefix
        while True:
            again_s = _now() + self._limits.relist_gap_s
            try:
                revision = await self._list(store, resource, prefix)
                self._synced(resource)
                async for batch in store.watch(prefix, revision + 1):
                    if any(_revision(e) < revision for e in batch.events):
                        # What is told twice or out of order may hide what is not told at all.
                        log.warning("event=disorder cluster=%s type=%s", self._name, resource)
                        break
                    revision = max([revision, *map(_revision, batch.events)])
                    told = [
                        c
                        for e in batch.events
                        if (not isinstance(e, Put) or self._admits(resource, e.row.key))
                        and (c := mirror.event(e)) is not None
                    ]
                    if told:
                        await self._tell(resource, prefix, told)
                    if self._full.get(resource) and self._has_room(resource):
                        log.info("event=room cluster=%s resource=%s", self._name, resource)
                        break
            except CompactedError:
                log.info("event=relist cluster=%s resource=%s", self._name, resource)
            await asyncio.sleep(max(0.0, again_s - _now()))

    async def _list(self, store: RemoteStore, resource: str, prefix: str) -> int:
        """Take a full listing, page by page; the revision it stands for."""
        mirror = self._mirrors[resource]
        mirror.begin_listing()
        self._full.pop(resource, None)
        revision, start = 0, ""
        while True:
            page = await store.range(prefix, limit=PAGE_ROWS, revision=revision, start=start)
            revision = revision or page.revision
            refused = self._full.get(resource, 0)
            for first in range(0, len(page.rows), PART_ROWS):
                part: list[tuple[str, bytes | None]] = []
                for row in page.rows[first : first + PART_ROWS]:
                    if self._admits(resource, row.key):
                        part += mirror.listed((row,))
                self._take_over(resource, prefix, part)
                await asyncio.sleep(0)
            if not page.more:
                break
            if self._full.get(resource, 0) > refused:
                await asyncio.sleep(len(page.rows) / READ_ROWS_PER_S)
            start = page.rows[-1].key + "\0"
        self._take_over(resource, prefix, mirror.end_listing(revision))
        return revision

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

    async def _tell(
        self, resource: str, prefix: str, rows: Sequence[tuple[str, bytes | None]]
    ) -> None:
        """Hand changes over now, or, when there are too many, the latest of each key later."""
        if not self._late and self._pace.take(len(rows), _now()):
            self._hand_over(resource, prefix, rows)
            return
        for key, data in rows:
            self._late[key] = (resource, prefix, data)
        self.status.late = len(self._late)
        self.status.throttled += len(rows)
        self._is_late.set()
        # While we do not read, the other side is not asked for more.
        await asyncio.sleep(len(rows) / READ_ROWS_PER_S)

    async def _catch_up(self) -> None:
        """Hand over what is late, as fast as this cluster's pace allows."""
        while True:
            while self._late:
                count = min(len(self._late), PART_ROWS)
                if not self._pace.take(count, _now()):
                    await asyncio.sleep(self._pace.wait_s(count))
                    continue
                for key in list(itertools.islice(self._late, count)):
                    resource, prefix, data = self._late.pop(key)
                    self._hand_over(resource, prefix, [(key, data)])
                self.status.late = len(self._late)
                await asyncio.sleep(0)
            self._is_late.clear()
            await self._is_late.wait()

    def _take_over(
        self, resource: str, prefix: str, rows: Sequence[tuple[str, bytes | None]]
    ) -> None:
        """What a listing says is newer than what waits."""
        if self._late:
            for key, _ in rows:
                self._late.pop(key, None)
        self._hand_over(resource, prefix, rows)

    def _synced(self, resource: str) -> None:
        super()._synced(resource)  # first: who is told may ask what has been listed so far
        self._sink.on_synced(self._name, resource)
        if self.status.ready:
            for other in self._mirrors.keys() - set(self._resources):
                # Its place was taken by another type, all of which has been heard by now.
                gone = self._mirrors[other].snapshot((), 0)
                self._take_over(other, self._prefixes.pop(other, ""), gone)

    def _hand_over(
        self, resource: str, prefix: str, rows: Sequence[tuple[str, bytes | None]]
    ) -> None:
        changes: list[Change] = []
        for key, data in rows:
            if resource == keys.IP and key[len(prefix) :] == ip_v1.NOBODY:
                continue
            try:
                if data is not None:
                    self._purse.check(resource, key, data)
                changes.append(self._decode(resource, key, key[len(prefix) :], data))
                self._purse.keep(resource, key, len(data or b""))
            except RemoteWireError as error:
                if data is not None:  # what was never believed is no loss
                    self._reject(resource, str(error))
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

    def _decode(self, resource: str, key: str, name: str, data: bytes | None) -> Change:
        assert self._id is not None  # a session believes first
        assert self._range is not None
        match resource:
            case keys.NODES:
                if data is None:
                    return NodeName(name), None
                return NodeName(name), node_v1.decode(name, data, self._name, self._id, key)
            case keys.IDENTITIES:
                if data is None:
                    return identity_v1.decode_number(name, self._range, key), None
                identity = identity_v1.decode(name, data, self._name, self._range, key)
                return identity.id, identity
            case keys.IP:
                if data is None:
                    return ip_v1.decode_name(name, key), None
                return ip_v1.decode(name, data, self._range, key)
            case keys.ENDPOINT_SLICES:
                if data is None:
                    return endpointslice_v1.decode_name(name, key), None
                found = endpointslice_v1.decode(name, data, self._name, self._id, key)
                return found.name, found
            case _:
                if data is None:
                    self._services.forget(name)
                    return service_v1.decode_name(name, key), None
                service = self._services.decode(name, data, self._name, self._id, key)
                return service.name, service


def _revision(event: Event) -> int:
    return event.row.mod_revision if isinstance(event, Put) else event.revision


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    """The innermost first error: a task group wraps what its tasks raise."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _now() -> float:
    return asyncio.get_running_loop().time()

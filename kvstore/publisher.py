"""Keep what we say in etcd: desired rows in, leased keys out. Adapter over the port.

Level-triggered: a round writes the latest desired value of every dirty key in transactions of up
to 128 operations. Every key hangs on a lease, so that it vanishes when we do; a store that lost
keys or leases gets them again. A canary is written only when every key that was dirty before it
is written. Nothing that another run of ours left behind is deleted before every type is complete.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from kvstore.leases import Leases
from kvstore.observed import OBSERVED, scope_of
from kvstore.port import (
    MAX_TXN_OPS,
    ClusterIdChangedError,
    DeleteOp,
    LeaseNotFoundError,
    NoSpaceError,
    Op,
    Store,
    StoreError,
    UnavailableError,
)
from model.cluster import ClusterConfig, ClusterName
from reconcile.tasks import TaskGroup
from wire.etcd import cluster_config_v1, keys

log = logging.getLogger(__name__)

LEASE_TTL_S = 15 * 60
HEARTBEAT_S = 60.0
ENFORCE_S = 300.0  # the cluster's announcement is compared and repaired this often
VALUE_BYTES = 1_560_000  # etcd takes requests of 1.5 MiB, and a key has its place there, too
TXN_BYTES = 1_000_000  # below etcd's limit of 1.5 MiB per request
RETRY_FIRST_S, RETRY_CAP_S = 0.1, 5.0
FULL_RETRY_S = 2.0
# The store as a whole is of no use: halving a batch would not find a guilty row.
STORE_WIDE = (UnavailableError, ClusterIdChangedError, NoSpaceError)


class PublisherStore(Store, Protocol):
    """A store that tells which etcd it is."""

    @property
    def cluster_id(self) -> int: ...


class Publisher:
    """Writes one cluster's rows, announcement, heartbeat and canaries."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[PublisherStore]],
        cluster: ClusterName,
        config: ClusterConfig,
        resources: Iterable[str] = (*keys.REQUIRED, keys.SERVICE_EXPORTS),
        lease_ttl_s: int = LEASE_TTL_S,
        spares: Callable[[str, bytes], bool] = lambda key, value: False,
    ) -> None:
        """``spares``: whether a row of an earlier run belongs to what cannot be read just now."""
        self._connect = connect
        self._cluster = cluster
        self._lease_ttl_s = lease_ttl_s
        self._resources = tuple(resources)
        self._announcement = (keys.cluster_config(cluster), cluster_config_v1.encode(config))
        self._rows: dict[str, bytes] = {}
        self._written: dict[str, bytes] = {}
        self._dirty: dict[str, None] = {}
        self._in_flight: tuple[str, ...] = ()
        self._failing: dict[str, tuple[float, float, str]] = {}  # due, delay, why
        self._awaited: dict[str, set[str]] = {}  # canaries and the keys they wait for
        self._complete: set[str] = set()
        self._leases = Leases(lease_ttl_s)
        # Found in the store and not yet written by this run; of these, what is to stay.
        self._leftover: dict[str, bytes] = {}
        self._spares = spares
        self._spared: dict[str, bytes] = {}
        self._wake = asyncio.Event()
        self._etcd_id = 0
        self.ready = asyncio.Event()  # every canary is written
        self.connected = False
        self.writes = 0
        self.failures = 0
        self.errors: Counter[str] = Counter()  # by scope of the key
        self.last_error = ""
        self.full = ""  # why the store takes no writes though it answers; empty: it takes them

    def put(self, rows: Mapping[str, bytes | None]) -> None:
        """Desire rows; ``None`` removes one. Never blocks; the latest value of a key counts."""
        for key, value in rows.items():
            if value is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = value
            if self._written.get(key) != value:
                self._dirty[key] = None
                self._failing.pop(key, None)
        self._wake.set()

    def complete(self, resource: str) -> None:
        """Everything of this type has been put: its canary follows the rows put so far."""
        self._complete.add(resource)
        self._awaited[resource] = self._open(resource)
        self._wake.set()

    def _open(self, resource: str) -> set[str]:
        """Keys of a type that are not written yet; those of other types do not delay its canary."""
        prefix = keys.resource_prefix(resource, self._cluster)
        waiting = (*self._dirty, *self._failing, *self._in_flight)
        return {key for key in waiting if key.startswith(prefix)}

    def queued(self) -> Counter[str]:
        """Rows that are not written yet, by scope."""
        waiting = {*self._dirty, *self._failing, *self._in_flight}
        return Counter(scope_of(key) for key in waiting)

    def is_written(self, resource: str) -> bool:
        """Whether the canary of a type stands: all of its first rows have been written."""
        return keys.canary(self._cluster, resource) in self._leases and (
            resource not in self._awaited
        )

    @property
    def problems(self) -> dict[str, str]:
        """Rows that could not be written, with the reason."""
        return {key: why for key, (_, _, why) in self._failing.items()}

    async def run(self) -> None:
        """Until cancelled; a lost store is connected again."""
        delay = RETRY_FIRST_S
        while True:
            try:
                store = await self._connect()
                try:
                    await self._resume(store)
                    delay = RETRY_FIRST_S
                    await self._serve(store)
                finally:
                    self.connected = False
                    await store.close()
            except* StoreError as group:
                error = _first(group)
                self.failures += 1
                self.errors.update({scope_of(key) for key in self._dirty} or {"all"})
                OBSERVED.ran("kvstore-etcd", ok=False)
                self.last_error = str(error)
                log.warning('event=store_lost retry_s=%.1f error="%s"', delay, error)
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_CAP_S)

    async def _resume(self, store: PublisherStore) -> None:
        """Find out what the store holds, and what of it must be written again."""
        found: dict[str, bytes] = {}
        lease_of: dict[str, int] = {}
        for prefix in (keys.STATE_PREFIX, keys.canary_prefix(self._cluster)):
            for row in (await store.range(prefix)).rows:
                found[row.key] = row.value
                lease_of[row.key] = row.lease
        if store.cluster_id != self._etcd_id:
            self._leases = Leases(self._lease_ttl_s)
            self._etcd_id = store.cluster_id
        await self._drop_expired(store)
        self._written = {k: v for k, v in found.items() if self._leases.are(lease_of[k])}
        for key in [k for k in self._leases.bound() if k not in self._written]:
            self._leases.unbind(key)
        self._leftover = {k: v for k, v in found.items() if k.startswith(keys.STATE_PREFIX)}
        for key, value in self._rows.items():
            if self._written.get(key) != value:
                self._dirty[key] = None
        for key in self._written.keys() - self._rows.keys():
            if key.startswith(keys.STATE_PREFIX):
                self._dirty[key] = None
        for resource in self._complete:
            if keys.canary(self._cluster, resource) not in self._written:
                self._awaited.setdefault(resource, set()).update(self._open(resource))
        await self._announce(store)
        await self._beat(store)
        self.connected = True
        OBSERVED.ran("kvstore-etcd", ok=True)
        self._wake.set()

    async def _serve(self, store: PublisherStore) -> None:
        async with TaskGroup() as tasks:
            tasks.create_task(self._rounds(store))
            for group, interval_s, act in (
                ("kvstore-heartbeat", HEARTBEAT_S, self._beat),
                ("kvstore-leases", self._lease_ttl_s / 3, self._prolong),
                ("clustermesh-config", ENFORCE_S, self._announce),
            ):
                tasks.create_task(self._every(group, interval_s, partial(act, store)))
            tasks.create_task(self._guard(store))

    async def _every(
        self, group: str, interval_s: float, act: Callable[[], Awaitable[None]]
    ) -> None:
        while True:
            await asyncio.sleep(interval_s)
            try:
                await act()
            except StoreError:
                OBSERVED.ran(group, ok=False)
                raise
            OBSERVED.ran(group, ok=True)

    async def _rounds(self, store: PublisherStore) -> None:
        while True:
            self._wake.clear()  # before the round, so that a change during it is not lost
            due = self._due()
            try:
                while self._dirty:
                    await self._round(store)
                await self._canaries(store)
                if self.full:
                    await self._put_leased(store, [self._announcement, self._heartbeat()])
                    self.full = ""
                    log.info("event=store_roomy")
            except NoSpaceError as error:
                await self._wait_for_space(store, error)
                continue
            await self._prune()
            timeout = None if due is None else max(0.0, due - self._now())
            try:
                async with asyncio.timeout(None if self._dirty else timeout):
                    if not self._dirty:
                        await self._wake.wait()
            except TimeoutError:
                for key, (when, _, _) in self._failing.items():
                    if when <= self._now():
                        self._dirty[key] = None

    async def _wait_for_space(self, store: PublisherStore, error: NoSpaceError) -> None:
        """Nothing is lost: rows stay desired, leases are kept, and what is gone is deleted."""
        self._is_full(error)
        gone = [k for k in self._dirty if k not in self._rows and k in self._written]
        for first in range(0, len(gone), MAX_TXN_OPS):
            for key in gone[first : first + MAX_TXN_OPS]:
                del self._dirty[key]
            await self._write(store, gone[first : first + MAX_TXN_OPS])
        await asyncio.sleep(FULL_RETRY_S)

    def _is_full(self, error: NoSpaceError) -> None:
        if not self.full:
            log.error('event=store_full error="%s"', error)
            self.failures += 1
        self.full = self.last_error = str(error)
        self._wake.set()

    def _due(self) -> float | None:
        return min((when for when, _, _ in self._failing.values()), default=None)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def _round(self, store: PublisherStore) -> None:
        """Write the oldest dirty keys, as many as fit one transaction."""
        batch: list[str] = []
        size = 0
        for key in self._dirty:
            size += len(key) + len(self._rows.get(key, b""))
            if batch and (len(batch) == MAX_TXN_OPS or size > TXN_BYTES):
                break
            batch.append(key)
        for key in batch:
            del self._dirty[key]
        self._in_flight = tuple(batch)
        try:
            await self._write(store, batch)
        except (StoreError, asyncio.CancelledError):
            self._dirty = {**dict.fromkeys(batch), **self._dirty}
            raise
        finally:
            self._in_flight = ()

    async def _write(self, store: PublisherStore, batch: list[str]) -> None:
        """Write a batch; when the store refuses it, halve it until the guilty rows are alone."""
        values = {key: self._rows.get(key) for key in batch}
        for key in [k for k, v in values.items() if v is not None and len(v) > VALUE_BYTES]:
            size = len(values.pop(key) or b"")
            text = f"{size} bytes are too large, a store takes {VALUE_BYTES}: make it smaller"
            self._fail(key, StoreError(text))
        batch = list(values)
        puts = [(k, v) for k, v in values.items() if v is not None and self._written.get(k) != v]
        gone = [
            k
            for k, v in values.items()
            if v is None and (k in self._written or k in self._leftover)
        ]
        try:
            await self._put_leased(store, puts, [DeleteOp(key) for key in gone])
        except STORE_WIDE:
            raise
        except LeaseNotFoundError:
            await self._prolong(store)
            await self._write(store, batch)
            return
        except StoreError as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._write(store, batch[:middle])
                await self._write(store, batch[middle:])
                return
            self._fail(batch[0], error)
            return
        for key in gone:
            self._written.pop(key, None)
            self._leases.unbind(key)
            self._leftover.pop(key, None)
        self._written.update(puts)
        for key, _ in puts:
            self._leftover.pop(key, None)
        for key in batch:
            if self._rows.get(key) != values[key]:
                self._dirty[key] = None  # it was desired otherwise while this was on its way
            self._failing.pop(key, None)
            for waiting in self._awaited.values():
                waiting.discard(key)

    def _fail(self, key: str, error: StoreError) -> None:
        _, delay, _ = self._failing.get(key, (0.0, RETRY_FIRST_S, ""))
        delay = min(delay * 2, 60.0)
        self._failing[key] = (self._now() + delay, delay, str(error))
        self.failures += 1
        self.errors[scope_of(key)] += 1
        self.last_error = f"{key}: {error}"
        log.warning('event=write_failed key=%s retry_s=%.1f error="%s"', key, delay, error)

    async def _canaries(self, store: PublisherStore) -> None:
        for resource in [r for r, waiting in self._awaited.items() if not waiting]:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
            await self._put_leased(store, [(keys.canary(self._cluster, resource), now)])
            self._awaited.pop(resource, None)
            log.info("event=canary resource=%s", resource)
        if self._complete >= set(self._resources) and not self._awaited:
            self.ready.set()

    async def _prune(self) -> None:
        """Once every type is complete, what an earlier run left behind is dirty, too.

        What is spared is written again, since the lease it hangs on is nobody's any more.
        """
        if not self._complete >= set(self._resources):
            return
        for key in self._leftover.keys() - self._rows.keys() - self._failing.keys():
            self._dirty[key] = None
            value = self._leftover[key]
            if self._spares(key, value):
                self._rows[key] = self._spared[key] = value
        for key, value in list(self._spared.items()):
            if self._rows.get(key) is not value:
                del self._spared[key]  # it can be read again, or was withdrawn
            elif not self._spares(key, value):
                del self._spared[key], self._rows[key]
                self._dirty[key] = None

    async def _put_leased(
        self, store: PublisherStore, rows: list[tuple[str, bytes]], deletes: Sequence[Op] = ()
    ) -> None:
        self.writes += await self._leases.write(store, rows, deletes)

    async def _beat(self, store: PublisherStore) -> None:
        try:
            await self._put_leased(store, [self._heartbeat()])
        except NoSpaceError as error:
            self._is_full(error)

    @staticmethod
    def _heartbeat() -> tuple[str, bytes]:
        return keys.HEARTBEAT, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()

    async def _announce(self, store: PublisherStore) -> None:
        key, value = self._announcement
        row = await store.get(key)
        if row is None or row.value != value or key not in self._leases:
            try:
                await self._put_leased(store, [self._announcement])
            except NoSpaceError as error:
                self._is_full(error)

    async def _guard(self, store: PublisherStore) -> None:
        """Notice at once when the store goes away, or somebody touches the announcement."""
        # The first batch says that the watch stands: what was touched before it is seen by reading.
        async for _ in store.watch(self._announcement[0], 0, exact=True):
            await self._announce(store)

    async def _prolong(self, store: PublisherStore) -> None:
        """Keep every lease alive; the keys of an expired one are written again."""
        lost = await self._drop_expired(store)
        if keys.HEARTBEAT in lost:
            await self._beat(store)
        if self._announcement[0] in lost:
            await self._announce(store)
        self._wake.set()

    async def _drop_expired(self, store: PublisherStore) -> set[str]:
        """Prolong every lease; the keys of those that have expired, now dirty."""
        lost = await self._leases.prolong(store)
        for key in lost:
            self._written.pop(key, None)
            if key in self._rows:
                self._dirty[key] = None
        for key in lost:
            resource = keys.canary_resource(key, self._cluster)
            if resource is not None:
                self._awaited.setdefault(resource, set()).update(self._open(resource))
        return lost


def _first(group: BaseExceptionGroup[StoreError]) -> BaseException:
    """The innermost first error: a task group wraps what its tasks raise."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

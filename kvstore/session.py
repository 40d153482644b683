"""A session with one remote cluster's store: connect, follow, lose it, connect again. Adapter.

What happens and what follows is the table ``kvstore.connection.TABLE``; this file carries it out.
What is done with a cluster's rows is the heir's.
"""

import asyncio
import contextlib
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

from kvstore.backoff import Backoff
from kvstore.connection import TABLE, Action, Happening, State
from kvstore.duties import Duties, Signal
from kvstore.observed import OBSERVED
from kvstore.port import ClusterIdChangedError, Store, StoreError, UnavailableError
from kvstore.status import RemoteStatus
from model.cluster import ClusterConfig, ClusterName
from reconcile.tasks import TaskGroup
from wire.etcd import cluster_config_v1, keys

log = logging.getLogger(__name__)

HEARTBEAT_TIMEOUT_S = 120.0  # a writer beats once a minute
CONFIG_TIMEOUT_S = 180.0
CONFIG_POLL_S = 0.5


class RemoteStore(Store, Protocol):
    """A store that tells where it is."""

    @property
    def cluster_id(self) -> int: ...

    @property
    def endpoint(self) -> str: ...


class AnewError(StoreError):
    """Not a failure: everything is to be read again, from the beginning."""


S = TypeVar("S", bound=RemoteStore)


class Session(ABC, Generic[S]):
    """The life of a connection to one remote cluster.

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
        self._backoff = Backoff()
        self._silent = False  # the last session ended because no heartbeat came
        self._heard, self._changed = Signal(), Signal()
        self._life: Duties | None = None  # of ``run``
        self._revoking = False

    @abstractmethod
    def _begin(self) -> None:
        """Another store may answer from now on."""

    @abstractmethod
    async def _believe(self, config: ClusterConfig) -> None:
        """Take the announcement. Raises ``ValueError`` with a sentence when it is unusable."""

    @abstractmethod
    async def _follow(self, store: S, resource: str, cached: bool) -> None:
        """List and watch one type until the connection is lost; ``_synced`` after each list."""

    @abstractmethod
    async def _revoke(self) -> None:
        """The data are too old: take back what new connections would be sent to."""

    async def _beat(self) -> None:
        """A heartbeat has come."""

    def _catch_up(self, store: S, duties: Duties) -> None:
        """Begin what the heir has to do beside following, as long as the connection stands."""

    async def _admit(self, store: S, cached: bool) -> None:
        """Wait until what the store holds may be believed."""

    async def _lost(self, error: BaseException) -> None:
        """The connection did not come about, or has ended."""

    def _noted(self, key: str, value: bytes) -> None:
        """A row beside the canaries."""

    def _fresh(self) -> tuple[bool, float | None]:
        """Whether our data are up to date; if not, when they were, as far as somebody tells."""
        return self.status.ready, None

    async def run(self) -> None:
        """Connect, follow, and connect again."""
        self.status.age.since_s = self.status.age.since_s or now()
        async with TaskGroup() as tasks:
            self._life = Duties(tasks)
            self._judge_soon()
            try:
                await self._live()
            finally:
                self._life.end()
                self._life = None

    def set_policy(self, revoke_after_s: float) -> None:
        """How old the data may become; ``staleness.KEEP``: any age."""
        self.status.age.revoke_after_s = revoke_after_s
        self._judge_soon()

    async def _live(self) -> None:
        while True:
            self._move(Happening.START)
            failure: BaseException = UnavailableError("the session ended")
            stood_s = 0.0
            try:
                store = await self._connect()
                OBSERVED.ran("remote-etcd", ok=True)
                since = now()
                try:
                    await self._session(store)
                finally:
                    stood_s = now() - since
                    await store.close()
            except* (StoreError, ValueError) as group:
                failure = _first(group)
                self._ended(failure)
            self.status.synced.clear()
            if isinstance(failure, AnewError):
                continue
            await self._lost(failure)
            delay = self._backoff.next_s(stood_s, self._random.random())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._changed.wait()

    def _ended(self, error: BaseException) -> None:
        status = self.status
        if not isinstance(error, AnewError):
            self._count_loss()
        if status.state is State.CONNECTING:
            OBSERVED.ran("remote-etcd", ok=False)
        if isinstance(error, ValueError):
            self._move(Happening.CONFIG_REFUSED)
        if isinstance(error, ClusterIdChangedError):
            self._move(Happening.OTHER_STORE)
        self._move(Happening.LOST)  # nothing, if the connection has been given up already
        status.message = str(error)
        log.warning('event=remote_lost cluster=%s error="%s"', self._name, error)

    def _count_loss(self) -> None:
        if self.status.connected:
            self.status.failures += 1
            self.status.last_failure_s = now()

    def try_now(self) -> None:
        """Something was mended: an attempt that waits for its time is made at once."""
        if self._move(Happening.MENDED) is Action.RETRY_NOW:
            self._backoff.reset()
            self._changed.give()

    def disconnected(self, why: Happening = Happening.STOPPED) -> None:
        """The owner ended ``run``; what was learnt stays, unless the table says otherwise."""
        self._move(why)
        self.status.synced.clear()
        self._backoff.reset()

    def _move(self, happening: Happening) -> Action:
        """Go where the table says; what is to be done there."""
        status = self.status
        before = status.state
        status.state, action = TABLE[before, happening]
        if action is not Action.NOTHING or status.state is not before:
            status.event, status.event_s, status.action = happening, now(), action
        self._judge_soon()
        return action

    def _judge_soon(self) -> None:
        """In the next turn, once for all that happens until then."""
        if self._life is not None and not self._revoking:
            self._life.later("age", 0.0, self._grow_old)

    async def _grow_old(self) -> None:
        """Revoke what has become older than it may; else look again when it may have."""
        if self._revoking:
            return
        age = self.status.age
        fresh, heard_s = self._fresh()
        age.update(fresh, now(), heard_s)
        may = TABLE[self.status.state, Happening.AGED][1] is Action.REVOKE
        if may and age.expire(now()) and self._move(Happening.AGED) is Action.REVOKE:
            log.warning(
                "event=revoked cluster=%s age_s=%.0f: its services' backends are taken back",
                self._name,
                age.age_s(now()),
            )
            self._revoking = True  # until all is gone nothing is fresh again
            try:
                await self._revoke()
            finally:
                self._revoking = False
            self._judge_soon()
        elif may and self._life is not None and (left_s := age.left_s(now())) is not None:
            self._life.later("age", left_s, self._grow_old)

    async def _session(self, store: S) -> None:
        beats = await store.range(keys.HEARTBEAT, within=keys.HEARTBEAT)
        self._begin()
        self.status.endpoint, self.status.etcd_id = store.endpoint, store.cluster_id
        self.status.last_heartbeat_s = now()
        self._move(Happening.ANSWERED)
        self.status.message = "connected"
        async with TaskGroup() as tasks:
            duties = Duties(tasks)
            try:
                duties.begin(self._heartbeat(store, beats.revision))
                await self._stand(store, duties)
            finally:
                duties.end()

    async def _stand(self, store: S, duties: Duties) -> None:
        """Believe and follow, as long as nothing fails."""
        # The keys of a writer that is gone run out after a while, and that must not look like
        # its word: after a silence nothing is read before it speaks again.
        if self._silent and self._move(Happening.MUTE) is Action.AWAIT_BEAT:
            self.status.message = (
                f"{store.endpoint}: waiting for a heartbeat: the remote cluster's "
                "clustermesh-apiserver does not write"
            )
            await self._heard.wait()
        data = await self._configuration(store)
        config = cluster_config_v1.decode(data, keys.cluster_config(self._name))
        await self._believe(config)
        self.status.config = config
        cached = config.capabilities.cached
        await self._admit(store, cached)
        duties.begin(self._keep_to(store, data, cached))
        self._catch_up(store, duties)
        if self._move(Happening.CONFIG_ACCEPTED) is not Action.FOLLOW:
            raise UnavailableError(f"{store.endpoint}: given up meanwhile")
        if config.capabilities.synced_canaries:
            await self._canaries(store, cached, duties)
        else:
            for resource in self._resources:
                duties.begin(self._follow(store, resource, cached))
        await Signal().wait()  # for ever

    async def _canaries(self, store: S, cached: bool, duties: Duties) -> None:
        """Follow each type from its canary on."""
        started: set[str] = set()

        def place(key: str) -> int:
            """Nodes first: what is said of addresses costs twice when it comes before them."""
            resource = keys.canary_resource(key, self._name, cached)
            known = resource in self._resources
            return self._resources.index(resource) if known and resource else len(self._resources)

        def start(key: str, value: bytes) -> None:
            resource = keys.canary_resource(key, self._name, cached)
            if resource in self._resources and resource not in started:
                started.add(resource)
                duties.begin(self._follow(store, resource, cached))
            elif resource is None:
                self._noted(key, value)

        prefix = keys.canary_prefix(self._name)
        within = keys.SYNCED_PREFIX if cached else ""

        async def listed() -> int:  # rows stay no longer than this
            canaries = await store.range(prefix, within=within)
            for row in sorted(canaries.rows, key=lambda row: place(row.key)):
                start(row.key, row.value)
            return canaries.revision

        watch = store.watch(prefix, await listed() + 1, within=within)
        async for batch in watch:
            for event in batch.events:
                if hasattr(event, "row"):
                    start(event.row.key, event.row.value)

    async def _heartbeat(self, store: RemoteStore, revision: int) -> None:
        watch = store.watch(keys.HEARTBEAT, revision + 1, within=keys.HEARTBEAT)
        while True:
            try:
                # Whatever else arrives on this watch does not count.
                async with asyncio.timeout_at(self.status.last_heartbeat_s + HEARTBEAT_TIMEOUT_S):
                    batch = await anext(watch)
            except TimeoutError as error:
                self._silent = True
                OBSERVED.quorum_errors.add("no heartbeat")
                self._count_loss()
                self._move(Happening.SILENCE)
                raise UnavailableError(
                    f"{store.endpoint}: no heartbeat for {HEARTBEAT_TIMEOUT_S:.0f} s: "
                    "the remote cluster's clustermesh-apiserver does not write"
                ) from error
            if any(hasattr(event, "row") for event in batch.events):
                self.status.last_heartbeat_s = now()
                self._silent = False
                self._move(Happening.BEAT)
                self._heard.give()
                await self._beat()

    async def _keep_to(self, store: RemoteStore, data: bytes, cached: bool) -> None:
        """End the session when the cluster announces itself otherwise than it was believed."""
        key = keys.cluster_config(self._name)
        # The first batch says that the watch stands: what changed before it is seen by reading.
        within = keys.CLUSTER_CONFIG_PREFIX if cached else ""
        async for _ in store.watch(key, 0, exact=True, within=within):
            row = await store.get(key, within=within)
            if row is not None and row.value != data:
                self._count_loss()
                self._move(Happening.CONFIG_CHANGED)
                raise UnavailableError(
                    f"{store.endpoint}: the remote cluster's configuration has changed ({key})"
                )

    async def _configuration(self, store: RemoteStore) -> bytes:
        key = keys.cluster_config(self._name)
        deadline = now() + CONFIG_TIMEOUT_S
        while True:
            row = await store.get(key, within=keys.CLUSTER_CONFIG_PREFIX)
            if row is not None:
                return row.value
            if now() > deadline:
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


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    """The innermost first error: a task group wraps what its tasks raise."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def now() -> float:
    """The loop's clock, in seconds."""
    return asyncio.get_running_loop().time()

"""Publisher and remote session against a real etcd: what one side says, the other believes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from kvstore.connection import State
from kvstore.publisher import Publisher
from kvstore.remote import Change, Remote
from model.address import parse_address, parse_prefix
from model.cluster import Capabilities, ClusterConfig, ClusterId, ClusterName
from model.identity import NumericIdentity
from model.ipcache import EndpointAddress
from model.labels import CLUSTER_LABEL, Labels
from model.node import Node, NodeName
from model.service import ServiceName, SharedService
from reconcile.tasks import TaskGroup
from tests.support.etcd import Etcd, mesh_etcd, prepare
from wire.etcd import cluster_config_v1, identity_v1, ip_v1, keys, node_v1, service_v1

pytestmark = pytest.mark.root

C2, TWO = ClusterName("c2"), ClusterId(2)
CONFIG = ClusterConfig(TWO, Capabilities(True, False, 255, False))
IDENTITY = NumericIdentity(2 << 16 | 300)


@pytest.fixture
def etcd() -> Iterator[Etcd]:
    with mesh_etcd("c2") as found:
        yield found


@dataclass
class Learnt:
    """A sink that remembers the state it was told, not the calls."""

    rows: dict[tuple[str, Any], Any] = field(default_factory=dict)
    synced: set[str] = field(default_factory=set)
    removed: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def on_changes(self, cluster: ClusterName, resource: str, changes: Sequence[Change]) -> None:
        for key, value in changes:
            if value is None:
                self.rows.pop((resource, key), None)
            else:
                self.rows[resource, key] = value
        self.changed.set()

    def on_synced(self, cluster: ClusterName, resource: str) -> None:
        self.synced.add(resource)
        self.changed.set()

    def on_removed(self, cluster: ClusterName) -> None:
        self.rows.clear()
        self.removed += 1
        self.changed.set()

    def on_revoked(self, cluster: ClusterName) -> None:
        self.changed.set()

    async def until(self, holds: Callable[[], bool], timeout_s: float = 30) -> None:
        async with asyncio.timeout(timeout_s):
            while not holds():
                self.changed.clear()
                try:
                    async with asyncio.timeout(0.1):
                        await self.changed.wait()
                except TimeoutError:
                    continue


def rows() -> dict[str, bytes | None]:
    node = Node(C2, NodeName("w1"), TWO, pod_cidrs=(parse_prefix("10.2.1.0/24"),))
    address = EndpointAddress(parse_address("172.20.2.1"), IDENTITY, 0, "ns", "pod")
    labels = Labels.k8s({CLUSTER_LABEL: "c2", "app": "x"})
    name = ServiceName("ns", "svc")
    return {
        keys.node(C2, "w1"): node_v1.encode(node),
        keys.identity(IDENTITY): identity_v1.encode(labels),
        keys.ip(parse_address("10.2.1.7")): ip_v1.encode(parse_address("10.2.1.7"), address),
        keys.service(C2, name): service_v1.encode(SharedService(C2, TWO, name)),
    }


EXPECTED = {
    (keys.NODES, NodeName("w1")),
    (keys.IDENTITIES, IDENTITY),
    (keys.IP, parse_prefix("10.2.1.7/32")),
    (keys.SERVICES, ServiceName("ns", "svc")),
}


def publisher(etcd: Etcd, ttl_s: int = 900) -> Publisher:
    async def admin() -> Any:
        return await etcd.store("admin-c2")

    return Publisher(admin, C2, CONFIG, lease_ttl_s=ttl_s)


def complete(writer: Publisher, what: dict[str, bytes | None]) -> None:
    writer.put(what)
    for resource in keys.RESOURCES:
        writer.complete(resource)


@asynccontextmanager
async def running(*tasks_of: Any) -> AsyncIterator[None]:
    async with TaskGroup() as group:
        tasks = [group.create_task(thing.run()) for thing in tasks_of]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


def reader(etcd: Etcd, sink: Learnt, accept: Any = lambda name, config: None) -> Remote:
    async def remote() -> Any:
        return await etcd.store("remote")

    return Remote(C2, remote, sink, accept)


async def eventually(read: Callable[[], Any], holds: Callable[[Any], bool]) -> None:
    """Read again and again until it holds."""
    async with asyncio.timeout(30):
        while not holds(await read()):  # noqa: ASYNC110 -- the store has no event for us
            await asyncio.sleep(0.02)


async def test_what_is_published_is_learnt(etcd: Etcd) -> None:
    """All types arrive, the session is ready, and a later change and deletion arrive too."""
    sink = Learnt()
    writer, session = publisher(etcd), reader(etcd, sink)
    async with running(writer, session):
        complete(writer, rows())
        await sink.until(lambda: session.status.ready)
        assert set(sink.rows) == EXPECTED
        async with asyncio.timeout(30):
            await writer.ready.wait()  # it writes more than a session waits for
        assert session.status.config == CONFIG
        writer.put({keys.ip(parse_address("10.2.1.7")): None})
        await sink.until(lambda: (keys.IP, parse_prefix("10.2.1.7/32")) not in sink.rows)


async def test_nothing_is_believed_before_its_canary(etcd: Etcd) -> None:
    """A type whose canary is missing is not read."""
    sink = Learnt()
    writer, session = publisher(etcd), reader(etcd, sink)
    async with running(writer, session):
        writer.put(rows())
        writer.complete(keys.NODES)
        await sink.until(lambda: keys.NODES in sink.synced)
        assert session.status.state is State.CONFIGURED
        assert {resource for resource, _ in sink.rows} == {keys.NODES}


async def test_a_store_that_restarts_keeps_what_was_learnt(etcd: Etcd) -> None:
    """Killed: everything stays. Back with its data: a change made meanwhile arrives."""
    sink = Learnt()
    writer, session = publisher(etcd), reader(etcd, sink)
    async with running(writer, session):
        complete(writer, rows())
        await sink.until(lambda: session.status.ready)
        etcd.kill()
        await sink.until(lambda: not session.status.connected)
        assert set(sink.rows) == EXPECTED
        writer.put({keys.ip(parse_address("10.2.1.7")): None})
        etcd.start()
        await sink.until(lambda: (keys.IP, parse_prefix("10.2.1.7/32")) not in sink.rows)
        await sink.until(lambda: session.status.ready)
        assert set(sink.rows) == EXPECTED - {(keys.IP, parse_prefix("10.2.1.7/32"))}
        assert session.status.failures >= 1


async def test_an_empty_store_is_filled_again(etcd: Etcd) -> None:
    """A store that comes back without data gets everything; the reader sees no gap in the end."""
    sink = Learnt()
    writer, session = publisher(etcd), reader(etcd, sink)
    async with running(writer, session):
        complete(writer, rows())
        await sink.until(lambda: session.status.ready)
        etcd.kill()
        etcd.wipe()
        await asyncio.to_thread(prepare, etcd, "c2")
        etcd.start()
        await sink.until(lambda: session.status.ready and session.status.failures > 0, 40)
        assert set(sink.rows) == EXPECTED


async def test_a_new_writer_removes_what_the_old_one_left(etcd: Etcd) -> None:
    """A publisher that was killed leaves rows; the next prunes them once its own are complete."""
    old, sink = publisher(etcd), Learnt()
    async with running(old):
        complete(
            old,
            {
                **rows(),
                keys.ip(parse_address("10.2.1.9")): rows()[keys.ip(parse_address("10.2.1.7"))],
            },
        )
        async with asyncio.timeout(30):
            await old.ready.wait()
    new, session = publisher(etcd), reader(etcd, sink)
    async with running(new, session):
        complete(new, rows())
        async with asyncio.timeout(30):
            await new.ready.wait()
        await sink.until(lambda: session.status.ready)
        store = await etcd.store("admin-c2")
        await eventually(
            lambda: store.get(keys.ip(parse_address("10.2.1.9"))), lambda row: row is None
        )
        await store.close()
        await sink.until(lambda: set(sink.rows) == EXPECTED)


async def test_rows_outlive_an_expired_lease(etcd: Etcd) -> None:
    """When a lease is gone, its keys are written again under a new one."""
    writer = publisher(etcd, ttl_s=3)
    async with running(writer):
        complete(writer, rows())
        async with asyncio.timeout(30):
            await writer.ready.wait()
        store = await etcd.store("admin-c2")
        leases = {r.lease for r in (await store.range("cilium/state/")).rows}
        for lease in leases:
            await store.revoke(lease)
        await eventually(
            lambda: store.range("cilium/state/"), lambda found: len(found.rows) == len(rows())
        )
        await eventually(lambda: store.get(keys.canary("c2", keys.IP)), lambda row: row is not None)
        await store.close()


async def test_a_bad_record_harms_only_itself(etcd: Etcd) -> None:
    """It is counted and shown with its key; the last good value of the key stays."""
    sink = Learnt()
    writer, session = publisher(etcd), reader(etcd, sink)
    key = keys.ip(parse_address("10.2.1.7"))
    async with running(writer, session):
        complete(writer, rows())
        await sink.until(lambda: session.status.ready)
        store = await etcd.store("admin-c2")
        await store.put(key, b"nonsense")
        await store.put(
            keys.ip(parse_address("10.2.1.8")), rows()[key] or b""
        )  # key and value differ
        await sink.until(lambda: session.status.rejected.get(keys.IP) == 2)
        assert set(sink.rows) == EXPECTED
        assert "10.2.1.8" in session.status.last_rejected
        await store.close()


async def test_an_unusable_announcement_is_said(etcd: Etcd) -> None:
    """A cluster whose number may not be used is not read, and the status says why."""

    def refuse(name: ClusterName, config: ClusterConfig) -> None:
        raise ValueError(f"clusterID {config.id} is assigned to the local cluster")

    sink = Learnt()
    writer, session = publisher(etcd), reader(etcd, sink, refuse)
    async with running(writer, session):
        complete(writer, rows())
        await sink.until(lambda: "clusterID 2" in session.status.message)
        assert not sink.rows


async def test_history_lost_under_a_watch(etcd: Etcd) -> None:
    """A session that lost its place by compaction lists again, and deletions come out."""
    sink = Learnt()
    writer, session = publisher(etcd), reader(etcd, sink)
    async with running(writer, session):
        complete(writer, rows())
        await sink.until(lambda: session.status.ready)
    async with running(writer):
        writer.put({keys.ip(parse_address("10.2.1.7")): None, keys.node(C2, "w1"): None})
        store = await etcd.store("admin-c2")
        await eventually(lambda: store.get(keys.node(C2, "w1")), lambda row: row is None)
        await store.compact((await store.status()).revision)
        await store.close()
        session.disconnected()
        async with running(session):
            await sink.until(lambda: session.status.ready)
            assert {r for r, _ in sink.rows} == {keys.IDENTITIES, keys.SERVICES}


async def until_message(session: Remote, text: str) -> None:
    async with asyncio.timeout(40):
        while text not in session.status.message:  # noqa: ASYNC110 (the session's own pace)
            await asyncio.sleep(0.02)


async def test_a_silent_writer_takes_nothing_with_it(
    etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its leases run out after the session noticed the silence: everything learnt stays."""
    sink = Learnt()
    session = reader(etcd, sink)
    store = await etcd.store("admin-c2")
    async with running(session):
        async with running(writer := publisher(etcd)):
            complete(writer, rows())
            await sink.until(lambda: session.status.ready)
            monkeypatch.setattr("kvstore.session.HEARTBEAT_TIMEOUT_S", 1.0)  # from its next beat on
            before = session.status.last_heartbeat_s
            beat = await store.get(keys.HEARTBEAT)
            assert beat is not None
            await store.put(keys.HEARTBEAT, b"now", beat.lease)
            await sink.until(lambda: session.status.last_heartbeat_s > before)
        await until_message(session, "waiting for a heartbeat")
        await store.delete("cilium/state/", prefix=True)
        await until_message(session, "no heartbeat for 1 s")
        await until_message(session, "waiting for a heartbeat")
        assert set(sink.rows) == EXPECTED
        for lease in {row.lease for row in (await store.range("cilium/")).rows}:
            await store.revoke(lease)
        assert not (await store.range("cilium/")).rows
        await until_message(session, "no heartbeat for 1 s")
        await until_message(session, "waiting for a heartbeat")
        assert set(sink.rows) == EXPECTED
        monkeypatch.setattr("kvstore.session.HEARTBEAT_TIMEOUT_S", 120.0)
        async with running(writer := publisher(etcd)):
            left = dict(list(rows().items())[:3])
            complete(writer, left)
            async with asyncio.timeout(30):
                await writer.ready.wait()

            async def beaten() -> bool:
                # Its own beat may have come while the session was about to give up, as before.
                await store.put(keys.HEARTBEAT, b"now")
                return session.status.ready

            await eventually(beaten, bool)
            assert set(sink.rows) == EXPECTED - {(keys.SERVICES, ServiceName("ns", "svc"))}
        await store.close()


@pytest.mark.parametrize("canaries", [True, False])
async def test_a_mirrored_cluster_is_read_from_the_cache(etcd: Etcd, canaries: bool) -> None:
    """A store that holds copies of other clusters: other prefixes, the user of the own cluster."""
    store = await etcd.store("admin-c2")
    name, number = ClusterName("c9"), ClusterId(9)
    identity = NumericIdentity(9 << 16 | 300)
    config = ClusterConfig(number, Capabilities(canaries, True, 255, False))
    where = {r: keys.resource_prefix(r, name, cached=True) for r in keys.RESOURCES}
    address = parse_address("10.9.0.1")
    for key, value in {
        keys.cluster_config(name): cluster_config_v1.encode(config),
        f"{where[keys.IP]}{address}": ip_v1.encode(address, EndpointAddress(None, identity)),
        f"{where[keys.IDENTITIES]}{identity}": identity_v1.encode(
            Labels.k8s({CLUSTER_LABEL: name})
        ),
        # A name that begins with ours is another cluster's.
        "cilium/cache/ip/v1/c99/10.99.0.1": b"nonsense",
        **{keys.canary(name, r, cached=True): b"now" for r in keys.RESOURCES if canaries},
    }.items():
        await store.put(key, value)
    sink = Learnt()

    async def local() -> Any:
        return await etcd.store("local-c2")

    session = Remote(name, local, sink, lambda name, config: None)
    async with running(session):
        await sink.until(lambda: session.status.ready)
        assert set(sink.rows) == {
            (keys.IP, parse_prefix("10.9.0.1/32")),
            (keys.IDENTITIES, identity),
        }
        assert session.status.rejected == {}
    await store.close()

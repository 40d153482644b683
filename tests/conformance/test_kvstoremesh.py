"""Copies of remote clusters in our own store: real etcds with TLS and users on both sides."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kvstore import etcd as client
from kvstore.config_directory import ConfigDirectory
from kvstore.etcd import EtcdStore
from kvstore.reflection import Reflection
from kvstore.reflections import Reflections
from kvstore.remote import Remote
from model.address import parse_address
from model.cluster import Capabilities, ClusterConfig, ClusterId, ClusterName
from model.service import ServiceName
from tests.conformance.test_mesh_store import EXPECTED, Learnt, publisher, rows, running
from tests.conformance.test_mesh_store import complete as say_all
from tests.conformance.test_remotes import configure
from tests.support.etcd import Etcd, mesh_etcd, prepare
from tests.support.tcp_proxy import TcpProxy
from wire.etcd import cluster_config_v1, freshness_v1, keys

pytestmark = pytest.mark.root

C1, C2 = ClusterName("c1"), ClusterName("c2")
TYPES = ("nodes", "identities", "ip", "services")


@pytest.fixture
def far() -> Iterator[Etcd]:
    """The store of c2."""
    with mesh_etcd(C2) as found:
        yield found


@pytest.fixture
def near() -> Iterator[Etcd]:
    """The store of c1, our own."""
    with mesh_etcd(C1) as found:
        yield found


class Copies:
    """c1's KVStoreMesh, and what its store holds."""

    def __init__(
        self, directory: Path, near: Etcd, ttl_s: int = 900, grace_s: float = 0, **more: float
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.directory, self.near = directory, near
        self.admin = near.user("admin-c1")
        self.reflections = Reflections(
            ConfigDirectory(directory, C1),
            lambda: client.connect(self.admin),
            ttl_s,
            grace_s,
            **more,
        )

    @property
    def of_c2(self) -> Reflection:
        return self.reflections.all[C2]

    def ready(self) -> bool:
        return C2 in self.reflections.all and self.of_c2.source.status.ready

    async def held(self, prefix: str = "cilium/") -> dict[str, bytes]:
        store = await self.near.store("admin-c1")
        try:
            return {row.key: row.value for row in (await store.range(prefix)).rows}
        finally:
            await store.close()


@asynccontextmanager
async def copying(directory: Path, near: Etcd, *others: Any, **more: Any) -> AsyncIterator[Copies]:
    copies = Copies(directory, near, **more)
    async with running(copies.reflections, *others):
        yield copies


async def until(holds: Any, timeout_s: float = 20) -> None:
    """Look again until it holds."""
    async with asyncio.timeout(timeout_s):
        while True:
            found = holds()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.05)


def cache_key(key: str) -> str:
    """Where a row of c2's state lies in a copy, spelled out from the published key space."""
    for kind, own in (
        ("nodes", "c2/"),
        ("identities", "id/"),
        ("ip", "default/"),
        ("services", "c2/"),
    ):
        head = f"cilium/state/{kind}/v1/{own}"
        if key.startswith(head):
            tail = "c2/id/" if kind == "identities" else "c2/"
            return f"cilium/cache/{kind}/v1/{tail}{key.removeprefix(head)}"
    raise AssertionError(key)


def same(copies: Copies, wanted: dict[str, bytes | None]) -> Any:
    """The copy holds exactly these rows of c2, value for value."""

    async def look() -> bool:
        return await copies.held(keys.CACHE_PREFIX) == {cache_key(k): v for k, v in wanted.items()}

    return look


async def put(etcd: Etcd, content: dict[str, bytes]) -> None:
    store = await etcd.store("admin-c2")
    for key, value in content.items():
        await store.put(key, value)
    await store.close()


ODD = b'\xff{"name": not even text'


async def test_the_copy_is_exact(far: Etcd, near: Etcd, tmp_path: Path) -> None:
    """Rows, changes and deletions arrive byte for byte; slave keys and locks of identities never.

    The announcement keeps number and limits and says that the data lies in the cache, every row
    hangs on a lease, and each type has its canary.
    """
    content = rows() | {keys.ip(parse_address("10.2.9.9")): ODD}  # no row of ours to judge
    writer = publisher(far)
    say_all(writer, content)
    await put(far, {"cilium/state/identities/v1/value/x/n1": b"1"})
    async with copying(tmp_path / "mesh", near, writer) as copies:
        configure(copies.directory, C2, far)
        await until(copies.ready)
        await until(same(copies, content))
        held = await copies.held()
        config = cluster_config_v1.decode(held["cilium/cluster-config/c2"], "")
        assert config == ClusterConfig(ClusterId(2), Capabilities(True, True, 255, False))
        for kind in (*TYPES, "serviceexports"):
            assert f"cilium/synced/c2/cilium/cache/{kind}/v1" in held
        store = await near.store("admin-c1")
        assert all(row.lease for row in (await store.range("cilium/")).rows)
        await store.close()
        address = keys.ip(parse_address("10.2.9.9"))
        content = content | {address: b"another", keys.ip(parse_address("10.2.9.10")): ODD}
        del content[keys.node(C2, "w1")]
        writer.put({**content, keys.node(C2, "w1"): None})
        await until(same(copies, content))


async def test_agents_read_the_copy(far: Etcd, near: Etcd, tmp_path: Path) -> None:
    """A session with the local user learns the same from the copy as from the cluster itself."""
    writer = publisher(far)
    say_all(writer, rows())
    sink = Learnt()
    store = await near.store("admin-c1")
    await store.put(keys.HEARTBEAT, b"now")
    await store.close()

    async def local() -> EtcdStore:
        return await near.store("local-c1")

    agent = Remote(C2, local, sink, lambda name, config: None)
    async with copying(tmp_path / "mesh", near, writer, agent) as copies:
        configure(copies.directory, C2, far)
        await sink.until(lambda: agent.status.ready)
        assert set(sink.rows) == EXPECTED
        assert agent.status.config is not None
        assert agent.status.config.capabilities.cached
        await until(lambda: bool(agent.status.freshness and agent.status.freshness.connected))


async def test_agents_change_over_to_the_copy(far: Etcd, near: Etcd, tmp_path: Path) -> None:
    """An agent that read the cluster itself and now reads the copy loses nothing on the way."""
    writer = publisher(far)
    say_all(writer, rows())
    store = await near.store("admin-c1")
    await store.put(keys.HEARTBEAT, b"now")
    await store.close()
    proxied, sink = {"near": False}, Watchful()

    async def either() -> EtcdStore:
        return await (near.store("local-c1") if proxied["near"] else door_store(door, far))

    agent = Remote(C2, either, sink, lambda name, config: None)
    async with (
        TcpProxy("127.0.0.1", far.port).serve() as door,
        copying(tmp_path / "mesh", near, writer, agent) as copies,
    ):
        configure(copies.directory, C2, far)
        await until(copies.ready)
        await sink.until(lambda: agent.status.ready)
        proxied["near"] = True
        door.close_door()
        await sink.until(lambda: bool(agent.status.ready and agent.status.freshness))
        assert agent.status.config is not None
        assert agent.status.config.capabilities.cached
        assert set(sink.rows) == EXPECTED
        assert sink.gone == 0


class Watchful(Learnt):
    """Counts what was taken back."""

    gone = 0

    def on_changes(self, cluster, resource, changes):
        self.gone += sum(value is None for _, value in changes)
        super().on_changes(cluster, resource, changes)


async def door_store(door: TcpProxy, etcd: Etcd) -> EtcdStore:
    config = replace(etcd.user("remote"), endpoints=(f"https://127.0.0.1:{door.port}",))
    return await client.connect(config)


def configure_through(copies: Copies, far: Etcd, door: TcpProxy) -> None:
    configure(copies.directory, C2, replace_port(far, door.port))


def replace_port(etcd: Etcd, port: int) -> Etcd:
    return replace(etcd, port=port)


async def told(copies: Copies) -> freshness_v1.Freshness:
    held = await copies.held(keys.freshness("c2"))
    return freshness_v1.decode(held[keys.freshness("c2")], "")


async def says(copies: Copies, *, connected: bool) -> bool:
    held = await copies.held(keys.freshness("c2"))
    return bool(held) and (await told(copies)).connected is connected


async def test_cut_off_and_back(far: Etcd, near: Etcd, tmp_path: Path) -> None:
    """While the cluster is away its copy stays and says so; what changed meanwhile then arrives."""
    content = rows()
    writer = publisher(far)
    say_all(writer, content)
    async with (
        TcpProxy("127.0.0.1", far.port).serve() as door,
        copying(tmp_path / "mesh", near, writer, ttl_s=3) as copies,
    ):
        configure_through(copies, far, door)
        await until(copies.ready)
        await until(same(copies, content))
        await until(lambda: says(copies, connected=True))
        heard = (await told(copies)).heard
        door.close_door()
        await until(lambda: says(copies, connected=False))
        assert (await told(copies)).error
        assert (await told(copies)).heard == heard
        assert not copies.of_c2.source.status.connected
        # Twice the time that its leases live: they are kept, the cluster's absence is no reason.
        await until(lambda: asyncio.sleep(6.5, True))
        assert await same(copies, content)()
        gone = keys.ip(parse_address("10.2.1.7"))
        content = {k: v for k, v in content.items() if k != gone}
        content[keys.ip(parse_address("10.2.1.8"))] = ODD
        writer.put({**content, gone: None})
        await until(lambda: not writer.problems)
        door.open_door()
        await until(same(copies, content))
        await until(lambda: says(copies, connected=True))


async def test_a_copy_that_is_too_old_is_revoked_for_agents(
    far: Etcd, near: Etcd, tmp_path: Path
) -> None:
    """The cluster is cut off from its mirror: agents of the copy see the age, take its services
    back after their time, and have them again when it is back. One that starts meanwhile knows
    the age at once."""
    writer = publisher(far)
    say_all(writer, rows())
    store = await near.store("admin-c1")
    await store.put(keys.HEARTBEAT, b"now")
    await store.close()

    async def local() -> EtcdStore:
        return await near.store("local-c1")

    sink, late = Learnt(), Learnt()
    agent = Remote(C2, local, sink, lambda name, config: None)
    agent.set_policy(4.0)
    service = (keys.SERVICES, ServiceName("ns", "svc"))
    async with (
        TcpProxy("127.0.0.1", far.port).serve() as door,
        copying(tmp_path / "mesh", near, writer, agent) as copies,
    ):
        configure_through(copies, far, door)
        await sink.until(lambda: agent.status.ready)
        assert set(sink.rows) == EXPECTED
        door.close_door()
        await sink.until(
            lambda: bool(agent.status.freshness and not agent.status.freshness.connected)
        )
        assert agent.status.ready
        assert service in sink.rows
        await sink.until(lambda: service not in sink.rows)
        assert set(sink.rows) == EXPECTED - {service}
        assert agent.status.age.revoked
        young = Remote(C2, local, late, lambda name, config: None)
        young.set_policy(4.0)
        async with running(young):
            await late.until(lambda: young.status.ready)
            await late.until(lambda: set(late.rows) == EXPECTED - {service}, 3)
            door.open_door()
            for told, session in ((sink, agent), (late, young)):
                await told.until(lambda t=told, s=session: service in t.rows and s.status.ready, 30)
                assert set(told.rows) == EXPECTED


async def test_the_mirror_revokes_for_others(far: Etcd, near: Etcd, tmp_path: Path) -> None:
    """With a time of its own the mirror takes the services out of the copy, and nothing else."""
    content = rows()
    writer = publisher(far)
    say_all(writer, content)
    service = keys.service(C2, ServiceName("ns", "svc"))
    async with (
        TcpProxy("127.0.0.1", far.port).serve() as door,
        copying(tmp_path / "mesh", near, writer, cache_ttl_s=2.0) as copies,
    ):
        configure_through(copies, far, door)
        await until(copies.ready)
        await until(same(copies, content))
        door.close_door()
        await until(same(copies, {k: v for k, v in content.items() if k != service}))
        door.open_door()
        await until(same(copies, content), 30)


async def test_a_dead_mirror_takes_nothing_with_it(
    far: Etcd, near: Etcd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its copy runs out with its leases, after agents have noticed its silence: they keep all,
    and read again when it speaks again."""
    monkeypatch.setattr("kvstore.remote.COPY_TIMEOUT_S", 2.0)
    writer = publisher(far)
    say_all(writer, rows())
    store = await near.store("admin-c1")
    await store.put(keys.HEARTBEAT, b"now")

    async def local() -> EtcdStore:
        return await near.store("local-c1")

    sink = Learnt()
    agent = Remote(C2, local, sink, lambda name, config: None)
    async with running(writer, agent):
        async with copying(tmp_path / "mesh", near) as copies:
            configure(copies.directory, C2, far)
            await sink.until(lambda: agent.status.ready)
        await sink.until(lambda: "waiting for a word of KVStoreMesh" in agent.status.message, 20)
        for lease in {row.lease for row in (await store.range("cilium/")).rows} - {0}:
            await store.revoke(lease)
        assert not (await store.range(keys.CACHE_PREFIX)).rows
        await asyncio.sleep(3)
        assert set(sink.rows) == EXPECTED
        monkeypatch.setattr("kvstore.remote.COPY_TIMEOUT_S", 240.0)
        async with copying(tmp_path / "mesh", near) as copies:
            await sink.until(lambda: agent.status.ready, 40)
            assert set(sink.rows) == EXPECTED
    await store.close()


async def test_a_copy_is_compared_with_its_source(far: Etcd, near: Etcd, tmp_path: Path) -> None:
    """A row that somebody put into the copy, and one that is missing there, do not stay so."""
    content = rows()
    writer = publisher(far)
    say_all(writer, content)
    async with copying(tmp_path / "mesh", near, writer, compare_s=1.0) as copies:
        configure(copies.directory, C2, far)
        await until(copies.ready)
        await until(same(copies, content))
        store = await near.store("admin-c1")
        await store.put(cache_key(keys.ip(parse_address("10.2.1.99"))), b"forged")
        await store.delete(cache_key(keys.node(C2, "w1")))
        await store.close()
        await until(same(copies, content))
        assert copies.of_c2.source.status.repaired >= 2


async def test_remote_wiped(far: Etcd, near: Etcd, tmp_path: Path) -> None:
    """An etcd that comes back empty under its name is not believed before its writer is done."""
    content = rows()
    async with copying(tmp_path / "mesh", near) as copies:
        writer = publisher(far)
        say_all(writer, content)
        async with running(writer):
            configure(copies.directory, C2, far)
            await until(copies.ready)
            await until(same(copies, content))
        far.kill()
        far.wipe()
        await asyncio.to_thread(prepare, far, C2)
        far.start()
        await until(lambda: copies.of_c2.source.status.failures > 0)
        fresh = {k: v for k, v in content.items() if "/ip/" not in k}
        again = publisher(far)
        again.put(fresh)
        async with running(again):
            await until(lambda: copies.of_c2.source.status.connected)
            for kind in (keys.NODES, keys.IDENTITIES, keys.SERVICES, keys.SERVICE_EXPORTS):
                again.complete(kind)
            await until(lambda: {keys.NODES, keys.SERVICES} <= copies.of_c2.source.status.synced)
            assert await same(copies, content)()  # of the addresses nothing was said yet
            again.complete(keys.IP)
            await until(same(copies, fresh))


async def test_compaction(far: Etcd, near: Etcd, tmp_path: Path) -> None:
    """Deletions that a compaction swallowed while we were away reach the copy."""
    content = rows()
    writer = publisher(far)
    say_all(writer, content)
    async with (
        TcpProxy("127.0.0.1", far.port).serve() as door,
        copying(tmp_path / "mesh", near, writer) as copies,
    ):
        configure_through(copies, far, door)
        await until(copies.ready)
        await until(same(copies, content))
        door.close_door()
        await until(lambda: not copies.of_c2.source.status.connected)
        gone = keys.service(C2, ServiceName("ns", "svc"))
        content = {k: v for k, v in content.items() if k != gone}
        writer.put({gone: None})
        store = await far.store("admin-c2")

        async def deleted() -> bool:
            return await store.get(gone) is None

        await until(deleted)
        await store.compact((await store.status()).revision)
        await store.close()
        door.open_door()
        await until(same(copies, content))


async def test_our_own_store_wiped(far: Etcd, near: Etcd, tmp_path: Path) -> None:
    """Our store comes back empty: the whole copy is written again."""
    content = rows()
    writer = publisher(far)
    say_all(writer, content)
    async with copying(tmp_path / "mesh", near, writer) as copies:
        configure(copies.directory, C2, far)
        await until(copies.ready)
        await until(same(copies, content))
        near.kill()
        near.wipe()
        await asyncio.to_thread(prepare, near, C1)
        near.start()
        await until(same(copies, content), 30)
        await until(copies.ready)
        held = await copies.held()
        assert "cilium/cluster-config/c2" in held
        assert "cilium/synced/c2/cilium/cache/ip/v1" in held


async def test_an_earlier_run_is_taken_over(far: Etcd, near: Etcd, tmp_path: Path) -> None:
    """A restart rewrites nothing that is right, and removes what is wrong."""
    content = rows()
    writer = publisher(far)
    say_all(writer, content)
    async with running(writer):
        async with copying(tmp_path / "mesh", near) as copies:
            configure(copies.directory, C2, far)
            await until(copies.ready)
            await until(same(copies, content))
        store = await near.store("admin-c1")
        before = {r.key: r.mod_revision for r in (await store.range(keys.CACHE_PREFIX)).rows}
        await store.put("cilium/cache/ip/v1/c2/10.2.77.77", b"stale")
        async with copying(tmp_path / "mesh", near) as copies:
            await until(copies.ready)
            await until(same(copies, content))
            after = {r.key: r.mod_revision for r in (await store.range(keys.CACHE_PREFIX)).rows}
            assert after == before
        await store.close()


async def test_the_number_changes(far: Etcd, near: Etcd, tmp_path: Path) -> None:
    """Rows of the old number are gone before the new one is announced, and come back after it."""
    content = rows()
    async with copying(tmp_path / "mesh", near) as copies:
        writer = publisher(far)
        say_all(writer, content)
        async with running(writer):
            configure(copies.directory, C2, far)
            await until(copies.ready)
            await until(same(copies, content))
        store = await near.store("admin-c1")
        start = (await store.status()).revision
        config = ClusterConfig(ClusterId(9), Capabilities(True, False, 255, False))
        await put(far, {keys.cluster_config(C2): cluster_config_v1.encode(config)})
        seen: list[str] = []
        async for batch in store.watch("cilium/", start + 1):
            for event in batch.events:
                if hasattr(event, "row"):
                    seen.append(f"+{event.row.key}")
                else:
                    seen.append(f"-{event.key}")
            if "+cilium/synced/c2/cilium/cache/nodes/v1" in seen:
                break
        await store.close()
        announced = seen.index("+cilium/cluster-config/c2")
        assert {f"-{cache_key(k)}" for k in content} <= set(seen[:announced])
        assert "-cilium/synced/c2/cilium/cache/nodes/v1" in seen[:announced]
        await until(same(copies, content))


async def test_removal_leaves_nothing_and_spares_others(
    far: Etcd, near: Etcd, tmp_path: Path
) -> None:
    """The announcement goes at once, the rest after the grace; c22 is not c2."""
    writer = publisher(far)
    say_all(writer, rows())
    other = {
        "cilium/cluster-config/c22": b"{}",
        "cilium/synced/c22/cilium/cache/ip/v1": b"x",
        "cilium/cache/ip/v1/c22/10.9.9.9": b"x",
        "cilium/cache/identities/v1/c22/id/7": b"x",
        "cilium/.heartbeat": b"x",
    }
    await put_near(near, other)
    async with copying(tmp_path / "mesh", near, writer, grace_s=1.5) as copies:
        configure(copies.directory, C2, far)
        await until(copies.ready)
        (copies.directory / C2).unlink()

        async def unannounced() -> bool:
            return "cilium/cluster-config/c2" not in await copies.held()

        await until(unannounced)
        assert await copies.held("cilium/cache/nodes/v1/c2/")

        async def clean() -> bool:
            return await copies.held() == other

        await until(clean)


async def put_near(near: Etcd, content: dict[str, bytes]) -> None:
    store = await near.store("admin-c1")
    for key, value in content.items():
        await store.put(key, value)
    await store.close()


async def test_a_cluster_that_returns_within_the_grace_keeps_its_copy(
    far: Etcd, near: Etcd, tmp_path: Path
) -> None:
    """Removed and added again: announced anew, and no row was ever away."""
    content = rows()
    writer = publisher(far)
    say_all(writer, content)
    async with copying(tmp_path / "mesh", near, writer, grace_s=60) as copies:
        configure(copies.directory, C2, far)
        await until(copies.ready)
        await until(same(copies, content))
        (copies.directory / C2).unlink()
        await until(lambda: C2 not in copies.reflections.all)
        assert await same(copies, content)()
        configure(copies.directory, C2, far)
        await until(copies.ready)
        assert "cilium/cluster-config/c2" in await copies.held()
        assert await same(copies, content)()


async def test_a_row_that_our_store_refuses_stays_alone(
    far: Etcd, near: Etcd, tmp_path: Path
) -> None:
    """A row that only the source takes does not keep the others from being copied."""
    content = rows()
    writer = publisher(far)
    say_all(writer, content)
    # A limit that the two stores do not share.
    near.kill()
    near.start("--max-request-bytes", "100000")
    big = keys.ip(parse_address("10.2.8.8"))
    await put(far, {big: b"x" * 150_000})
    async with copying(tmp_path / "mesh", near, writer) as copies:
        writer.put({big: b"x" * 150_000})
        configure(copies.directory, C2, far)
        await until(copies.ready)
        await until(same(copies, content))
        assert copies.of_c2.copy_status.refused == 1


async def test_a_burst_of_changes_arrives_whole(far: Etcd, near: Etcd, tmp_path: Path) -> None:
    """Changes by the thousand, one per put, over the same keys again: the latest of each wins."""
    content = rows()
    writer = publisher(far)
    say_all(writer, content)
    async with copying(tmp_path / "mesh", near, writer) as copies:
        configure(copies.directory, C2, far)
        await until(copies.ready)
        store = await far.store("admin-c2")
        extra = [keys.ip(parse_address(f"10.2.{n}.1")) for n in range(200)]
        try:
            for round_ in range(15):
                async with asyncio.TaskGroup() as tasks:
                    for key in extra:
                        tasks.create_task(store.put(key, b"%d" % round_))
            async with asyncio.TaskGroup() as tasks:
                for key in extra[::2]:
                    tasks.create_task(store.delete(key))
        finally:
            await store.close()
        await until(same(copies, content | dict.fromkeys(extra[1::2], b"14")))

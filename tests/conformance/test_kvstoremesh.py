"""Copies of remote clusters in our own store: real etcds with TLS and users on both sides."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.address import parse_address
from model.cluster import Capabilities, ClusterConfig, ClusterId
from model.service import ServiceName
from reconcile.tasks import TaskGroup
from tests.conformance.test_mesh_store import publisher, rows, running
from tests.support.etcd import prepare
from tests.support.kvstoremesh import (
    C1,
    C2,
    Copies,
    Pair,
    cache_key,
    pair_of_stores,
    put,
    same,
    until,
)
from wire.etcd import cluster_config_v1, freshness_v1, keys

pytestmark = pytest.mark.root

TYPES = ("nodes", "identities", "ip", "services")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Two stores, and nothing between them yet."""
    with pair_of_stores(tmp_path / "mesh") as found:
        yield found


ODD = b'\xff{"name": not even text'


async def test_the_copy_is_exact(pair: Pair) -> None:
    """Rows, changes and deletions arrive byte for byte; slave keys and locks of identities never.

    The announcement keeps number and limits and says that the data lies in the cache, every row
    hangs on a lease, and each type has its canary.
    """
    content = rows() | {keys.ip(parse_address("10.2.9.9")): ODD}  # no row of ours to judge
    writer = pair.said(content)
    await put(pair.far, "admin-c2", {"cilium/state/identities/v1/value/x/n1": b"1"})
    async with pair.copied(content, writer) as copies:
        held = await copies.held()
        config = cluster_config_v1.decode(held["cilium/cluster-config/c2"], "")
        assert config == ClusterConfig(ClusterId(2), Capabilities(True, True, 255, False))
        for kind in (*TYPES, "serviceexports"):
            assert f"cilium/synced/c2/cilium/cache/{kind}/v1" in held
        store = await pair.near.store("admin-c1")
        assert all(row.lease for row in (await store.range("cilium/")).rows)
        await store.close()
        address = keys.ip(parse_address("10.2.9.9"))
        content = content | {address: b"another", keys.ip(parse_address("10.2.9.10")): ODD}
        del content[keys.node(C2, "w1")]
        writer.put({**content, keys.node(C2, "w1"): None})
        await until(same(copies, content))


async def told(copies: Copies) -> freshness_v1.Freshness:
    held = await copies.held(keys.freshness("c2"))
    return freshness_v1.decode(held[keys.freshness("c2")], "")


async def says(copies: Copies, *, connected: bool) -> bool:
    held = await copies.held(keys.freshness("c2"))
    return bool(held) and (await told(copies)).connected is connected


async def test_cut_off_and_back(pair: Pair) -> None:
    """While the cluster is away its copy stays and says so; what changed meanwhile then arrives."""
    content = rows()
    writer = pair.said(content)
    async with (
        pair.door() as door,
        pair.copied(content, writer, ttl_s=6, door=door) as copies,
    ):
        await until(lambda: says(copies, connected=True))
        heard = (await told(copies)).heard
        door.close_door()
        await until(lambda: says(copies, connected=False))
        assert (await told(copies)).error
        assert (await told(copies)).heard == heard
        assert not copies.of_c2.source.status.connected
        # Twice the time that its leases live: they are kept, the cluster's absence is no reason.
        await until(lambda: asyncio.sleep(13, True))
        assert await same(copies, content)()
        gone = keys.ip(parse_address("10.2.1.7"))
        content = {k: v for k, v in content.items() if k != gone}
        content[keys.ip(parse_address("10.2.1.8"))] = ODD
        writer.put({**content, gone: None})
        await until(lambda: not writer.problems)
        door.open_door()
        await until(same(copies, content))
        await until(lambda: says(copies, connected=True))


async def test_the_mirror_revokes_for_others(pair: Pair) -> None:
    """With a time of its own the mirror takes the services out of the copy, and nothing else."""
    content = rows()
    writer = pair.said(content)
    service = keys.service(C2, ServiceName("ns", "svc"))
    async with (
        pair.door() as door,
        pair.copied(content, writer, cache_ttl_s=2.0, door=door) as copies,
    ):
        door.close_door()
        await until(same(copies, {k: v for k, v in content.items() if k != service}))
        door.open_door()
        await until(same(copies, content))


async def test_a_copy_is_compared_with_its_source(pair: Pair) -> None:
    """A row that somebody put into the copy, and one that is missing there, do not stay so."""
    content = rows()
    writer = pair.said(content)
    async with pair.copied(content, writer, compare_s=1.0) as copies:
        store = await pair.near.store("admin-c1")
        await store.put(cache_key(keys.ip(parse_address("10.2.1.99"))), b"forged")
        await store.delete(cache_key(keys.node(C2, "w1")))
        await store.close()
        await until(same(copies, content))
        # Counted when the store has answered.
        await until(lambda: copies.of_c2.source.status.repaired >= 2)


async def test_remote_wiped(pair: Pair) -> None:
    """An etcd that comes back empty under its name is not believed before its writer is done."""
    content = rows()
    async with pair.copying() as copies:
        writer = pair.said(content)
        async with running(writer):
            pair.configure()
            await until(copies.ready)
            await until(same(copies, content))
        pair.far.kill()
        pair.far.wipe()
        await asyncio.to_thread(prepare, pair.far, C2)
        pair.far.start()
        await until(lambda: copies.of_c2.source.status.failures > 0)
        fresh = {k: v for k, v in content.items() if "/ip/" not in k}
        again = publisher(pair.far)
        again.put(fresh)
        async with running(again):
            await until(lambda: copies.of_c2.source.status.connected)
            for kind in (keys.NODES, keys.IDENTITIES, keys.SERVICES, keys.SERVICE_EXPORTS):
                again.complete(kind)
            await until(lambda: {keys.NODES, keys.SERVICES} <= copies.of_c2.source.status.synced)
            assert await same(copies, content)()  # of the addresses nothing was said yet
            again.complete(keys.IP)
            await until(same(copies, fresh))


async def test_compaction(pair: Pair) -> None:
    """Deletions that a compaction swallowed while we were away reach the copy."""
    content = rows()
    writer = pair.said(content)
    async with (
        pair.door() as door,
        pair.copied(content, writer, door=door) as copies,
    ):
        door.close_door()
        await until(lambda: not copies.of_c2.source.status.connected)
        gone = keys.service(C2, ServiceName("ns", "svc"))
        content = {k: v for k, v in content.items() if k != gone}
        writer.put({gone: None})
        store = await pair.far.store("admin-c2")

        async def deleted() -> bool:
            return await store.get(gone) is None

        await until(deleted)
        await store.compact((await store.status()).revision)
        await store.close()
        door.open_door()
        await until(same(copies, content))


async def test_our_own_store_wiped(pair: Pair) -> None:
    """Our store comes back empty: the whole copy is written again."""
    content = rows()
    writer = pair.said(content)
    async with pair.copied(content, writer) as copies:
        pair.near.kill()
        pair.near.wipe()
        await asyncio.to_thread(prepare, pair.near, C1)
        pair.near.start()
        await until(same(copies, content))
        await until(copies.ready)
        held = await copies.held()
        assert "cilium/cluster-config/c2" in held
        assert "cilium/synced/c2/cilium/cache/ip/v1" in held


async def test_an_earlier_run_is_taken_over(pair: Pair) -> None:
    """A restart rewrites nothing that is right, and removes what is wrong."""
    content = rows()
    writer = pair.said(content)
    async with running(writer):
        async with pair.copied(content):
            pass  # its rows stay
        store = await pair.near.store("admin-c1")
        before = {r.key: r.mod_revision for r in (await store.range(keys.CACHE_PREFIX)).rows}
        await store.put("cilium/cache/ip/v1/c2/10.2.77.77", b"stale")
        async with pair.copied(content):
            after = {r.key: r.mod_revision for r in (await store.range(keys.CACHE_PREFIX)).rows}
            assert after == before
        await store.close()


async def test_the_number_changes(pair: Pair) -> None:
    """Rows of the old number are gone before the new one is announced, and come back after it."""
    content = rows()
    async with pair.copying() as copies:
        writer = pair.said(content)
        async with running(writer):
            pair.configure()
            await until(copies.ready)
            await until(same(copies, content))
        store = await pair.near.store("admin-c1")
        start = (await store.status()).revision
        config = ClusterConfig(ClusterId(9), Capabilities(True, False, 255, False))
        await put(pair.far, "admin-c2", {keys.cluster_config(C2): cluster_config_v1.encode(config)})
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


async def test_removal_leaves_nothing_and_spares_others(pair: Pair) -> None:
    """The announcement goes at once, the rest after the grace; c22 is not c2."""
    writer = pair.said(rows())
    other = {
        "cilium/cluster-config/c22": b"{}",
        "cilium/synced/c22/cilium/cache/ip/v1": b"x",
        "cilium/cache/ip/v1/c22/10.9.9.9": b"x",
        "cilium/cache/identities/v1/c22/id/7": b"x",
        "cilium/.heartbeat": b"x",
    }
    await pair.put_near(other)
    async with pair.copying(writer, grace_s=4) as copies:
        pair.configure()
        await until(copies.ready)
        (copies.directory / C2).unlink()

        held: dict[str, bytes] = {}

        async def unannounced() -> bool:
            nonlocal held
            held = await copies.held()
            return "cilium/cluster-config/c2" not in held

        await until(unannounced)
        assert any(key.startswith("cilium/cache/nodes/v1/c2/") for key in held)

        async def clean() -> bool:
            return await copies.held() == other

        await until(clean)


async def test_a_cluster_that_returns_within_the_grace_keeps_its_copy(pair: Pair) -> None:
    """Removed and added again: announced anew, and no row was ever away."""
    content = rows()
    writer = pair.said(content)
    async with pair.copied(content, writer, grace_s=60) as copies:
        (copies.directory / C2).unlink()
        await until(lambda: C2 not in copies.reflections.all)
        assert await same(copies, content)()
        pair.configure()
        await until(copies.ready)

        async def announced() -> bool:  # again, if the removal's word came last
            return "cilium/cluster-config/c2" in await copies.held()

        await until(announced)
        assert await same(copies, content)()


async def test_a_row_that_our_store_refuses_stays_alone(pair: Pair) -> None:
    """A row that only the source takes does not keep the others from being copied."""
    content = rows()
    writer = pair.said(content)
    # A limit that the two stores do not share.
    pair.near.kill()
    pair.near.start("--max-request-bytes", "100000")
    big = keys.ip(parse_address("10.2.8.8"))
    await put(pair.far, "admin-c2", {big: b"x" * 150_000})
    async with pair.copying(writer) as copies:
        writer.put({big: b"x" * 150_000})
        pair.configure()
        await until(copies.ready)
        await until(same(copies, content))
        assert copies.of_c2.copy_status.refused == 1


async def test_a_burst_of_changes_arrives_whole(pair: Pair) -> None:
    """Changes by the thousand, one per put, over the same keys again: the latest of each wins."""
    content = rows()
    writer = pair.said(content)
    async with pair.copying(writer) as copies:
        pair.configure()
        await until(copies.ready)
        store = await pair.far.store("admin-c2")
        extra = [keys.ip(parse_address(f"10.2.{n}.1")) for n in range(200)]
        try:
            for round_ in range(15):
                async with TaskGroup() as tasks:
                    for key in extra:
                        tasks.create_task(store.put(key, b"%d" % round_))
            async with TaskGroup() as tasks:
                for key in extra[::2]:
                    tasks.create_task(store.delete(key))
        finally:
            await store.close()
        await until(same(copies, content | dict.fromkeys(extra[1::2], b"14")))

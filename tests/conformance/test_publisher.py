"""The publisher against a real etcd: leases, order, refused rows, losses of every kind."""

import asyncio
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from kvstore.config import StoreConfig
from kvstore.etcd import EtcdStore, connect
from kvstore.leases import KEYS_PER_LEASE
from kvstore.publisher import Publisher
from model.cluster import Capabilities, ClusterConfig, ClusterId, ClusterName
from reconcile.tasks import TaskGroup
from tests.support.etcd import Etcd, plain_etcd, when_up
from tests.support.tcp_proxy import TcpProxy
from wire.etcd import cluster_config_v1, keys

pytestmark = pytest.mark.root

C2 = ClusterName("c2")
CONFIG = ClusterConfig(ClusterId(2), Capabilities(True, False, 255, False))


@pytest.fixture
def etcd() -> Iterator[Etcd]:
    with plain_etcd() as found:
        yield found


def ip(number: int) -> str:
    return f"{keys.resource_prefix(keys.IP, C2)}10.2.{number >> 8}.{number & 255}"


def rows(count: int) -> dict[str, bytes | None]:
    return {ip(i): b"%d" % i for i in range(count)}


def complete(writer: Publisher, *but: str) -> None:
    for resource in keys.RESOURCES:
        if resource not in but:
            writer.complete(resource)


@asynccontextmanager
async def publishing(
    etcd: Etcd, through: TcpProxy | None = None
) -> AsyncIterator[tuple[Publisher, EtcdStore]]:
    """A running publisher, and a connection to look at what it wrote."""
    url = f"http://127.0.0.1:{through.port}" if through else etcd.url
    look = await when_up(StoreConfig((etcd.url,)))
    writer = Publisher(lambda: connect(StoreConfig((url,))), C2, CONFIG)
    async with TaskGroup() as tasks:
        task = tasks.create_task(writer.run())
        try:
            yield writer, look
        finally:
            task.cancel()
            await look.close()


async def until(holds: Callable[[], Awaitable[bool]], timeout_s: float = 40) -> None:
    async with asyncio.timeout(timeout_s):
        while not await holds():  # noqa: ASYNC110 (the other side is another process)
            await asyncio.sleep(0.02)


async def state(store: EtcdStore) -> dict[str, bytes]:
    return {row.key: row.value for row in (await store.range(keys.STATE_PREFIX)).rows}


async def test_leases_are_shared_and_bounded(etcd: Etcd) -> None:
    """Every key hangs on a lease and none holds more keys than its limit."""
    async with publishing(etcd) as (writer, store):
        writer.put(rows(2500))
        complete(writer)
        await writer.ready.wait()
        found = (await store.range("cilium/")).rows
        held = Counter(row.lease for row in found)
        assert len(found) == 2500 + 5 + 2  # canaries, announcement, heartbeat
        assert 0 not in held
        assert max(held.values()) <= KEYS_PER_LEASE
        assert len(held) == 3


async def test_a_canary_follows_all_rows_of_its_type(etcd: Etcd) -> None:
    """No reader can see the canary and miss a row."""
    async with publishing(etcd) as (writer, store):
        writer.put(rows(1000))
        complete(writer)
        await writer.ready.wait()
        canary = await store.get(keys.canary(C2, keys.IP))
        assert canary is not None
        written = (await store.range(keys.STATE_PREFIX)).rows
        assert len(written) == 1000
        assert max(row.mod_revision for row in written) < canary.create_revision


async def test_the_same_value_is_written_once(etcd: Etcd) -> None:
    """Putting again what is there costs the store nothing; another value is written."""
    async with publishing(etcd) as (writer, store):
        writer.put(rows(3))
        complete(writer)
        await writer.ready.wait()
        before = (await store.status()).revision
        writer.put(rows(3))
        writer.put({ip(1): b"new"})
        await until(lambda: has(store, ip(1), b"new"))
        assert (await store.status()).revision == before + 1
        untouched = await store.get(ip(0))
        assert untouched is not None
        assert untouched.version == 1


async def has(store: EtcdStore, key: str, value: bytes) -> bool:
    row = await store.get(key)
    return row is not None and row.value == value


async def test_the_last_wish_counts(etcd: Etcd) -> None:
    """Values that change while they are on their way end as desired last."""
    async with publishing(etcd) as (writer, store):
        writer.put(rows(50))
        complete(writer)
        await writer.ready.wait()
        for step in range(200):
            key = ip(step % 50)
            writer.put({key: b"x%d" % step})
            await asyncio.sleep(0)
            writer.put({key: None if step % 3 == 0 else b"%d" % (step % 50)})
            if step % 7 == 0:
                await asyncio.sleep(0.002)
        wanted = {ip(i): b"%d" % i for i in range(50) if (150 + i) % 3}
        await until(lambda: equals(store, wanted))


async def equals(store: EtcdStore, wanted: dict[str, bytes]) -> bool:
    return await state(store) == wanted


async def test_a_refused_row_waits_alone(etcd: Etcd) -> None:
    """It is named and holds back the canary of its type; all others are written."""
    bad = keys.resource_prefix(keys.SERVICES, C2) + "ns/huge"
    async with publishing(etcd) as (writer, store):
        writer.put({bad: b"x" * 2_000_000})
        writer.put(rows(300))
        complete(writer)
        await until(lambda: exists(store, keys.canary(C2, keys.IP)))
        assert len(await state(store)) == 300
        assert not await exists(store, keys.canary(C2, keys.SERVICES))
        assert set(writer.problems) == {bad}
        assert "too large" in writer.problems[bad]
        assert not writer.ready.is_set()
        writer.put({bad: b"small"})
        async with asyncio.timeout(40):
            await writer.ready.wait()
        assert writer.problems == {}
        assert await exists(store, keys.canary(C2, keys.SERVICES))


async def exists(store: EtcdStore, key: str) -> bool:
    return await store.get(key) is not None


async def test_the_announcement_is_defended(etcd: Etcd) -> None:
    """Deleted or overwritten by somebody, it is back at once."""
    key, value = keys.cluster_config(C2), cluster_config_v1.encode(CONFIG)
    async with publishing(etcd) as (writer, store):
        complete(writer)
        await writer.ready.wait()
        await store.delete(key)
        await until(lambda: has(store, key, value))
        await store.put(key, b"{}")
        await until(lambda: has(store, key, value))


async def test_leases_lost_while_away(etcd: Etcd) -> None:
    """The connection breaks and all leases run out meanwhile: every key is written again."""
    async with (
        TcpProxy("127.0.0.1", etcd.port).serve() as proxy,
        publishing(etcd, proxy) as (writer, store),
    ):
        writer.put(rows(20))
        complete(writer)
        await writer.ready.wait()
        proxy.close_door()
        await until(lambda: truth(not writer.connected))
        for lease in {row.lease for row in (await store.range("cilium/")).rows}:
            await store.revoke(lease)
        assert not (await store.range("cilium/")).rows
        writer.put({ip(3): None})
        proxy.open_door()
        wanted = {k: v for k, v in rows(20).items() if k != ip(3) and v is not None}
        await until(lambda: equals(store, wanted))
        for key in (
            keys.HEARTBEAT,
            keys.cluster_config(C2),
            *(keys.canary(C2, r) for r in keys.RESOURCES),
        ):
            await until(lambda key=key: exists(store, key))


async def truth(value: bool) -> bool:
    return value


async def test_an_idle_publisher_notices_an_empty_store(etcd: Etcd) -> None:
    """The store is killed and comes back empty while nothing changes: all is written again."""
    async with publishing(etcd) as (writer, _):
        writer.put(rows(20))
        complete(writer)
        await writer.ready.wait()
        etcd.kill()
        etcd.wipe()
        etcd.start()
        store = await when_up(StoreConfig((etcd.url,)))
        await until(lambda: equals(store, {k: v for k, v in rows(20).items() if v is not None}))
        await until(lambda: exists(store, keys.canary(C2, keys.NODES)))
        await store.close()


async def test_leftovers_go_only_when_all_is_known(etcd: Etcd) -> None:
    """What an earlier run wrote stays until the last type is complete."""
    before = await when_up(StoreConfig((etcd.url,)))
    await before.put(ip(9), b"old")
    await before.close()
    async with publishing(etcd) as (writer, store):
        writer.put(rows(3))
        complete(writer, keys.SERVICE_EXPORTS)
        await until(lambda: exists(store, keys.canary(C2, keys.SERVICES)))
        assert await has(store, ip(9), b"old")
        writer.complete(keys.SERVICE_EXPORTS)
        await until(lambda: equals(store, {k: v for k, v in rows(3).items() if v is not None}))


def etcdctl(etcd: Etcd, *arguments: str) -> None:
    argv = ["etcdctl", "--endpoints", etcd.url, *arguments]
    subprocess.run(argv, env={"ETCDCTL_API": "3"}, check=True, capture_output=True)


async def test_a_full_store_is_said_and_goes_on_by_itself(etcd: Etcd) -> None:
    """The status names store and remedy; the connection stays, leases live, deletions go through;
    once it is compacted, defragmented and disarmed everything that waited is written."""
    etcd.kill()
    etcd.start("--quota-backend-bytes", "2000000")
    async with publishing(etcd) as (writer, store):
        writer.put(rows(5))
        complete(writer)
        await writer.ready.wait()
        number = 0

        async def full() -> bool:
            # Always the same row: its history is what fills the store.
            nonlocal number
            number += 1
            writer.put({ip(1000): b"%d" % number * 30_000})
            return bool(writer.full)

        await until(full)
        assert "alarm disarm" in writer.full
        assert etcd.url.removeprefix("http://") in writer.full
        writer.put({ip(2000): b"waits", ip(0): None})
        await until(lambda: absent(store, ip(0)))
        await asyncio.sleep(2.5)
        assert writer.full
        assert writer.connected
        assert await store.get(ip(2000)) is None
        assert await store.get(ip(1)) is not None
        revision = str((await store.status()).revision)
        for command in (["compact", revision], ["defrag"], ["alarm", "disarm"]):
            await asyncio.to_thread(etcdctl, etcd, *command)
        await until(lambda: has(store, ip(2000), b"waits"))
        await until(lambda: has(store, ip(1000), b"%d" % number * 30_000))

        async def knows() -> bool:  # what a reader sees its writer may not have heard of
            return not writer.full

        await until(knows)
        assert writer.failures == 1


async def absent(store: EtcdStore, key: str) -> bool:
    return await store.get(key) is None


async def test_a_full_store_is_said(etcd: Etcd) -> None:
    """The status names it, nothing is lost, and an emptied store gets everything."""
    etcd.kill()
    etcd.start("--quota-backend-bytes", "1000000")
    async with publishing(etcd) as (writer, store):
        complete(writer)
        await writer.ready.wait()
        big: list[str] = []

        async def full() -> bool:
            # The store adds up its size ten times a second only.
            big.append(ip(len(big)))
            writer.put({big[-1]: b"x" * 100_000})
            return "NOSPACE" in writer.full

        await until(full)
        assert len(await state(store)) < len(big)
        etcd.kill()
        etcd.wipe()
        etcd.start()
        roomy = await when_up(StoreConfig((etcd.url,)))
        await until(lambda: equals(roomy, dict.fromkeys(big, b"x" * 100_000)))
        await roomy.close()

"""What becomes of a cluster's data when the way to it fails, against a real etcd behind a forwarder
that stalls, flaps and slows, and an agent's tables behind the session."""

import asyncio
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kvstore import shape
from kvstore.allowance import Limits
from kvstore.config import StoreConfig
from kvstore.connection import Action, Happening, State
from kvstore.etcd import EtcdStore, connect
from kvstore.port import Batch, NoSpaceError
from model.service import ServiceName
from tests.conformance.test_hostile_peer import Reader, published
from tests.conformance.test_mesh_store import running
from tests.support import hostile
from tests.support.etcd import Etcd, plain_etcd, when_up
from tests.support.tcp_proxy import TcpProxy
from wire.etcd import keys

pytestmark = pytest.mark.root

WEB = ServiceName("default", "web")


@pytest.fixture
def etcd() -> Iterator[Etcd]:
    with plain_etcd() as found:
        yield found


@dataclass
class Scene:
    """A cluster's store, the link to it, and who reads."""

    etcd: Etcd
    store: EtcdStore
    link: TcpProxy
    reader: Reader

    @property
    def status(self) -> Any:
        return self.reader.session.status

    def seen(self) -> dict[str, Any]:
        return shape.connection(self.status, asyncio.get_running_loop().time())

    def offered(self) -> int:
        """Backends that new connections to the service may be sent to."""
        return sum(row.selectable for _, row in self.reader.mesh.services.items())

    async def ready(self) -> None:
        """Until all is read, and known to be fresh, which is told a turn later."""
        await self.reader.until(lambda: self.status.ready and self.status.age.fresh, 60)


@asynccontextmanager
async def scene(
    etcd: Etcd, directory: Path, limits: Limits | None = None, ttl_s: float = 0.0
) -> AsyncIterator[Scene]:
    store = await published(etcd, hostile.HONEST)
    async with TcpProxy("127.0.0.1", etcd.port).serve() as link:
        reader = Reader(etcd, directory, limits)
        through = StoreConfig((f"http://127.0.0.1:{link.port}",))
        reader.session._connect = lambda: connect(through)
        reader.session.set_policy(ttl_s)
        found = Scene(etcd, store, link, reader)
        async with running(reader.session):
            await found.ready()
            yield found
    await store.close()


async def test_a_half_open_connection_is_noticed_within_seconds(etcd: Etcd, tmp_path: Path) -> None:
    """Every byte vanishes and nobody says so: noticed by our own pings, and nothing is lost."""
    async with scene(etcd, tmp_path) as s:
        before = s.reader.tables()
        since = asyncio.get_running_loop().time()
        s.link.swallow()
        await s.reader.until(lambda: not s.status.connected, 60)
        assert asyncio.get_running_loop().time() - since < 45  # TCP alone takes minutes
        assert s.reader.tables() == before
        assert s.status.failures == 1
        s.link.swallow(False)
        await s.store.delete(f"{hostile.IPS}{hostile.POD}")
        await s.ready()
        await s.reader.until(lambda: s.reader.tables() != before)


async def test_a_flapping_link_takes_nothing_and_is_not_hammered(
    etcd: Etcd, tmp_path: Path
) -> None:
    """Broken as soon as it stands, again and again: attempts become rare, rows stay."""
    async with scene(etcd, tmp_path) as s:
        before = s.reader.tables()
        first = s.link.accepted
        loop = asyncio.get_running_loop()
        end = loop.time() + 8
        while loop.time() < end or s.link.accepted - first < 3:
            if s.status.connected:
                s.link.cut()
            await asyncio.sleep(0.01)  # cut again as soon as it is connected again
            assert s.reader.tables() == before
        # Two connections an attempt; at 0.2 s each it would be 80.
        assert 3 <= s.link.accepted - first <= 18
        await s.ready()
        assert s.reader.tables() == before


async def test_a_slow_link_delays_and_breaks_nothing(etcd: Etcd, tmp_path: Path) -> None:
    """0.3 s for each piece in each direction: no loss, and news arrive."""
    async with scene(etcd, tmp_path) as s:
        s.link.delay_s = 0.3
        key = f"{hostile.IPS}10.213.1.44"
        count = len(s.reader.tables()["ipcache"])
        await s.store.put(key, hostile.encoded(hostile.ip(IP="10.213.1.44")))
        await s.reader.until(lambda: len(s.reader.tables()["ipcache"]) > count)
        await asyncio.sleep(20)  # two rounds of our pings
        assert s.status.failures == 0


async def test_kept_for_ever_by_default(etcd: Etcd, tmp_path: Path) -> None:
    """A cluster that is away: all stays, and the status tells its age and that it is kept."""
    async with scene(etcd, tmp_path) as s:
        assert s.seen()["data"] == {"age-seconds": 0, "stale-data": "keep", "revoked": False}
        assert s.seen()["connection"]["state"] == "ready"
        before = s.reader.tables()
        s.link.close_door()
        await s.reader.until(lambda: not s.status.connected)
        await s.reader.until(lambda: s.seen()["data"]["age-seconds"] >= 2)
        assert "revoke-in-seconds" not in s.seen()["data"]
        assert s.seen()["connection"]["event"] in {h.value for h in Happening}
        assert s.reader.tables() == before


async def test_too_old_data_are_revoked_and_come_back(etcd: Etcd, tmp_path: Path) -> None:
    """After the time: no new connection goes to its backends, while who is who stays known. When
    the cluster is back, so are they."""
    async with scene(etcd, tmp_path, ttl_s=6.0) as s:
        before = s.reader.tables()
        assert s.offered() == 1
        s.link.close_door()
        await s.reader.until(lambda: not s.status.connected)
        await s.reader.until(lambda: "revoke-in-seconds" in s.seen()["data"])
        assert s.seen()["data"]["revoke-in-seconds"] <= 6
        assert s.offered() == 1
        await s.reader.until(lambda: s.offered() == 0)
        now = s.reader.tables()
        assert {k: now[k] for k in ("ipcache", "identities", "nodes")} == {
            k: before[k] for k in ("ipcache", "identities", "nodes")
        }
        assert s.status.event is Happening.AGED or s.status.age.revoked
        assert s.seen()["data"]["revoked"]
        await asyncio.sleep(1)  # what fails to connect brings nothing back
        assert s.offered() == 0
        s.link.open_door()
        await s.reader.until(lambda: s.offered() == 1, 60)
        await s.ready()
        assert not s.seen()["data"]["revoked"]


async def test_the_time_can_be_set_while_the_cluster_is_away(etcd: Etcd, tmp_path: Path) -> None:
    """Kept; then revoked at once because a shorter time is set than has passed."""
    async with scene(etcd, tmp_path) as s:
        s.link.close_door()
        await s.reader.until(lambda: not s.status.connected)
        await asyncio.sleep(1.5)  # longer than the time that is set below
        assert s.offered() == 1
        s.reader.session.set_policy(1.0)
        await s.reader.until(lambda: s.offered() == 0)


class Forgetful:
    """A connection whose watches forget every event of the named keys; compares may wait."""

    def __init__(
        self, store: EtcdStore, keys: set[str], compare: asyncio.Event | None = None
    ) -> None:
        self._store, self.keys, self._compare = store, keys, compare

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def watch(self, prefix: str, revision: int, **more: Any) -> AsyncIterator[Batch]:
        more.pop("take", None)
        async for batch in self._store.watch(prefix, revision, **more):
            told = tuple(
                e
                for e in batch.events
                if getattr(e, "key", "") not in self.keys
                and getattr(getattr(e, "row", None), "key", "") not in self.keys
            )
            yield Batch(batch.revision, told)

    async def range(self, prefix: str, **more: Any) -> Any:
        if self._compare is not None and more.get("keys_only"):
            await self._compare.wait()
        return await self._store.range(prefix, **more)


@pytest.mark.parametrize("many", [False, True])
async def test_what_a_watch_did_not_tell_is_found_by_compare(
    etcd: Etcd, tmp_path: Path, many: bool
) -> None:
    """New, changed and deleted rows of which no word came: repaired and counted."""
    store = await published(etcd, hostile.HONEST)
    reader = Reader(etcd, tmp_path, Limits(compare_s=1.5, compare_grace_s=0.2))
    old, new = f"{hostile.IPS}10.213.1.40", f"{hostile.IPS}10.213.1.41"
    more = [f"{hostile.IPS}10.213.1.{n}" for n in range(50, 250)] if many else []
    more += [f"{hostile.IPS}10.213.1.{n}/32" for n in range(50, 250)] if many else []
    await store.put(old, hostile.encoded(hostile.ip(IP="10.213.1.40")))

    compare = asyncio.Event()  # not while the rows are written: it would take some of them over

    async def forgetful() -> Any:
        return Forgetful(await when_up(StoreConfig((etcd.url,))), {old, new, *more}, compare)

    reader.session._connect = forgetful
    async with running(reader.session):
        await reader.until(lambda: reader.session.status.ready)
        await store.delete(old)
        for key in (new, *more):
            text = key.removeprefix(hostile.IPS).removesuffix("/32")
            await store.put(key, hostile.encoded(hostile.ip(IP=text)))
        fresh = Reader(etcd, tmp_path / "fresh")
        (tmp_path / "fresh").mkdir()
        async with running(fresh.session):
            await fresh.until(lambda: fresh.session.status.ready)
        assert reader.tables() != fresh.tables()
        compare.set()
        await reader.until(lambda: reader.tables() == fresh.tables(), 40)
        status = reader.session.status
        assert status.repaired >= 2 + len(more)
        await reader.until(lambda: status.compares >= 1)
        repaired = status.repaired
        await asyncio.sleep(3)  # compares go on, each 1.5 s
        assert status.repaired == repaired  # what is right is left alone
        assert status.failures == 0
    await store.close()


async def test_a_busy_store_is_not_repaired(etcd: Etcd, tmp_path: Path) -> None:
    """Changes under way are no differences."""
    limits = Limits(compare_s=0.3, compare_grace_s=0.5)
    async with scene(etcd, tmp_path, limits) as s:
        now = asyncio.get_running_loop().time
        end, number = now() + 5, 0
        written: deque[tuple[float, str]] = deque()
        while now() < end or s.status.compares < 3:
            number += 1
            key = f"{hostile.IDS}{hostile.IDENTITY + number}"
            await s.store.put(key, hostile.encoded(hostile.labels()))
            written.append((now(), key))
            # What was under way at a compare's first look is not again at its second.
            if number % 2 and written[0][0] < now() - 4 * limits.compare_grace_s:
                await s.store.delete(written.popleft()[1])
        assert s.status.compares >= 3
        assert s.status.repaired == 0


def etcdctl(etcd: Etcd, *arguments: str, offline: bool = False) -> str:
    argv = ["etcdctl", *([] if offline else ["--endpoints", etcd.url]), *arguments]
    done = subprocess.run(
        argv, capture_output=True, text=True, env={"ETCDCTL_API": "3"}, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_restored_from_an_older_snapshot(etcd: Etcd, tmp_path: Path) -> None:
    """A real snapshot of the past is restored in the store's place: revisions are smaller, rows are
    those of then, and later changes, whose revisions we have seen before, are heard."""
    async with scene(etcd, tmp_path) as s:
        past = s.reader.tables()
        await asyncio.to_thread(
            etcdctl, etcd, "snapshot", "save", str(tmp_path / "snapshot"), offline=False
        )
        then = (await s.store.status()).revision
        texts = [f"10.213.1.{n}" for n in range(100, 140)]
        for text in texts:
            await s.store.put(f"{hostile.IPS}{text}", hostile.encoded(hostile.ip(IP=text)))
        await s.store.delete(f"{hostile.IPS}{hostile.POD}")
        await s.reader.until(lambda: len(s.reader.tables()["ipcache"]) == len(past["ipcache"]) + 39)
        etcd.kill()
        etcd.wipe()
        await asyncio.to_thread(
            etcdctl, etcd, "snapshot", "restore", str(tmp_path / "snapshot"), "--name", "t",
            "--initial-cluster", f"t=http://127.0.0.1:{etcd.peer_port}",
            "--initial-advertise-peer-urls", f"http://127.0.0.1:{etcd.peer_port}",
            "--data-dir", str(etcd.directory / "data"), offline=True,
        )  # fmt: skip
        etcd.start()
        again = await when_up(StoreConfig((etcd.url,)))
        assert (await again.status()).revision == then
        await s.reader.until(lambda: s.reader.tables() == past, 60)
        await s.ready()
        # These revisions have been seen, with other contents.
        await again.put(
            f"{hostile.IPS}10.213.1.200", hostile.encoded(hostile.ip(IP="10.213.1.200"))
        )
        await s.reader.until(lambda: len(s.reader.tables()["ipcache"]) == len(past["ipcache"]) + 1)
        await again.close()


async def test_the_status_follows_the_table(etcd: Etcd, tmp_path: Path) -> None:
    """States in the order of the table, each with what led there."""
    async with scene(etcd, tmp_path) as s:
        assert (s.status.state, s.status.event) == (State.READY, Happening.ALL_LISTED)
        s.link.close_door()
        await s.reader.until(lambda: not s.status.connected)
        await s.reader.until(lambda: s.status.state is State.DISCONNECTED)
        assert (s.status.event, s.status.action) == (Happening.LOST, Action.RETRY)
        s.link.open_door()
        s.reader.session.try_now()
        await s.ready()


async def fill(store: EtcdStore) -> None:
    for number in range(200):
        await store.put(f"ballast/{number}", b"x" * 50_000)
        await asyncio.sleep(0.02)  # it adds up its size ten times a second only


async def test_full_means_nothing_to_readers(tmp_path: Path) -> None:
    """NOSPACE in the store we read: rows, lists and watches go on."""
    with plain_etcd() as etcd:
        etcd.kill()
        etcd.start("--quota-backend-bytes", "1000000")
        async with scene(etcd, tmp_path) as s:
            before = s.reader.tables()
            with pytest.raises(NoSpaceError, match="alarm disarm"):
                await fill(s.store)
            s.link.cut()
            await s.reader.until(lambda: s.status.failures > 0)
            await s.ready()
            assert s.reader.tables() == before
            await s.store.delete(f"{hostile.IPS}{hostile.POD}")
            await s.reader.until(lambda: s.reader.tables() != before)


async def test_keys_only_is_what_a_compare_asks_for(etcd: Etcd, tmp_path: Path) -> None:
    """No value crosses the link when nothing differs."""
    store = await published(etcd, hostile.HONEST)
    asked: list[bool] = []

    class Counting(Forgetful):
        async def range(self, prefix: str, **more: Any) -> Any:
            if prefix.startswith(keys.STATE_PREFIX):
                asked.append(bool(more.get("keys_only")))
            return await self._store.range(prefix, **more)

    async def counting() -> Any:
        return Counting(await when_up(StoreConfig((etcd.url,))), set())

    reader = Reader(etcd, tmp_path, Limits(compare_s=0.5))
    reader.session._connect = counting
    async with running(reader.session):
        # A comparison leaves out what is not listed yet.
        await reader.until(lambda: asked.count(True) >= 2 * len(keys.REQUIRED))
    assert asked.count(False) == len(keys.REQUIRED)
    await store.close()

"""A session over a real etcd whose watches lose, double, reorder and compact, and whose past comes
back: the tables always end in the truth."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kvstore.allowance import Limits
from kvstore.config import StoreConfig
from kvstore.etcd import EtcdStore
from kvstore.port import Batch, CompactedError, UnavailableError
from model.address import parse_prefix
from tests.conformance.test_hostile_peer import Reader, fill, published
from tests.conformance.test_mesh_store import running
from tests.support import fake_store, hostile
from tests.support.etcd import Etcd, plain_etcd, when_up
from wire.etcd import keys

pytestmark = pytest.mark.root

LIMITS = Limits(relist_gap_s=0)
FAULTS = ["lost", "compacted", "held", "doubled", "shuffled"]
Connect = Callable[[], Awaitable[Any]]


@pytest.fixture(scope="module")
def older() -> Iterator[Etcd]:
    with plain_etcd() as found:
        yield found


class Torturer:
    """A connection to a store that tells what it is told with faults, while ``on``."""

    on = True

    def __init__(self, store: Any, rng: random.Random, faults: list[str]) -> None:
        self._store, self._rng, self._faults = store, rng, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def watch(self, prefix: str, revision: int, **more: Any) -> AsyncIterator[Batch]:
        told: list[Batch] = []
        held: Batch | None = None
        more.pop("take", None)  # every batch passes here
        async for batch in self._store.watch(prefix, revision, **more):
            fault = self._rng.choice(["", "", *self._faults]) if Torturer.on else ""
            if not prefix.startswith(keys.STATE_PREFIX):
                fault = ""
            if fault == "lost":
                raise UnavailableError("the connection went down with what was under way")
            if fault == "compacted":
                raise CompactedError("what follows is thrown away", revision)
            if fault == "held" and held is None and batch.events:
                held = batch
                continue
            if fault == "forgotten":  # and nobody ever speaks of it again
                continue
            yield batch
            if held is not None:  # later than what came after it
                late, held = held, None
                yield late
            if fault == "doubled" and told:
                yield self._rng.choice(told)
            if fault == "shuffled":
                events = list(batch.events)
                self._rng.shuffle(events)
                yield Batch(batch.revision, tuple(events))
            told.append(batch)


def address(n: int) -> str:
    return f"10.213.1.{n}"


def change(rng: random.Random) -> tuple[str, bytes | None]:
    """One record comes, changes or goes."""
    if rng.random() < 0.25:
        name = f"m{rng.randint(2, 3)}"
        row = hostile.node(
            Name=name,
            IPAddresses=[{"Type": "InternalIP", "IP": f"172.31.9.{70 + rng.randint(0, 2)}"}],
            IPv4AllocCIDR=f"10.213.{rng.randint(2, 4)}.0/24",
        )
        return f"{hostile.NODES}{name}", None if rng.random() < 0.3 else hostile.encoded(row)
    text = rng.choice([address(rng.randint(10, 16)), f"10.213.{rng.randint(2, 4)}.9"])
    host = rng.choice([hostile.HOST, "172.31.9.70", "172.31.9.71"])
    row = hostile.ip(IP=text, ID=hostile.IDENTITY + rng.randint(0, 3), HostIP=host)
    return f"{hostile.IPS}{text}", None if rng.random() < 0.3 else hostile.encoded(row)


async def truth(etcd: Etcd, directory: Path, connect: Connect | None = None) -> dict[str, Any]:
    """What a reader that has seen nothing else makes of the store."""
    reader = Reader(etcd, directory)
    if connect is not None:
        reader.session._connect = connect
    async with running(reader.session):
        await reader.until(lambda: reader.session.status.ready)
        return reader.tables()


@pytest.fixture(params=["etcd", "fake"])
def plain(request: pytest.FixtureRequest, etcd: Etcd) -> Connect:
    """Connections to the real store, and to the one in memory that passes the same suite."""
    if request.param == "etcd":
        return lambda: when_up(StoreConfig((etcd.url,)))
    members: list[fake_store.FakeEtcd] = []  # it belongs to the loop of the test

    async def connect() -> Any:
        if not members:
            members.append(fake_store.FakeEtcd())
        return await fake_store.connect(members[0])

    return connect


@pytest.mark.parametrize("seed", range(6))
async def test_it_ends_in_the_truth(etcd: Etcd, plain: Connect, tmp_path: Path, seed: int) -> None:
    """Under all faults at once; when they end, the tables are those of a fresh reader. With odd
    seeds events are forgotten, too, which only a compare can notice."""
    rng = random.Random(seed)
    store = await plain()
    await fill(store, hostile.HONEST)
    forgets = seed % 2 == 1
    limits = replace(LIMITS, compare_s=0.7, compare_grace_s=0.2) if forgets else LIMITS
    reader = Reader(etcd, tmp_path, limits)

    async def connect() -> Any:
        return Torturer(await plain(), rng, [*FAULTS, *(["forgotten"] * forgets)])

    reader.session._connect = connect
    Torturer.on = True
    async with running(reader.session):
        # Each of its watches may be lost with its first word, and the waits in between grow.
        await reader.until(lambda: reader.session.status.ready, 60)
        for _ in range(120):
            key, value = change(rng)
            await (store.delete(key) if value is None else store.put(key, value))
            if rng.random() < 0.03:
                await store.compact((await store.status()).revision)
        Torturer.on = False
        # A last change: what a held event hid comes out with the next one.
        for prefix, rows in (
            (hostile.IPS, hostile.ip(IP=address(99))),
            (hostile.NODES, hostile.node(Name="m9", IPAddresses=[], IPv4AllocCIDR=None)),
        ):
            name = str(rows.get("Name", rows.get("IP")))
            await store.put(f"{prefix}{name}", hostile.encoded(rows))
        wanted = await truth(etcd, tmp_path / "fresh", plain)
        await reader.until(lambda: reader.tables() == wanted, 60)
    assert parse_prefix(f"{address(99)}/32") in wanted["ipcache"]
    await store.close()


async def test_the_past_comes_back(etcd: Etcd, older: Etcd, tmp_path: Path) -> None:
    """An etcd restored from an older backup answers with smaller revisions and fewer rows: what it
    says is the truth, and what follows is heard."""
    rng = random.Random(1)
    store = await published(etcd, hostile.HONEST)
    for _ in range(60):
        key, value = change(rng)
        await (store.delete(key) if value is None else store.put(key, value))
    past = await published(older, hostile.HONEST)
    assert (await past.status()).revision < (await store.status()).revision
    reader = Reader(etcd, tmp_path, LIMITS)
    now = etcd

    async def connect() -> EtcdStore:
        return await when_up(StoreConfig((now.url,)))

    reader.session._connect = connect  # type: ignore[assignment]
    async with running(reader.session):
        await reader.until(lambda: reader.session.status.ready)
        assert reader.tables() == await truth(etcd, tmp_path / "a")
        now = older
        etcd.kill()
        wanted = await truth(older, tmp_path / "b")
        await reader.until(lambda: reader.tables() == wanted, 60)
        await past.put(f"{hostile.IPS}{address(99)}", hostile.encoded(hostile.ip(IP=address(99))))
        pod = parse_prefix(f"{address(99)}/32")
        await reader.until(lambda: pod in reader.tables()["ipcache"])
    async with asyncio.timeout(30):
        await past.close()
    etcd.start()

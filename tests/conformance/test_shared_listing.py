"""Many who ask a real etcd at the same moment, each for its part: everybody gets what they would
have got alone, by fewer calls."""

from collections.abc import AsyncIterator

import pytest

from kvstore import etcd as client
from kvstore import shared_listing
from kvstore.etcd import EtcdStore
from kvstore.observed import OBSERVED
from kvstore.port import KeyValue, PermissionDeniedError, Snapshot, Store, UnavailableError
from kvstore.remote import Remote
from model.cluster import Capabilities, ClusterConfig, ClusterId, ClusterName
from tests.conformance.test_mesh_store import Learnt, running
from tests.support.etcd import Etcd, plain_etcd, when_up
from tests.support.kvstoremesh import until
from tests.support.together import together
from wire.etcd import cluster_config_v1, keys

pytestmark = pytest.mark.root

ALL = "p/"
COUNT = 3 * shared_listing.FROM
NAMES = [f"{number}" for number in range(COUNT)]  # of which one begins with another


@pytest.fixture
async def stores(etcd: Etcd) -> AsyncIterator[list[EtcdStore]]:
    """One for each who asks, as sessions have them; over one connection."""
    found = [await etcd.store() for _ in NAMES]
    await found[0].delete("", prefix=True)
    for name in NAMES[1:]:
        for row in ("a", "b"):
            await found[0].put(f"p/{name}/{row}", name.encode())
        await found[0].put(f"p/{name}", name.encode())
    yield found
    for store in found:
        await store.close()


async def listings(stores: list[EtcdStore]) -> list[Snapshot | Exception]:
    asked = (s.range(f"p/{n}/", within=ALL) for s, n in zip(stores, NAMES, strict=True))
    return await together(*asked)


async def rows(stores: list[EtcdStore]) -> list[KeyValue | Exception | None]:
    asked = (s.get(f"p/{n}", within=ALL) for s, n in zip(stores, NAMES, strict=True))
    return await together(*asked)


def calls() -> int:
    """Answered so far."""
    return sum(sum(one.counts) for one in OBSERVED.operations.values.values())


async def test_each_gets_its_part(stores: list[EtcdStore]) -> None:
    """Prefixes and keys, also where nothing is; by one call."""
    before = calls()
    found, single = await listings(stores), await rows(stores)
    assert calls() - before == 2
    alone = [await s.range(f"p/{n}/") for s, n in zip(stores, NAMES, strict=True)]
    assert found == alone
    assert single == [await s.get(f"p/{n}") for s, n in zip(stores, NAMES, strict=True)]
    assert single[0] is None
    assert isinstance(found[0], Snapshot)
    assert not found[0].rows


async def test_a_listing_that_is_cut_off(
    stores: list[EtcdStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is not in the first page asks for itself: rows of some cost others nothing more."""
    alone = [await s.range(f"p/{n}/") for s, n in zip(stores, NAMES, strict=True)]
    monkeypatch.setattr(client, "PAGE_ROWS", COUNT)
    before = calls()
    assert await listings(stores) == alone
    assert 1 < calls() - before <= COUNT


async def test_what_was_written_before_is_seen(stores: list[EtcdStore]) -> None:
    """Whatever is being read for others meanwhile."""

    async def write_and_read(number: int) -> None:
        for turn in range(20):
            value = f"{turn}".encode()
            await stores[number].put(f"p/{NAMES[number]}", value)
            row = await stores[number].get(f"p/{NAMES[number]}", within=ALL)
            assert row is not None
            assert row.value == value

    assert not any(await together(*(write_and_read(number) for number in range(COUNT))))


async def test_who_may_not_read_the_whole(secured: Etcd) -> None:
    """A reader of a cluster's own store is given its keys all the same; what it may not is its
    own error."""
    config = secured.user("remote")
    stores: list[Store] = [await when_up(config) for _ in NAMES]
    admin = await when_up(secured.user("admin-c1"))
    await admin.put(keys.cluster_config("c1"), b"{}")
    whole = keys.CLUSTER_CONFIG_PREFIX
    found = await together(
        *(store.get(keys.cluster_config("c1"), within=whole) for store in stores[1:]),
        stores[0].get(keys.cluster_config("c2"), within=whole),
    )
    assert [row.value for row in found if isinstance(row, KeyValue)] == [b"{}"] * (COUNT - 1)
    assert isinstance(found[-1], PermissionDeniedError)
    for store in (*stores, admin):
        await store.close()


async def test_a_store_that_goes_away() -> None:
    """Everybody is told."""
    with plain_etcd() as etcd:
        stores = [await etcd.store() for _ in NAMES]
        etcd.kill()
        found = await together(
            *(
                store.get(f"p/{name}", within=ALL)
                for store, name in zip(stores, NAMES, strict=True)
            ),
        )
        assert {type(one) for one in found} == {UnavailableError}
        for store in stores:
            await store.close()


MEMBERS = [ClusterName(f"m{number}") for number in range(COUNT)]


async def test_sessions_with_one_store(secured: Etcd) -> None:
    """They begin together, and each by what is said of its own cluster: all of it, one without an
    announcement, one without canaries, one that is refused."""
    unannounced, unlisted, refused = MEMBERS[:3]
    admin = await when_up(secured.user("admin-c1"))
    await admin.put(keys.HEARTBEAT, b"now")

    async def announce(name: ClusterName) -> None:
        config = ClusterConfig(ClusterId(2 + MEMBERS.index(name)), Capabilities(True, True, 255))
        await admin.put(keys.cluster_config(name), cluster_config_v1.encode(config))

    async def complete(name: ClusterName) -> None:
        for resource in keys.REQUIRED:
            await admin.put(keys.canary(name, resource, cached=True), b"now")

    for name in MEMBERS:
        if name != unannounced:
            await announce(name)
        if name != unlisted:
            await complete(name)

    def accept(name: ClusterName, config: ClusterConfig) -> None:
        if name == refused:
            raise ValueError("not this one")

    local = secured.user("local-c1")

    async def connect() -> EtcdStore:
        return await client.connect(local)

    sessions = {name: Remote(name, connect, Learnt(), accept) for name in MEMBERS}

    def ready() -> set[ClusterName]:
        return {name for name, session in sessions.items() if session.status.ready}

    listed = OBSERVED.operations.values
    names = [("cluster-config", "read", "listPrefix", "success")]
    names.append(("synced", "read", "listPrefix", "success"))
    before = [sum(listed[name].counts) if name in listed else 0 for name in names]
    async with running(*sessions.values()):
        await until(lambda: ready() == set(MEMBERS[3:]))
        after = [sum(listed[name].counts) for name in names]
        assert all(0 < b - a < COUNT for a, b in zip(before, after, strict=True))
        await until(lambda: "configuration" in sessions[unannounced].status.message)
        await until(lambda: sessions[unlisted].status.connected)
        await until(lambda: sessions[refused].status.message == "not this one")
        await announce(unannounced)
        await complete(unlisted)
        await until(lambda: ready() == set(MEMBERS) - {refused})
    await admin.close()

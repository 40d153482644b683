"""The contract of ``kvstore.port``, held by a real etcd and by the one in memory."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from certs.issue import create_ca
from kvstore.bootstrap import bootstrap
from kvstore.etcd import connect
from kvstore.port import (
    Batch,
    CompactedError,
    Compare,
    Delete,
    DeleteOp,
    Field,
    GetOp,
    LeaseNotFoundError,
    PermissionDeniedError,
    Put,
    PutOp,
    Store,
    StoreError,
    UnavailableError,
)
from tests.support import fake_store
from tests.support.etcd import Etcd, plain_etcd, when_up

pytestmark = pytest.mark.root


@pytest.fixture(params=["etcd", "fake"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "fake":
        found: Store = await fake_store.connect(fake_store.FakeEtcd())
    else:
        etcd: Etcd = request.getfixturevalue("etcd")
        found = await etcd.store()
    await found.delete("", prefix=True)
    yield found
    await found.close()


async def take(watch: AsyncIterator[Batch], events: int) -> list[Put | Delete]:
    """Read a watch until so many events have come."""
    got: list[Put | Delete] = []
    async with asyncio.timeout(30):
        while len(got) < events:
            got.extend((await anext(watch)).events)
    return got


async def test_read_what_was_written(store: Store) -> None:
    """A row keeps its value and counts its revisions."""
    first = await store.put("a/1", b"x")
    second = await store.put("a/1", b"\0\xff")
    row = await store.get("a/1")
    assert row is not None
    assert (row.value, row.create_revision, row.mod_revision, row.version) == (
        b"\0\xff",
        first,
        second,
        2,
    )
    assert await store.get("a/2") is None


async def test_a_range_is_one_revision_over_many_pages(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages after the first show the state of the first."""
    monkeypatch.setattr("kvstore.etcd.PAGE_ROWS", 3)
    for n in range(10):
        await store.put(f"p/{n}", b"")
    await store.put("q", b"")
    snapshot = await store.range("p/")
    assert [row.key for row in snapshot.rows] == [f"p/{n}" for n in range(10)]
    part = await store.range("p/", limit=4)
    assert (len(part.rows), part.more, part.count) == (4, True, 10)
    rest = await store.range("p/", start="p/4", revision=part.revision)
    assert [row.key for row in rest.rows] == [f"p/{n}" for n in range(4, 10)]
    await store.delete("p/", prefix=True)
    assert (await store.range("p/", revision=snapshot.revision)).rows == snapshot.rows


async def test_a_transaction_is_all_or_nothing(store: Store) -> None:
    """Comparisons choose the branch; all rows of a branch share a revision."""
    done = await store.txn(
        [PutOp("t/1", b"1"), PutOp("t/2", b"2"), GetOp("t/1")],
        compare=[Compare("t/1", Field.MOD_REVISION, 0)],
    )
    assert done.succeeded
    assert done.reads[0] is not None
    assert {r.mod_revision for r in (await store.range("t/")).rows} == {done.revision}
    again = await store.txn(
        [DeleteOp("t/", prefix=True)],
        compare=[Compare("t/1", Field.MOD_REVISION, 0)],
        otherwise=[GetOp("t/2"), GetOp("t/3")],
    )
    assert not again.succeeded
    assert [r and r.value for r in again.reads] == [b"2", None]


async def test_a_watch_tells_everything_in_order(store: Store) -> None:
    """From a revision on, with previous values on request."""
    start = await store.put("w/1", b"1")
    await store.txn([PutOp("w/1", b"2"), PutOp("w/2", b"3")])
    watch = store.watch("w/", start, previous=True)
    got = await take(watch, 3)
    assert [e.row.value for e in got if isinstance(e, Put)] == [b"1", b"2", b"3"]
    await store.delete("w/1")
    (gone,) = await take(watch, 1)
    assert isinstance(gone, Delete)
    assert gone.key == "w/1"
    assert gone.previous is not None
    assert gone.previous.value == b"2"
    await watch.aclose()  # type: ignore[attr-defined]


async def test_forgotten_history_is_said(store: Store) -> None:
    """A watch from before a compaction names the revision from which it could start."""
    start = await store.put("c/1", b"1")
    last = await store.put("c/1", b"2")
    await store.compact(last)
    with pytest.raises(CompactedError) as caught:
        await take(store.watch("c/", start), 1)
    assert caught.value.compact_revision == last
    with pytest.raises(CompactedError):
        await store.range("c/", revision=start)


async def test_keys_die_with_their_lease(store: Store) -> None:
    """Revoking a lease deletes its keys; a dead lease cannot be prolonged."""
    lease = await store.grant(60)
    await store.put("l/1", b"", lease)
    assert await store.keep_alive(lease) > 0
    await store.revoke(lease)
    assert await store.get("l/1") is None
    with pytest.raises(LeaseNotFoundError):
        await store.keep_alive(lease)
    with pytest.raises(LeaseNotFoundError):
        await store.put("l/1", b"", lease)
    await store.revoke(lease)


async def test_rows_of_a_dead_lease_are_told_as_deletions(store: Store) -> None:
    """A lease that runs out takes its keys along, and watches hear of it."""
    lease = await store.grant(3)  # it must not be over before the row is written
    last = await store.put("x/1", b"", lease)
    (gone,) = await take(store.watch("x/", last + 1), 1)
    assert isinstance(gone, Delete)
    assert await store.get("x/1") is None


async def test_a_compacted_revision_can_still_be_watched_from(store: Store) -> None:
    """What is forgotten lies before the revision; a key alone is watched exactly."""
    await store.put("e/1", b"1")
    last = await store.txn([PutOp("e/1", b"2"), PutOp("e/12", b"3")])
    await store.compact(last.revision)
    (seen,) = await take(store.watch("e/1", last.revision, exact=True), 1)
    assert isinstance(seen, Put)
    assert (seen.row.value, seen.row.version, seen.previous) == (b"2", 2, None)


async def test_a_killed_fake_is_unavailable() -> None:
    """As the real one: calls and watches fail, a new connection works, the rows are there."""
    member = fake_store.FakeEtcd()
    store = await fake_store.connect(member)
    await store.put("k", b"1")
    watch = store.watch("k", 1)
    await take(watch, 1)
    member.kill()
    with pytest.raises(UnavailableError):
        await take(watch, 1)
    with pytest.raises(UnavailableError):
        await store.get("k")
    with pytest.raises(UnavailableError):
        await fake_store.connect(member)
    member.start()
    row = await (await fake_store.connect(member)).get("k")
    assert row is not None
    assert row.value == b"1"


async def test_a_killed_store_is_unavailable() -> None:
    """Calls and watches fail with one kind of error, and work again on a new connection."""
    with plain_etcd() as etcd:
        store = await etcd.store()
        await store.put("k", b"1")
        watch = store.watch("k", 1)
        await take(watch, 1)
        etcd.kill()
        with pytest.raises(UnavailableError):
            await take(watch, 1)
        with pytest.raises(UnavailableError):
            await store.get("k")
        await store.close()
        etcd.start()
        store = await etcd.store()
        row = await store.get("k")
        assert row is not None
        assert row.value == b"1"
        await store.close()


async def test_remote_reads_the_mesh_and_nothing_else(secured: Etcd) -> None:
    """The user of other clusters reads four prefixes of this one and writes nowhere."""
    admin = await secured.store("admin-c1")
    remote = await secured.store("remote")
    for key in ("cilium/state/x", "cilium/.heartbeat", "cilium/cluster-config/c1"):
        await admin.put(key, b"1")
        assert (await remote.get(key)) is not None
    await remote.range("cilium/synced/c1/")
    for refused in (
        remote.get("cilium/cluster-config/c2"),
        remote.range("cilium/cache/"),
        remote.range("cilium/synced/c2/"),
        remote.range(""),
        remote.put("cilium/state/x", b"2"),
        remote.delete("cilium/state/x"),
        remote.txn([PutOp("cilium/state/x", b"2")]),
        remote.txn([GetOp("cilium/cache/x")]),
        remote.add_user("mallory"),
        take(remote.watch("cilium/cache/", 1), 1),
    ):
        with pytest.raises(PermissionDeniedError):
            await refused
    await bootstrap(await secured.store("root"), "c1")  # repeatable
    await admin.close()
    await remote.close()


async def test_a_stranger_gets_nothing(secured: Etcd) -> None:
    """A certificate of our CA with an unknown name reads nothing."""
    stranger = await secured.store("nobody")
    with pytest.raises(StoreError):
        await stranger.get("cilium/state/x")
    await stranger.close()


@pytest.mark.parametrize("case", ["foreign client", "foreign server", "expired client"])
async def test_a_bad_certificate_is_explained(secured: Etcd, case: str) -> None:
    """The error says which certificate is wrong and what to do."""
    await (await when_up(secured.user("remote"))).close()
    now = datetime.now(UTC)
    other = create_ca(now)
    if case == "foreign client":
        config = secured.user("stranger", ca=other)
    elif case == "expired client":
        config = secured.user("late", age_days=2)
    else:
        config = secured.user("remote")
        path = secured.directory / "other-ca.crt"
        path.write_bytes(other.certificate)
        config = type(config)(config.endpoints, str(path), config.cert_file, config.key_file)
    with pytest.raises(UnavailableError) as caught:
        await connect(config)
    words = {
        "foreign client": ("client certificate", "CA"),
        "expired client": ("client certificate", "expired"),
        "foreign server": ("server's certificate", "does not hold"),
    }
    assert all(word in str(caught.value) for word in words[case]), str(caught.value)

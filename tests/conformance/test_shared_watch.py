"""One watch for all who follow parts of a prefix: everybody gets their part, nobody another's."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import pytest

from kvstore import shared_watch
from kvstore.etcd import EtcdStore
from kvstore.port import (
    Batch,
    CompactedError,
    Delete,
    PermissionDeniedError,
    Put,
    Store,
    UnavailableError,
)
from reconcile.tasks import TaskGroup
from tests.support import fake_store
from tests.support.etcd import Etcd, plain_etcd, when_up

pytestmark = pytest.mark.root

ALL = "p/"


@pytest.fixture(params=["etcd", "fake"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "fake":
        found: Store = await fake_store.connect(fake_store.FakeEtcd())
    else:
        found = await request.getfixturevalue("etcd").store()
    await found.delete("", prefix=True)
    yield found
    await found.close()


@pytest.fixture
async def real(etcd: Etcd) -> AsyncIterator[EtcdStore]:
    store = await etcd.store()
    await store.delete("", prefix=True)
    yield store
    await store.close()


async def take(watch: AsyncIterator[Batch], events: int) -> list[Put | Delete]:
    """Read a watch until so many events have come."""
    got: list[Put | Delete] = []
    async with asyncio.timeout(30):
        while len(got) < events:
            got.extend((await anext(watch)).events)
    return got


def said(events: list[Put | Delete]) -> list[tuple[str, bytes | None]]:
    return [(e.row.key, e.row.value) if isinstance(e, Put) else (e.key, None) for e in events]


async def test_each_gets_its_part(store: Store) -> None:
    """Prefixes and a key, in order, deletions too; alike for one who does not share."""
    at = (await store.range(ALL)).revision
    a, b = (store.watch(prefix, at + 1, within=ALL) for prefix in ("p/a/", "p/b/"))
    key = store.watch("p/b/1", at + 1, exact=True, within=ALL)
    alone = store.watch("p/a/", at + 1)
    for watch in (a, b, key, alone):
        assert (await anext(watch)).events == ()
    await store.put("p/a/1", b"1")
    await store.put("p/b/1", b"2")
    await store.put("p/b/12", b"3")
    await store.put("p/ab", b"4")
    await store.delete("p/a/1")
    await store.put("p/b/1", b"5")
    in_a: list[tuple[str, bytes | None]] = [("p/a/1", b"1"), ("p/a/1", None)]
    assert said(await take(a, 2)) == said(await take(alone, 2)) == in_a
    assert said(await take(b, 3)) == [("p/b/1", b"2"), ("p/b/12", b"3"), ("p/b/1", b"5")]
    assert said(await take(key, 2)) == [("p/b/1", b"2"), ("p/b/1", b"5")]


async def test_a_late_follower_misses_nothing(store: Store) -> None:
    """From the revision of its listing on, whatever the others have been told already."""
    first = store.watch("p/a/", (await store.range(ALL)).revision + 1, within=ALL)
    await anext(first)
    await store.put("p/b/0", b"before")
    at = (await store.range("p/b/")).revision
    await store.put("p/b/1", b"missed")
    await store.put("p/a/1", b"")
    await take(first, 1)
    second = store.watch("p/b/", at + 1, within=ALL)
    assert said(await take(second, 1)) == [("p/b/1", b"missed")]
    await store.put("p/b/2", b"later")
    assert said(await take(second, 1)) == [("p/b/2", b"later")]


async def test_who_waits_is_asked_to_take(store: Store) -> None:
    """What is taken does not come again; what is left comes out, and nothing overtakes it."""
    heard: list[str] = []

    def told(batch: Batch) -> bool:
        names = [key for key, _ in said([*batch.events])]
        if any(name.endswith("left") for name in names):
            return False
        heard.extend(names)
        return True

    at = (await store.range(ALL)).revision
    watch = store.watch("p/a/", at + 1, within=ALL, take=told)
    await anext(watch)  # it stands
    async with asyncio.timeout(30), TaskGroup() as tasks:
        waiting = tasks.create_task(take(watch, 1))
        for name in ("1", "2", "left"):
            await store.put(f"p/a/{name}", b"")
            await store.put(f"p/b/{name}", b"")
        heard += [key for key, _ in said(await waiting)]
        await store.put("p/a/3", b"")  # nobody waits
        await store.put("p/a/4-left", b"")
        while heard[-1] != "p/a/4-left":
            heard += [key for key, _ in said(await take(watch, 1))]
    assert heard == [f"p/a/{name}" for name in ("1", "2", "left", "3", "4-left")]


async def test_who_fails_to_take_fails_alone(real: EtcdStore) -> None:
    """The error is raised to him; the others go on."""

    def broken(batch: Batch) -> bool:
        raise ValueError(f"revision {batch.revision}")

    first, second = (
        real.watch("p/a/", 0, within=ALL, take=broken),
        real.watch("p/b/", 0, within=ALL),
    )
    await anext(first)
    await anext(second)

    async def fails() -> None:
        with pytest.raises(ValueError, match="revision"):
            await take(first, 1)

    async with asyncio.timeout(30), TaskGroup() as tasks:
        tasks.create_task(fails())
        other = tasks.create_task(take(second, 1))
        await asyncio.sleep(0.05)  # both wait by now; were they late, the result is the same
        await real.put("p/a/1", b"")
        await real.put("p/b/1", b"")
        assert said(await other) == [("p/b/1", b"")]


async def test_one_from_before_the_watch_reads_for_itself(
    real: EtcdStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is recent ends somewhere."""
    monkeypatch.setattr(shared_watch, "RECENT_EVENTS", 2)
    at = (await real.range(ALL)).revision
    first = real.watch("p/a/", at + 1, within=ALL)
    await anext(first)
    for n in range(5):
        await real.put(f"p/a/{n}", b"")
    await take(first, 5)
    second = real.watch("p/a/", at + 1, within=ALL)
    assert len(await take(second, 5)) == 5


async def test_many_changes_come_together(real: EtcdStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is lost or told twice, and there are far fewer messages than changes."""
    # Whatever a machine writes in a second is fast.
    monkeypatch.setattr(shared_watch, "BURST_S", 10.0)
    monkeypatch.setattr(shared_watch, "FEW_EVENTS", 1)
    messages = 0
    taken = shared_watch.SharedWatch._take

    def counted(self: shared_watch.SharedWatch, reply: Any) -> int:
        nonlocal messages
        messages += 1
        return taken(self, reply)

    monkeypatch.setattr(shared_watch.SharedWatch, "_take", counted)
    watch = real.watch("p/a/", 0, within=ALL)
    await anext(watch)
    async with TaskGroup() as tasks:
        writer = tasks.create_task(_write(real, 600))
        events = await take(watch, 800)
    assert said(events) == writer.result()
    assert messages < 300
    await asyncio.sleep(0.3)  # it goes back to telling each by itself
    await real.put("p/a/last", b"")
    assert said(await take(watch, 1)) == [("p/a/last", b"")]


async def _write(store: Store, count: int) -> list[tuple[str, bytes | None]]:
    done: list[tuple[str, bytes | None]] = []
    for n in range(count):
        key, value = f"p/a/{n % 50}", str(n).encode()
        await store.put(key, value)
        done.append((key, value))
        if n % 3 == 2:
            await store.delete(key)
            done.append((key, None))
    return done


async def test_who_reads_for_all_may_leave(real: EtcdStore) -> None:
    """The one whose turn it was to read takes nothing from the others."""
    watches = {n: real.watch(f"p/{n}/", 0, within=ALL) for n in range(4)}
    for watch in watches.values():
        await anext(watch)
    for turn in range(8):
        async with TaskGroup() as tasks:
            waits = {n: tasks.create_task(take(w, 1)) for n, w in watches.items()}
            await asyncio.sleep(0.02)
            leaving = turn % 4
            waits.pop(leaving).cancel()
            await real.put(f"p/{leaving}/", b"nobody")
            for n in waits:
                await real.put(f"p/{n}/", str(turn).encode())
        for n, wait in waits.items():
            assert said(wait.result()) == [(f"p/{n}/", str(turn).encode())]
        watches[leaving] = real.watch(f"p/{leaving}/", 0, within=ALL)
        await anext(watches[leaving])


async def test_the_last_follower_ends_it(real: EtcdStore) -> None:
    """Then it begins again with the next."""
    at = (await real.range(ALL)).revision
    watch = cast("AsyncGenerator[Batch]", real.watch("p/a/", at + 1, within=ALL))
    async with aclosing(watch) as first:
        await anext(first)
        shared = real._held.watch(ALL, real._shared_stream)
        assert shared._stream is not None
    assert shared._stream is None
    second = real.watch("p/a/", 0, within=ALL)
    await anext(second)
    await real.put("p/a/1", b"")
    assert said(await take(second, 1)) == [("p/a/1", b"")]


async def test_who_does_not_keep_up_lists_again(
    real: EtcdStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded, and the others go on."""
    monkeypatch.setattr(shared_watch, "BEHIND_MESSAGES", 3)
    slow, quick = (real.watch(p, 0, within=ALL) for p in ("p/a/", "p/b/"))
    await anext(slow)
    await anext(quick)
    for n in range(8):
        await real.put(f"p/a/{n}", b"")
        await real.put(f"p/b/{n}", b"")
        await take(quick, 1)
    with pytest.raises(CompactedError, match="too far behind"):
        await take(slow, 8)


async def test_all_hear_of_its_end() -> None:
    """A store that dies; one that has forgotten the past."""
    with plain_etcd() as etcd:
        store = await etcd.store()
        watches = [store.watch(p, 0, within=ALL) for p in ("p/a/", "p/b/")]
        for watch in watches:
            await anext(watch)
        etcd.kill()
        for watch in watches:
            with pytest.raises(UnavailableError):
                await take(watch, 1)
        await store.close()
        etcd.start()
        store = await etcd.store()
        for n in range(4):
            await store.put("p/a/1", str(n).encode())
        await store.compact((await store.range(ALL)).revision)
        with pytest.raises(CompactedError):
            await take(store.watch("p/a/", 1, within=ALL), 1)
        await store.close()


async def test_what_may_not_be_read(secured: Etcd) -> None:
    """The wider prefix counts, for each who names it."""
    store = await when_up(secured.user("remote"))
    for _ in range(2):
        with pytest.raises(PermissionDeniedError):
            await take(store.watch("cilium/cache/x/", 0, within="cilium/cache/"), 1)
    await store.close()

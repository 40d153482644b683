"""The cache: reads, fan-out, resuming, waiting."""

import asyncio
from typing import Any

import pytest

from kind.apiserver import cache as cache_module
from kind.apiserver.cache import Cache, Item, Watcher
from kind.apiserver.errors import ApiError
from kind.apiserver.selectors import Selection, parse_labels
from reconcile.tasks import TaskGroup

PODS = "core/pods"


def item(name: str, revision: int, **labels: str) -> Item:
    obj: Any = {"metadata": {"name": name, "namespace": "n", "labels": labels}}
    return Item(obj, revision)


def put(cache: Cache, name: str, revision: int, **labels: str) -> None:
    cache.apply(PODS, f"n/{name}", item(name, revision, **labels), revision)
    cache.advance(revision)


def drop(cache: Cache, name: str, revision: int) -> None:
    cache.apply(PODS, f"n/{name}", None, revision)
    cache.advance(revision)


def seen(watcher: Watcher) -> list[tuple[str, str, int]]:
    out = []
    for event in watcher.events:
        found = event.seen_by(watcher.selection)
        if found:
            out.append((found[0], found[1].obj["metadata"]["name"], found[1].revision))
    return out


def test_watch_resumes_without_gap() -> None:
    """Events before and after the watch began come once each, in order."""
    cache = Cache()
    cache.load([], 1)
    put(cache, "a", 2)
    put(cache, "b", 3)
    with cache.watch(PODS, Selection(), 2) as watcher:
        put(cache, "a", 4)
        drop(cache, "b", 5)
        assert seen(watcher) == [("ADDED", "b", 3), ("MODIFIED", "a", 4), ("DELETED", "b", 5)]
    put(cache, "c", 6)
    assert len(watcher.events) == 3


def test_selected_views() -> None:
    """Entering and leaving a selector are ADDED and DELETED; the rest is not told."""
    cache = Cache()
    cache.load([], 1)
    chosen = Selection("n", parse_labels("app=a"))
    with cache.watch(PODS, chosen, 1) as watcher:
        put(cache, "p", 2)
        put(cache, "p", 3, app="a")
        put(cache, "p", 4, app="a", x="1")
        put(cache, "p", 5, app="b")
        drop(cache, "p", 6)
        assert [s[0] for s in seen(watcher)] == ["ADDED", "MODIFIED", "DELETED"]


def test_lines_are_encoded_once() -> None:
    """All watchers of a change get the same bytes."""
    cache = Cache()
    cache.load([], 1)
    with (
        cache.watch(PODS, Selection(), 1) as one,
        cache.watch(PODS, Selection("n"), 1) as two,
    ):
        put(cache, "p", 2)
        first = one.events[0].line(one.selection)
        assert first is two.events[0].line(two.selection)
        assert first.startswith(b'{"type":"ADDED","object":{"metadata":')


def test_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the kept history, and before the cache began, there is only 410."""
    monkeypatch.setattr(cache_module, "HISTORY_EVENTS", 2)
    cache = Cache()
    cache.load([(PODS, "n/old", item("old", 3))], 5)
    with pytest.raises(ApiError, match="too old"), cache.watch(PODS, Selection(), 4):
        pass
    for revision in (6, 7, 8):
        put(cache, "p", revision)
    with pytest.raises(ApiError, match="too old"), cache.watch(PODS, Selection(), 5):
        pass
    with cache.watch(PODS, Selection(), 6) as watcher:
        assert [s[2] for s in seen(watcher)] == [7, 8]


def test_slow_watcher_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher that does not read is ended with 410; others go on."""
    monkeypatch.setattr(cache_module, "QUEUE_EVENTS", 2)
    cache = Cache()
    cache.load([], 1)
    with cache.watch(PODS, Selection(), 1) as slow, cache.watch(PODS, Selection(), 1) as quick:
        for revision in (2, 3, 4):
            put(cache, "p", revision)
            quick.events.clear()
        assert slow.ended is not None
        assert slow.ended.code == 410
        assert quick.ended is None


def test_reload_ends_watches() -> None:
    """After the store forgot something, everybody has to list again."""
    cache = Cache()
    cache.load([], 1)
    with cache.watch(PODS, Selection(), 1) as watcher:
        cache.load([(PODS, "n/a", item("a", 7))], 9)
        assert watcher.ended is not None
    assert cache.get(PODS, "n/a") is not None
    assert cache.revision == 9


async def test_waiting_for_a_revision() -> None:
    """A reader that asks for the future gets it when it comes, or a time-out."""
    cache = Cache()
    cache.load([], 1)
    async with TaskGroup() as group:
        waiting = group.create_task(cache.wait_for(3))
        await asyncio.sleep(0)
        put(cache, "a", 2)
        assert not waiting.done()
        put(cache, "a", 3)
    with pytest.raises(ApiError, match="Too large resource version"):
        await cache.wait_for(99, timeout_s=0.01)

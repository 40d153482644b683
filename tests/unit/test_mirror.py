"""``kvstore.mirror``: whatever a watch does, the copy ends as the store."""

import random

from hypothesis import given
from hypothesis import strategies as st

from kvstore.mirror import Mirror
from kvstore.port import Delete, Event, KeyValue, Put


@given(st.integers(0, 2**32))
def test_random_streams_end_as_the_store(seed: int) -> None:
    """Multi-key transactions, replays, losses followed by listings: the copy equals the store."""
    rng = random.Random(seed)
    store: dict[str, KeyValue] = {}
    history: list[Event] = []
    copy: dict[str, bytes] = {}
    mirror, revision, seen = Mirror(), 0, 0

    def apply(changes: list[tuple[str, bytes | None]]) -> None:
        for key, value in changes:
            if value is None:
                del copy[key]  # a deletion of what was never told would be a mistake
            else:
                copy[key] = value

    for _ in range(60):
        revision += 1
        for key in rng.sample("abcdef", rng.randint(1, 3)):
            if key in store and rng.random() < 0.4:
                del store[key]
                history.append(Delete(key, revision))
            else:
                store[key] = KeyValue(key, bytes([rng.randrange(256)]), 1, revision, 1)
                history.append(Put(store[key]))
        act = rng.random()
        if act < 0.2:  # the watch is lost: list again
            apply(mirror.snapshot(store.values(), revision))
            seen = len(history)
        elif act < 0.3:  # a listing that is broken off, after which the store is listed anew
            mirror.begin_listing()
            apply(mirror.listed(list(store.values())[: rng.randint(0, len(store))]))
            seen = 0
        elif act < 0.7 and seen:  # the watch goes on, at times repeating what was told
            start = max(0, seen - (rng.randint(0, 3) if rng.random() < 0.3 else 0))
            told = [mirror.event(e) for e in history[start:]]
            apply([t for t in told if t is not None])
            seen = len(history)
    apply(mirror.snapshot(store.values(), revision))
    assert copy == {k: row.value for k, row in store.items()}
    assert set(mirror.keys()) == set(store)


def test_another_store_hands_out_everything_again() -> None:
    """Revisions of another etcd are not compared with ours; vanished rows are deletions."""
    mirror = Mirror()
    mirror.snapshot([KeyValue("a", b"1", 1, 5, 1), KeyValue("b", b"1", 1, 6, 1)], 9)
    mirror.forget_revisions()
    assert mirror.snapshot([KeyValue("a", b"2", 1, 5, 1)], 5) == [("a", b"2"), ("b", None)]


def test_rows_that_moved_to_another_prefix_are_not_gone() -> None:
    """The same rows listed elsewhere change nothing; one that is missing there is a deletion."""
    mirror = Mirror("a/")
    mirror.snapshot([KeyValue("a/1", b"1", 1, 5, 1), KeyValue("a/2", b"1", 1, 6, 1)], 9)
    mirror.move("b/c/")
    assert mirror.snapshot([KeyValue("b/c/1", b"1", 1, 5, 1)], 9) == [("2", None)]

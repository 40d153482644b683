"""The second look of a compare, while the watch goes on."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from kvstore import compare
from kvstore.mirror import Mirror
from kvstore.port import Delete, KeyValue, Put, Snapshot, Store

KEY = "p/a"
OLD, LISTED, NEWER = (KeyValue(KEY, b"%d" % at, 3, at, at, 0) for at in (3, 6, 7))


class Telling:
    """Has the row as it was listed; something happens before its answer is there."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self._meanwhile = meanwhile

    async def range(self, prefix: str, **_: Any) -> Snapshot:
        self._meanwhile()
        return Snapshot(6, (LISTED,), False, 1)


async def confirmed(mirror: Mirror, meanwhile: Callable[[], object]) -> list[KeyValue | None]:
    store = cast("Store", Telling(meanwhile))
    return [found.row for found in await compare.confirmed(store, {KEY: OLD.mod_revision}, mirror)]


def a_mirror() -> Mirror:
    mirror = Mirror("p/")
    mirror.snapshot((OLD,), 3)
    return mirror


async def test_what_is_not_told_is_found() -> None:
    mirror = a_mirror()
    assert await confirmed(mirror, lambda: None) == [LISTED]


@pytest.mark.parametrize("event", [Delete(KEY, 7), Put(NEWER), Put(LISTED)])
async def test_what_is_told_meanwhile_is_not(event: Put | Delete) -> None:
    """It may be newer than the answer: a row that is gone must not come back."""
    mirror = a_mirror()
    assert await confirmed(mirror, lambda: mirror.event(event)) == []


async def test_what_was_told_since_the_first_look_is_not() -> None:
    """And has changed once more: the watch that told of the one change will tell of the other."""
    mirror = a_mirror()
    mirror.event(Put(KeyValue(KEY, b"5", 3, 5, 5, 0)))
    assert await confirmed(mirror, lambda: None) == []

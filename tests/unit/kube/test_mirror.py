"""The mirror of one kind, driven by lists and watch lines."""

import json
import random

import msgspec
import pytest

from kube.mirror import Change, ExpiredError, Mirror, WatchError
from wire.k8s.cilium_endpoint import CiliumEndpoint


def mirror() -> Mirror[CiliumEndpoint]:
    return Mirror(CiliumEndpoint, "CiliumEndpoint")


def obj(name: str, revision: int, uid: str = "u", **status: object) -> dict[str, object]:
    meta = {"namespace": "d", "name": name, "uid": uid, "resourceVersion": str(revision)}
    return {"metadata": meta, "status": status}


def raw(*objects: dict[str, object]) -> list[msgspec.Raw]:
    return [msgspec.Raw(json.dumps(o).encode()) for o in objects]


def line(kind: str, body: dict[str, object]) -> bytes:
    return json.dumps({"type": kind, "object": body}).encode()


def told(changes: list[Change[CiliumEndpoint]]) -> list[tuple[str | None, str | None]]:
    return [
        (c.old and c.old.metadata.resource_version, c.new and c.new.metadata.resource_version)
        for c in changes
    ]


def test_an_unchanged_object_is_not_told_again() -> None:
    """A second list tells only what differs: deletions first, then the rest in order."""
    seen = mirror()
    assert told(seen.replace(raw(obj("a", 1), obj("b", 2), obj("c", 3)), "3")) == [
        (None, "1"),
        (None, "2"),
        (None, "3"),
    ]
    assert told(seen.replace(raw(obj("a", 1), obj("b", 7), obj("d", 8)), "9")) == [
        ("3", None),
        ("2", "7"),
        (None, "8"),
    ]
    assert seen.revision == "9"


def test_bookmarks_move_the_revision_only() -> None:
    """A bookmark tells no change."""
    seen = mirror()
    seen.replace(raw(obj("a", 1)), "1")
    assert seen.apply(line("BOOKMARK", {"metadata": {"resourceVersion": "50"}})) == []
    assert seen.revision == "50"


def test_deletion_of_the_unknown_is_no_change() -> None:
    """Only what was told can go away."""
    seen = mirror()
    assert seen.apply(line("DELETED", obj("a", 2))) == []


def test_expired_revision_asks_for_a_list() -> None:
    """ERROR 410 forgets the revision but not the objects."""
    seen = mirror()
    seen.replace(raw(obj("a", 1)), "1")
    with pytest.raises(ExpiredError):
        seen.apply(line("ERROR", {"code": 410, "message": "too old"}))
    assert seen.revision == ""
    assert list(seen.store) == [("d", "a")]


@pytest.mark.parametrize("bad", [b"{", b"[]", line("ERROR", {"code": 500, "message": "no leader"})])
def test_other_errors_keep_the_revision(bad: bytes) -> None:
    """A failing server is asked again for what follows."""
    seen = mirror()
    seen.replace(raw(obj("a", 1)), "1")
    with pytest.raises(WatchError):
        seen.apply(bad)
    assert seen.revision == "1"


def test_bad_object_keeps_its_last_good_version() -> None:
    """Rejected versions are counted; a list does not delete what is there but unreadable."""
    seen = mirror()
    seen.replace(raw(obj("a", 1, id=7)), "1")
    assert seen.apply(line("MODIFIED", obj("a", 2, id="seven"))) == []
    assert seen.replace(raw(obj("a", 2, id="seven")), "3") == []
    assert seen.rejected == 2
    assert list(seen.bad) == [("d", "a")]
    assert seen.store["d", "a"].metadata.resource_version == "1"
    assert told(seen.apply(line("MODIFIED", obj("a", 4, id=8)))) == [("1", "4")]
    assert not seen.bad
    assert told(seen.apply(line("DELETED", obj("a", 5, id="seven")))) == [("4", None)]


@pytest.mark.parametrize("seed", range(200))
def test_changes_always_rebuild_the_store(seed: int) -> None:
    """For any stream of events, replays, skipped stretches and lists, applying the changes one by
    one to an empty table gives the server's objects in the end."""
    draw = random.Random(seed)
    server: dict[str, dict[str, object]] = {}
    log: list[bytes] = []
    seen, table = mirror(), {}
    at = 0

    def take(changes: list[Change[CiliumEndpoint]]) -> None:
        for old, new in changes:
            key = (new or old).metadata.key  # type: ignore[union-attr]
            assert table.get(key) == old, "a change starts from what was told last"
            if new is None:
                del table[key]
            else:
                table[key] = new

    take(seen.replace([], "0"))
    for revision in range(1, 61):
        name = draw.choice("abcd")
        if name in server and draw.random() < 0.4:
            gone = server.pop(name)
            log.append(
                line(
                    "DELETED",
                    {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(revision)}},
                )
            )  # type: ignore[dict-item]
        else:
            uid = server[name]["metadata"]["uid"] if name in server else f"u{revision}"  # type: ignore[index]
            kind = "MODIFIED" if name in server else "ADDED"
            server[name] = obj(name, revision, uid, id=revision)
            log.append(line(kind, server[name]))
        match draw.randrange(4):
            case 0:
                pass  # the watch lags behind
            case 1:
                at = revision  # compacted: list again
                take(seen.replace(raw(*server.values()), str(revision)))
            case _:
                for event in log[at:]:
                    take(seen.apply(event))
                at = revision
    for event in log[at:]:
        take(seen.apply(event))
    assert {k[1]: v.metadata.resource_version for k, v in table.items()} == {
        name: body["metadata"]["resourceVersion"]  # type: ignore[index]
        for name, body in server.items()
    }
    assert table == dict(seen.store)

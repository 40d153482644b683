"""What ``isthmus encrypt status`` says of nodes that were not asked."""

from datetime import UTC, datetime
from typing import Any

from cli import encrypt_far

NOW = datetime(2026, 11, 21, 12, 1, tzinfo=UTC)


def answer(node: str, key: str, **peer: Any) -> dict[str, Any]:
    """Of a node that knows one of another cluster with WireGuard, and one without any key."""
    found = {
        "node": "two/c",
        "public-key": key,
        "last-handshake-time": None,
        "transfer-rx": 10,
        "transfer-tx": 20,
    }
    nothing = {"wireguard-key": "", "ipsec-key": 0, "rotation": ""}
    return {
        "node": node,
        "announced": {
            name: nothing | ({"wireguard-key": key, "rotation": "3 turning"} if "c" in name else {})
            for name in {"one/a", "one/b", "two/c", "two/d"} - {node}
        },
        "migration": {"nodes": {"two/c": {"sends": "wireguard"}, "two/d": {"sends": "off"}}},
        "wireguard": {"interfaces": [{"peers": [found | peer]}]},
    }


def test_what_several_nodes_know_of_one_is_put_together() -> None:
    """Key, handshakes, bytes and rotation; nodes that answered themselves are left out."""
    first = answer("one/a", "KEY", **{"last-handshake-time": "2026-11-21T12:00:00+00:00"})
    second = answer("one/b", "KEY", **{"key-known-seconds": 7200})
    seen = encrypt_far.seen({"a": first, "b": second})
    assert [far.row(NOW) for far in seen] == [
        (
            *("two/c", "wireguard", "KEY", "2h", "number 3 turning", "with 1 of 2"),
            *("1m ago", "20", "40"),
        ),
        ("two/d", "clear text", "none", ""),
    ]
    shape = seen[0].shape()
    assert shape["announced"]["wireguard-key"] == "KEY"
    assert (shape["seen-by"], shape["shaken-hands"], shape["transfer-rx"]) == (2, 1, 20)
    assert len(encrypt_far.HEADER) == len(seen[0].row(NOW))


def test_nobody_is_missing_when_all_were_asked() -> None:
    """Nor is anything invented for agents of an earlier version."""
    assert encrypt_far.seen({"a": {"node": "one/a", "announced": {}}}) == []
    assert encrypt_far.seen({"a": {"mode": "Wireguard"}}) == []


def test_keys_of_ipsec_are_shown() -> None:
    """By their number: bytes and handshakes are WireGuard's."""
    announced = {"wireguard-key": "", "ipsec-key": 4, "rotation": ""}
    status = {
        "node": "one/a",
        "announced": {"two/c": announced},
        "migration": {"nodes": {"two/c": {"sends": "ipsec"}}},
    }
    assert [far.row(NOW) for far in encrypt_far.seen({"a": status})] == [
        ("two/c", "ipsec", "IPsec 4", "")
    ]

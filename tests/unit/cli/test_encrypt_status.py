"""What ``isthmus encrypt status`` says of WireGuard."""

from datetime import UTC, datetime
from typing import Any

import pytest

from cli import encrypt_text

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def status(kind: str) -> dict[str, Any]:
    """Of a node with one peer, by the WireGuard of the kernel or of a process."""
    peer = {
        "node": "two/c",
        "public-key": "THEIRS",
        "endpoint": "192.0.2.3:51871",
        "last-handshake-time": "2026-11-21T11:59:20+00:00",
        "allowed-ips": ["192.0.2.3/32"],
        "transfer-rx": 10,
        "transfer-tx": 20,
        "key-known-seconds": 7200,
    }
    interface = {
        "name": "ist_wg0",
        "kind": kind,
        "ifindex": 9,
        "listen-port": 51871,
        "public-key": "OURS",
        "peer-count": 1,
        "peers": [peer],
    }
    return {
        "mode": "Wireguard",
        "strict-mode": False,
        "wireguard": {"interfaces": [interface], "node-encryption": "Disabled"},
        "key-age-seconds": 90,
        "rotation": {"number": 2, "phase": "steady", "waiting-for": [], "error": ""},
        "problems": [],
    }


@pytest.mark.parametrize("kind", ["kernel", "userspace"])
def test_who_encrypts_is_told(kind: str) -> None:
    """The kernel or a process: of one node beside its device, of the mesh in a column."""
    found = status(kind)
    lines = encrypt_text.node(found, NOW).splitlines()
    assert f"Interface: ist_wg0 ({kind})" in lines
    assert "Key age: 1m" in lines
    assert "Rotation: none (the last was number 2)" in lines
    peer = ["two/c", "ist_wg0", "192.0.2.3:51871", "2h", "40s", "ago", "10", "20"]
    assert lines[-1].split() == peer
    header, row = encrypt_text.mesh({"a": found})
    told = dict(zip(header, row, strict=True))
    assert (told["Mode"], told["By"], told["Shaken hands"]) == ("Wireguard", kind, "1")

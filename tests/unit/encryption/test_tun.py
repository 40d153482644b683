"""Which ``wireguard-go`` gets its device from us."""

import pytest

from encryption import tun


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("wireguard-go v0.0.20220316\n\nUserspace WireGuard daemon for linux-amd64.", True),
        ("wireguard-go 0.0.20210424", True),
        ("wireguard-go v0.0.20230223", False),
        ("wireguard-go v0.0.20250522", False),
        ("wireguard-go v1.0.0", False),
        ("another program 0.0.20220316", False),
        ("", False),
    ],
)
def test_which_versions_need_one(said: str, expected: bool) -> None:
    """Those that hand over packet by packet; what is not understood opens its own."""
    assert tun.is_needed(said) == expected

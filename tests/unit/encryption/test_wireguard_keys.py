"""Where a private key is, and where it is not."""

import copy
import os
import pickle
from pathlib import Path

import pytest

from encryption import wireguard_keys as keys

SECRET = bytes(range(32))


def test_two_keys_agree() -> None:
    """Two keys agree on a secret through their public halves."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    made = keys.generate()
    other = keys.generate()
    theirs = X25519PrivateKey.from_private_bytes(other.reveal())
    mine = X25519PrivateKey.from_private_bytes(made.reveal())
    assert mine.exchange(theirs.public_key()) == theirs.exchange(mine.public_key())
    assert made.public() != other.public()


def test_a_private_key_does_not_show() -> None:
    """Not in text, not in a dump, not in a copy."""
    key = keys.PrivateKey(SECRET)
    for text in (repr(key), str(key), f"{key}", f"{[key]}"):
        assert text.replace("[", "").replace("]", "") == "PrivateKey(…)"
    with pytest.raises(TypeError):
        pickle.dumps(key)
    with pytest.raises(TypeError):
        copy.deepcopy(key)
    assert not hasattr(key, "__dict__")


def test_key_file_is_its_owners_alone(tmp_path: Path) -> None:
    """Whatever the umask; kept over restarts; a loose mode is tightened."""
    path = tmp_path / "state" / "cilium_wg0.key"
    before = os.umask(0)
    try:
        key = keys.load_or_create(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes() == key.reveal()
    assert keys.load_or_create(path).public() == key.public()
    path.chmod(0o644)
    keys.load(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["cilium_wg0.key"]


def test_damaged_key_file_is_said_without_its_contents(tmp_path: Path) -> None:
    """A new one is not made silently: peers know the old one."""
    path = tmp_path / "cilium_wg0.key"
    path.write_bytes(b"secret-but-short")
    with pytest.raises(OSError, match="is damaged") as caught:
        keys.load_or_create(path)
    assert path.read_bytes() == b"secret-but-short"
    assert "secret" not in str(caught.value)

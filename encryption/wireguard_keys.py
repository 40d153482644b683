"""WireGuard keys: a type that hides the private one, and the file it lives in. Adapter.

The private key has no text form outside this file but the one that a device is told; ``repr`` and
``str`` say nothing of it, and it cannot be pickled, copied into an object or compared by value.
"""

import base64
import binascii
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from encryption.peers import PublicKey

KEY_BYTES = 32
_MODE = 0o600


class PrivateKey:
    """32 secret bytes."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise ValueError(f"a WireGuard key has {KEY_BYTES} bytes, this one {len(secret)}")
        self._secret = secret

    def __repr__(self) -> str:
        return "PrivateKey(…)"

    def __reduce__(self) -> str:
        raise TypeError("a private key stays where it is")

    def reveal(self) -> bytes:
        """The bytes themselves: for a device and the key file, nobody else."""
        return self._secret

    def public(self) -> PublicKey:
        """The key that others know it by."""
        key = X25519PrivateKey.from_private_bytes(self._secret).public_key()
        return PublicKey(base64.b64encode(key.public_bytes_raw()).decode())


def generate() -> PrivateKey:
    """A new key of the system's randomness."""
    return PrivateKey(X25519PrivateKey.generate().private_bytes_raw())


def load(path: Path) -> PrivateKey | None:
    """The key of a file; ``None`` when there is none. Raises ``OSError`` when it is unusable."""
    try:
        secret = path.read_bytes()
    except FileNotFoundError:
        return None
    if path.stat().st_mode & 0o077:
        path.chmod(_MODE)
    try:
        return PrivateKey(_raw(secret))
    except ValueError as error:
        raise OSError(
            f"WireGuard key file {path} is damaged ({error}): remove it, and a new key is made"
        ) from None


def _raw(data: bytes) -> bytes:
    """32 bytes, or the base64 text that other tools write."""
    if len(data) == KEY_BYTES:
        return data
    try:
        return base64.b64decode(data.strip(), validate=True)
    except binascii.Error:
        raise ValueError(f"{len(data)} bytes") from None


def save(path: Path, key: PrivateKey) -> None:
    """Write a key file, whole or not at all; only its owner may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
    try:
        os.write(descriptor, key.reveal())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(path)


def load_or_create(path: Path) -> PrivateKey:
    """The key of a file, made when there is none."""
    found = load(path)
    if found is None:
        found = generate()
        save(path, found)
    return found

"""The IPsec secret: one key for the mesh, from which every pair of nodes has its own. Pure.

A line is ``KEYID+ rfc4106(gcm(aes)) HEXKEY ICVBITS`` or ``KEYID+ AUTH HEXKEY ENCRYPTION HEXKEY``,
as Cilium's `cilium-ipsec-keys` has it; the last line is current. Key material is in no message and
in no representation.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from model.address import Address

KEY_IDS = range(1, 16)  # four bits of a packet's mark; 0 says: not encrypted
AEAD = "rfc4106(gcm(aes))"
_SALT_BYTES = 4  # at the end of an AEAD key
_AES_BYTES = (16, 24, 32)
_ICV_BITS = (64, 96, 128)  # what the kernel takes for rfc4106
_AUTHENTICATION = {"hmac(sha256)": 32, "hmac(sha384)": 48, "hmac(sha512)": 64}  # least key bytes
_ENCRYPTION = "cbc(aes)"
_BOOT_ID_LENGTH = 36
# ESP without its integrity value: IPv4 20, SPI 4, sequence 4, next header 1, IV 16, padding 16.
_ESP_BYTES = 61


class KeyFileError(ValueError):
    """The secret cannot be used: the text names the line and the remedy, and no key."""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A name of the kernel's crypto, and the key for it."""

    name: str
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Material:
    """How one direction between two nodes is encrypted: one AEAD, or encryption with a HMAC."""

    encryption: Algorithm
    authentication: Algorithm | None = None  # None: ``encryption`` is an AEAD
    icv_bits: int = 0  # of an AEAD


@dataclass(frozen=True, slots=True)
class MeshKey:
    """One line of the secret."""

    id: int  # the SPI of all states made from it
    material: Material

    @property
    def overhead_bytes(self) -> int:
        """By how much ESP makes a packet longer, at most."""
        authentication = self.material.authentication
        if authentication is None:
            return _ESP_BYTES + self.material.icv_bits // 8
        return _ESP_BYTES + len(authentication.key)


@dataclass(frozen=True, slots=True)
class End:
    """One of the two nodes as keys depend on it."""

    address: Address
    boot_id: str


def parse_secret(text: str) -> tuple[MeshKey, ...]:
    """All keys of a secret, the current one last. Raises ``KeyFileError``."""
    keys: dict[int, MeshKey] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        key = _parse_line(line.split(), f"line {number} of the IPsec key file")
        if key.id in keys:
            raise KeyFileError(
                f"line {number} of the IPsec key file has key ID {key.id} again: take the next one"
            )
        keys[key.id] = key
    if not keys:
        raise KeyFileError(f"the IPsec key file is empty: write `3+ {AEAD} KEY 128`")
    return tuple(keys.values())


def _parse_line(words: list[str], where: str) -> MeshKey:
    name = words[0].removesuffix("+")
    if not name.isascii() or not name.isdigit() or int(name) not in KEY_IDS:
        raise KeyFileError(f"{where} starts with no key ID: use a number from 1 to 15 and `+`")
    if name == words[0]:
        raise KeyFileError(
            f"{where} has key ID {name} without `+`: one key for all senders is not safe, "
            f"write `{name}+` on all nodes"
        )
    if len(words) == 4:
        return MeshKey(int(name), _aead(words[1:], where))
    if len(words) == 5:
        return MeshKey(int(name), _pair(words[1:], where))
    raise KeyFileError(
        f"{where} has {len(words)} words: write `ID+ {AEAD} KEY 128` or "
        f"`ID+ hmac(sha256) KEY {_ENCRYPTION} KEY`"
    )


def _aead(words: list[str], where: str) -> Material:
    name, text, icv = words
    if name != AEAD:
        raise KeyFileError(f"{where} has an unknown algorithm {name!r}: use {AEAD}")
    key = _hex(text, where)
    if len(key) - _SALT_BYTES not in _AES_BYTES:
        raise KeyFileError(
            f"{where}: {AEAD} takes 20, 28 or 36 bytes of key with salt, not {len(key)}"
        )
    if not icv.isascii() or not icv.isdigit() or int(icv) not in _ICV_BITS:
        raise KeyFileError(f"{where}: the integrity value has 64, 96 or 128 bits")
    return Material(Algorithm(name, key), icv_bits=int(icv))


def _pair(words: list[str], where: str) -> Material:
    authentication, first, encryption, second = words
    if authentication not in _AUTHENTICATION:
        known = ", ".join(_AUTHENTICATION)
        raise KeyFileError(
            f"{where} has an unknown algorithm {authentication!r}: use one of {known}"
        )
    if encryption != _ENCRYPTION:
        raise KeyFileError(f"{where} has an unknown algorithm {encryption!r}: use {_ENCRYPTION}")
    key, least = _hex(first, where), _AUTHENTICATION[authentication]
    if not least <= len(key) <= 64:
        raise KeyFileError(f"{where}: {authentication} takes {least} to 64 bytes, not {len(key)}")
    cipher_key = _hex(second, where)
    if len(cipher_key) not in _AES_BYTES:
        raise KeyFileError(f"{where}: {encryption} takes 16, 24 or 32 bytes, not {len(cipher_key)}")
    return Material(Algorithm(encryption, cipher_key), Algorithm(authentication, key))


def _hex(text: str, where: str) -> bytes:
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise KeyFileError(f"{where} has a key that is not hexadecimal") from None


def following(text: str, random: Callable[[int], bytes]) -> str:
    """A secret with the current key of this one, and then a new one: same form, next ID.

    ``random`` gives so many bytes. Raises ``KeyFileError``.
    """
    current = parse_secret(text)[-1]
    new = replace(
        current, id=current.id % len(KEY_IDS) + 1, material=_like(current.material, random)
    )
    return _line(current) + _line(new)


def only_current(text: str) -> str:
    """The secret without its older keys. Raises ``KeyFileError``."""
    return _line(parse_secret(text)[-1])


def _like(material: Material, random: Callable[[int], bytes]) -> Material:
    def one(algorithm: Algorithm) -> Algorithm:
        return Algorithm(algorithm.name, random(len(algorithm.key)))

    check = material.authentication
    return replace(
        material, encryption=one(material.encryption), authentication=check and one(check)
    )


def _line(key: MeshKey) -> str:
    cipher, check = key.material.encryption, key.material.authentication
    words = [f"{key.id}+", cipher.name, cipher.key.hex(), str(key.material.icv_bits)]
    if check is not None:
        words = [words[0], check.name, check.key.hex(), *words[1:3]]
    return " ".join(words) + "\n"


def is_boot_id(text: str) -> bool:
    """Whether a node's boot ID can go into a key; a node without one cannot be a peer."""
    return text.isascii() and len(text) == _BOOT_ID_LENGTH


def derive(key: MeshKey, sender: End, receiver: End) -> Material:
    """The keys of one direction. A node that has booted again gets new ones, so that its sequence
    numbers may start over; both boot IDs must satisfy ``is_boot_id``.
    """
    found = key.material
    pair = sender.address.packed + receiver.address.packed
    pair += sender.boot_id.encode() + receiver.boot_id.encode()

    def one(algorithm: Algorithm) -> Algorithm:
        size = len(algorithm.key)
        digest = hashlib.sha256 if size <= 32 else hashlib.sha512
        return Algorithm(algorithm.name, digest(algorithm.key + pair).digest()[:size])

    authentication = one(found.authentication) if found.authentication else None
    return Material(one(found.encryption), authentication, found.icv_bits)


def is_newer(one: int, other: int) -> bool:
    """Whether key ``one`` came after ``other``; IDs run from 1 to 15 and start over."""
    return 0 < (one - other) % len(KEY_IDS) <= len(KEY_IDS) // 2


def agreed(own: int, peers: int) -> int:
    """The key that both have: the older of the two currents; 0 if one does not encrypt."""
    if not own or not peers:
        return 0
    return peers if is_newer(own, peers) else own

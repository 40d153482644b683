"""Addresses and prefixes as the 16 bytes they take in every map. Pure.

IPv4 stands as v4-mapped IPv6 (``::ffff:a.b.c.d``), so one set of maps serves both families. A mesh
has a million of these as keys: as bytes they are compared, hashed and sorted at the price of bytes,
and take about 50 of memory (docs/adr/0108). What can be asked of them is named as in ``ipaddress``.
"""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

_MAPPED = b"\0" * 10 + b"\xff\xff"
MAPPED_BITS = 96  # what a v4 prefix length grows by in the 128-bit space
_ALL = (1 << 128) - 1
_OCTETS = {str(number): number for number in range(256)}
_LAST_OF_HOST = {str(number): bytes((number, 128)) for number in range(256)}


class Address(bytes):
    """16 bytes, network order. Made by ``parse_address`` or ``unpack``."""

    __slots__ = ()

    @property
    def version(self) -> int:
        """4 or 6."""
        return 4 if self.startswith(_MAPPED) else 6

    @property
    def packed(self) -> bytes:
        """The 4 or 16 bytes of its own family."""
        return self[12:] if self.startswith(_MAPPED) else bytes(self)

    @property
    def max_prefixlen(self) -> int:
        """32 or 128."""
        return 32 if self.startswith(_MAPPED) else 128

    def __int__(self) -> int:
        return int.from_bytes(self.packed)

    def offset(self, count: int) -> "Address":
        """The address ``count`` places further. Raises ``OverflowError`` at the family's end."""
        packed = (int(self) + count).to_bytes(self.max_prefixlen // 8)
        return Address(_MAPPED + packed if len(packed) == 4 else packed)

    def __str__(self) -> str:
        if self.startswith(_MAPPED):
            return f"{self[12]}.{self[13]}.{self[14]}.{self[15]}"
        return str(IPv6Address(bytes(self)))

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"


class Prefix(bytes):
    """16 bytes of the first address and one of the length in the 128-bit space."""

    __slots__ = ()

    @property
    def bits(self) -> int:
        """The first address as a number of 128 bits."""
        return int.from_bytes(self[:16])

    @property
    def length(self) -> int:
        """In the 128-bit space: 96 more than ``prefixlen`` for IPv4."""
        return self[16]

    @property
    def version(self) -> int:
        """4 or 6."""
        return 4 if self[16] >= MAPPED_BITS and self.startswith(_MAPPED) else 6

    @property
    def prefixlen(self) -> int:
        """As it is written."""
        return self[16] - MAPPED_BITS if self.version == 4 else self[16]

    @property
    def max_prefixlen(self) -> int:
        """32 or 128."""
        return 32 if self.version == 4 else 128

    @property
    def network_address(self) -> Address:
        """The first address."""
        return Address(self[:16])

    @property
    def last_bits(self) -> int:
        """The last address as a number of 128 bits."""
        return self.bits | _ALL >> self[16]

    def covers(self, other: "Prefix") -> bool:
        """Whether all of ``other`` lies inside."""
        shift = 128 - self[16]
        return self[16] <= other[16] and self.bits >> shift == other.bits >> shift

    def overlaps(self, other: "Prefix") -> bool:
        """Whether they share addresses: one covers the other."""
        return self.covers(other) if self[16] <= other[16] else other.covers(self)

    def __contains__(self, what: object) -> bool:
        return isinstance(what, Address) and self.covers(host_prefix(what))

    def __str__(self) -> str:
        return f"{self.network_address}/{self.prefixlen}"

    def __repr__(self) -> str:
        return f"Prefix({str(self)!r})"


def pack(address: Address) -> bytes:
    """16 bytes, network order."""
    return bytes(address)


def unpack(data: bytes) -> Address:
    """The address in 16 bytes; v4-mapped is IPv4."""
    if len(data) != 16:
        raise ValueError(f"{len(data)} bytes are no address")
    return Address(data)


def make_address(packed: bytes) -> Address:
    """From the 4 or 16 bytes of a family. Raises ``ValueError``."""
    return unpack(_MAPPED + packed if len(packed) == 4 else packed)


def make_prefix(first: Address, length: int) -> Prefix:
    """From the first address and the length as it is written. Raises ``ValueError``."""
    if not 0 <= length <= first.max_prefixlen:
        raise ValueError(f"{length} is no prefix length of {first}")
    wide = length + 128 - first.max_prefixlen
    if int.from_bytes(first) & (_ALL >> wide):
        raise ValueError(f"{first}/{length} has host bits set")
    return Prefix(first + bytes((wide,)))


@lru_cache(maxsize=8192)  # of nodes, each of which is named by all of its pods
def parse_address(text: str) -> Address:
    """Raises ``ValueError``. What is IPv4 must be written so; a zone is no part of an address."""
    try:
        a, b, c, d = text.split(".")
        return Address(_MAPPED + bytes((_OCTETS[a], _OCTETS[b], _OCTETS[c], _OCTETS[d])))
    except (ValueError, KeyError):
        packed = ip_address(text).packed
    if "%" in text:
        raise ValueError(f"{text!r} has a zone")
    if packed.startswith(_MAPPED):
        raise ValueError(f"{text!r} is an IPv4 address in the form of IPv6")
    return Address(packed)


def parse_host(text: str) -> Prefix:
    """The prefix of one address, which is seldom read twice. Raises ``ValueError``."""
    head, _, last = text.rpartition(".")
    try:
        return Prefix(_first_of_host(head) + _LAST_OF_HOST[last])
    except (ValueError, KeyError):
        return host_prefix(parse_address(text))


@lru_cache(maxsize=1024)  # those of a node follow one another
def _first_of_host(text: str) -> bytes:
    a, b, c = text.split(".")
    return _MAPPED + bytes((_OCTETS[a], _OCTETS[b], _OCTETS[c]))


def parse_prefix(text: str) -> Prefix:
    """``a.b.c.d/length``, ``a::b/length``, or an address. Raises ``ValueError``."""
    first, slash, length = text.partition("/")
    if not slash:
        return parse_host(first)
    if not (length.isascii() and length.isdecimal() and len(length) <= 3):
        raise ValueError(f"{text!r} has no prefix length")
    return make_prefix(parse_address(first), int(length))


def pack_prefix(prefix: Prefix) -> tuple[int, bytes]:
    """Prefix length in the 128-bit space, and the 16 bytes of its base."""
    return prefix[16], prefix[:16]


def unpack_prefix(length: int, data: bytes) -> Prefix:
    """Inverse of ``pack_prefix``."""
    return Prefix(data + bytes((length,)))


def host_prefix(address: Address) -> Prefix:
    """/32 or /128."""
    return Prefix(address + b"\x80")


def is_host(prefix: Prefix) -> bool:
    """True for /32 and /128: it goes into the exact-match table."""
    return prefix[16] == 128

"""Addresses and prefixes, and the 16 bytes they take in every map. Pure.

IPv4 stands as v4-mapped IPv6 (``::ffff:a.b.c.d``), so one set of maps serves both families.
"""

from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Prefix: TypeAlias = IPv4Network | IPv6Network

_MAPPED = b"\0" * 10 + b"\xff\xff"
MAPPED_BITS = 96  # what a v4 prefix length grows by in a 128-bit key


def pack(address: Address) -> bytes:
    """16 bytes, network order."""
    return _MAPPED + address.packed if address.version == 4 else address.packed


def unpack(data: bytes) -> Address:
    """The address in 16 bytes; v4-mapped comes back as IPv4."""
    return IPv4Address(data[12:]) if data[:12] == _MAPPED else IPv6Address(data)


def pack_prefix(prefix: Prefix) -> tuple[int, bytes]:
    """Prefix length in the 128-bit space, and the 16 bytes of its base."""
    extra = MAPPED_BITS if prefix.version == 4 else 0
    return prefix.prefixlen + extra, pack(prefix.network_address)


def unpack_prefix(length: int, data: bytes) -> Prefix:
    """Inverse of ``pack_prefix``."""
    base = unpack(data)
    if base.version == 4 and length >= MAPPED_BITS:
        return IPv4Network((base, length - MAPPED_BITS))
    return IPv6Network((IPv6Address(data), length))


@lru_cache(maxsize=4096)
def parse_address(text: str) -> Address:
    """Raises ``ValueError``."""
    return ip_address(text)


def host_prefix(address: Address) -> Prefix:
    """/32 or /128."""
    return ip_network(address)


def is_host(prefix: Prefix) -> bool:
    """True for /32 and /128: it goes into the exact-match table."""
    return prefix.prefixlen == prefix.max_prefixlen

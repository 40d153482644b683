"""Which keys lie inside a prefix, without asking every key. Pure.

Addresses are kept as bits of one number per block of 256, so a million of them cost little, and a
question about a node's pod prefix costs the blocks it has.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import Generic, TypeVar

from model.address import Prefix, is_host

G = TypeVar("G")

BLOCK_BITS = 8
_Block = tuple[int, int]  # version, first bits of the address


def _block(prefix: Prefix) -> _Block:
    return prefix.version, int(prefix.network_address) >> BLOCK_BITS


def blocks_of(prefix: Prefix, known: Iterable[_Block], count: int) -> Iterator[_Block]:
    """Those of ``known`` (``count`` of them) that share addresses with a prefix."""
    version, first = _block(prefix)
    span = max(0, prefix.max_prefixlen - BLOCK_BITS - prefix.prefixlen)
    if 1 << span <= count:
        for index in range(first, first + (1 << span)):
            yield version, index
        return
    wanted = first >> span
    for block in known:
        if block[0] == version and block[1] >> span == wanted:
            yield block


class Blocks:
    """A set of prefixes, most of them single addresses."""

    def __init__(self) -> None:
        self._hosts: dict[_Block, int] = {}
        self._small: dict[_Block, set[Prefix]] = {}  # within one block
        self._large: set[Prefix] = set()

    def add(self, prefix: Prefix) -> None:
        """Once or more often is the same."""
        block = _block(prefix)
        if is_host(prefix):
            bit = 1 << (int(prefix.network_address) & 0xFF)
            self._hosts[block] = self._hosts.get(block, 0) | bit
        elif prefix.max_prefixlen - prefix.prefixlen <= BLOCK_BITS:
            self._small.setdefault(block, set()).add(prefix)
        else:
            self._large.add(prefix)

    def discard(self, prefix: Prefix) -> None:
        """Also when it is absent."""
        block = _block(prefix)
        if is_host(prefix):
            rest = self._hosts.get(block, 0) & ~(1 << (int(prefix.network_address) & 0xFF))
            if rest:
                self._hosts[block] = rest
            else:
                self._hosts.pop(block, None)
        elif prefix.max_prefixlen - prefix.prefixlen <= BLOCK_BITS:
            found = self._small.get(block, set())
            found.discard(prefix)
            if not found:
                self._small.pop(block, None)
        else:
            self._large.discard(prefix)

    def inside(self, prefix: Prefix) -> list[Prefix]:
        """All that lie in ``prefix``, itself included."""
        if is_host(prefix):
            mask = self._hosts.get(_block(prefix), 0)
            return [prefix] if mask >> (int(prefix.network_address) & 0xFF) & 1 else []
        found: list[Prefix] = []
        low, high = int(prefix.network_address), int(prefix.broadcast_address)
        make = IPv4Network if prefix.version == 4 else IPv6Network
        width = prefix.max_prefixlen
        for block in blocks_of(prefix, self._hosts, len(self._hosts)):
            mask = self._hosts.get(block, 0)
            base = block[1] << BLOCK_BITS
            while mask:
                bit = mask & -mask
                mask ^= bit
                address = base + bit.bit_length() - 1
                if low <= address <= high:
                    found.append(make((address, width)))
        for block in blocks_of(prefix, self._small, len(self._small)):
            found += (p for p in self._small.get(block, ()) if _within(p, low, high))
        found += (p for p in self._large if p.version == prefix.version and _within(p, low, high))
        return found


def _within(prefix: Prefix, low: int, high: int) -> bool:
    return low <= int(prefix.network_address) and int(prefix.broadcast_address) <= high


class Groups(Generic[G]):
    """Which prefixes belong to a group, where few belong to any."""

    def __init__(self) -> None:
        self._of: dict[Prefix, tuple[G, ...]] = {}
        self._members: dict[G, dict[Prefix, None]] = {}

    def set(self, prefix: Prefix, groups: tuple[G, ...]) -> None:
        """Replace the groups of a prefix."""
        known = self._of.get(prefix, ())
        if known == groups:
            return
        for group in known:
            members = self._members[group]
            members.pop(prefix, None)
            if not members:
                del self._members[group]
        for group in groups:
            self._members.setdefault(group, {})[prefix] = None
        if groups:
            self._of[prefix] = groups
        else:
            del self._of[prefix]

    def members(self, group: G) -> list[Prefix]:
        """All of a group."""
        return list(self._members.get(group, ()))

"""Which keys lie inside a prefix, without asking every key. Pure.

Addresses are kept as bits of one number per block of 256, so a million of them cost little, and a
question about a node's pod prefix costs the blocks it has.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from model.address import Address, Prefix, is_host

G = TypeVar("G")

BLOCK_LENGTH = 120  # in the 128-bit space: /24 of IPv4
SEVERAL_LENGTH = 116  # of sixteen blocks: /20
Block = bytes  # the first 15 bytes of an address


def block_of(key: Prefix | Address) -> Block:
    """Where an address or the first address of a prefix lies."""
    return key[:15]


def blocks_of(prefix: Prefix, known: Iterable[Block], count: int) -> Iterator[Block]:
    """Those of ``known`` (``count`` of them) that share addresses with a prefix."""
    span = max(0, BLOCK_LENGTH - prefix.length)
    if not span:
        yield block_of(prefix)
        return
    first = int.from_bytes(block_of(prefix))
    if 1 << span <= count:
        for index in range(first, first + (1 << span)):
            yield index.to_bytes(15)
        return
    wanted = first >> span
    for block in known:
        if int.from_bytes(block) >> span == wanted:
            yield block


_REST = [bytes(16 - length // 8) + bytes((length,)) for length in range(129)]


def cut(what: bytes, length: int) -> bytes:
    """The prefix of a length around an address or a longer prefix."""
    whole, part = divmod(length, 8)
    if not part:
        return what[:whole] + _REST[length]
    kept = what[whole] & 0xFF00 >> part & 0xFF
    return what[:whole] + bytes((kept, *bytes(15 - whole), length))


class Blocks:
    """A set of prefixes, most of them single addresses."""

    def __init__(self) -> None:
        self._hosts: dict[Block, int] = {}
        self._small: dict[Block, tuple[Prefix, ...]] = {}  # within one block, mostly one
        self._large: list[Prefix] = []  # sorted: what lies in a prefix stands in one row
        self._lengths: Counter[int] = Counter()  # of these

    def add(self, prefix: Prefix) -> None:
        """Once or more often is the same."""
        self.add_all((prefix,))

    def add_all(self, prefixes: Iterable[Prefix]) -> None:
        """Those that follow one another best lie in one block."""
        hosts, last, mask = self._hosts, b"", 0
        for prefix in prefixes:
            if prefix[16] != 128:
                self._add_wide(prefix)
                continue
            block = prefix[:15]
            if block != last:
                if mask:
                    hosts[last] = mask
                last, mask = block, hosts.get(block, 0)
            mask |= 1 << prefix[15]
        if mask:
            hosts[last] = mask

    def _add_wide(self, prefix: Prefix) -> None:
        if prefix.length >= BLOCK_LENGTH:
            block = prefix[:15]
            known = self._small.setdefault(block, (prefix,))
            if prefix not in known:
                self._small[block] = (*known, prefix)
            return
        place = bisect_left(self._large, prefix)
        if self._large[place : place + 1] != [prefix]:
            self._large.insert(place, prefix)
            self._lengths[prefix.length] += 1

    def discard(self, prefix: Prefix) -> None:
        """Also when it is absent."""
        block = prefix[:15]
        if is_host(prefix):
            mask = self._hosts.get(block, 0) & ~(1 << prefix[15])
            if mask:
                self._hosts[block] = mask
            else:
                self._hosts.pop(block, None)
        elif prefix.length >= BLOCK_LENGTH:
            rest = tuple(p for p in self._small.get(block, ()) if p != prefix)
            if rest:
                self._small[block] = rest
            else:
                self._small.pop(block, None)
        else:
            place = bisect_left(self._large, prefix)
            if self._large[place : place + 1] == [prefix]:
                del self._large[place]
                self._lengths -= {prefix.length: 1}

    def apart(self, prefix: Prefix) -> bool:
        """Whether surely none of them shares an address with ``prefix``.

        Never said of one that is wider than sixteen blocks.
        """
        length, block = prefix[16], prefix[:15]
        for wide in self._lengths:
            if wide <= length and self._is_large(cut(prefix, wide)):
                return False
        if length < BLOCK_LENGTH:
            return length >= SEVERAL_LENGTH and self._is_empty(prefix)
        hosts = self._hosts.get(block, 0) >> prefix[15]
        if hosts and hosts & (1 << (1 << 128 - length)) - 1:
            return False
        for small in self._small.get(block, ()):
            if (prefix[15] ^ small[15]) >> 128 - min(length, small[16]) == 0:
                return False
        return True

    def _is_large(self, prefix: bytes) -> bool:
        place = bisect_left(self._large, prefix)
        return place < len(self._large) and self._large[place] == prefix

    def _is_empty(self, wide: Prefix) -> bool:
        """Whether nothing lies in a prefix of several blocks."""
        place = bisect_left(self._large, wide)
        if place < len(self._large) and wide.covers(self._large[place]):
            return False
        hosts, small, first = self._hosts, self._small, int.from_bytes(wide[:15])
        for index in range(first, first + (1 << BLOCK_LENGTH - wide[16])):
            block = index.to_bytes(15)
            if block in hosts or block in small:
                return False
        return True

    def inside(self, prefix: Prefix) -> list[Prefix]:
        """All that lie in ``prefix``, itself included."""
        low, high = 0, 255  # of the last byte
        if prefix[16] >= BLOCK_LENGTH:
            block = prefix[:15]
            mask = self._hosts.get(block, 0)
            if is_host(prefix):
                return [prefix] if mask >> prefix[15] & 1 else []
            if not mask and block not in self._small:
                return []
            low, high = prefix[15], prefix.last_bits & 0xFF
        found: list[Prefix] = []
        for block in blocks_of(prefix, self._hosts, len(self._hosts)):
            mask = self._hosts.get(block, 0)
            while mask:
                bit = mask & -mask
                mask ^= bit
                last = bit.bit_length() - 1
                if low <= last <= high:
                    found.append(Prefix(block + bytes((last, 128))))
        for block in blocks_of(prefix, self._small, len(self._small)):
            found += (p for p in self._small.get(block, ()) if prefix.covers(p))
        if prefix[16] < BLOCK_LENGTH:
            end = prefix.last_bits.to_bytes(16) + b"\xff"
            first, last = bisect_left(self._large, prefix), bisect_right(self._large, end)
            found += self._large[first:last]
        return found


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

"""Ports of rules as aligned blocks of (protocol, port): what one row of a map can say. Pure."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from model.policy_map import FULL_BITS, PROTOCOL_BITS
from policy.rules import PortRange

LAST_PORT = 65535


class Block(NamedTuple):
    """``bits`` as in ``PolicyKey``: 0 everything, 8 a protocol, up to 24 one port of it."""

    protocol: int = 0
    port: int = 0
    bits: int = 0

    def at(self, bits: int) -> "Block":
        """The block of ``bits`` bits around this one; ``bits`` is not more than ours."""
        if bits < PROTOCOL_BITS:
            return EVERYTHING
        free = FULL_BITS - bits
        return Block(self.protocol, self.port >> free << free, bits)

    def covers(self, other: "Block") -> bool:
        """Whether all of ``other`` lies inside, or both are the same."""
        return self.bits <= other.bits and other.at(self.bits) == self


EVERYTHING = Block()


@lru_cache(maxsize=4096)
def blocks(protocol: int, first: int, last: int) -> tuple[Block, ...]:
    """The fewest blocks that are ``first`` to ``last``; ``first`` alone if ``last`` is less."""
    found = []
    last = max(first, last)
    while first <= last:
        size = first & -first or LAST_PORT + 1
        while first + size - 1 > last:
            size >>= 1
        found.append(Block(protocol, first, FULL_BITS + 1 - size.bit_length()))
        first += size
    return tuple(found)


def resolve(ports: PortRange, number_of: Callable[[str, int], int | None]) -> PortRange | None:
    """The same with a number in place of a name; ``None`` if nobody has a port of this name."""
    if not ports.name:
        return ports
    number = number_of(ports.name, ports.protocol)
    if number is None:
        return None
    return PortRange(ports.protocol, number, max(number, ports.last))

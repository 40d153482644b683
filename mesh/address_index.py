"""Who has to do with the addresses in a prefix, without asking everybody. Pure.

Addresses are bits of one number per holder and block of 256, so an address costs few bytes.
"""

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from mesh.blocks import BLOCK_LENGTH, Block, blocks_of
from model.address import Address, Prefix

H = TypeVar("H")


class AddressIndex(Generic[H]):
    """Addresses by holder."""

    def __init__(self) -> None:
        self._blocks: dict[Block, dict[H, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def set(self, holder: H, address: Address, held: bool) -> None:
        """Whether this one has to do with an address."""
        block, bit = address[:15], 1 << address[15]
        holders = self._blocks.get(block)
        if holders is None:
            if held:
                self._blocks[block] = {holder: bit}
            return
        mask = holders.get(holder, 0)
        mask = mask | bit if held else mask & ~bit
        if mask:
            holders[holder] = mask
        elif holders.pop(holder, None) is not None and not holders:
            del self._blocks[block]

    def drop(self, holder: H, addresses: Iterable[Address]) -> None:
        """This one has to do with none of these any more."""
        for block in {address[:15] for address in addresses}:
            holders = self._blocks.get(block)
            if holders is not None and holders.pop(holder, None) is not None and not holders:
                del self._blocks[block]

    def inside(self, prefix: Prefix) -> Iterator[tuple[H, list[Address]]]:
        """Everybody with an address in a prefix, with these; one may come more than once."""
        low, high = 0, 255
        if prefix[16] >= BLOCK_LENGTH and prefix[:15] not in self._blocks:
            return
        if prefix.length > BLOCK_LENGTH:
            low, high = prefix[15], prefix.last_bits & 0xFF
        for block in list(blocks_of(prefix, self._blocks, len(self._blocks))):
            for holder, mask in list(self._blocks.get(block, {}).items()):
                found = [
                    Address(block + bytes((last,)))
                    for last in range(low, high + 1)
                    if mask >> last & 1
                ]
                if found:
                    yield holder, found

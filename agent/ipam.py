"""Pod addresses of this node. Pure: chance comes in as a number."""

from collections.abc import Callable, Iterator, Sequence

from model.address import Address, Prefix


class PoolExhaustedError(Exception):
    """There is no free address left."""


class Pool:
    """Addresses of one prefix with who has them.

    The first and the last address are never given out: tools take them for the network itself and
    for a broadcast.
    """

    def __init__(self, prefix: Prefix) -> None:
        self.prefix = prefix
        self._owners: dict[Address, str] = {}
        # A v6 prefix is larger than any node needs; its first part is all that is used.
        self._size = min(1 << prefix.max_prefixlen - prefix.prefixlen, 1 << 24)

    @property
    def capacity(self) -> int:
        """How many addresses can be given out."""
        return max(self._size - 2, 0)

    def __len__(self) -> int:
        return len(self._owners)

    def __iter__(self) -> Iterator[tuple[Address, str]]:
        """Taken addresses with their owners, in order."""
        return iter(sorted(self._owners.items(), key=lambda item: item[0]))

    def owner(self, address: Address) -> str | None:
        """Who has an address."""
        return self._owners.get(address)

    def contains(self, address: Address) -> bool:
        """Whether an address may be given out by this pool."""
        place = int.from_bytes(address) - self.prefix.bits
        return 1 <= place <= self.capacity

    def take(self, address: Address, owner: str) -> bool:
        """Give a certain address. False when it is another's or not of this pool."""
        if not self.contains(address) or self._owners.get(address, owner) != owner:
            return False
        self._owners[address] = owner
        return True

    def allocate(self, owner: str, draw: Callable[[], float]) -> Address:
        """Give a free address at random, so that one just released is not given again at once.

        Raises ``PoolExhaustedError``.
        """
        if len(self._owners) >= self.capacity:
            raise PoolExhaustedError(
                f"all {self.capacity} addresses of pod CIDR {self.prefix} are in use: delete pods "
                "of this node or give it a larger pod CIDR"
            )
        start = int(draw() * self.capacity)
        base = self.prefix.network_address
        for step in range(self.capacity):
            address = base.offset(1 + (start + step) % self.capacity)
            if address not in self._owners:
                self._owners[address] = owner
                return address
        raise AssertionError("a pool that is not full has a free address")

    def release(self, address: Address) -> None:
        """Take an address back; no error when it was free."""
        self._owners.pop(address, None)


class Pools:
    """One pool per family: a pod gets an address of each."""

    def __init__(self, pools: Sequence[Pool]) -> None:
        """The first pool's addresses are named first."""
        self.each = tuple(pools)

    def allocate(self, owner: str, draw: Callable[[], float]) -> tuple[Address, ...]:
        """A free address of each family, or none. Raises ``PoolExhaustedError``."""
        given: list[Address] = []
        try:
            for pool in self.each:
                given += (pool.allocate(owner, draw),)
        except PoolExhaustedError:
            self.release(given)
            raise
        return tuple(given)

    def take(self, address: Address, owner: str) -> bool:
        """Give a certain address. False when it is another's or of none of the pools."""
        return any(pool.take(address, owner) for pool in self.each)

    def release(self, addresses: Sequence[Address]) -> None:
        """Take addresses back; no error when they were free."""
        for pool in self.each:
            for address in addresses:
                pool.release(address)

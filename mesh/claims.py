"""Who says what about a key. Pure.

The value of a key is a function of the claims about this key alone, so a change costs what its key
costs and the order in which claims arrive never shows in the result (docs/adr/0050).
"""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
Owner = TypeVar("Owner")
C = TypeVar("C")


class Claims(Generic[K, Owner, C]):
    """Claims by key and claimant. Nearly every key has one, which is what the layout is for."""

    __slots__ = ("_by_key",)

    def __init__(self) -> None:
        self._by_key: dict[K, tuple[tuple[Owner, C], ...]] = {}

    def put(self, key: K, owner: Owner, claim: C) -> bool:
        """Record a claim, replacing the claimant's earlier one. True when that is news."""
        known = self._by_key.get(key)
        if known is None:
            self._by_key[key] = ((owner, claim),)
            return True
        rest = tuple(pair for pair in known if pair[0] != owner)
        if len(rest) < len(known) and next(c for o, c in known if o == owner) == claim:
            return False
        self._by_key[key] = (*rest, (owner, claim))
        return True

    def drop(self, key: K, owner: Owner) -> bool:
        """Withdraw a claim. True when there was one."""
        known = self._by_key.get(key, ())
        rest = tuple(pair for pair in known if pair[0] != owner)
        if len(rest) == len(known):
            return False
        if rest:
            self._by_key[key] = rest
        else:
            del self._by_key[key]
        return True

    def drop_owners(self, matches: Callable[[Owner], bool]) -> list[K]:
        """Withdraw all claims of some claimants. The keys that changed; costs a walk over all."""
        found = [
            (key, owner)
            for key, pairs in self._by_key.items()
            for owner, _ in pairs
            if matches(owner)
        ]
        for key, owner in found:
            self.drop(key, owner)
        return list(dict.fromkeys(key for key, _ in found))

    def of(self, key: K) -> tuple[tuple[Owner, C], ...]:
        """Claimants with their claims, in no order that means anything."""
        return self._by_key.get(key, ())

    def __iter__(self) -> Iterator[K]:
        """Every key with a claim."""
        return iter(self._by_key)

    def __len__(self) -> int:
        return len(self._by_key)

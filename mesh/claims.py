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
        self._by_key: dict[K, tuple[Owner, C] | list[tuple[Owner, C]]] = {}

    def put(self, key: K, owner: Owner, claim: C) -> bool:
        """Record a claim, replacing the claimant's earlier one. True when that is news."""
        if key not in self._by_key:
            self._by_key[key] = (owner, claim)
            return True
        known = self.of(key)
        if (owner, claim) in known:
            return False
        self._set(key, [*(pair for pair in known if pair[0] != owner), (owner, claim)])
        return True

    def _set(self, key: K, pairs: list[tuple[Owner, C]]) -> None:
        if len(pairs) == 1:
            self._by_key[key] = pairs[0]
        elif pairs:
            self._by_key[key] = pairs
        else:
            del self._by_key[key]

    def drop(self, key: K, owner: Owner) -> bool:
        """Withdraw a claim. True when there was one."""
        known = self.of(key)
        rest = [pair for pair in known if pair[0] != owner]
        if len(rest) == len(known):
            return False
        self._set(key, rest)
        return True

    def drop_owners(self, matches: Callable[[Owner], bool]) -> list[K]:
        """Withdraw all claims of some claimants. The keys that changed; costs a walk over all."""
        found = [
            (key, owner) for key in self._by_key for owner, _ in self.of(key) if matches(owner)
        ]
        for key, owner in found:
            self.drop(key, owner)
        return list(dict.fromkeys(key for key, _ in found))

    def of(self, key: K) -> tuple[tuple[Owner, C], ...]:
        """Claimants with their claims, in no order that means anything."""
        found = self._by_key.get(key)
        if found is None:
            return ()
        return tuple(found) if isinstance(found, list) else (found,)

    def sole(self, key: K) -> tuple[Owner, C] | None:
        """The claim of a key that has only one."""
        found = self._by_key.get(key)
        return None if isinstance(found, list) else found

    def __iter__(self) -> Iterator[K]:
        """Every key with a claim."""
        return iter(self._by_key)

    def __len__(self) -> int:
        return len(self._by_key)

"""Who says what about a key. Pure.

The value of a key is a function of the claims about this key alone, so a change costs what its key
costs and the order in which claims arrive never shows in the result (docs/adr/0050).
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Generic, TypeVar

import msgspec

K = TypeVar("K")
Owner = TypeVar("Owner")
C = TypeVar("C")


class Said(msgspec.Struct, Generic[Owner, C], frozen=True, gc=False):
    """A claim and who makes it: half the size of a tuple, and the collector never looks at it."""

    owner: Owner
    claim: C


class Claims(Generic[K, Owner, C]):
    """Claims by key and claimant. Nearly every key has one, which is what the layout is for."""

    __slots__ = ("_by_key",)

    def __init__(self) -> None:
        self._by_key: dict[K, Said[Owner, C] | tuple[Said[Owner, C], ...]] = {}

    def put(self, key: K, owner: Owner, claim: C) -> bool:
        """Record a claim, replacing the claimant's earlier one. True when that is news."""
        said = Said(owner, claim)
        if self._by_key.setdefault(key, said) is said:
            return True
        sole = self._by_key[key]
        if not isinstance(sole, tuple) and sole.owner == owner:  # nearly always
            if sole.claim == claim:
                return False
            self._by_key[key] = said
            return True
        known = self.of(key)
        if said in known:
            return False
        self._set(key, (*(other for other in known if other.owner != owner), said))
        return True

    def put_all(self, owner: Owner, rows: Iterable[tuple[K, C]]) -> list[K]:
        """``put`` for many keys, nearly all of which nobody has claimed; those that are news."""
        by_key, news = self._by_key, []
        for key, claim in rows:
            said = Said(owner, claim)
            if by_key.setdefault(key, said) is said or self.put(key, owner, claim):
                news.append(key)
        return news

    def _set(self, key: K, said: tuple[Said[Owner, C], ...]) -> None:
        if said:
            self._by_key[key] = said[0] if len(said) == 1 else said
        else:
            del self._by_key[key]

    def drop(self, key: K, owner: Owner) -> bool:
        """Withdraw a claim. True when there was one."""
        known = self._by_key.get(key)
        if known is None:
            return False
        if not isinstance(known, tuple):  # nearly always
            if known.owner != owner:
                return False
            del self._by_key[key]
            return True
        rest = tuple(said for said in known if said.owner != owner)
        if len(rest) == len(known):
            return False
        self._set(key, rest)
        return True

    def drop_owners(self, matches: Callable[[Owner], bool]) -> list[K]:
        """Withdraw all claims of some claimants. The keys that changed; costs a walk over all."""
        found = [
            (key, said.owner)
            for key in self._by_key
            for said in self.of(key)
            if matches(said.owner)
        ]
        for key, owner in found:
            self.drop(key, owner)
        return list(dict.fromkeys(key for key, _ in found))

    def of(self, key: K) -> tuple[Said[Owner, C], ...]:
        """Claims with who makes them, in no order that means anything."""
        found = self._by_key.get(key)
        if found is None:
            return ()
        return found if isinstance(found, tuple) else (found,)

    def by(self, owners: Collection[Owner]) -> Iterator[tuple[K, Said[Owner, C]]]:
        """What some claimants say; one walk over all keys, however many they are."""
        for key, found in self._by_key.items():
            if not isinstance(found, tuple):  # nearly always
                if found.owner in owners:
                    yield key, found
            else:
                yield from ((key, said) for said in found if said.owner in owners)

    def sole(self, key: K) -> Said[Owner, C] | None:
        """The claim of a key that has only one."""
        found = self._by_key.get(key)
        return None if isinstance(found, tuple) else found

    def __contains__(self, key: K) -> bool:
        """Whether anybody claims a key."""
        return key in self._by_key

    def __iter__(self) -> Iterator[K]:
        """Every key with a claim."""
        return iter(self._by_key)

    def __len__(self) -> int:
        return len(self._by_key)

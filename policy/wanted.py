"""Prefixes of rules, and the numbers this node gives them. Pure."""

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from model.address import Prefix, parse_prefix
from policy.known import Known
from policy.rules import CidrPeer, PolicyRule, Selector

FIRST = (1 << 24) + 1
LAST = (1 << 25) - 1
_INNER = 2 << 24
EVERY_V4 = parse_prefix("0.0.0.0/0")


def prefixes_of(known: Known, rules: Iterable[PolicyRule]) -> set[Prefix]:
    """Every prefix that a rule names, and every exception.

    Without identities of their own the exceptions would be no holes.
    """
    peers = {
        peer
        for rule in rules
        for part in rule.rules
        for peer in part.peers or ()
        if not isinstance(peer, Selector)  # most are, and they name none
    }
    parts = [part for peer in peers for part in known.expand(peer)]
    found = {part.prefix for part in parts if isinstance(part, CidrPeer)}
    found.update(e for part in parts if isinstance(part, CidrPeer) for e in part.excepts)
    if any(prefix.version == 6 and prefix.covers(EVERY_V4) for prefix in found):
        # Of an address of IPv4 the longest prefix in the map would be this one.
        found.add(EVERY_V4)
    return found


def inner(number: int) -> int:
    """The number for pods and nodes in a prefix, from that of the world's addresses in it."""
    return number + _INNER


K = TypeVar("K")


class Numbers(Generic[K]):
    """Numbers that this node alone gives, from ``first`` to ``last``.

    ``known`` are those of a former life. A number that was taken back is given again as late as
    possible.
    """

    def __init__(self, first: int, last: int, known: Mapping[K, int] | None = None) -> None:
        self._first, self._last = first, last
        self._numbers = dict(known or {})
        self._taken = set(self._numbers.values())
        self._next = max(self._taken, default=first - 1) + 1

    def give(self, key: K) -> int:
        """The number of a key. Raises ``ValueError`` when all are in use."""
        found = self._numbers.get(key)
        if found is not None:
            return found
        if len(self._taken) > self._last - self._first:
            raise ValueError(f"no identity is left for {key}: use fewer of them")
        while self._next > self._last or self._next in self._taken:
            self._next = self._first if self._next > self._last else self._next + 1
        self._numbers[key] = self._next
        self._taken.add(self._next)
        return self._next

    def take_back(self, key: K) -> int:
        """The number that was the key's."""
        number = self._numbers.pop(key)
        self._taken.discard(number)
        return number

    def all(self) -> dict[K, int]:
        """Every key with its number."""
        return dict(self._numbers)

    def get(self, key: K) -> int | None:
        """The number of a key."""
        return self._numbers.get(key)


class PrefixNumbers(Numbers[Prefix]):
    """Numbers of local scope for prefixes."""

    def __init__(self, known: Mapping[Prefix, int] | None = None) -> None:
        super().__init__(FIRST, LAST, known)

    def want(self, prefixes: set[Prefix]) -> tuple[dict[Prefix, int], dict[Prefix, int]]:
        """The numbers given and those taken back, so that exactly ``prefixes`` have one.

        Raises ``ValueError`` when all 16 million are in use.
        """
        gone = {p: self.take_back(p) for p in self._numbers.keys() - prefixes}
        new = {p: self.give(p) for p in sorted(prefixes - self._numbers.keys())}
        return new, gone

"""Prefixes of rules, and the numbers this node gives them. Pure."""

from collections.abc import Iterable, Mapping

from model.address import Prefix, parse_prefix
from policy.known import Known
from policy.rules import CidrPeer, PolicyRule

FIRST = (1 << 24) + 1
LAST = (1 << 25) - 1
EVERY_V4 = parse_prefix("0.0.0.0/0")


def prefixes_of(known: Known, rules: Iterable[PolicyRule]) -> set[Prefix]:
    """Every prefix that a rule names, and every exception.

    Without identities of their own the exceptions would be no holes.
    """
    peers = {p for rule in rules for part in rule.rules for p in part.peers or ()}
    parts = [part for peer in peers for part in known.expand(peer)]
    found = {part.prefix for part in parts if isinstance(part, CidrPeer)}
    found.update(e for part in parts if isinstance(part, CidrPeer) for e in part.excepts)
    if any(prefix.version == 6 and prefix.covers(EVERY_V4) for prefix in found):
        # Of an address of IPv4 the longest prefix in the map would be this one.
        found.add(EVERY_V4)
    return found


class PrefixNumbers:
    """Numbers of local scope for prefixes. ``known`` are those of a former life."""

    def __init__(self, known: Mapping[Prefix, int] | None = None) -> None:
        self._numbers = dict(known or {})
        self._taken = set(self._numbers.values())
        self._next = max(self._taken, default=FIRST - 1) + 1

    def want(self, prefixes: set[Prefix]) -> tuple[dict[Prefix, int], dict[Prefix, int]]:
        """The numbers given and those taken back, so that exactly ``prefixes`` have one.

        A number that was taken back is given again as late as possible. Raises ``ValueError``
        when all 16 million are in use.
        """
        gone = {p: n for p, n in self._numbers.items() if p not in prefixes}
        for prefix, number in gone.items():
            del self._numbers[prefix]
            self._taken.discard(number)
        new = {p: self._give(p) for p in sorted(prefixes - self._numbers.keys())}
        return new, gone

    def all(self) -> dict[Prefix, int]:
        """Every prefix with its number."""
        return dict(self._numbers)

    def get(self, prefix: Prefix) -> int | None:
        """The number of a prefix."""
        return self._numbers.get(prefix)

    def _give(self, prefix: Prefix) -> int:
        if len(self._taken) > LAST - FIRST:
            raise ValueError(f"no identity is left for {prefix}: use fewer prefixes in policies")
        while self._next > LAST or self._next in self._taken:
            self._next = FIRST if self._next > LAST else self._next + 1
        self._numbers[prefix] = self._next
        self._taken.add(self._next)
        return self._numbers[prefix]

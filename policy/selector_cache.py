"""Which identities a selector or prefix selects, kept while identities come and go. Pure.

Identities are indexed by label, so a selector is an intersection of sets; selectors are indexed by
one condition that an identity must meet, so a new identity meets few of 10,000 selectors.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from model.address import Prefix
from model.labels import Labels
from policy.rules import ANY_SOURCE, CidrPeer, Operator, Requirement, Selector
from policy.selectors import holds, inside, is_inner, prefix_of, selects

Who = Selector | CidrPeer
User = TypeVar("User", bound=Hashable)
_ANYBODY = Requirement("", Operator.IN, ("",))  # no label has an empty key


def _exact(selector: Selector) -> list[Requirement]:
    return [r for r in selector.requirements if r.operator is Operator.IN]


class SelectorIndex(Generic[User]):
    """Selectors by a label that what they select must have; each selector carries a value."""

    def __init__(self) -> None:
        self._filed: dict[str, dict[str, dict[User, Selector]]] = {}  # by key, then by value

    def put(self, user: User, selector: Selector) -> None:
        """File under ``user``, once: by the condition with the least crowded places."""
        best = min(_exact(selector), key=self._crowd, default=_ANYBODY)
        places = self._filed.setdefault(best.key, {})
        for value in best.values:
            places.setdefault(value, {})[user] = selector

    def drop(self, user: User, selector: Selector) -> None:
        """Forget what was filed under ``user``."""
        for requirement in (*_exact(selector), _ANYBODY):
            places = self._filed.get(requirement.key, {})
            for value in requirement.values:
                users = places.get(value, {})
                if users.pop(user, None) is not None and not users:
                    del places[value]

    def selecting(self, labels: Labels) -> set[User]:
        """Whose selectors select these labels."""
        pairs = [("", ""), *[(label.key, label.value) for label in labels.items]]
        return {
            user
            for key, value in pairs
            for user, selector in self._filed.get(key, {}).get(value, {}).items()
            if selects(selector, labels)
        }

    def _crowd(self, requirement: Requirement) -> int:
        places = self._filed.get(requirement.key, {})
        return sum([len(places.get(value, ())) for value in requirement.values])


@dataclass(slots=True, eq=False)
class _Kept(Generic[User]):
    """A selector in use: the identities it selects, and who uses it."""

    members: set[int]
    users: set[User] = field(default_factory=set)


class SelectorCache(Generic[User]):
    """Identities by number, and the members of every selector somebody uses."""

    def __init__(self) -> None:
        self._labels: dict[int, Labels] = {}
        self._inner: set[int] = set()
        # By key, then by value: those who have the label. Asked with `get` alone.
        self._having: defaultdict[str, defaultdict[str, set[int]]]
        self._having = defaultdict(lambda: defaultdict(set))
        self._by_prefix: dict[Prefix, set[int]] = {}
        self._kept: dict[Who, _Kept[User]] = {}
        self._index: SelectorIndex[_Kept[User]] = SelectorIndex()
        self._cidrs: dict[Prefix, set[CidrPeer]] = {}

    @property
    def identities(self) -> Mapping[int, Labels]:
        """Every number with what it stands for. Not to be changed."""
        return self._labels

    def users(self, who: Who) -> int:
        """How many use a selector."""
        return len(self._kept[who].users) if who in self._kept else 0

    def labels(self, identity: int) -> Labels | None:
        """What the number stands for."""
        return self._labels.get(identity)

    def __len__(self) -> int:
        return len(self._labels)

    def put(self, identity: int, labels: Labels) -> set[User]:
        """Say what a number stands for. Users of selectors that gain or lose it."""
        if self._labels.get(identity) == labels:
            return set()
        touched = self.drop(identity)
        self._file(identity, labels)
        for kept in self._selecting(labels):
            kept.members.add(identity)
            touched |= kept.users
        return touched

    def load(self, identities: Iterable[tuple[int, Labels]]) -> None:
        """Many at once, while no selector is in use yet."""
        for identity, labels in identities:
            self._file(identity, labels)

    def drop(self, identity: int) -> set[User]:
        """Forget a number. Users of selectors that lose it."""
        labels = self._labels.pop(identity, None)
        if labels is None:
            return set()
        if identity in self._inner:
            self._inner.discard(identity)
        else:
            for label in labels.items:
                self._having[label.key][label.value].discard(identity)
        prefix = prefix_of(labels)
        if prefix is not None:
            self._by_prefix[prefix].discard(identity)
        touched: set[User] = set()
        for kept in self._selecting(labels):
            kept.members.discard(identity)
            touched |= kept.users
        return touched

    def use(self, who: Who, user: User) -> set[int]:
        """The members of a selector, which from now on is kept for ``user``. Do not change it."""
        kept = self._kept.get(who)
        if kept is None:
            kept = self._kept[who] = _Kept(self._find(who))
            if isinstance(who, Selector):
                self._index.put(kept, who)
            else:
                self._cidrs.setdefault(who.prefix, set()).add(who)
        kept.users.add(user)
        return kept.members

    def release(self, who: Who, user: User) -> None:
        """``user`` does not need it any more."""
        kept = self._kept.get(who)
        if kept is None:
            return
        kept.users.discard(user)
        if kept.users:
            return
        del self._kept[who]
        if isinstance(who, Selector):
            self._index.drop(kept, who)
        else:
            self._cidrs[who.prefix].discard(who)
            if not self._cidrs[who.prefix]:
                del self._cidrs[who.prefix]

    def in_use(self) -> Iterable[tuple[Who, set[int]]]:
        """Every selector in use, with its members."""
        return [(who, kept.members) for who, kept in self._kept.items()]

    def _file(self, identity: int, labels: Labels) -> None:
        self._labels[identity] = labels
        prefix = prefix_of(labels)
        if prefix is not None:
            self._by_prefix.setdefault(prefix, set()).add(identity)
            if is_inner(labels):
                self._inner.add(identity)
                return
        having = self._having
        for label in labels.items:
            having[label.key][label.value].add(identity)

    def _selecting(self, labels: Labels) -> Iterator[_Kept[User]]:
        if not is_inner(labels):
            yield from self._index.selecting(labels)
        prefix = prefix_of(labels)
        if prefix is None:
            return
        for length in {known.length for known in self._cidrs}:
            if length <= prefix.length:
                for peer in self._cidrs.get(_cut(prefix, length), ()):
                    if inside(peer, prefix):
                        yield self._kept[peer]

    def _find(self, who: Who) -> set[int]:
        if isinstance(who, CidrPeer):
            parts = (ids for prefix, ids in self._by_prefix.items() if inside(who, prefix))
            return set().union(*parts)
        sets = [self._having_one_of(requirement) for requirement in _exact(who)]
        found = (
            set.intersection(*sorted(sets, key=len)) if sets else self._labels.keys() - self._inner
        )
        for requirement in who.requirements:
            if requirement.operator is not Operator.IN or requirement.source != ANY_SOURCE:
                found = {i for i in found if holds(requirement, self._labels[i])}
        return found

    def _having_one_of(self, requirement: Requirement) -> set[int]:
        by_value: Mapping[str, set[int]] = self._having.get(requirement.key, {})
        values = requirement.values
        if len(values) == 1:
            return by_value.get(values[0], set())
        return set().union(*[by_value.get(value, ()) for value in values])


def _cut(prefix: Prefix, length: int) -> Prefix:
    free = 128 - length
    return Prefix((prefix.bits >> free << free).to_bytes(16) + bytes((length,)))

"""Which identities a selector or prefix selects, kept while identities come and go. Pure.

Identities are indexed by label, so a selector is an intersection of sets; selectors are indexed by
one condition that an identity must meet, so a new identity meets few of 10,000 selectors.
"""

from collections.abc import Hashable, Iterable, Mapping, Sized
from typing import Generic, TypeVar

from model.address import Prefix
from model.labels import Labels
from policy.rules import ANY_SOURCE, CidrPeer, Operator, Requirement, Selector
from policy.selectors import holds, inside, is_inner, prefix_of, selects

Who = Selector | CidrPeer
User = TypeVar("User", bound=Hashable)
_Anchor = tuple[str, str] | None  # (key, value) that a selected identity has; None: no such thing


def _anchors(selector: Selector, size: Mapping[_Anchor, Sized]) -> list[_Anchor]:
    """Where to file a selector: the condition with the least crowded places."""

    def places(requirement: Requirement) -> list[_Anchor]:
        return [(requirement.key, value) for value in requirement.values]

    def crowd(anchors: list[_Anchor]) -> int:
        return sum(len(size[a]) for a in anchors if a in size)

    options = [places(r) for r in selector.requirements if r.operator is Operator.IN]
    return min(options, key=crowd) if options else [None]


class SelectorIndex(Generic[User]):
    """Selectors by a label that what they select must have; each selector carries a value."""

    def __init__(self) -> None:
        self._filed: dict[_Anchor, dict[User, Selector]] = {}
        self._places: dict[User, list[_Anchor]] = {}

    def put(self, user: User, selector: Selector) -> None:
        """File under ``user``, once."""
        anchors = self._places[user] = _anchors(selector, self._filed)
        for anchor in anchors:
            self._filed.setdefault(anchor, {})[user] = selector

    def drop(self, user: User) -> None:
        """Forget what was filed under ``user``."""
        for anchor in self._places.pop(user, ()):
            place = self._filed[anchor]
            place.pop(user, None)
            if not place:
                del self._filed[anchor]

    def selecting(self, labels: Labels) -> set[User]:
        """Whose selectors select these labels."""
        anchors: list[_Anchor] = [None, *((label.key, label.value) for label in labels)]
        return {
            user
            for anchor in anchors
            for user, selector in self._filed.get(anchor, {}).items()
            if selects(selector, labels)
        }


class SelectorCache(Generic[User]):
    """Identities by number, and the members of every selector somebody uses."""

    def __init__(self) -> None:
        self._labels: dict[int, Labels] = {}
        self._inner: set[int] = set()
        self._by_value: dict[tuple[str, str], set[int]] = {}
        self._by_prefix: dict[Prefix, set[int]] = {}
        self._members: dict[Who, set[int]] = {}
        self._users: dict[Who, set[User]] = {}
        self._index: SelectorIndex[Selector] = SelectorIndex()
        self._cidrs: dict[Prefix, set[CidrPeer]] = {}

    @property
    def identities(self) -> Mapping[int, Labels]:
        """Every number with what it stands for. Not to be changed."""
        return self._labels

    def users(self, who: Who) -> int:
        """How many use a selector."""
        return len(self._users.get(who, ()))

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
        for who in self._selecting(labels):
            self._members[who].add(identity)
            touched |= self._users[who]
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
        self._inner.discard(identity)
        for label in labels:
            self._by_value[label.key, label.value].discard(identity)
        prefix = prefix_of(labels)
        if prefix is not None:
            self._by_prefix[prefix].discard(identity)
        touched: set[User] = set()
        for who in self._selecting(labels):
            self._members[who].discard(identity)
            touched |= self._users[who]
        return touched

    def use(self, who: Who, user: User) -> set[int]:
        """The members of a selector, which from now on is kept for ``user``. Do not change it."""
        members = self._members.get(who)
        if members is None:
            members = self._members[who] = self._find(who)
            self._users[who] = set()
            if isinstance(who, Selector):
                self._index.put(who, who)
            else:
                self._cidrs.setdefault(who.prefix, set()).add(who)
        self._users[who].add(user)
        return members

    def release(self, who: Who, user: User) -> None:
        """``user`` does not need it any more."""
        users = self._users.get(who)
        if users is None:
            return
        users.discard(user)
        if users:
            return
        del self._users[who], self._members[who]
        if isinstance(who, Selector):
            self._index.drop(who)
        else:
            self._cidrs[who.prefix].discard(who)
            if not self._cidrs[who.prefix]:
                del self._cidrs[who.prefix]

    def in_use(self) -> Iterable[tuple[Who, set[int]]]:
        """Every selector in use, with its members."""
        return self._members.items()

    def _file(self, identity: int, labels: Labels) -> None:
        self._labels[identity] = labels
        by_value = self._by_value
        for label in labels.items:
            pair = (label.key, label.value)
            try:
                by_value[pair].add(identity)
            except KeyError:
                by_value[pair] = {identity}
        prefix = prefix_of(labels)
        if prefix is not None:
            self._by_prefix.setdefault(prefix, set()).add(identity)
            if is_inner(labels):
                self._inner.add(identity)

    def _selecting(self, labels: Labels) -> Iterable[Who]:
        if not is_inner(labels):
            yield from self._index.selecting(labels)
        prefix = prefix_of(labels)
        if prefix is None:
            return
        for length in {known.length for known in self._cidrs}:
            if length <= prefix.length:
                for peer in self._cidrs.get(_cut(prefix, length), ()):
                    if inside(peer, prefix):
                        yield peer

    def _find(self, who: Who) -> set[int]:
        if isinstance(who, CidrPeer):
            parts = (ids for prefix, ids in self._by_prefix.items() if inside(who, prefix))
            return set().union(*parts)
        exact = [r for r in who.requirements if r.operator is Operator.IN]
        sets = sorted((self._having(r) for r in exact), key=len)
        found = set(sets[0].intersection(*sets[1:])) if sets else set(self._labels)
        rest = [r for r in who.requirements if r.operator is not Operator.IN]
        rest += [r for r in exact if r.source != ANY_SOURCE]
        if rest:
            found = {i for i in found if all(holds(r, self._labels[i]) for r in rest)}
        return found - self._inner

    def _having(self, requirement: Requirement) -> set[int]:
        sets = [self._by_value.get((requirement.key, v), set()) for v in requirement.values]
        return sets[0] if len(sets) == 1 else set().union(*sets)


def _cut(prefix: Prefix, length: int) -> Prefix:
    free = 128 - length
    return Prefix((prefix.bits >> free << free).to_bytes(16) + bytes((length,)))

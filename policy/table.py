"""All rules, identities and endpoints → the rows of each endpoint's map, kept as things change.

Pure. Events only mark what they touch; ``compute`` does the work and says per endpoint which rows
changed. Endpoints with equal subjects share one computation.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from model.address import Prefix
from model.labels import Labels
from model.policy_map import PolicyEntry, PolicyKey
from policy.compiled import Rows
from policy.known import CidrGroup, Known, Options, PolicyService, Subject
from policy.oracle import applies
from policy.rules import CidrPeer, PolicyRule, Selector
from policy.selector_cache import SelectorCache, SelectorIndex
from policy.subject_policy import SubjectPolicy
from policy.wanted import prefixes_of

LIMIT = 16384


@dataclass(frozen=True, slots=True)
class Change:
    """What to write into one endpoint's map. ``error``: why the endpoint is closed, or empty."""

    put: Mapping[PolicyKey, PolicyEntry] = field(default_factory=dict)
    drop: frozenset[PolicyKey] = frozenset()
    error: str = ""


class PolicyTable:
    """The computation of one node. Nothing is asked of the outside."""

    def __init__(self, options: Options, limit: int = LIMIT) -> None:
        self.options = options
        self.known = Known()
        self._limit = limit
        self._cache: SelectorCache[Subject] = SelectorCache()
        self._objects: dict[Hashable, tuple[int, ...]] = {}
        self._rules: dict[int, PolicyRule] = {}
        self._index: SelectorIndex[int] = SelectorIndex()
        self._last = 0
        self._endpoints: dict[str, Subject] = {}
        self._policies: dict[Subject, SubjectPolicy] = {}
        self._shown: dict[str, tuple[Rows, str]] = {}
        self._selected: dict[Subject, dict[int, PolicyRule]] = {}
        self._stale: set[Subject] = set()
        self._anew: set[Subject] = set()  # what their rules name has changed
        self._identities: dict[Subject, set[int]] = {}
        self._new: set[str] = set()
        self._displaced: dict[int, int] = {}

    def put_identity(self, identity: int, labels: Labels) -> None:
        """Say what a number stands for."""
        self._touch(identity, self._cache.put(identity, labels))

    def put_identities(self, identities: Mapping[int, Labels]) -> None:
        """Many at once."""
        if len(self._cache) == 0 and not self._policies:
            self._cache.load(identities.items())
            return
        for identity, labels in identities.items():
            self.put_identity(identity, labels)

    def drop_identity(self, identity: int) -> None:
        """A number stands for nothing any more."""
        self._touch(identity, self._cache.drop(identity))

    def put_object(self, key: Hashable, rules: Iterable[PolicyRule]) -> None:
        """Replace all rules of one object. A rule that stays as it was keeps its number."""
        rules = list(rules)
        old = self._objects.get(key, ())
        before = [self._rules[n] for n in old]
        if before == rules:
            return
        free = dict(zip(before, old, strict=True))
        numbers = tuple([free.pop(rule, 0) or self._add(rule) for rule in rules])
        for number in set(old).difference(numbers):
            self._remove(number)
        self._objects[key] = numbers
        if not numbers:
            del self._objects[key]

    def drop_object(self, key: Hashable) -> None:
        """An object is gone."""
        self.put_object(key, ())

    def put_endpoint(self, name: str, subject: Subject) -> None:
        """An endpoint of this node, or its new labels or ports."""
        if self._endpoints.get(name) == subject:
            return
        old = self._endpoints.pop(name, None)
        self._endpoints[name] = subject
        self._leave(old)
        if subject not in self._policies:
            self._policies[subject] = SubjectPolicy(subject)
            numbers = sorted(self._index.selecting(subject.labels))
            found = ((n, self._rules[n]) for n in numbers)
            self._selected[subject] = {n: rule for n, rule in found if applies(rule, subject)}
            self._stale.add(subject)
        self._new.add(name)

    def drop_endpoint(self, name: str) -> None:
        """It is gone, and its map with it: no change is told."""
        self._leave(self._endpoints.pop(name, None))
        self._shown.pop(name, None)
        self._new.discard(name)

    def put_group(self, name: str, group: CidrGroup | None) -> None:
        """A CIDR group, or ``None``: it is gone."""
        if self.known.groups.get(name) != group:
            _put(self.known.groups, name, group)
            self._anew |= {s for s, p in self._policies.items() if p.uses_groups}

    def put_service(self, namespace: str, name: str, service: PolicyService | None) -> None:
        """A service, or ``None``: it is gone."""
        if self.known.services.get((namespace, name)) != service:
            _put(self.known.services, (namespace, name), service)
            self._anew |= {s for s, p in self._policies.items() if p.uses_services}

    def put_displaced(self, numbers: Mapping[int, int]) -> None:
        """For lack of room addresses of these identities count as those of others.

        An endpoint that would let through what it forbids to the identity is closed.
        """
        self._displaced = dict(numbers)
        self._new |= set(self._endpoints)

    def put_port_name(self, name: str, protocol: int, numbers: Iterable[int]) -> None:
        """The numbers that the cluster's pods give a named port; none: nobody has it."""
        found = set(numbers)
        key = (name.lower(), protocol)
        if self.known.pod_ports.get(key, set()) != found:
            _put(self.known.pod_ports, key, found or None)
            self._anew |= {s for s, p in self._policies.items() if p.uses_names}

    def rule(self, number: int) -> PolicyRule | None:
        """The rule that an entry's number means; ``None`` for 0 and for rules that are gone."""
        return self._rules.get(number)

    def numbered(self) -> list[tuple[int, PolicyRule]]:
        """Every rule with its number."""
        return sorted(self._rules.items(), key=lambda item: item[0])

    def labels(self, identity: int) -> Labels | None:
        """What a number stands for."""
        return self._cache.labels(identity)

    def identities(self) -> Mapping[int, Labels]:
        """Every number with what it stands for. Not to be changed."""
        return self._cache.identities

    def users(self, who: Selector | CidrPeer) -> int:
        """How many kinds of endpoints have rules with this selector."""
        return self._cache.users(who)

    def rules(self) -> list[PolicyRule]:
        """Every rule."""
        return list(self._rules.values())

    def rows(self, name: str) -> Rows:
        """What the endpoint's map holds, as computed last."""
        return self._shown[name][0]

    def names(self) -> Iterable[str]:
        """The endpoints that were computed."""
        return self._shown.keys()

    def rules_of(self, name: str) -> Iterable[PolicyRule]:
        """The rules that select an endpoint."""
        return self._selected[self._endpoints[name]].values()

    def prefixes(self) -> set[Prefix]:
        """The prefixes that need an identity of this node: each has rows of its own."""
        return prefixes_of(self.known, self._rules.values())

    def selectors(self) -> Iterable[tuple[Selector | CidrPeer, set[int]]]:
        """Every selector in use, with the identities it selects."""
        return self._cache.in_use()

    def subject(self, name: str) -> Subject | None:
        """What decides an endpoint's policy."""
        return self._endpoints.get(name)

    def compute(self) -> dict[str, Change]:
        """What changed since the last time, for each endpoint with changes."""
        touched = self._stale | self._anew | set(self._identities)
        for subject in touched & set(self._policies):
            self._refresh(subject)
        names = {n for n, s in self._endpoints.items() if s in touched} | self._new
        changes = {name: self._show(name) for name in sorted(names)}
        self._stale, self._anew, self._identities, self._new = set(), set(), {}, set()
        return {name: change for name, change in changes.items() if change is not None}

    def _refresh(self, subject: Subject) -> None:
        policy = self._policies[subject]
        identities = self._identities.get(subject, set())
        if subject in self._stale or subject in self._anew:
            rules, anew = self._selected[subject], subject in self._anew
            policy.rebuild(self.known, self.options, self._cache, rules, anew)
        if identities:
            policy.update(identities)

    def _show(self, name: str) -> Change | None:
        policy = self._policies[self._endpoints[name]]
        rows, error = policy.rows(self._limit)
        for number, other in self._displaced.items():
            if not error and policy.differs(number, other):
                rows, error = policy.closed(self._cache.labels(number))
        is_new = name not in self._shown
        old, old_error = self._shown.get(name, ({}, ""))
        self._shown[name] = (rows, error)
        same = old.get  # most are the very same, and need not be compared
        put = {k: e for k, e in rows.items() if same(k) is not e and same(k) != e}
        drop = frozenset(k for k in old if k not in rows)
        if not (put or drop or is_new) and error == old_error:
            return None
        return Change(put, drop, error)

    def _add(self, rule: PolicyRule) -> int:
        self._last += 1
        self._rules[self._last] = rule
        self._index.put(self._last, rule.subject)
        for subject in self._subjects_of(rule):
            self._selected[subject][self._last] = rule
            self._stale.add(subject)
        return self._last

    def _remove(self, number: int) -> None:
        rule = self._rules.pop(number)
        self._index.drop(number, rule.subject)
        for subject in self._subjects_of(rule):
            self._selected[subject].pop(number, None)
            self._stale.add(subject)

    def _subjects_of(self, rule: PolicyRule) -> list[Subject]:
        return [subject for subject in self._policies if applies(rule, subject)]

    def _touch(self, identity: int, subjects: set[Subject]) -> None:
        for subject in subjects:
            self._identities.setdefault(subject, set()).add(identity)

    def _leave(self, subject: Subject | None) -> None:
        if subject is not None and subject not in self._endpoints.values():
            self._policies.pop(subject).release(self._cache)
            del self._selected[subject]
            self._stale.discard(subject)
            self._anew.discard(subject)
            self._identities.pop(subject, None)


def _put(where: dict, key: Hashable, value: object) -> None:  # type: ignore[type-arg]
    if value is None:
        where.pop(key, None)
    else:
        where[key] = value

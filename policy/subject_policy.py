"""The policy of one subject: which parts of rules an identity is a peer of, and its rows. Pure."""

from collections.abc import Iterable, Mapping

from model.identity import ReservedIdentity
from model.policy_map import ANY_IDENTITY, UNKNOWN_IDENTITY, Direction, PolicyKey
from policy import ports
from policy.compiled import LOCALHOST, Compiled, Effect, Part, Rows, closed_rows
from policy.known import Known, Mode, Options, Subject
from policy.oracle import always_enforced, forbids
from policy.ports import EVERYTHING, Block
from policy.rules import CidrGroupPeer, CidrPeer, DirectionRule, PolicyRule, Selector, ServicePeer
from policy.selector_cache import SelectorCache


class SubjectPolicy:
    """Rebuilt when a rule changes; identities come and go one by one."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.uses_groups = False
        self.uses_services = False
        self.uses_names = False
        self._used: set[Selector | CidrPeer] = set()
        self._named: dict[Direction, list[tuple[Part, list[set[int]]]]] = {}
        self._compiled: dict[Direction, Compiled] = {}
        self._open: set[Direction] = set()  # no rule but those in audit speaks here
        self._rows: dict[int, Rows] = {}
        self._count = 0
        self._merged: Rows | None = None

    def rebuild(
        self,
        known: Known,
        options: Options,
        cache: SelectorCache[Subject],
        rules: Mapping[int, PolicyRule],
    ) -> None:
        """Compute everything from the rules that select the subject, by their numbers."""
        before, self._used = self._used, set()
        self._note(rules.values())
        self._named, self._compiled, self._open = {}, {}, set()
        enforced = {} if options.mode is Mode.NEVER else rules
        for way in Direction:
            self._build(known, options, cache, enforced, way)
        for who in before - self._used:
            cache.release(who, self.subject)
        self._all_rows()

    def update(self, identities: Iterable[int]) -> None:
        """Compute the rows of these identities again."""
        self._merged = None
        for identity in identities:
            parts = {
                way: tuple(part for part, sets in named if any(identity in s for s in sets))
                for way, named in self._named.items()
            }
            self._set(identity, parts)

    def rows(self, limit: int) -> tuple[Rows, str]:
        """All rows; those of a closed endpoint and the reason if there are more than ``limit``."""
        if self._count > limit:
            return closed_rows(), (
                f"its policy needs {self._count} rows, and a map holds {limit}: nothing passes "
                "until its policies select fewer peers or name fewer ports and prefixes"
            )
        if self._merged is None:
            self._merged = {k: e for rows in self._rows.values() for k, e in rows.items()}
        return self._merged, ""

    def release(self, cache: SelectorCache[Subject]) -> None:
        """The last endpoint of the subject is gone."""
        for who in self._used:
            cache.release(who, self.subject)
        self._used = set()

    def _note(self, rules: Iterable[PolicyRule]) -> None:
        parts = [part for rule in rules for part in rule.rules]
        kinds = {type(peer) for part in parts for peer in part.peers or ()}
        self.uses_groups = CidrGroupPeer in kinds
        self.uses_services = ServicePeer in kinds
        self.uses_names = any(item.name for part in parts for item in part.ports or ())

    def _build(
        self,
        known: Known,
        options: Options,
        cache: SelectorCache[Subject],
        rules: Mapping[int, PolicyRule],
        way: Direction,
    ) -> None:
        anybody: list[Part] = []
        named = self._named[way] = []
        for number, rule in rules.items():
            if rule.closed:
                shut = Effect.AUDIT if rule.audit else Effect.DENY
                anybody.append(Part(way, shut, (EVERYTHING,), number))
            for said in rule.rules:
                if said.direction is not way:
                    continue
                part = Part(way, _effect(rule, said), self._blocks(known, said), number)
                whos = {who for peer in said.peers or () for who in known.expand(peer)}
                if said.peers is None or (said.or_anybody and not whos):
                    anybody.append(part)
                    continue
                self._used |= whos
                named.append((part, [cache.use(who, self.subject) for who in whos]))
        if way is Direction.INGRESS and options.allow_localhost and not self.subject.is_host:
            named.append((LOCALHOST, [{int(ReservedIdentity.HOST)}]))
        self._compiled[way] = Compiled(way, anybody, self._base(options, rules, way))
        speaking = (r for r in rules.values() if not r.audit and _speaks(r, way))
        if not always_enforced(options, self.subject) and not any(speaking):
            self._open.add(way)

    def _base(
        self, options: Options, rules: Mapping[int, PolicyRule], way: Direction
    ) -> Part | None:
        starters = {n: rule for n, rule in rules.items() if way in rule.default_deny}
        if always_enforced(options, self.subject) or any(not r.audit for r in starters.values()):
            return None
        effect = Effect.BASE if starters else Effect.ALLOW
        return Part(way, effect, (EVERYTHING,), min(starters, default=0))

    def _blocks(self, known: Known, said: DirectionRule) -> tuple[Block, ...]:
        if said.ports is None:
            return (EVERYTHING,)
        found: set[Block] = set()
        for item in said.ports:
            number = ports.resolve(
                item,
                lambda name, protocol: known.port_number(
                    self.subject, said.direction, name, protocol
                ),
            )
            if number is not None:
                found.update(ports.blocks(number.protocol, number.first, number.last))
        return tuple(sorted(found))

    def _all_rows(self) -> None:
        self._rows, self._count, self._merged = {ANY_IDENTITY: {}}, 0, None
        for compiled in self._compiled.values():
            self._rows[ANY_IDENTITY] |= compiled.anybody()
        # Whoever it is, nothing is forbidden here.
        allow = Effect.ALLOW.entry(0)
        self._rows[UNKNOWN_IDENTITY] = {PolicyKey(UNKNOWN_IDENTITY, w): allow for w in self._open}
        self._count = len(self._rows[ANY_IDENTITY]) + len(self._open)
        per: dict[int, dict[Direction, list[Part]]] = {}
        for way, named in self._named.items():
            for part, sets in named:
                for identity in set().union(*sets):
                    per.setdefault(identity, {}).setdefault(way, []).append(part)
        for identity, parts in per.items():
            self._set(identity, {way: tuple(found) for way, found in parts.items()})

    def _set(self, identity: int, parts: Mapping[Direction, tuple[Part, ...]]) -> None:
        rows: Rows = {}
        for way, found in parts.items():
            if found:
                rows |= self._compiled[way].of(identity, found)
        self._count += len(rows) - len(self._rows.pop(identity, ()))
        if rows:
            self._rows[identity] = rows


def _speaks(rule: PolicyRule, way: Direction) -> bool:
    parts = (part.direction is way for part in rule.rules)
    return rule.closed or way in rule.default_deny or any(parts)


def _effect(rule: PolicyRule, said: DirectionRule) -> Effect:
    if not forbids(said):
        return Effect.ALLOW
    return Effect.AUDIT if rule.audit else Effect.DENY

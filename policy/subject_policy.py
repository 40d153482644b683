"""The policy of one subject: which parts of rules an identity is a peer of, and its rows. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping

from model.identity import ReservedIdentity
from model.labels import Labels
from model.policy_map import ANY_IDENTITY, UNKNOWN_IDENTITY, Direction, PolicyKey
from policy.compiled import LOCALHOST, Compiled, Effect, Part, Rows, closed_rows
from policy.known import Known, Mode, Options, Subject
from policy.oracle import always_enforced
from policy.ports import EVERYTHING
from policy.rule_parts import Named, RuleParts, Who, parts_of
from policy.rules import CidrGroupPeer, PolicyRule, ServicePeer
from policy.selector_cache import SelectorCache

UNKNOWN = int(ReservedIdentity.UNKNOWN)
_HOST: Named = (LOCALHOST, [{int(ReservedIdentity.HOST)}])


class SubjectPolicy:
    """Rules come and go one by one, and so do identities; each costs what it changes."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.uses_groups = False
        self.uses_services = False
        self.uses_names = False
        self._parts: dict[int, RuleParts] = {}  # by the rule's number
        self._used: Counter[Who] = Counter()
        self._named: dict[Direction, list[Named]] = {}
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
        anew: bool,
    ) -> None:
        """Take the rules that select the subject, by their numbers.

        ``anew``: what rules name stands for something else than before (groups, services, ports).
        """
        if options.mode is Mode.NEVER:
            rules = {}
        old, kept = self._parts, {} if anew else self._parts
        self._parts = {
            n: kept.get(n) or parts_of(rule, n, self.subject, known, cache)
            for n, rule in rules.items()
        }
        gone = [parts for n, parts in old.items() if self._parts.get(n) is not parts]
        new = [parts for n, parts in self._parts.items() if old.get(n) is not parts]
        self._note(gone, new)
        touched = set().union(*(parts.identities() for parts in (*gone, *new)))
        # One by one is dearer than all together, where it is about most of them.
        if self._join(options) or anew or 2 * len(touched) > self._members():
            self._all_rows()
        else:
            self.update(touched)
        for who in [who for who, count in self._used.items() if not count]:
            cache.release(who, self.subject)
            del self._used[who]

    def update(self, identities: Iterable[int]) -> None:
        """Compute the rows of these identities again."""
        self._merged = None
        for identity in identities:
            parts = {
                way: tuple([part for part, sets in named if _is_in(identity, sets)])
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

    def differs(self, number: int, other: int) -> bool:
        """Whether an identity that passes for another one may do what is forbidden to it.

        Says yes too often where several rules are about both.
        """
        for way, compiled in self._compiled.items():
            if way in self._open:
                continue
            if number == UNKNOWN and self._may_pass(way, other):
                return True  # nobody's, and so forbidden what any rule speaks of
            for part, sets in self._named[way]:
                mine, others = (any(n in found for found in sets) for n in (number, other))
                if part.effect is Effect.DENY and mine and not others:
                    return True
                if part.effect is Effect.ALLOW and others and not mine and compiled.shut:
                    return True
        return False

    def _may_pass(self, way: Direction, identity: int) -> bool:
        compiled = self._compiled[way]
        named = (p for p, sets in self._named[way] if any(identity in found for found in sets))
        parts = (*named, *compiled.parts)
        return not compiled.shut or any(part.effect is Effect.ALLOW for part in parts)

    def closed(self, missing: Labels | None) -> tuple[Rows, str]:
        """The rows of a closed endpoint, and why: addresses of somebody have no row."""
        who = ", ".join(missing.strings()) if missing is not None else "another cluster's pods"
        return closed_rows(), (
            f"addresses of {who} find no room in the ipcache, and its policy forbids them what it "
            "does not forbid others: nothing passes until there is room (bpf-ipcache-map-max)"
        )

    def release(self, cache: SelectorCache[Subject]) -> None:
        """The last endpoint of the subject is gone."""
        for who in self._used:
            cache.release(who, self.subject)
        self._used.clear()

    def _note(self, gone: list[RuleParts], new: list[RuleParts]) -> None:
        for parts in new:
            self._used.update(parts.used)
        for parts in gone:
            self._used.subtract(parts.used)
        kinds: frozenset[type] = frozenset().union(*{p.kinds for p in self._parts.values()})
        self.uses_groups = CidrGroupPeer in kinds
        self.uses_services = ServicePeer in kinds
        self.uses_names = any([found.names_ports for found in self._parts.values()])

    def _join(self, options: Options) -> bool:
        """Put the parts of all rules together; whether what holds for anybody has changed."""
        whole, before = False, self._open
        always = always_enforced(options, self.subject)
        shut = always and not options.audit
        speaks: frozenset[Direction] = frozenset().union(*{p.speaks for p in self._parts.values()})
        self._open = set() if shut else set(Direction) - speaks
        for way in Direction:
            named = [named for parts in self._parts.values() for named in parts.named[way]]
            if way is Direction.INGRESS and options.allow_localhost and not self.subject.is_host:
                named.append(_HOST)
            self._named[way] = named
            anybody = [part for parts in self._parts.values() for part in parts.anybody[way]]
            base = self._base(always, shut, way)
            if way not in self._compiled or not self._compiled[way].follows_from(anybody, base):
                self._compiled[way] = Compiled(way, anybody, base)
                whole = True
            self._compiled[way].forget_templates()
        return whole or self._open != before

    def _members(self) -> int:
        sets = (s for named in self._named.values() for _, found in named for s in found)
        return sum(map(len, sets))

    def _base(self, always: bool, shut: bool, way: Direction) -> Part | None:
        starters = [n for n, parts in self._parts.items() if way in parts.rule.default_deny]
        if shut or not all([self._parts[n].rule.audit for n in starters]):
            return None
        effect = Effect.BASE if starters or always else Effect.ALLOW
        return Part(way, effect, (EVERYTHING,), min(starters, default=0))

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


def _is_in(identity: int, sets: list[set[int]]) -> bool:
    if len(sets) == 1:  # as nearly always
        return identity in sets[0]
    return any([identity in found for found in sets])

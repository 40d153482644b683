"""Why a connection may or may not be made, and which verdicts a change of rules changes. Pure.

Asks the oracle, so an explanation holds without maps; both sides of a connection are judged.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from model.labels import Labels
from model.policy_map import Direction
from policy.known import Known, Mode, Options, Subject
from policy.oracle import (
    Decision,
    Packet,
    Verdict,
    always_enforced,
    applies,
    forbids,
    matching,
    verdict,
)
from policy.rules import Origin, PolicyRule


@dataclass(frozen=True, slots=True)
class Side:
    """One side's verdict. ``rule`` decided it, if one did; ``change`` says what would turn it.

    ``unasked``: the side is no endpoint of which policy speaks (an address, another node).
    """

    direction: Direction
    verdict: Verdict
    rule: Origin | None = None
    reason: str = ""
    change: str = ""
    unasked: bool = False


@dataclass(frozen=True, slots=True)
class Explanation:
    """Both sides; the connection is made only if both let it pass."""

    egress: Side
    ingress: Side

    @property
    def passes(self) -> bool:
        """Whether the packet arrives."""
        return self.egress.verdict.passes and self.ingress.verdict.passes


@dataclass(frozen=True, slots=True)
class End:
    """One end: its identity, and its subject if policy is enforced at it."""

    identity: int
    labels: Labels
    subject: Subject | None = None


@dataclass(frozen=True, slots=True)
class Flow:
    """From an identity to another, on a protocol and port."""

    source: int
    destination: int
    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A flow whose verdict changes on the side of ``direction``, and the rules that decide."""

    flow: Flow
    direction: Direction
    before: Verdict
    after: Verdict
    rule_before: Origin | None = None
    rule_after: Origin | None = None


def explain(
    known: Known,
    rules: Iterable[PolicyRule],
    options: Options,
    source: End,
    destination: End,
    protocol: int,
    port: int,
) -> Explanation:
    """The verdict of the sender's egress and the receiver's ingress, with reasons."""
    rules = list(rules)
    to = Packet(destination.identity, destination.labels, protocol, port)
    back = Packet(source.identity, source.labels, protocol, port)
    return Explanation(
        _side(known, rules, options, source.subject, Direction.EGRESS, to),
        _side(known, rules, options, destination.subject, Direction.INGRESS, back),
    )


def _side(
    known: Known,
    rules: list[PolicyRule],
    options: Options,
    subject: Subject | None,
    way: Direction,
    packet: Packet,
) -> Side:
    if subject is None:
        reason = "policy is not asked on this side: it is no endpoint"
        return Side(way, Verdict.ALLOWED, reason=reason, unasked=True)
    decision = verdict(known, rules, subject, way, packet, options)
    rule = decision.rule
    reason = _reason(known, rules, options, subject, way, packet, decision.verdict, rule)
    change = "" if decision.verdict.passes else _change(known, rules, subject, way, packet, options)
    return Side(way, decision.verdict, _origin(decision), reason, change)


def _origin(decision: Decision) -> Origin | None:
    return decision.rule.origin if decision.rule else None


def _reason(
    known: Known,
    rules: list[PolicyRule],
    options: Options,
    subject: Subject,
    way: Direction,
    packet: Packet,
    found: Verdict,
    rule: PolicyRule | None,
) -> str:
    if options.mode is Mode.NEVER:
        return "the mode is never: no policy is enforced"
    if rule is None:
        return _without_rule(rules, options, subject, way, found)
    if rule.closed:
        shut = "would be shut, were it not in audit" if rule.audit else "is shut"
        return f"{rule.origin} is invalid: what it selects {shut}"
    said = [part for r, part in matching(known, [rule], subject, way, packet) if r is rule]
    unenforced = next((part.unenforced for part in said if part.unenforced), "")
    if found in (Verdict.DENIED, Verdict.AUDITED):
        word = "denies" if found is Verdict.DENIED else "is in audit and would deny"
        if unenforced and not any(part.deny for part in said):
            return f"{rule.origin} {word} it: {unenforced} is not enforced yet"
        by_default = "" if any(map(forbids, said)) else " (it starts default deny)"
        return f"{rule.origin} {word} it{by_default}"
    return f"{rule.origin} allows it"


def _without_rule(
    rules: list[PolicyRule], options: Options, subject: Subject, way: Direction, found: Verdict
) -> str:
    word = way.name.lower()
    if found is Verdict.ALLOWED:
        starters = [r for r in rules if applies(r, subject) and way in r.default_deny]
        if starters or always_enforced(options, subject):
            return "the node always reaches its own pods"
        return f"no policy starts default deny of {word} here"
    origins = _starters(rules, subject, way)
    why = ", ".join(map(str, origins)) or "the mode always, or an endpoint without labels yet"
    return f"no rule allows it, and default deny of {word} is on by {why}"


def _starters(rules: Iterable[PolicyRule], subject: Subject, way: Direction) -> list[Origin]:
    return sorted(
        {r.origin for r in rules if applies(r, subject) and way in r.default_deny and not r.audit}
    )


def _change(
    known: Known,
    rules: list[PolicyRule],
    subject: Subject,
    way: Direction,
    packet: Packet,
    options: Options,
) -> str:
    """Every denier has to go; then something must allow it, if default deny is still on."""
    steps = []
    shut = [r for r in rules if applies(r, subject) and not r.audit]
    denying = {r.origin for r, part in matching(known, shut, subject, way, packet) if forbids(part)}
    invalid = {r.origin for r in shut if r.closed}
    steps += [f"correct {origin}" for origin in sorted(invalid)]
    steps += [
        f"take this peer or port out of the deny of {origin}"
        for origin in sorted(denying - invalid)
    ]
    kept = [_without_denies(rule) for rule in rules]
    left = verdict(known, kept, subject, way, packet, options)
    if not left.verdict.passes:
        who = "from" if way is Direction.INGRESS else "to"
        steps.append(
            f"add an {way.name.lower()} rule that allows protocol {packet.protocol} port "
            f"{packet.port} {who} identity {packet.identity}"
        )
    return "; ".join(steps)


def _without_denies(rule: PolicyRule) -> PolicyRule:
    parts = tuple(part for part in rule.rules if not forbids(part))
    return replace(rule, rules=parts, closed=False)


def whatif(
    known: Known,
    before: Iterable[PolicyRule],
    after: Iterable[PolicyRule],
    options: Options,
    subjects: Mapping[int, Subject],
    identities: Mapping[int, Labels],
    ports: Iterable[tuple[int, int]],
) -> Iterator[Difference]:
    """The flows whose verdict changes from the rules ``before`` to those ``after``.

    ``subjects`` are the endpoints by identity, ``ports`` the (protocol, port) to ask about. Only
    subjects that some added or removed rule selects are asked.
    """
    old, new, asked = list(before), list(after), list(ports)
    changed = set(old) ^ set(new)
    for number, subject in sorted(subjects.items()):
        if not any(applies(rule, subject) for rule in changed):
            continue
        mine = [rule for rule in old if applies(rule, subject)]
        theirs = [rule for rule in new if applies(rule, subject)]
        for way in Direction:
            for peer, labels in sorted(identities.items()):
                for protocol, port in asked:
                    packet = Packet(peer, labels, protocol, port)
                    was = verdict(known, mine, subject, way, packet, options)
                    will = verdict(known, theirs, subject, way, packet, options)
                    if was.verdict is not will.verdict:
                        ends = (peer, number) if way is Direction.INGRESS else (number, peer)
                        yield Difference(
                            Flow(*ends, protocol, port),
                            way,
                            was.verdict,
                            will.verdict,
                            _origin(was),
                            _origin(will),
                        )

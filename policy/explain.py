"""Why a connection may or may not be made. Pure.

Asks the oracle, so an explanation holds without maps; both sides of a connection are judged.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from model.labels import (
    CLUSTER_LABEL,
    NAMESPACE_LABEL,
    NAMESPACE_META_PREFIX,
    SERVICE_ACCOUNT_LABEL,
    Labels,
)
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
    ``starters``: by whom default deny is on, where that decided.
    """

    direction: Direction
    verdict: Verdict
    rule: Origin | None = None
    reason: str = ""
    change: str = ""
    unasked: bool = False
    starters: tuple[Origin, ...] = ()


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
        side(known, rules, options, source.subject, Direction.EGRESS, to),
        side(known, rules, options, destination.subject, Direction.INGRESS, back),
    )


def side(
    known: Known,
    rules: list[PolicyRule],
    options: Options,
    subject: Subject | None,
    way: Direction,
    packet: Packet,
) -> Side:
    """One side alone, as the node of ``subject`` judges it."""
    if subject is None:
        reason = "policy is not asked on this side: it is no endpoint"
        return Side(way, Verdict.ALLOWED, reason=reason, unasked=True)
    decision = verdict(known, rules, subject, way, packet, options)
    rule = decision.rule
    reason = _reason(known, rules, options, subject, way, packet, decision.verdict, rule)
    change = "" if decision.verdict.passes else _change(known, rules, subject, way, packet, options)
    dropped = decision.verdict is Verdict.DROPPED
    starters = tuple(_starters(rules, subject, way)) if dropped else ()
    return Side(way, decision.verdict, _origin(decision), reason, change, starters=starters)


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
    if found is Verdict.AUDITED:
        return "no rule allows it, and policy-audit-mode lets it pass"
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
            f"add an {way.name.lower()} rule that allows {port_text(packet.protocol, packet.port)} "
            f"{who} identity {packet.identity} ({who_text(packet.labels)})"
        )
    return "; ".join(steps)


PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}


def port_text(protocol: int, port: int) -> str:
    """``80/TCP``; of ICMP the type, ``ICMP type 8``."""
    name = PROTOCOLS.get(protocol, str(protocol))
    return f"{name} type {port}" if name.startswith("ICMP") else f"{port}/{name}"


def who_text(labels: Labels) -> str:
    """The labels people choose by, and where: ``k8s:app=web in cluster1/default``."""
    implied = (NAMESPACE_META_PREFIX, NAMESPACE_LABEL, CLUSTER_LABEL, SERVICE_ACCOUNT_LABEL)
    said = ", ".join(str(label) for label in labels if not label.key.startswith(implied))
    parts = [part for key in (CLUSTER_LABEL, NAMESPACE_LABEL) if (part := labels.get(key))]
    return f"{said} in {'/'.join(parts)}" if parts else said


def unknown_side(
    rules: Iterable[PolicyRule], options: Options, subject: Subject, way: Direction
) -> Side:
    """The peer's identity is not known at this node: it passes only where no rule speaks."""
    speaking = sorted(
        {
            rule.origin
            for rule in rules
            if applies(rule, subject)
            and not rule.audit
            and (
                rule.closed
                or way in rule.default_deny
                or any(part.direction is way for part in rule.rules)
            )
        }
    )
    why = "the identity of the other side is not known on this node yet"
    shut = always_enforced(options, subject) and not options.audit
    if options.mode is Mode.NEVER or not (speaking or shut):
        return Side(way, Verdict.ALLOWED, reason=f"{why}, and no rule speaks of {way.name.lower()}")
    by = f" (rules of {', '.join(map(str, speaking))})" if speaking else ""
    change = "wait until the cluster of the address has told of it, or see `isthmus status`"
    return Side(way, Verdict.DROPPED, reason=why + by, change=change)


def _without_denies(rule: PolicyRule) -> PolicyRule:
    parts = tuple(part for part in rule.rules if not forbids(part))
    return replace(rule, rules=parts, closed=False)

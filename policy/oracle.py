"""What policy says of one packet, straight from the meaning of the rules. Pure, and slow.

The compiled maps are held against it. It knows no order of rules: deny beats allow, what is in
audit forbids on paper only, and where default deny has started, only what is allowed passes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from model.address import Prefix
from model.identity import ReservedIdentity
from model.labels import SOURCE_RESERVED, Labels
from model.policy_map import ANY_IDENTITY, Direction, PolicyEntry, PolicyKey
from policy import ports
from policy.known import Known, Mode, Options, Subject
from policy.rules import CidrPeer, DirectionRule, PolicyRule
from policy.selectors import inside, prefix_of, selects


class Verdict(IntEnum):
    """``DENIED``: a rule forbids it; ``DROPPED``: no rule allows it; ``AUDITED``: it passes."""

    ALLOWED = 0
    AUDITED = 1
    DROPPED = 2
    DENIED = 3

    @property
    def passes(self) -> bool:
        """Whether the packet goes on."""
        return self <= Verdict.AUDITED


@dataclass(frozen=True, slots=True)
class Packet:
    """The peer's identity, the IP protocol, the destination port (of ICMP: the type).

    ``address``: the peer's, where rules of prefixes select him by it (``Options.selected_by``).
    """

    identity: int
    labels: Labels
    protocol: int
    port: int
    address: Prefix | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """``rule`` decided; ``None``: no rule did."""

    verdict: Verdict
    rule: PolicyRule | None = None


def applies(rule: PolicyRule, subject: Subject) -> bool:
    """Whether the rule is about this endpoint."""
    return rule.on_nodes == subject.is_host and selects(rule.subject, subject.labels)


def always_enforced(options: Options, subject: Subject) -> bool:
    """Whether default deny holds without a rule. The node itself is never shut by a mode."""
    if subject.is_host or options.mode is Mode.NEVER:
        return False
    return options.mode is Mode.ALWAYS or subject.labels.get("init", SOURCE_RESERVED) is not None


def forbids(rule: DirectionRule) -> bool:
    """A deny rule, or one we understand but do not enforce: its traffic must not pass."""
    return rule.deny or bool(rule.unenforced)


def _is_peer(known: Known, rule: DirectionRule, packet: Packet) -> bool:
    if rule.peers is None:
        return True
    parts = [part for peer in rule.peers for part in known.expand(peer)]
    if rule.or_anybody and not parts:
        return True
    prefix = packet.address or prefix_of(packet.labels)
    for peer in parts:
        if isinstance(peer, CidrPeer):
            if prefix is not None and inside(peer, prefix):
                return True
        elif selects(peer, packet.labels):
            return True
    return False


def _is_port(known: Known, subject: Subject, rule: DirectionRule, packet: Packet) -> bool:
    if rule.ports is None:
        return True
    for item in rule.ports:
        found = ports.resolve(
            item, lambda name, protocol: known.port_number(subject, rule.direction, name, protocol)
        )
        if found is None or found.protocol != packet.protocol:
            continue
        if found.first <= packet.port <= max(found.first, found.last):
            return True
    return False


def matching(
    known: Known, rules: Iterable[PolicyRule], subject: Subject, way: Direction, packet: Packet
) -> Iterator[tuple[PolicyRule, DirectionRule]]:
    """The parts of rules that say something about the packet, allow or deny."""
    for rule in rules:
        for part in rule.rules:
            if (
                part.direction is way
                and _is_peer(known, part, packet)
                and _is_port(known, subject, part, packet)
            ):
                yield rule, part


def verdict(
    known: Known,
    rules: Iterable[PolicyRule],
    subject: Subject,
    way: Direction,
    packet: Packet,
    options: Options,
) -> Decision:
    """What becomes of a packet of ``subject`` in direction ``way``."""
    if options.mode is Mode.NEVER:
        return Decision(Verdict.ALLOWED)
    mine = [rule for rule in rules if applies(rule, subject)]
    said = list(matching(known, mine, subject, way, packet))
    denies = [rule for rule, part in said if forbids(part) and not rule.audit]
    denies += [rule for rule in mine if rule.closed and not rule.audit]
    if denies:
        return Decision(Verdict.DENIED, denies[0])
    allows = [rule for rule, part in said if not forbids(part)]
    from_host = packet.identity == ReservedIdentity.HOST and way is Direction.INGRESS
    is_local = from_host and options.allow_localhost and not subject.is_host
    enforced = [rule for rule in mine if way in rule.default_deny and not rule.audit]
    always = always_enforced(options, subject)
    if not (allows or is_local) and (enforced or (always and not options.audit)):
        return Decision(Verdict.DROPPED)
    on_paper = [rule for rule, part in said if forbids(part) and rule.audit]
    on_paper += [rule for rule in mine if rule.closed and rule.audit]
    if not (allows or is_local):
        on_paper += [rule for rule in mine if way in rule.default_deny and rule.audit]
    if on_paper:
        return Decision(Verdict.AUDITED, on_paper[0])
    if always and not (allows or is_local):
        return Decision(Verdict.AUDITED)
    return Decision(Verdict.ALLOWED, allows[0] if allows else None)


def lookup(
    rows: Mapping[PolicyKey, PolicyEntry],
    way: Direction,
    identity: int,
    protocol: int,
    port: int,
    inner: int | None = None,
) -> tuple[Verdict, PolicyEntry | None]:
    """What the datapath says of a packet: the longest match for the identity, and for anybody.

    Of them the one that forbids decides, then the one that forbids on paper, then the longer.
    ``inner``: the number of the longest prefix around the peer's address, where it counts.
    """
    found = []
    for who in (identity, ANY_IDENTITY, *(() if inner is None else (inner,))):
        block = ports.Block(protocol, port, 24)
        keys = [PolicyKey(who, way, *block.at(bits)) for bits in (*range(24, 7, -1), 0)]
        hit = next((key for key in keys if key in rows), None)
        if hit is not None:
            found.append((hit.bits, who != ANY_IDENTITY, rows[hit]))
    if not found:
        return Verdict.DROPPED, None
    entry = max(found, key=lambda f: (f[2].deny and not f[2].audit, f[2].deny, *f[:2]))[2]
    if entry.deny and not entry.audit:
        return Verdict.DENIED, entry
    return (Verdict.AUDITED if entry.audit else Verdict.ALLOWED), entry

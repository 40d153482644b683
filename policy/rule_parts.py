"""What one rule says to one subject, made once and kept as long as both are there. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from model.policy_map import Direction
from policy import ports
from policy.compiled import Effect, Part
from policy.known import Known, Subject
from policy.oracle import forbids
from policy.ports import EVERYTHING, Block
from policy.rules import CidrPeer, DirectionRule, PolicyRule, Selector
from policy.selector_cache import SelectorCache

Who = Selector | CidrPeer
Named = tuple[Part, list[set[int]]]  # what is said, and whom it is about: sets that are kept


@dataclass(slots=True)
class RuleParts:
    """By direction: parts about anybody, and parts about the members of selectors.

    ``speaks``: directions that it says something about in earnest. ``kinds``: types of its peers.
    """

    rule: PolicyRule
    speaks: frozenset[Direction]
    kinds: frozenset[type]
    names_ports: bool
    anybody: dict[Direction, list[Part]] = field(default_factory=lambda: {w: [] for w in Direction})
    named: dict[Direction, list[Named]] = field(default_factory=lambda: {w: [] for w in Direction})
    used: set[Who] = field(default_factory=set)

    def identities(self) -> set[int]:
        """Everybody whom it names now."""
        sets = (s for parts in self.named.values() for _, found in parts for s in found)
        return set().union(*sets)


def parts_of(
    rule: PolicyRule, number: int, subject: Subject, known: Known, cache: SelectorCache[Subject]
) -> RuleParts:
    """Read a rule for a subject; its selectors are kept in ``cache`` for it from now on."""
    found = RuleParts(
        rule,
        frozenset() if rule.audit else _directions(rule),
        frozenset(type(peer) for part in rule.rules for peer in part.peers or ()),
        any(item.name for part in rule.rules for item in part.ports or ()),
    )
    if rule.closed:
        shut = Effect.AUDIT if rule.audit else Effect.DENY
        for way in Direction:
            found.anybody[way].append(Part(way, shut, (EVERYTHING,), number))
    for said in rule.rules:
        way = said.direction
        part = Part(way, _effect(rule, said), tuple(_blocks(known, subject, said)), number)
        whos = {who for peer in said.peers or () for who in known.expand(peer)}
        if said.peers is None or (said.or_anybody and not whos):
            found.anybody[way].append(part)
            continue
        found.used |= whos
        found.named[way].append((part, [cache.use(who, subject) for who in whos]))
    return found


def _directions(rule: PolicyRule) -> frozenset[Direction]:
    if rule.closed:
        return frozenset(Direction)
    return rule.default_deny | {part.direction for part in rule.rules}


def _blocks(known: Known, subject: Subject, said: DirectionRule) -> Iterator[Block]:
    if said.ports is None:
        yield EVERYTHING
        return
    found: set[Block] = set()
    for item in said.ports:
        number = ports.resolve(
            item,
            lambda name, protocol: known.port_number(subject, said.direction, name, protocol),
        )
        if number is not None:
            found.update(ports.blocks(number.protocol, number.first, number.last))
    yield from sorted(found)


def _effect(rule: PolicyRule, said: DirectionRule) -> Effect:
    if not forbids(said):
        return Effect.ALLOW
    return Effect.AUDIT if rule.audit else Effect.DENY

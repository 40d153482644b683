"""Which verdicts differ between two computations of the same endpoints. Pure.

Identities whose rows are the same before and after are judged once, so the cost goes with the rows
and not with the product of endpoints, identities and ports.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from model.address import Prefix
from model.policy_map import ANY_IDENTITY, Direction, PolicyEntry, PolicyKey
from policy.oracle import Verdict, lookup
from policy.rules import Origin, PolicyRule
from policy.table import PolicyTable

OTHERS = {6: 65533, 17: 65533, 1: 8}  # one each for what rules do not name

Rows = Mapping[PolicyKey, PolicyEntry]


@dataclass(frozen=True, slots=True)
class Difference:
    """Packets of ``endpoint`` and ``peers`` (identities) whose verdict changes.

    ``others``: the port stands for all that no rule names.
    """

    endpoint: str
    direction: Direction
    peers: tuple[int, ...]
    protocol: int
    port: int
    others: bool
    before: Verdict
    after: Verdict
    rule_before: Origin | None = None
    rule_after: Origin | None = None


class Recorded(NamedTuple):
    """A flow as it was seen: names are ``namespace/pod``, or empty; of ICMP the type is a port."""

    source: str
    destination: str
    source_identity: int
    destination_identity: int
    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """A recorded flow whose verdict changes at ``endpoint``; ``seen`` so many times."""

    endpoint: str
    direction: Direction
    peer: int
    peer_name: str
    protocol: int
    port: int
    seen: int
    before: Verdict
    after: Verdict
    rule_before: Origin | None = None
    rule_after: Origin | None = None


def replay(
    before: PolicyTable,
    after: PolicyTable,
    endpoints: Mapping[str, int],
    flows: Mapping[Recorded, int],
) -> Iterator[Replayed]:
    """Recorded flows of these endpoints (name -> identity), each at the side that is here.

    A peer counts as the identity that was recorded; a peer that is one of the endpoints, as what
    it is now.
    """
    for flow, seen in sorted(flows.items()):
        ends = (
            (flow.source, Direction.EGRESS, flow.destination, flow.destination_identity),
            (flow.destination, Direction.INGRESS, flow.source, flow.source_identity),
        )
        for name, way, peer_name, recorded in ends:
            if name not in endpoints:
                continue
            peer = endpoints.get(peer_name, recorded)
            ask = (way, peer, flow.protocol, flow.port)
            was, did = lookup(before.rows(name), *ask)
            will, does = lookup(after.rows(name), *ask)
            if was is not will:
                rules = _origin(before, did), _origin(after, does)
                end = (name, way, peer, peer_name, flow.protocol, flow.port)
                yield Replayed(*end, seen, was, will, *rules)


def points(rules: Iterable[PolicyRule], numbers: Mapping[tuple[str, int], set[int]]) -> set[
    tuple[int, int]
]:  # fmt: skip
    """The (protocol, port) at which what rules say may change; ``numbers`` of named ports."""
    found: set[tuple[int, int]] = set()
    for rule in rules:
        for said in (item for part in rule.rules for item in part.ports or ()):
            if said.name:
                ports = numbers.get((said.name, said.protocol), set())
                found |= {(said.protocol, port) for port in ports}
            elif (said.first, said.last) != (0, 65535):
                found |= {(said.protocol, said.first), (said.protocol, said.last)}
            else:
                found.add((said.protocol, OTHERS.get(said.protocol, 65533)))
    return found


def compare(
    before: PolicyTable, after: PolicyTable, name: str, ports: set[tuple[int, int]]
) -> Iterator[Difference]:
    """Of one endpoint. Both tables know it and the same identities, and are computed."""
    asked = sorted(ports | set(OTHERS.items()))
    old, new = before.rows(name), after.rows(name)
    alike = _alike(old, new, before.identities())
    for peers, way, (protocol, port) in product(alike, Direction, asked):
        was, did = lookup(old, way, peers[0], protocol, port)
        will, does = lookup(new, way, peers[0], protocol, port)
        if was is not will:
            others = (protocol, port) not in ports
            rules = _origin(before, did), _origin(after, does)
            yield Difference(name, way, peers, protocol, port, others, was, will, *rules)


def _alike(old: Rows, new: Rows, identities: Iterable[int]) -> list[tuple[int, ...]]:
    """Identities whose rows are the same, together."""
    own: dict[int, list[tuple[object, ...]]] = {number: [] for number in identities}
    for which, rows in enumerate((old, new)):
        for key, entry in rows.items():
            if key.identity != ANY_IDENTITY and key.identity in own:
                own[key.identity].append((which, *key[1:], entry))
    groups: dict[frozenset[tuple[object, ...]], list[int]] = {}
    for number, said in own.items():
        groups.setdefault(frozenset(said), []).append(number)
    return [tuple(sorted(group)) for group in groups.values()]


def _origin(table: PolicyTable, entry: PolicyEntry | None) -> Origin | None:
    rule = table.rule(entry.rule) if entry and entry.rule else None
    return rule.origin if rule else None


def missing_prefixes(tables: Iterable[PolicyTable], known: Iterable[Prefix]) -> list[Prefix]:
    """The prefixes that rules name and that have no identity yet."""
    wanted = {prefix for table in tables for prefix in table.prefixes()}
    return sorted(wanted - set(known))

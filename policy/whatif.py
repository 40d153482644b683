"""Which verdicts differ between two computations of the same endpoints. Pure.

Identities whose rows are the same before and after are judged once, so the cost goes with the rows
and not with the product of endpoints, identities and ports.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from model.policy_map import Direction, PolicyEntry, PolicyKey
from policy.by_address import ByAddress
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
    """A flow as it was seen: names are ``namespace/pod``, or empty; of ICMP the type is a port.

    Addresses are told where rules of prefixes ask for those of pods or nodes.
    """

    source: str
    destination: str
    source_identity: int
    destination_identity: int
    protocol: int
    port: int
    source_address: str = ""
    destination_address: str = ""


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


@dataclass(frozen=True, slots=True)
class Computed:
    """What a computation came to: rows by endpoint, and the rules that rows have the numbers of."""

    rows: Mapping[str, Rows]
    rules: Mapping[int, PolicyRule]

    def judge(
        self, name: str, *packet: int, inner: int | None = None
    ) -> tuple[Verdict, Origin | None]:
        """The verdict on (direction, identity, protocol, port) at an endpoint, and by whom.

        ``inner``: the number of the rows about the peer's address.
        """
        way, identity, protocol, port = packet
        verdict, entry = lookup(self.rows[name], Direction(way), identity, protocol, port, inner)
        rule = self.rules.get(entry.rule) if entry else None
        return verdict, rule.origin if rule else None


def computed(table: PolicyTable) -> Computed:
    """As a table stands now; it may go on."""
    return Computed({name: table.rows(name) for name in table.names()}, dict(table.numbered()))


def replay(
    before: Computed,
    after: Computed,
    endpoints: Mapping[str, int],
    flows: Mapping[Recorded, int],
    by_address: ByAddress | None = None,
) -> Iterator[Replayed]:
    """Recorded flows at those of the endpoints (name -> identity) that both computed.

    A peer counts as the identity that was recorded; a peer that is one of the endpoints, as what
    it is now.
    """
    for flow, seen in sorted(flows.items()):
        to = flow.destination, flow.destination_identity, flow.destination_address
        back = flow.source, flow.source_identity, flow.source_address
        ends = (flow.source, Direction.EGRESS, *to), (flow.destination, Direction.INGRESS, *back)
        for name, way, peer_name, recorded, address in ends:
            if name not in endpoints or name not in before.rows:
                continue
            peer = endpoints.get(peer_name, recorded)
            packet = (way, peer, flow.protocol, flow.port)
            inner = by_address.number(peer, address) if by_address else None
            was, did = before.judge(name, *packet, inner=inner)
            will, does = after.judge(name, *packet, inner=inner)
            if was is not will:
                end = (name, way, peer, peer_name, flow.protocol, flow.port)
                yield Replayed(*end, seen, was, will, did, does)


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
    before: Computed,
    after: Computed,
    identities: Iterable[int],
    name: str,
    ports: set[tuple[int, int]],
) -> Iterator[Difference]:
    """Of one endpoint, to which both computations know the same identities."""
    asked = sorted(ports | set(OTHERS.items()))
    alike = _alike(before.rows[name], after.rows[name], identities)
    for peers, way, (protocol, port) in product(alike, Direction, asked):
        packet = (way, peers[0], protocol, port)
        (was, did), (will, does) = before.judge(name, *packet), after.judge(name, *packet)
        if was is not will:
            others = (protocol, port) not in ports
            yield Difference(name, way, peers, protocol, port, others, was, will, did, does)


def _alike(old: Rows, new: Rows, identities: Iterable[int]) -> list[tuple[int, ...]]:
    """Identities whose rows are the same, together."""
    own: dict[int, list[tuple[object, ...]]] = {}
    for which, rows in enumerate((old, new)):
        for key, entry in rows.items():
            own.setdefault(key.identity, []).append((which, *key[1:], entry))
    groups: dict[tuple[tuple[object, ...], ...], list[int]] = {}
    for number in identities:
        groups.setdefault(tuple(own.get(number, ())), []).append(number)
    return [tuple(sorted(group)) for group in groups.values()]

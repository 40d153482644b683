"""Addresses that pass for others for lack of room: what is forbidden to them stays forbidden."""

from model.address import parse_prefix
from model.labels import Label, Labels
from model.policy_map import Direction
from policy.known import Options, Subject
from policy.rules import CidrPeer, DirectionRule, Origin, PolicyRule, Requirement, Selector
from policy.rules import Operator as Op
from policy.selectors import cidr_labels
from policy.table import PolicyTable

OUT = Direction.EGRESS
WORLD, WIDE, HOLE, POD = 2, 1 << 24 | 1, 1 << 24 | 2, 500
ANY = Selector((Requirement("world", Op.EXISTS, (), "reserved"),))


def table(*parts: DirectionRule, audit: bool = False, deny: bool = True) -> PolicyTable:
    found = PolicyTable(Options())
    found.put_identity(WORLD, Labels.of([Label("world", "", "reserved")]))
    found.put_identity(WIDE, cidr_labels(parse_prefix("10.0.0.0/8")))
    found.put_identity(HOLE, cidr_labels(parse_prefix("10.96.0.0/12")))
    found.put_identity(POD, Labels.of([Label("app", "x")]))
    way = frozenset([OUT]) if deny else frozenset[Direction]()
    rule = PolicyRule(Origin("CNP", "n", "p"), Selector(), parts, way, audit=audit)
    found.put_object("p", [rule])
    found.put_endpoint("a", Subject(Labels.of([Label("app", "x")])))
    found.compute()
    return found


def closes(found: PolicyTable, number: int, other: int) -> bool:
    found.put_displaced({number: other})
    change = found.compute().get("a")
    closed = bool(change and change.error)
    if change and change.error:
        assert "bpf-ipcache-map-max" in change.error
        assert all(entry.deny for entry in found.rows("a").values())
        found.put_displaced({})
        assert not found.compute()["a"].error
    return closed


def peer(prefix: str, *holes: str) -> CidrPeer:
    return CidrPeer(parse_prefix(prefix), tuple(map(parse_prefix, holes)))


def test_a_denied_prefix_without_a_row_closes() -> None:
    """The world is allowed, the prefix is denied, and its addresses are the world's."""
    allow = DirectionRule(OUT, peers=(ANY,))
    deny = DirectionRule(OUT, deny=True, peers=(peer("10.96.0.0/12"),))
    assert closes(table(allow, deny), HOLE, WORLD)
    assert not closes(table(allow, deny), WIDE, WORLD)
    assert closes(table(deny, deny=False), HOLE, WORLD)


def test_a_hole_without_a_row_closes() -> None:
    """It would count as what is around it."""
    allow = DirectionRule(OUT, peers=(peer("10.0.0.0/8", "10.96.0.0/12"),))
    assert closes(table(allow), HOLE, WIDE)
    assert not closes(table(allow), HOLE, WORLD), "what is around it has no row either"


def test_what_is_only_allowed_stays_open() -> None:
    """Its addresses are denied as the world's are, which is told elsewhere; nobody else suffers."""
    allow = DirectionRule(OUT, peers=(peer("10.96.0.0/12"),))
    assert not closes(table(allow), HOLE, WORLD)
    hole = DirectionRule(OUT, deny=True, peers=(peer("10.0.0.0/8", "10.96.0.0/12"),))
    assert not closes(table(hole, deny=False), HOLE, WIDE)


def test_audit_and_other_pods_are_not_closed() -> None:
    """What forbids on paper only, and endpoints of which nothing is said."""
    deny = DirectionRule(OUT, deny=True, peers=(peer("10.96.0.0/12"),))
    assert not closes(table(deny, audit=True, deny=False), HOLE, WORLD)
    assert not closes(table(), 0, WORLD)


def test_pods_of_a_cluster_are_not_the_world() -> None:
    """Whose pod prefix has no row: closed where the world may pass and a rule speaks."""
    assert closes(table(DirectionRule(OUT, peers=(ANY,))), 0, WORLD)
    assert closes(table(DirectionRule(OUT, peers=None)), 0, WORLD)
    pods = Selector((Requirement("app", Op.EXISTS),))
    assert not closes(table(DirectionRule(OUT, peers=(pods,))), 0, WORLD)

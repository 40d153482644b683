"""Compiled maps say of every packet what the oracle says, also after any series of changes."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.address import parse_prefix
from model.labels import Label, Labels
from model.policy_map import Direction, PolicyEntry, PolicyKey
from policy.cidr_modes import CidrMode
from policy.known import CidrGroup, Mode, Options, PolicyService, Subject
from policy.oracle import Packet, Verdict, applies, lookup, verdict
from policy.ports import Block, blocks
from policy.rules import (
    CidrGroupPeer,
    CidrPeer,
    DirectionRule,
    Operator,
    Origin,
    PolicyRule,
    PortRange,
    Requirement,
    Selector,
    ServicePeer,
)
from policy.selectors import cidr_labels, inner_labels
from policy.table import PolicyTable

PREFIXES = [parse_prefix(p) for p in ("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.1.1/32")]
POD = {
    number: Labels.of([Label("app", app), Label("ns", ns)])
    for number, (app, ns) in enumerate(itertools.product("abc", "xy"), 256)
}
PEERS = {
    1: Labels.of([Label("host", "", "reserved")]),
    2: Labels.of([Label("world", "", "reserved")]),
    **POD,
    **{(1 << 24) + i: cidr_labels(prefix) for i, prefix in enumerate(PREFIXES, 1)},
}
INNER = {prefix: (3 << 24) + i for i, prefix in enumerate(PREFIXES, 1)}
WORLD = {**PEERS, **{number: inner_labels(prefix) for prefix, number in INNER.items()}}
ENDPOINTS = {
    "one": Subject(POD[256], (("web", 6, 80),)),
    "two": Subject(POD[256], (("web", 6, 80),)),
    "other": Subject(POD[259], (("web", 6, 81),)),
    "node": Subject(Labels.of([Label("app", "a")]), is_host=True),
    "init": Subject(Labels.of([Label("init", "", "reserved")])),
}

keys = st.sampled_from(["app", "ns", "world", "host", "init"])
requirements = st.builds(
    Requirement,
    keys,
    st.sampled_from(list(Operator)),
    st.sampled_from([("a",), ("a", "b"), ("x",), ("",)]),
    st.sampled_from(["any", "k8s", "reserved"]),
)
selectors = st.builds(Selector, st.lists(requirements, max_size=2).map(tuple))
prefixes = st.sampled_from(PREFIXES)
holes = st.lists(prefixes, max_size=2).map(tuple)
peers = st.one_of(
    selectors,
    st.builds(CidrPeer, prefixes, holes),
    st.builds(CidrGroupPeer, st.sampled_from(["g", "none"]), st.none() | selectors, holes),
    st.builds(ServicePeer, st.sampled_from(["", "n"]), st.sampled_from(["s", "t"]), st.none()),
)
edges = st.sampled_from([0, 1, 2, 3, 79, 80, 81, 8080, 65534, 65535])
ranges = st.builds(
    PortRange, st.sampled_from([1, 6, 17]), edges, edges, st.sampled_from(["", "", "web"])
)
parts = st.builds(
    DirectionRule,
    st.sampled_from(list(Direction)),
    st.booleans(),
    st.none() | st.lists(peers, max_size=2).map(tuple),
    st.none() | st.lists(ranges, max_size=2).map(tuple),
    st.sampled_from(["", "", "", "http"]),
)
rules = st.builds(
    PolicyRule,
    st.builds(Origin, st.just("CNP"), st.just("n"), st.sampled_from("pqr")),
    selectors,
    st.lists(parts, max_size=3).map(tuple),
    st.frozensets(st.sampled_from(list(Direction))),
    st.booleans(),
    st.booleans(),
    st.sampled_from([False] * 7 + [True]),
)
objects = st.lists(rules, max_size=3).map(tuple)
options = st.builds(
    Options,
    st.sampled_from([Mode.DEFAULT] * 3 + [Mode.ALWAYS, Mode.NEVER]),
    st.booleans(),
    st.sampled_from([False, False, True]),
    st.frozensets(st.sampled_from(list(CidrMode))),
)
groups = st.builds(
    CidrGroup,
    st.lists(prefixes, max_size=2).map(tuple),
    st.just(Labels.of([Label("app", "a", "cidrgroup")])),
)
services = st.builds(
    PolicyService, st.just(Labels()), st.none() | selectors, st.lists(prefixes, max_size=1)
)
changes = st.one_of(
    st.tuples(st.just("object"), st.sampled_from("pqr"), objects),
    st.tuples(st.just("identity"), st.sampled_from(list(WORLD)), st.just(None)),
    st.tuples(st.just("no identity"), st.sampled_from(list(WORLD)), st.just(None)),
    st.tuples(st.just("endpoint"), st.sampled_from(list(ENDPOINTS)), st.none()),
    st.tuples(
        st.just("relabel"), st.sampled_from(list(ENDPOINTS)), st.sampled_from(list(ENDPOINTS))
    ),
    st.tuples(st.just("no endpoint"), st.sampled_from(list(ENDPOINTS)), st.none()),
    st.tuples(st.just("group"), st.just("g"), st.none() | groups),
    st.tuples(st.just("service"), st.just("s"), st.none() | services),
    st.tuples(st.just("name"), st.just("web"), st.sampled_from([(), (80,), (80, 81)])),
)
packets = st.tuples(
    st.sampled_from(list(Direction)),
    st.sampled_from(list(PEERS)),
    st.sampled_from([1, 6, 17]),
    edges,
    prefixes,
)


def apply(table: PolicyTable, change: tuple) -> None:
    kind, key, value = change
    match kind:
        case "object":
            table.put_object(key, value)
        case "identity":
            table.put_identity(key, WORLD[key])
        case "no identity":
            table.drop_identity(key)
        case "endpoint":
            table.put_endpoint(key, ENDPOINTS[key])
        case "relabel":
            table.put_endpoint(key, ENDPOINTS[value])
        case "no endpoint":
            table.drop_endpoint(key)
        case "group":
            table.put_group(key, value)
        case "service":
            table.put_service("n", key, value)
        case "name":
            table.put_port_name(key, 6, value)


def held_against_oracle(table: PolicyTable, name: str, subject: Subject, packet: tuple) -> None:
    way, identity, protocol, port, around = packet
    address = table.options.selected_by(identity, around)
    beside = INNER[address] if address is not None else None
    said, entry = lookup(table.rows(name), way, identity, protocol, port, beside)
    meant = verdict(
        table.known,
        table.rules(),
        subject,
        way,
        Packet(identity, WORLD[identity], protocol, port, address),
        table.options,
    )
    # What audit forbids to labels and another rule allows to the address passes untold.
    untold = beside is not None and (said, meant.verdict) == (Verdict.ALLOWED, Verdict.AUDITED)
    assert said is meant.verdict or untold
    if entry is not None and entry.rule:
        rule = table.rule(entry.rule)
        assert rule is not None
        assert applies(rule, subject)


@settings(max_examples=100, deadline=None)
@given(options, st.lists(st.tuples(st.sampled_from("pqr"), objects), max_size=3), st.data())
def test_map_is_the_oracle(chosen: Options, found: list, data: st.DataObject) -> None:
    """For random rules, every sampled packet of every endpoint gets the oracle's verdict."""
    table = PolicyTable(chosen)
    table.put_identities(WORLD)
    table.put_group("g", CidrGroup((PREFIXES[1],), Labels.of([Label("app", "a", "cidrgroup")])))
    table.put_service(
        "n", "s", PolicyService(pods=Selector((Requirement("app", Operator.IN, ("b",)),)))
    )
    table.put_service("n", "t", PolicyService(addresses=(PREFIXES[3],)))
    table.put_port_name("web", 6, (80,))
    for key, value in found:
        table.put_object(key, value)
    for name, subject in ENDPOINTS.items():
        table.put_endpoint(name, subject)
    table.compute()
    for packet in data.draw(st.lists(packets, min_size=8, max_size=8)):
        for name, subject in ENDPOINTS.items():
            held_against_oracle(table, name, subject, packet)


@settings(max_examples=100, deadline=None)
@given(options, st.lists(st.lists(changes, max_size=4), max_size=6), st.data())
def test_changes_end_where_a_fresh_start_ends(
    chosen: Options, steps: list, data: st.DataObject
) -> None:
    """Applying what `compute` tells, in any order of events, gives what computing anew gives."""
    table = PolicyTable(chosen)
    kernel: dict[str, dict[PolicyKey, PolicyEntry]] = {}
    state: dict[tuple, tuple] = {}
    endpoints: dict[str, Subject] = {}
    identities: set[int] = set()
    for step in steps:
        for change in step:
            apply(table, change)
            kind, key, value = change
            if kind == "endpoint":
                endpoints[key] = ENDPOINTS[key]
            elif kind == "relabel":
                endpoints[key] = ENDPOINTS[value]
            elif kind == "no endpoint":
                endpoints.pop(key, None)
                kernel.pop(key, None)
            elif kind == "identity":
                identities.add(key)
            elif kind == "no identity":
                identities.discard(key)
            else:
                state[kind, key] = change
        for name, told in table.compute().items():
            rows = kernel.setdefault(name, {})
            assert told.drop <= rows.keys()
            assert all(rows.get(k) != e for k, e in told.put.items())
            for key in told.drop:
                del rows[key]
            rows.update(told.put)
    fresh = PolicyTable(chosen)
    fresh.put_identities({n: WORLD[n] for n in identities})
    for change in state.values():
        apply(fresh, change)
    for name, subject in endpoints.items():
        fresh.put_endpoint(name, subject)
    fresh.compute()
    assert kernel.keys() == endpoints.keys()
    for name in endpoints:
        assert _meant(table, kernel[name]) == _meant(fresh, fresh.rows(name))
    for packet in data.draw(st.lists(packets, min_size=4, max_size=4)):
        for name, subject in endpoints.items():
            if {packet[1], INNER[packet[4]]} <= identities:
                held_against_oracle(table, name, subject, packet)


def _meant(table: PolicyTable, rows: dict[PolicyKey, PolicyEntry]) -> dict:
    """Rows without numbers, which depend on history."""
    return {key: (entry.deny, entry.audit, bool(entry.rule)) for key, entry in rows.items()}


EFFECTS = [(False, False), (True, False), (True, True), (False, True)]  # (deny, audit)
SPANS = [None, (0, 65535), (80, 80), (80, 87)]
WHO = [None, Selector((Requirement("app", Operator.IN, ("a",)),))]


@pytest.mark.parametrize("starts", [frozenset(), frozenset(Direction)])
@pytest.mark.parametrize("first", list(itertools.product(EFFECTS, SPANS, WHO)))
def test_small_world_in_full(starts: frozenset, first: tuple) -> None:
    """Any two rules, of deny, audit, span and peer, with default deny or not: all packets."""
    subject = Subject(POD[259])
    for second in itertools.product(EFFECTS, SPANS, WHO):
        table = PolicyTable(Options())
        table.put_identities(POD)
        table.put_object("p", [_rule(first, starts), _rule(second, frozenset())])
        table.put_endpoint("e", subject)
        table.compute()
        for packet in itertools.product(
            [Direction.INGRESS], [256, 259], [6, 17], [79, 80, 81, 87, 88]
        ):
            way, identity, protocol, port = packet
            meant = verdict(
                table.known,
                table.rules(),
                subject,
                way,
                Packet(identity, POD[identity], protocol, port),
                table.options,
            )
            assert lookup(table.rows("e"), way, identity, protocol, port)[0] is meant.verdict


NETWORKS = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.1.1/32", "::/0", "2001:db8::/32"]
REACHES = [(0, 65535), (80, 87)]


@pytest.mark.parametrize("starts", [frozenset(), frozenset(Direction)])
@pytest.mark.parametrize("first", NETWORKS)
def test_small_world_of_prefixes_in_full(starts: frozenset, first: str) -> None:
    """Any two rules of prefix, hole, deny and reach, with default deny or not: all packets."""
    shapes = list(itertools.product([False, True], REACHES, [None, "10.1.0.0/16"]))
    for second, left, right in itertools.product(NETWORKS, shapes, shapes):
        rules = [_cidr_rule(first, left, starts), _cidr_rule(second, right, frozenset())]
        table = PolicyTable(Options())
        table.put_object("p", rules)
        numbers = dict(enumerate(sorted(table.prefixes()), (1 << 24) + 1))
        for number, prefix in numbers.items():
            table.put_identity(number, cidr_labels(prefix))
        table.put_endpoint("e", Subject(POD[259]))
        table.compute()
        for number, (protocol, port) in itertools.product(numbers, [(6, 80), (6, 87), (17, 80)]):
            packet = Packet(number, cidr_labels(numbers[number]), protocol, port)
            meant = verdict(
                table.known, rules, Subject(POD[259]), Direction.EGRESS, packet, table.options
            )
            said = lookup(table.rows("e"), Direction.EGRESS, number, protocol, port)[0]
            assert said is meant.verdict


def _cidr_rule(network: str, shape: tuple, starts: frozenset) -> PolicyRule:
    deny, reach, hole = shape
    peer = CidrPeer(parse_prefix(network), () if hole is None else (parse_prefix(hole),))
    part = DirectionRule(Direction.EGRESS, deny, (peer,), (PortRange(6, *reach),))
    return PolicyRule(Origin("CNP", "n", "p"), Selector(), (part,), starts)


def _rule(chosen: tuple, starts: frozenset) -> PolicyRule:
    (deny, audit), span, who = chosen
    part = DirectionRule(
        Direction.INGRESS,
        deny,
        None if who is None else (who,),
        None if span is None else (PortRange(6, *span),),
    )
    return PolicyRule(Origin("CNP", "n", "p"), Selector(), (part,), starts, audit=audit)


@given(edges, edges)
def test_blocks_are_exactly_the_range(first: int, last: int) -> None:
    """Every port of the range is in one block, and no other port is."""
    found = blocks(6, first, last)
    for port in {0, 1, 2, 78, 79, 80, 81, 82, 65534, 65535, first, last}:
        inside = sum(block.covers(Block(6, port, 24)) for block in found)
        assert inside == (first <= port <= max(first, last))


def test_ranges_of_the_reference() -> None:
    """As few blocks as CIDRs would take."""
    assert blocks(6, 8080, 8090) == (Block(6, 8080, 21), Block(6, 8088, 23), Block(6, 8090, 24))
    assert len(blocks(6, 1, 1024)) == 11
    assert len(blocks(6, 1, 65535)) == 16
    assert blocks(6, 0, 65535) == (Block(6, 0, 8),)


def test_a_map_too_large_is_closed() -> None:
    """More rows than a map holds: nothing passes, and it is said why; it opens again."""
    table = PolicyTable(Options(), limit=5)
    table.put_identities(POD)
    part = DirectionRule(Direction.INGRESS, peers=(Selector(),), ports=(PortRange(6, 80, 80),))
    rule = PolicyRule(Origin("CNP", "n", "p"), Selector(), (part,), frozenset([Direction.INGRESS]))
    table.put_object("p", [rule])
    table.put_endpoint("e", Subject(POD[256]))
    told = table.compute()["e"]
    assert "9 rows" in told.error
    for way in Direction:
        assert lookup(table.rows("e"), way, 257, 6, 80)[0] is Verdict.DENIED
    table.drop_object("p")
    told = table.compute()["e"]
    assert not told.error
    assert lookup(table.rows("e"), Direction.INGRESS, 257, 6, 80)[0] is Verdict.ALLOWED


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(WORLD)), st.booleans()), min_size=1), objects)
def test_identities_come_and_go_under_rules(steps: list, found: tuple) -> None:
    """With rules in force, one identity at a time: its rows alone change, and rightly."""
    open_rule = PolicyRule(
        Origin("CNP", "n", "o"),
        Selector(),
        (DirectionRule(Direction.INGRESS, peers=(WHO[1],), ports=(PortRange(6, 80, 80),)),),
        frozenset([Direction.INGRESS]),
    )
    table = PolicyTable(Options())
    table.put_object("o", [open_rule])
    table.put_object("p", found)
    table.put_endpoint("one", ENDPOINTS["one"])
    table.put_endpoint("other", ENDPOINTS["other"])
    table.compute()
    present: set[int] = set()
    for identity, comes in steps:
        (present.add if comes else present.discard)(identity)
        apply(table, ("identity" if comes else "no identity", identity, None))
        for told in table.compute().values():
            assert {key.identity for key in (*told.put, *told.drop)} == {identity}
        fresh = PolicyTable(Options())
        fresh.put_identities({n: WORLD[n] for n in present})
        fresh.put_object("o", [open_rule])
        fresh.put_object("p", found)
        fresh.put_endpoint("one", ENDPOINTS["one"])
        fresh.put_endpoint("other", ENDPOINTS["other"])
        fresh.compute()
        for name in ("one", "other"):
            assert _meant(table, table.rows(name)) == _meant(fresh, fresh.rows(name))

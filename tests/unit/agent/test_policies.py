"""The agent's policy table: when identities become known, prefixes' numbers, what is forgotten."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from agent.api_server import ApiServer
from agent.endpoint_store import Endpoint
from agent.known import KnownIdentities
from agent.mesh_state import MeshState
from agent.policies import IDENTITY_REST_S, PREFIX_REST_S, OwnNode, Policies
from agent.staged_rules import ROUNDS
from model.address import Prefix, host_prefix, parse_address, parse_prefix
from model.cluster import ClusterId, ClusterName
from model.endpoint import EndpointId, LocalEndpoint
from model.identity import Identity, NumericIdentity
from model.labels import Label, Labels
from model.node import INTERNAL_IP, Node, NodeAddress, NodeName
from model.policy_map import UNKNOWN_IDENTITY, Direction, PolicyEntry, PolicyKey
from model.service import Selection
from policy.cidr_modes import CidrMode
from policy.known import CidrGroup, Mode, Options
from policy.oracle import lookup
from policy.rules import CidrGroupPeer, CidrPeer, DirectionRule, Origin, PolicyRule, Selector
from policy.table import PolicyTable

IN = Direction.INGRESS
OWN = ClusterName("alpha")
BETA = ClusterName("beta")


def labels(app: str) -> Labels:
    return Labels.of([Label("app", app)])


def endpoint(number: int, identity: int, app: str) -> Endpoint:
    local = LocalEndpoint(
        EndpointId(number),
        NumericIdentity(identity),
        number,
        f"lxc{number}",
        b"",
        b"",
        (parse_address(f"10.1.0.{number}"),),
    )
    return Endpoint(local, Identity(local.identity, labels(app)), "c", "eth0", "ns", "default", app)


class World:
    def __init__(
        self,
        directory: Path,
        mode: Mode = Mode.DEFAULT,
        families: tuple[int, ...] = (4,),
        modes: frozenset[CidrMode] = frozenset(),
    ) -> None:
        self.now_s = 100.0
        self.mesh = MeshState(OWN, NodeName("me"), Selection.RANDOM)
        self.mine: list[Endpoint] = []
        self.policies = Policies(
            PolicyTable(Options(mode, cidr_modes=modes)),
            self.mesh,
            KnownIdentities(),
            lambda: self.mine,
            lambda namespace, pod: (),
            ApiServer(self.mesh, NodeName("me")),
            directory / "numbers.json",
            lambda: self.now_s,
            OwnNode(families=frozenset(families)),
        )

    def add(self, found: Endpoint) -> None:
        self.mine.append(found)
        self.policies.endpoint_changed(None, found)

    def cidr_rule(self, *prefixes: str) -> None:
        peers = tuple(CidrPeer(parse_prefix(p)) for p in prefixes)
        part = DirectionRule(Direction.EGRESS, peers=peers)
        rule = PolicyRule(
            Origin("CNP", "n", "p"), Selector(), (part,), frozenset([Direction.EGRESS])
        )
        self.policies.table.put_object("p", [rule] if prefixes else [])

    def round(self) -> set[EndpointId]:
        found = self.policies.refresh()
        self.policies.written()
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_nothing_before_the_start(world: World) -> None:
    """No endpoint has rows before every input has spoken, and nobody is refused meanwhile."""
    world.add(endpoint(5, 300, "web"))
    assert world.round() == set()
    assert world.policies.get(EndpointId(5)) is None
    assert 12345 in world.policies.known
    world.policies.start()
    assert world.round() == {5}
    rows = world.policies.get(EndpointId(5))
    assert rows is not None
    assert PolicyKey(UNKNOWN_IDENTITY, IN) in rows
    assert 12345 not in world.policies.known


def _prefixes_in_ipcache(world: World) -> set[str]:
    return {str(prefix) for prefix, _ in world.mesh.ipcache.items()}


def test_prefixes_of_the_node_s_families(tmp_path: Path) -> None:
    """A rule's IPv6 prefix is no row of a node of IPv4; `::/0` brings the rest of IPv4 with it."""
    for families, wanted in (
        ((4,), {"10.9.0.0/16", "0.0.0.0/0"}),
        ((4, 6), {"10.9.0.0/16", "0.0.0.0/0", "2001:db8::/32", "::/0"}),
    ):
        world = World(tmp_path / str(len(families)), families=families)
        world.policies.start()
        world.cidr_rule("10.9.0.0/16", "2001:db8::/32", "::/0")
        world.round()
        assert _prefixes_in_ipcache(world) == wanted


def test_known_after_the_rows_are_written(world: World) -> None:
    """Also when it was told while rows were being written: those knew nothing of it."""
    world.policies.start()
    world.round()
    world.mesh.identities.put(NumericIdentity(131072), BETA, labels("far"))
    world.policies.refresh()
    world.mesh.identities.put(NumericIdentity(131073), BETA, labels("later"))
    world.policies.written()
    assert 131072 in world.policies.known
    assert 131073 not in world.policies.known
    world.round()
    assert 131073 in world.policies.known


def test_forgotten_late(world: World) -> None:
    """Unknown at once, but its rows stay until no address has it any more; told again, they do."""
    selector = Selector()
    rule = PolicyRule(
        Origin("CNP", "n", "p"), selector, (DirectionRule(IN, peers=(selector,)),), frozenset([IN])
    )
    far = NumericIdentity(131072)
    world.add(endpoint(5, 300, "web"))
    world.mesh.identities.put(far, BETA, labels("far"))
    world.policies.table.put_object("p", [rule])
    world.policies.start()
    world.round()
    for again in (True, False):
        world.mesh.identities.drop(far, BETA)
        assert far not in world.policies.known
        if again:
            world.mesh.identities.put(far, BETA, labels("far"))
        world.now_s += IDENTITY_REST_S - 1
        world.round()
        assert PolicyKey(far, IN) in (world.policies.get(EndpointId(5)) or {})
        world.now_s += 2
        world.round()
        assert (PolicyKey(far, IN) in (world.policies.get(EndpointId(5)) or {})) is again


def test_prefixes_have_numbers_that_last(world: World, tmp_path: Path) -> None:
    """In the ipcache after their rows; the same after a restart; gone with the rule, later the
    identity."""
    web = parse_prefix("192.0.2.0/24")
    world.policies.start()
    world.cidr_rule("192.0.2.0/24", "198.51.100.0/24", "2001:db8::/32")
    world.policies.refresh()
    assert world.mesh.ipcache.get(web) is None
    world.policies.written()
    row = world.mesh.ipcache.get(web)
    assert row is not None
    assert row.identity > 1 << 24
    assert row.identity in world.policies.known
    assert world.mesh.ipcache.get(parse_prefix("2001:db8::/32")) is None

    later = World(tmp_path)
    later.cidr_rule("192.0.2.0/24")
    later.policies.start()
    later.round()
    assert later.mesh.ipcache.get(web) == row
    later.cidr_rule()
    later.round()
    assert later.mesh.ipcache.get(web) is None
    assert later.policies.rests_until_s() == later.now_s + PREFIX_REST_S


def test_an_endpoint_of_ours_is_known_by_itself(world: World) -> None:
    """Its labels need no object; when it goes, they do too."""
    world.policies.start()
    pod = endpoint(5, 300, "web")
    world.add(pod)
    assert world.round() == {5}
    assert 300 in world.policies.known
    world.mine.clear()
    world.policies.endpoint_changed(pod, None)
    assert world.policies.get(EndpointId(5)) is None
    assert 300 not in world.policies.known


def test_never_has_no_rows(tmp_path: Path) -> None:
    """And refuses nobody."""
    world = World(tmp_path, Mode.NEVER)
    world.add(endpoint(5, 300, "web"))
    world.policies.start()
    world.round()
    assert list(world.policies.items()) == []
    assert 12345 in world.policies.known


def node(name: str, address: str) -> Node:
    at = NodeAddress(INTERNAL_IP, parse_address(address))
    return Node(OWN, NodeName(name), ClusterId(0), (at,))


def test_the_api_server_is_who_it_is(world: World) -> None:
    """The host here, identity 7 on another node, an address with its label outside; a node that
    comes later is found too."""
    here, there, away = map(parse_address, ("192.0.2.1", "192.0.2.2", "203.0.113.7"))
    world.mesh.nodes.put(node("me", "192.0.2.1"))
    table, server = world.policies.table, world.policies.api_server
    world.mesh.on_prefixes = lambda them: world.policies.prefixes_changed(them, ())
    world.policies.start()
    server.moved(frozenset({here}))
    world.round()
    assert "reserved:kube-apiserver" in (table.labels(1) or Labels()).strings()
    server.moved(frozenset({there, away}))
    world.round()
    assert (table.labels(1) or Labels()).strings() == ["reserved:host"]
    for address in (there, away):
        row = world.mesh.ipcache.get(host_prefix(address))
        assert row is not None
        found = (table.labels(row.identity) or Labels()).strings()
        assert {"reserved:kube-apiserver", "reserved:world"} <= set(found)
        assert f"cidr:{address}/32" in found
    world.mesh.nodes.put(node("other", "192.0.2.2"))
    world.round()
    row = world.mesh.ipcache.get(host_prefix(there))
    assert row is not None
    assert row.identity == 7
    world.mesh.nodes.drop(OWN, NodeName("other"))
    world.round()
    row = world.mesh.ipcache.get(host_prefix(there))
    assert row is not None
    assert row.identity > 1 << 24


@pytest.mark.parametrize("modes", [frozenset(), frozenset(CidrMode)])
@pytest.mark.parametrize("seed", range(60))
def test_no_moment_is_neither_old_nor_new(
    tmp_path: Path, seed: int, modes: frozenset[CidrMode]
) -> None:
    """Rules of prefixes change: in each moment of the kernel every address is judged as before or
    as after; nothing passes in between."""
    chance = Random(seed)
    world = World(tmp_path, modes=modes)
    world.add(endpoint(5, 300, "web"))
    world.policies.start()
    cidrs = ("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.2.0.0/16")
    addresses = ("10.1.1.1", "10.1.2.1", "10.2.0.1", "10.3.0.1", "192.0.2.1")
    rules = world.policies.rules

    def rule(name: str) -> PolicyRule:
        parts = tuple(
            DirectionRule(
                Direction.EGRESS,
                deny=chance.random() < 0.5,
                peers=(CidrPeer(parse_prefix(chance.choice(cidrs))),),
            )
            for _ in range(chance.randint(1, 2))
        )
        return PolicyRule(Origin("CNP", "n", name), Selector(), parts, frozenset(Direction))

    kernel = _Kernel(world)
    rules.put_object("p", [rule("p")])
    settle(kernel)
    for _ in range(4):
        before = {a: kernel.passes(a) for a in addresses}
        rules.put_object(chance.choice("pq"), [rule("r")] if chance.random() < 0.8 else [])
        seen = [{a: kernel.passes(a) for a in addresses} for _ in kernel.moments()]
        after = {a: kernel.passes(a) for a in addresses}
        assert not rules.waiting
        for moment in seen:
            assert all(moment[a] in (before[a], after[a]) for a in addresses), seed
        world.now_s += PREFIX_REST_S + 1
        settle(kernel)
        assert after == {a: kernel.passes(a) for a in addresses}


class _Kernel:
    """What the programs have: written as the agent's tables are, one after the other."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rows: dict[PolicyKey, PolicyEntry] = {}
        self.ipcache: dict[Prefix, int] = {}
        self.inner: dict[Prefix, int] = {}

    def moments(self) -> Iterator[None]:
        """Rounds until nothing waits; yields after each write that programs may see."""
        policies = self.world.policies
        for _ in range(4):
            policies.refresh()
            self.rows = dict(policies.get(EndpointId(5)) or {})
            yield
            policies.written()
            self.inner |= policies.cidr_rules.rows
            yield
            wanted = {p: int(row.identity) for p, row in self.world.mesh.ipcache.items()}
            self.ipcache |= wanted
            yield
            self.ipcache = wanted
            yield
            self.inner = dict(policies.cidr_rules.rows)
            yield

    def passes(self, text: str) -> bool:
        """As the world's, and as a pod's where rules of prefixes ask for these."""
        own = host_prefix(parse_address(text))
        by_address = self.world.policies.table.options.cidr_modes
        table = self.inner if by_address else self.ipcache
        around = max((p for p in table if p.covers(own)), key=lambda p: p.length, default=None)
        who = table[around] if around is not None else None
        if by_address:
            found = lookup(self.rows, Direction.EGRESS, 131072, 6, 80, who)
        else:
            found = lookup(self.rows, Direction.EGRESS, 2 if who is None else who, 6, 80)
        return found[0].passes


def settle(kernel: _Kernel) -> None:
    for _ in kernel.moments():
        pass


def test_rules_are_told_when_the_table_has_them(world: World) -> None:
    """Not while they wait for their round, or whoever is told finds none; and once."""
    rule = PolicyRule(Origin("CNP", "n", "p"), Selector(), (), frozenset([IN]))
    told: list[list[PolicyRule]] = []
    world.policies.handed_on = lambda: told.append(world.policies.table.rules())
    world.add(endpoint(5, 300, "web"))
    world.policies.start()
    world.round()
    world.policies.rules.put_object("p", [rule])
    assert told == []
    world.round()
    world.round()
    assert [list(found) for found in told] == [[rule]]


def test_a_revision_is_in_force_with_its_rules(world: World) -> None:
    """Not while a new prefix is only made known; a group's prefixes are made known as well."""
    world.add(endpoint(5, 300, "web"))
    world.policies.start()
    world.round()
    group = CidrGroup((parse_prefix("10.9.0.0/16"),))
    peers = (CidrGroupPeer("g"), CidrPeer(parse_prefix("10.8.0.0/16")))
    part = DirectionRule(Direction.EGRESS, peers=peers)
    rule = PolicyRule(Origin("CNP", "n", "p"), Selector(), (part,), frozenset(Direction))
    rules, policies = world.policies.rules, world.policies
    for put in (lambda: rules.put_object("p", [rule]), lambda: rules.put_group("g", group)):
        put()
        policies.objects_changed()
        world.round()
        assert policies.realized_revision < policies.revision
        world.round()
        assert policies.realized_revision == policies.revision
    assert _prefixes_in_ipcache(world) == {"10.8.0.0/16", "10.9.0.0/16"}
    more = DirectionRule(Direction.EGRESS, peers=(CidrPeer(parse_prefix("10.7.0.0/16")),))
    rules.put_object("q", [replace(rule, rules=(more,))])
    for _ in range(ROUNDS):
        assert rules.waiting
        policies.refresh()  # the rows of some endpoint cannot be written
    assert not rules.waiting

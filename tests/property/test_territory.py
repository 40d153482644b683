"""Peers are not trusted: any history ends in what a naive judge makes of the last records."""

import random
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.mesh_state import MeshState
from mesh.blocks import SEVERAL_LENGTH, Blocks
from mesh.guard import Covering
from mesh.ipcache import Claimant, IpClaim
from mesh.problems import Violation
from model.address import Prefix, host_prefix, make_address, parse_address, parse_prefix
from model.cluster import ClusterId, ClusterName
from model.identity import NumericIdentity
from model.ipcache import IpcacheEntry, Source
from model.local_service import LocalService, MeshSettings
from model.node import INTERNAL_IP, Node, NodeAddress, NodeName
from model.service import L4, Protocol, Selection, ServiceName, SharedService
from tests.support.addresses import truncated

OWN = ClusterName("alpha")
PEERS = {ClusterName("beta"): ClusterId(2), ClusterName("gamma"): ClusterId(3)}
HOSTS = [parse_address(f"192.0.2.{n}") for n in range(4)]
CIDRS = [
    parse_prefix(t)
    for t in (
        *("10.1.0.0/24", "10.1.0.0/30", "10.2.0.0/23", "10.2.1.0/24"),
        *("fd00:1::/64", "fd00:1::/112", "fd00::/46"),
    )
]
WIDE = [parse_prefix(t) for t in ("0.0.0.0/1", "fd00::/31")]
SHORTEST = {4: 8, 6: 32}
PODS = [
    *(host_prefix(parse_address(t)) for t in ("10.1.0.1", "10.1.0.9", "10.2.0.7", "10.2.1.7")),
    *(host_prefix(a) for a in HOSTS),
    parse_prefix("10.2.1.0/25"),
    *(host_prefix(parse_address(t)) for t in ("fd00:1::9", "fd00:1::1:0", "fd00:2::7")),
]
NAME = ServiceName("default", "web")
VIPS = [parse_address("10.2.0.7"), parse_address("10.96.0.1")]


def step(rng: random.Random) -> tuple[str, Any, Any, Any]:
    """Something happens; mostly records come, seldom clusters leave."""
    peer = rng.choice(list(PEERS))
    word = rng.choice(["node"] * 5 + ["ip"] * 6 + ["service"] * 2 + ["ours", "listed"])
    gone = rng.random() < 0.25
    match word:
        case "node":
            cluster = rng.choice([OWN, *PEERS, *PEERS])
            cidrs = rng.sample(CIDRS, rng.randint(0, 2))
            cidrs += rng.sample(WIDE, rng.random() < 0.1)
            host = rng.choice(HOSTS)
            return word, cluster, rng.choice(["n1", "n2"]), None if gone else (host, cidrs)
        case "ip":
            value = rng.choice([None, *HOSTS * 2]), rng.choice([7, *[131400] * 5])
            return word, peer, rng.choice(PODS), None if gone else value
        case "service":
            addresses = [p.network_address for p in rng.sample(PODS[:6], 3)]
            return word, peer, "", None if gone else addresses
        case "ours":
            return word, OWN, rng.choice(VIPS), rng.random() < 0.3
        case _:
            return rng.choice(["listed", "listed", "leave"]), peer, "", None


def made(cluster: ClusterName, name: str, value: Any) -> Node:
    host, cidrs = value
    number = PEERS.get(cluster, ClusterId(1))
    addresses = (NodeAddress(INTERNAL_IP, host),)
    return Node(cluster, NodeName(name), number, addresses, tuple(cidrs))


class World:
    """The last records, and what a naive judge makes of them."""

    def __init__(self) -> None:
        self.nodes: dict[tuple[ClusterName, str], Node] = {}
        self.ips: dict[tuple[ClusterName, Prefix], Any] = {}
        self.services: dict[ClusterName, list[Any]] = {}
        self.vips: dict[Any, bool] = {}

    def spoken(self, node: Node) -> list[Prefix]:
        return [*(host_prefix(a.ip) for a in node.addresses), *node.pod_cidrs]

    def ours(self) -> list[Prefix]:
        found = [p for n in self.nodes.values() if n.cluster == OWN for p in self.spoken(n)]
        return [*found, *(host_prefix(v) for v, there in self.vips.items() if there)]

    def believed(self) -> list[Node]:
        bad = [*self.ours(), parse_prefix("0.0.0.0/8")]
        return [
            n
            for n in self.nodes.values()
            if n.cluster != OWN
            and all(p.prefixlen >= SHORTEST[p.version] for p in self.spoken(n))
            and not any(p.overlaps(o) for p in self.spoken(n) for o in bad)
        ]

    def speakers(self, what: Prefix) -> set[ClusterName]:
        return {n.cluster for n in self.believed() for p in self.spoken(n) if p.covers(what)}

    def heard(self) -> list[Node]:
        return [
            n
            for n in self.believed()
            if all(min(self.speakers(p)) == n.cluster for p in self.spoken(n))
        ]

    def may(self, cluster: ClusterName, what: Prefix) -> bool:
        if any(what.overlaps(o) for o in self.ours()):
            return False
        speakers = self.speakers(what)
        return cluster in speakers and cluster == min(speakers)

    def peers_rows(self) -> dict[Prefix, tuple[int, Any, int]]:
        """What is in force by the word of peers; where nodes and addresses compete, addresses are
        the older claim (no origin) and the node's name is the tie-break."""
        rows: dict[Prefix, dict[ClusterName, list[Any]]] = {}
        for node in self.heard():
            host = node.addresses[0].ip
            number = PEERS[node.cluster]
            for prefix, row in [
                (host_prefix(host), IpcacheEntry(NumericIdentity(6), None, 0, number)),
                *((c, IpcacheEntry(NumericIdentity(0), host, 0, number)) for c in node.pod_cidrs),
            ]:
                if self.may(node.cluster, prefix):
                    found = rows.setdefault(prefix, {}).setdefault(node.cluster, [])
                    found.append((f"node/{node.name}", row))
        for (cluster, prefix), (host, identity) in self.ips.items():
            hosts = [n.addresses[0].ip for n in self.heard() if n.cluster == cluster]
            if self.may(cluster, prefix) and (host is None or host in hosts) and identity != 7:
                row = IpcacheEntry(NumericIdentity(identity), host, 0, PEERS[cluster])
                rows.setdefault(prefix, {}).setdefault(cluster, []).append(("", row))
        return {p: max(by[min(by)], key=lambda pair: pair[0])[1] for p, by in rows.items()}

    def shared(self) -> set[tuple[ClusterName, Prefix]]:
        """Pod CIDRs of two nodes or more of one cluster."""
        ours = [n for n in self.nodes.values() if n.cluster == OWN]
        count = Counter((n.cluster, c) for n in (*ours, *self.heard()) for c in n.pod_cidrs)
        return {key for key, nodes in count.items() if nodes > 1}

    def backends(self) -> set[tuple[Any, ClusterName]]:
        return {
            (address, cluster)
            for cluster, addresses in self.services.items()
            for address in addresses
            if self.may(cluster, host_prefix(address))
        }


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=80)
def test_any_history_ends_as_a_naive_judge_says(seed: int) -> None:
    """In any order of nodes, addresses, services, ours and theirs; and a reader who looks up only
    what was marked agrees."""
    world = World()
    mesh = MeshState(OWN, NodeName("n1"), Selection.RANDOM)
    marked: set[Prefix] = set()
    mesh.on_prefixes = marked.update
    settings_ = MeshSettings(is_global=True)
    ports = {"http": L4(80, Protocol.TCP)}
    consumer = LocalService(NAME, {parse_address("10.97.0.1"): ports}, mesh=settings_)
    mesh.services.set_service(NAME, consumer)
    world.vips[parse_address("10.97.0.1")] = True
    reader: dict[Prefix, Any] = {}
    rng = random.Random(seed)
    for word, cluster, key, value in (step(rng) for _ in range(40)):
        _apply(mesh, world, word, cluster, key, value)
        for prefix in marked:
            row = mesh.ipcache.get(prefix)
            if row is None:
                reader.pop(prefix, None)
            else:
                reader[prefix] = row
        marked.clear()
        rows = dict(mesh.ipcache.items())
        assert {p: r for p, r in rows.items() if r.cluster_id} == world.peers_rows()
        assert reader == rows
        peers = {(n.cluster, n.name) for n in mesh.nodes if n.cluster != OWN}
        assert peers == {(n.cluster, n.name) for n in world.heard()}
        told = {(OWN, prefix) for prefix in mesh.nodes.problems.current}
        for prefix, sentences in mesh.ipcache.problems.current.items():
            kinds = [s for s in sentences if isinstance(s, Violation)]
            told |= {(ClusterName(s.cluster), prefix) for s in kinds if s.kind == "shared-pod-cidr"}
        assert told == world.shared()
        (row,) = [r for f, r in mesh.services.items() if f.address == parse_address("10.97.0.1")]
        assert {(b.address, b.cluster) for b in row.backends} == world.backends()


def _apply(mesh: MeshState, world: World, word: str, cluster: Any, key: Any, value: Any) -> None:
    match word:
        case "node" if value is None:
            mesh.nodes.drop(cluster, NodeName(key))
            world.nodes.pop((cluster, key), None)
        case "node":
            node = made(cluster, key, value)
            mesh.nodes.put(node)
            world.nodes[cluster, key] = node
        case "ip" if value is None:
            mesh.ipcache.drop(key, Claimant(Source.CLUSTERMESH, cluster))
            world.ips.pop((cluster, key), None)
        case "ip":
            host, identity = value
            row = IpcacheEntry(NumericIdentity(identity), host, 0, PEERS[cluster])
            mesh.ipcache.put(key, Claimant(Source.CLUSTERMESH, cluster), IpClaim(row))
            world.ips[cluster, key] = value
        case "service":
            shared = None
            world.services.pop(cluster, None)
            if value is not None:
                ports = {"http": L4(8080, Protocol.TCP)}
                backends = dict.fromkeys(value, ports)
                shared = SharedService(cluster, PEERS[cluster], NAME, {}, backends)
                world.services[cluster] = list(backends)
            mesh.services.set_shared(cluster, NAME, shared)
        case "ours":
            name = ServiceName("default", str(key))
            ports = {"http": L4(80, Protocol.TCP)}
            mesh.services.set_service(name, LocalService(name, {key: ports}) if value else None)
            world.vips[key] = value
        case "listed":
            mesh.nodes_listed(cluster)
        case _:
            mesh.services.drop_cluster(cluster)
            mesh.nodes.drop_cluster(cluster)
            mesh.ipcache.drop_all(lambda c: c.source is Source.CLUSTERMESH and c.cluster == cluster)
            mesh.forget(cluster)
            world.nodes = {k: v for k, v in world.nodes.items() if k[0] != cluster}
            world.ips = {k: v for k, v in world.ips.items() if k[0] != cluster}
            world.services.pop(cluster, None)


PREFIXES = st.builds(
    lambda version, bits, length: (
        truncated(make_address((0x0A000000 | bits).to_bytes(4)), 22 + length)
        if version == 4
        else truncated(make_address(bits.to_bytes(16)), 118 + length)
    ),
    st.sampled_from([4, 6]),
    st.integers(0, 1023),
    st.integers(0, 10),
)


@given(st.lists(st.tuples(st.booleans(), PREFIXES), max_size=40), PREFIXES)
def test_blocks_equal_the_naive_answer(steps: list[tuple[bool, Prefix]], asked: Prefix) -> None:
    """What lies inside a prefix, as a walk over all of them would say."""
    blocks, naive = Blocks(), set()
    for add, prefix in steps:
        if add:
            blocks.add(prefix)
            naive.add(prefix)
        else:
            blocks.discard(prefix)
            naive.discard(prefix)
    inside = {p for p in naive if asked.covers(p)}
    found = blocks.inside(asked)
    assert set(found) == inside
    assert len(found) == len(inside)


@given(st.lists(PREFIXES, max_size=30), PREFIXES)
def test_covering_equals_the_naive_answer(known: list[Prefix], asked: Prefix) -> None:
    """Who contains a prefix, and who lies in it, as a walk over all of them would say."""
    table: Covering[str] = Covering()
    for prefix in known:
        table.set(prefix, str(prefix))
    assert sorted(table.covering(asked)) == sorted({str(p) for p in known if p.covers(asked)})
    assert sorted(table.inside(asked)) == sorted({str(p) for p in known if asked.covers(p)})


@given(st.lists(PREFIXES, max_size=6), st.lists(PREFIXES, max_size=6), PREFIXES)
def test_what_is_apart_shares_no_address(
    known: list[Prefix], gone: list[Prefix], asked: Prefix
) -> None:
    """Up to sixteen blocks the answer is exact; for a wider prefix it is never yes."""
    blocks = Blocks()
    blocks.add_all([*known, *gone])
    for prefix in set(gone) - set(known):
        blocks.discard(prefix)
    shared = any(asked.overlaps(prefix) for prefix in known)
    if asked.length >= SEVERAL_LENGTH:
        assert blocks.apart(asked) == (not shared)
    else:
        assert not blocks.apart(asked)

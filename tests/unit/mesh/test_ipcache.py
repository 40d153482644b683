"""Who has an address when several say so, and what a peer may not say."""

from itertools import permutations

import pytest

from agent.mesh_state import MeshState
from mesh.guard import LocalPrefixes
from mesh.identities import Identities
from mesh.ipcache import Claimant, Ipcache, IpClaim
from mesh.nodes import Nodes
from model.address import Prefix, host_prefix, parse_address, parse_prefix
from model.cluster import ClusterId, ClusterName
from model.identity import NumericIdentity
from model.ipcache import IpcacheEntry, Source
from model.labels import Labels
from model.node import CILIUM_INTERNAL_IP, INTERNAL_IP, Node, NodeAddress, NodeName
from model.service import Selection

OWN = ClusterName("alpha")
ADDRESS = host_prefix(parse_address("10.1.0.5"))


def claim(number: int, host: str | None = "192.0.2.9", born: str = "") -> IpClaim:
    tunnel = parse_address(host) if host else None
    return IpClaim(IpcacheEntry(NumericIdentity(number), tunnel), "default", f"pod{number}", born)


def table() -> tuple[Ipcache, LocalPrefixes, list[Prefix]]:
    told: list[Prefix] = []
    local = LocalPrefixes()
    return Ipcache(local, told.extend), local, told


def identity(found: Ipcache, prefix: Prefix = ADDRESS) -> int | None:
    row = found.get(prefix)
    return row.identity if row else None


def test_local_wins_over_every_peer() -> None:
    """Whatever came first, and the conflict is told with its remedy."""
    found, _, _ = table()
    found.put(ADDRESS, Claimant(Source.CLUSTERMESH, ClusterName("beta")), claim(2))
    found.put(ADDRESS, Claimant(Source.LOCAL, OWN, "endpoint/1"), claim(1, None))
    assert identity(found) == 1
    (sentences,) = found.problems.current.values()
    assert "beta" in sentences[0]
    assert "do not overlap" in sentences[0]
    found.drop(ADDRESS, Claimant(Source.CLUSTERMESH, ClusterName("beta")))
    assert not found.problems.current
    assert found.problems.total == 1


def test_between_peers_the_name_decides() -> None:
    """So that all nodes of this cluster agree."""
    for order in (("beta", "gamma"), ("gamma", "beta")):
        found, _, _ = table()
        for name in order:
            found.put(ADDRESS, Claimant(Source.CLUSTERMESH, ClusterName(name)), claim(len(name)))
        assert identity(found) == len("beta")


def test_the_younger_pod_has_the_address() -> None:
    """An address given to a new pod before the old object is gone is the new one's."""
    found, _, _ = table()
    old = Claimant(Source.CUSTOM_RESOURCE, OWN, "default/old")
    new = Claimant(Source.CUSTOM_RESOURCE, OWN, "default/new")
    found.put(ADDRESS, new, claim(2, born="2026-01-02T00:00:00Z"))
    found.put(ADDRESS, old, claim(1, born="2026-01-01T00:00:00Z"))
    assert identity(found) == 2
    found.drop(ADDRESS, new)
    assert identity(found) == 1


def test_a_peer_has_no_say_in_our_prefixes() -> None:
    """Also when the prefix becomes ours later; when it stops being ours the claim counts."""
    found, local, told = table()
    found.put(ADDRESS, Claimant(Source.CLUSTERMESH, ClusterName("beta")), claim(2))
    assert identity(found) == 2
    local.add(parse_prefix("10.1.0.0/24"))
    told.clear()
    found.recheck(parse_prefix("10.1.0.0/24"))
    assert told == [ADDRESS]
    assert identity(found) is None
    assert dict(found.items()) == {}
    local.remove(parse_prefix("10.1.0.0/24"))
    found.recheck(parse_prefix("10.1.0.0/24"))
    assert identity(found) == 2
    assert not found.problems.current


def test_restored_is_the_weakest() -> None:
    """The last words of a former life give way to anybody who speaks."""
    found, _, _ = table()
    found.put(ADDRESS, Claimant(Source.RESTORED, origin="2"), claim(7))
    assert identity(found) == 7
    found.put(ADDRESS, Claimant(Source.CLUSTERMESH, ClusterName("beta")), claim(2))
    assert identity(found) == 2
    found.drop_all(lambda c: c.source is Source.RESTORED)
    assert identity(found) == 2


def test_equal_claims_are_no_news() -> None:
    """A relist that says the same marks nothing."""
    found, _, told = table()
    who = Claimant(Source.CLUSTERMESH, ClusterName("beta"))
    found.put(ADDRESS, who, claim(2))
    found.put(ADDRESS, who, claim(2))
    assert told == [ADDRESS]


def node(cluster: str, name: str, ip: str, cidr: str, router: str = "") -> Node:
    addresses = [NodeAddress(INTERNAL_IP, parse_address(ip))]
    if router:
        addresses.append(NodeAddress(CILIUM_INTERNAL_IP, parse_address(router)))
    number = ClusterId(1 if cluster == OWN else 2)
    cidrs = (parse_prefix(cidr),)
    return Node(ClusterName(cluster), NodeName(name), number, tuple(addresses), cidrs)


def nodes() -> tuple[Nodes, Ipcache, LocalPrefixes]:
    found, local, _ = table()
    return Nodes(OWN, NodeName("me"), local, found), found, local


def test_what_a_node_claims() -> None:
    """Its address by the underlay, its router and its pods by the tunnel, as remote-node or, for
    ourselves, as host."""
    every, found, _ = nodes()
    every.put(node("alpha", "me", "192.0.2.1", "10.1.0.0/24", "10.1.0.1"))
    every.put(node("beta", "far", "192.0.2.9", "10.2.0.0/24", "10.2.0.1"))
    rows = {str(p): (e.identity, str(e.tunnel_endpoint), e.cluster_id) for p, e in found.items()}
    assert rows == {
        "192.0.2.1/32": (1, "None", 0),
        "10.1.0.1/32": (1, "None", 0),
        "192.0.2.9/32": (6, "None", 2),
        "10.2.0.1/32": (6, "192.0.2.9", 2),
        "10.2.0.0/24": (0, "192.0.2.9", 2),
    }


def test_a_node_that_changes_leaves_nothing_of_its_old_self() -> None:
    """Address and prefix replaced; then gone with the node."""
    every, found, _ = nodes()
    every.put(node("beta", "far", "192.0.2.9", "10.2.0.0/24"))
    every.put(node("beta", "far", "192.0.2.8", "10.2.1.0/24"))
    assert {str(p) for p, _ in found.items()} == {"192.0.2.8/32", "10.2.1.0/24"}
    assert every.count(ClusterName("beta")) == 1
    every.drop_cluster(ClusterName("beta"))
    assert list(found.items()) == []


def test_overlapping_pod_cidrs_are_refused() -> None:
    """Whichever node is heard first, ours keeps the prefix and the message names both."""
    ours = node("alpha", "near", "192.0.2.2", "10.5.0.0/24")
    wide = node("beta", "far", "192.0.2.9", "10.5.0.0/16")
    for order in ((ours, wide), (wide, ours)):
        every, found, _ = nodes()
        for one in order:
            every.put(one)
        found.recheck(parse_prefix("10.5.0.0/16"))
        assert "10.5.0.0/16" not in {str(p) for p, _ in found.items()}
        (sentences,) = found.problems.current.values()
        assert "10.5.0.0/16" in sentences[0]
        assert "10.5.0.0/24" in sentences[0]
        assert "beta" in sentences[0]


@pytest.mark.parametrize("cluster", ["alpha", "beta"])
@pytest.mark.parametrize("order", list(permutations(("one", "two", "zoo"))))
def test_nodes_of_one_cluster_with_one_pod_cidr(cluster: str, order: tuple[str, ...]) -> None:
    """Whichever is heard first, the last by name keeps it; told until only one has it, of ours and
    of a peer's.
    """
    mesh = MeshState(OWN, NodeName("me"), Selection.RANDOM)
    cidr = parse_prefix("10.5.0.0/24")
    hosts = {"one": "192.0.2.1", "two": "192.0.2.2", "zoo": "192.0.2.3"}
    for name in order[:2]:
        mesh.nodes.put(node(cluster, name, hosts[name], "10.5.0.0/24"))
    first, keeper = sorted(order[:2])
    (sentence,) = mesh.problems()
    assert sentence == (
        f"pod CIDR 10.5.0.0/24 of node {keeper} of cluster {cluster}, which keeps it, is claimed "
        f"by node {first} as well: give each node a pod CIDR of its own"
    )
    row = mesh.ipcache.get(cidr)
    assert row is not None
    assert str(row.tunnel_endpoint) == hosts[keeper]
    assert mesh.problem_count() == 1
    tallies = mesh.violations(ClusterName(cluster))
    assert {kind: t.total for kind, t in tallies.items()} == (
        {} if cluster == OWN else {"shared-pod-cidr": 1}
    )
    mesh.nodes.put(node(cluster, order[2], hosts[order[2]], "10.5.0.0/24"))
    (sentence,) = mesh.problems()
    assert "of node zoo" in sentence
    assert "by node one and 1 more as well" in sentence
    mesh.nodes.drop(ClusterName(cluster), NodeName(order[0]))
    assert len(mesh.problems()) == 1
    mesh.nodes.put(node(cluster, order[1], hosts[order[1]], "10.5.1.0/24"))
    assert mesh.problems() == []
    row = mesh.ipcache.get(cidr)
    assert row is not None
    assert str(row.tunnel_endpoint) == hosts[order[2]]


def test_another_node_with_this_nodes_pod_cidr() -> None:
    """Told here, too, where no row of this node's own pods stands against the other's."""
    mesh = MeshState(OWN, NodeName("me"), Selection.RANDOM)
    mesh.nodes.put(node("alpha", "me", "192.0.2.1", "10.5.0.0/24"))
    mesh.nodes.put(node("alpha", "other", "192.0.2.2", "10.5.0.0/24"))
    (sentence,) = mesh.problems()
    assert "10.5.0.0/24 of node other of cluster alpha" in sentence
    assert "by node me as well" in sentence
    mesh.nodes.drop(OWN, NodeName("other"))
    assert mesh.problems() == []


def test_overlap_in_both_directions() -> None:
    """A prefix inside ours, around ours, equal to ours; not its neighbour, not the other family."""
    local = LocalPrefixes()
    assert local.overlap(parse_prefix("10.1.0.0/16")) is None
    local.add(parse_prefix("10.1.0.0/24"))
    for text in ("10.1.0.0/24", "10.1.0.128/25", "10.1.0.7/32", "10.0.0.0/8", "0.0.0.0/0"):
        assert local.overlap(parse_prefix(text)) == parse_prefix("10.1.0.0/24"), text
    for text in ("10.1.1.0/24", "10.2.0.0/16", "::/0"):
        assert local.overlap(parse_prefix(text)) is None, text
    assert local.contains(parse_address("10.1.0.9"))
    assert not local.contains(parse_address("10.1.1.9"))
    local.add(parse_prefix("10.1.0.0/24"))
    local.remove(parse_prefix("10.1.0.0/24"))
    assert local.contains(parse_address("10.1.0.9")), "two nodes had it"
    local.remove(parse_prefix("10.1.0.0/24"))
    assert not local.contains(parse_address("10.1.0.9"))


def test_identities() -> None:
    """Our own claim is heard first; a cluster that leaves takes its numbers along."""
    found = Identities(OWN)
    number = NumericIdentity(131400)
    one, other = Labels.k8s({"app": "a"}), Labels.k8s({"app": "b"})
    found.put(number, ClusterName("beta"), one)
    found.put(number, OWN, other)
    assert found.get(number) == other
    found.drop(number, OWN)
    assert dict(found.items()) == {number: one}
    found.drop_cluster(ClusterName("beta"))
    assert found.get(number) is None
    assert len(found) == 0


def test_what_some_clusters_claim() -> None:
    """Each its own, also of a number that several claim and that another one has."""
    found = Identities(OWN)
    beta, gamma, silent = ClusterName("beta"), ClusterName("gamma"), ClusterName("silent")
    both, alone = NumericIdentity(131400), NumericIdentity(131401)
    one, other = Labels.k8s({"app": "a"}), Labels.k8s({"app": "b"})
    for number, cluster, labels in (
        (both, beta, one),
        (both, gamma, other),
        (both, OWN, other),
        (alone, beta, other),
    ):
        found.put(number, cluster, labels)
    assert found.of((beta, silent)) == {beta: {both: one, alone: other}, silent: {}}
    assert found.of((gamma,)) == {gamma: {both: other}}

"""kind.lab.topology: names and addresses of a lab."""

import pytest

from kind.lab import topology
from kind.lab.topology import LabError


def test_two_by_two() -> None:
    """The documented address plan."""
    lab = topology.build("lab", 2, 2)
    first, second = lab.clusters
    assert [node.name for node in first.nodes] == ["cluster1-control-plane", "cluster1-worker"]
    assert [str(node.address) for node in second.nodes] == ["172.20.2.1", "172.20.2.2"]
    assert str(second.pod_cidr) == "10.2.0.0/16"
    assert str(second.nodes[1].pod_cidr) == "10.2.2.0/24"
    assert str(first.service_cidr) == "10.101.0.0/16"
    assert (str(first.api_service_address), str(first.dns_address)) == ("10.101.0.1", "10.101.0.10")
    assert first.nodes[1].netns == "ist-lab-cluster1-worker"


def test_both_families() -> None:
    """The documented plan of IPv6: nothing of it without being asked for, no overlap with it."""
    assert topology.build("lab", 1, 1).nodes[0].address6 is None
    lab = topology.build("lab", 99, 2, ipv6=True)
    first, last = lab.clusters[0], lab.clusters[-1]
    assert [str(cidr) for cidr in first.pod_cidrs] == ["10.1.0.0/16", "fd00:10:1::/48"]
    assert [str(cidr) for cidr in last.service_cidrs] == ["10.199.0.0/16", "fd00:10:199::/112"]
    assert str(last.nodes[1].address6) == "fd00:172:20::99:2"
    assert str(last.nodes[1].pod_cidrs[1]) == "fd00:10:99:2::/64"
    networks = [n[1] for c in lab.clusters for n in (c.pod_cidrs, c.service_cidrs)]
    for i, one in enumerate(networks):
        assert not any(one.overlaps(other) for other in networks[i + 1 :])
    assert all(n.pod_cidrs[1].subnet_of(c.pod_cidrs[1]) for c in lab.clusters for n in c.nodes)


def test_worker_names() -> None:
    """kind's names: worker, worker2, worker3."""
    names = [node.name for node in topology.build("x", 1, 4).nodes]
    assert names[1:] == ["cluster1-worker", "cluster1-worker2", "cluster1-worker3"]


def test_clusters_do_not_overlap() -> None:
    """No two clusters share a pod, service or node address."""
    lab = topology.build("x", 20, 3)
    networks = [c.pod_cidr for c in lab.clusters] + [c.service_cidr for c in lab.clusters]
    for i, one in enumerate(networks):
        assert not any(one.overlaps(other) for other in networks[i + 1 :])
    addresses = [node.address for node in lab.nodes]
    assert len(set(addresses)) == len(addresses)
    for node in lab.nodes:
        cluster = lab.clusters[node.cluster_index - 1]
        assert node.pod_cidr.subnet_of(cluster.pod_cidr)


@pytest.mark.parametrize("name", ["", "Lab", "a_b", "-a", "a-", "a" * 21, "../x", "a/b"])
def test_bad_names(name: str) -> None:
    """A name becomes part of paths and namespace names; the message says which are good."""
    with pytest.raises(LabError, match="not usable"):
        topology.build(name, 1, 1)


@pytest.mark.parametrize(
    ("clusters", "nodes", "mtu"),
    [(0, 1, 1500), (100, 1, 1500), (1, 0, 1500), (1, 51, 1500), (1, 1, 100)],
)
def test_bad_sizes(clusters: int, nodes: int, mtu: int) -> None:
    """What does not fit the address plan is refused before anything is made."""
    with pytest.raises(LabError):
        topology.build("x", clusters, nodes, mtu)


def test_ownership_of_names() -> None:
    """A lab never takes another's namespaces for its own, even when one name begins the other."""
    lab = topology.build("lab", 2, 3)
    own = [lab.underlay_netns, *(node.netns for node in lab.nodes), "ist-lab-p-0123abc"]
    assert all(topology.owns_netns("lab", name) for name in own)
    other = topology.build("lab-cluster1", 2, 3)
    for name in [other.underlay_netns, *(node.netns for node in other.nodes)]:
        assert not topology.owns_netns("lab", name)
    assert not topology.owns_netns("lab", "ist-t-123-a")
    assert not topology.owns_netns("lab", "cluster1-worker")

"""Numbers of nodes with labels: who has which, and what they stand for."""

from pathlib import Path

from agent.api_server import ApiServer
from agent.mesh_state import MeshState
from agent.node_identities import NodeIdentities
from model.address import host_prefix, parse_address
from model.cluster import ClusterId, ClusterName
from model.node import CILIUM_INTERNAL_IP, INTERNAL_IP, Node, NodeAddress, NodeName
from model.service import Selection

OWN, FAR = ClusterName("here"), ClusterName("far")
FIRST = 2 << 24
API = "192.0.2.1"


class World:
    def __init__(self, directory: Path) -> None:
        self.mesh = MeshState(OWN, NodeName("me"), Selection.RANDOM)
        self.api = ApiServer(self.mesh, NodeName("me"), claims=False)
        self.nodes = NodeIdentities(self.mesh, self.api, directory / "numbers.json")
        self.mesh.nodes.on_node = self.nodes.gone

    def put(self, name: str, last: int, zone: str, cluster: ClusterName = OWN) -> Node:
        addresses = (
            NodeAddress(INTERNAL_IP, parse_address(f"192.0.2.{last}")),
            NodeAddress(CILIUM_INTERNAL_IP, parse_address(f"10.9.{last}.1")),
        )
        number = ClusterId(2 if cluster == FAR else 1)
        labels = {"zone": zone} if zone else {}
        node = Node(cluster, NodeName(name), number, addresses, labels=labels)
        self.mesh.nodes.put(node)
        return node

    def number(self, last: int) -> int:
        rows = {
            self.mesh.ipcache.get(host_prefix(parse_address(text)))
            for text in (f"192.0.2.{last}", f"10.9.{last}.1")
        }
        (identity,) = {row.identity for row in rows if row is not None}
        return int(identity)

    def labels(self, last: int) -> list[str]:
        found = dict(self.mesh.identities.items()).get(self.number(last))  # type: ignore[call-overload]
        return found.strings() if found is not None else []


def test_equal_labels_share_a_number(tmp_path: Path) -> None:
    """On all addresses of the nodes, of other clusters too; this node stays the host."""
    world = World(tmp_path)
    world.put("a", 2, "x")
    world.put("b", 3, "x", FAR)
    world.put("c", 4, "y")
    world.put("me", 5, "x")
    assert world.number(2) == world.number(3) > FIRST
    assert world.number(4) not in (world.number(2), 6)
    assert world.number(5) == 1
    assert set(world.labels(2)) == {"node:zone=x", "reserved:remote-node"}


def test_labels_that_change(tmp_path: Path) -> None:
    """Another number, and the old one stands for nothing once nobody has it."""
    world = World(tmp_path)
    world.put("a", 2, "x")
    old = world.number(2)
    world.put("a", 2, "z")
    assert world.number(2) != old
    assert old not in dict(world.mesh.identities.items())
    new = world.number(2)
    world.mesh.nodes.drop(OWN, NodeName("a"))
    assert new not in dict(world.mesh.identities.items())


def test_numbers_survive_a_restart(tmp_path: Path) -> None:
    """What the kernel still has means the same afterwards, in whatever order nodes are told."""
    world = World(tmp_path)
    world.put("a", 2, "x")
    world.put("c", 4, "y")
    world.nodes.save()
    again = World(tmp_path)
    again.put("c", 4, "y")
    again.put("d", 6, "w")
    again.put("a", 2, "x")
    assert (again.number(2), again.number(4)) == (world.number(2), world.number(4))
    assert again.number(6) not in (world.number(2), world.number(4))


def test_node_of_the_api_server(tmp_path: Path) -> None:
    """Has the entity's label beside its own, for as long as it is that."""
    world = World(tmp_path)
    world.put("a", 2, "x")
    world.put("b", 3, "x")
    world.api.moved(frozenset({parse_address("192.0.2.2")}))
    assert world.api.judge()
    world.nodes.api_server_moved()
    assert "reserved:kube-apiserver" in world.labels(2)
    assert "node:zone=x" in world.labels(2)
    assert "reserved:kube-apiserver" not in world.labels(3)
    world.api.moved(frozenset({parse_address("192.0.2.3")}))
    assert world.api.judge()
    world.nodes.api_server_moved()
    assert "reserved:kube-apiserver" not in world.labels(2)
    assert "reserved:kube-apiserver" in world.labels(3)

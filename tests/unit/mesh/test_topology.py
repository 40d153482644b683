"""Which backends are near, and what nearness may not change."""

import pytest

from mesh.guard import LocalPrefixes
from mesh.service_table import Services
from mesh.topology import Place
from model.address import Address, parse_address
from model.cluster import ClusterId, ClusterName
from model.local_service import LocalBackend, LocalService, MeshSettings, Proximity
from model.service import (
    L4,
    Affinity,
    Frontend,
    LoadBalancer,
    Protocol,
    Selection,
    ServiceName,
    SharedService,
    Zone,
)

NAME = ServiceName("default", "web")
VIP = parse_address("10.96.0.1")
PORTS = {"http": L4(80, Protocol.TCP)}
FRONT = Frontend(VIP, 80, Protocol.TCP)
ALPHA, BETA = ClusterName("alpha"), ClusterName("beta")
HERE = Place("n1", "east")


def zone(text: str) -> Zone:
    """``east`` or ``west>east``: in west, meant for east."""
    name, _, hints = text.partition(">")
    return Zone(name, tuple(hints.split(",")) if hints else ())


class World:
    """Our backends and beta's, written as ``node:zone`` and ``zone``."""

    def __init__(self, ours: str, theirs: str = "", here: Place = HERE) -> None:
        self.told: list[Frontend] = []
        self.table = Services(
            LocalPrefixes(), Selection.RANDOM, self.told.append, ALPHA, float, 0.0, here
        )
        self.ours(ours)
        self.theirs(theirs)

    def ours(self, text: str) -> None:
        found: dict[Address, LocalBackend] = {}
        for place, word in enumerate(text.split(), 1):
            node, _, where = word.rstrip("!~").partition(":")
            address = parse_address(f"10.1.0.{place}")
            found[address] = LocalBackend(
                address,
                PORTS,
                ready=not word.endswith(("!", "~")),
                serving=not word.endswith("!"),
                terminating=word.endswith("~"),
                node=node,
                zone=zone(where),
            )
        self.table.set_backends(NAME, found)

    def theirs(self, text: str) -> None:
        zones = {parse_address(f"10.2.0.{n}"): zone(w) for n, w in enumerate(text.split(), 1)}
        backends = dict.fromkeys(zones, PORTS)
        record = SharedService(BETA, ClusterId(2), NAME, {}, backends, zones=zones)
        self.table.set_shared(BETA, NAME, record)

    def wants(self, proximity: Proximity, mesh: MeshSettings | None = None) -> str:
        settings = mesh or MeshSettings(is_global=True)
        service = LocalService(NAME, {VIP: PORTS}, mesh=settings, proximity=proximity)
        self.table.set_service(NAME, service)
        return self.chosen()

    def row(self) -> LoadBalancer:
        found = self.table.get(FRONT)
        assert found is not None
        return found

    def chosen(self) -> str:
        """``1.1 2.3``: the first of ours, the third of beta's."""
        row = self.row()
        every = {b.address for b in row.backends}
        assert len(every) == len(row.backends)
        found = [b.address for b in row.backends[: row.selectable]]
        return " ".join(f"{a.packed[1]}.{a.packed[3]}" for a in found)


@pytest.mark.parametrize(
    ("proximity", "ours", "theirs", "expected"),
    [
        (Proximity.ANYWHERE, "n1:east n2:west", "east west", "1.1 1.2 2.1 2.2"),
        (Proximity.ZONE, "n1:east n2:west", "east west", "1.1 2.1"),
        (Proximity.ZONE, "n2:west", "east west", "2.1"),
        (Proximity.ZONE, "n2:west", "west", "1.1 2.1"),
        (Proximity.ZONE, "n1:east! n2:west", "west", "1.2 2.1"),
        (Proximity.ZONE, "n1:west>east n2:east>west", "east", "1.1 2.1"),
        (Proximity.ZONE, "n1: n2:", "", "1.1 1.2"),
        (Proximity.HINTED, "n1:east>east n2:west>west", "east>east west>west", "1.1 2.1"),
        (Proximity.HINTED, "n1:east>east n2:west>west", "east west", "1.1 1.2 2.1 2.2"),
        (Proximity.HINTED, "n1:west>west n2:west>west", "", "1.1 1.2"),
        (Proximity.HINTED, "n1:west>west,east n2:west>west", "", "1.1"),
        (Proximity.NODE, "n1:west n2:east", "east", "1.1"),
        (Proximity.NODE, "n3:west n2:east", "east west", "1.2 2.1"),
        (Proximity.NODE, "n3:west", "west", "1.1 2.1"),
        (Proximity.ONLY_NODE, "n1:west n2:east", "east", "1.1"),
        (Proximity.ONLY_NODE, "n2:east", "east", ""),
        (Proximity.ONLY_NODE, "n1:east~ n2:east", "east", "1.1"),
        (Proximity.ONLY_NODE, "n2:east~", "east", ""),
    ],
)
def test_who_is_near(proximity: Proximity, ours: str, theirs: str, expected: str) -> None:
    """All clusters together; where nobody is near everybody is taken, but for ``only node``."""
    world = World(ours, theirs)
    assert world.wants(proximity) == expected
    count = len(ours.split()) + len(theirs.split())
    assert len(world.row().backends) == count  # who is far keeps its connections


def test_a_service_of_one_cluster_has_near_backends_too() -> None:
    """It needs no mesh for that."""
    world = World("n1:east n2:west", "east")
    assert world.wants(Proximity.ZONE, MeshSettings()) == "1.1"


def test_an_unknown_zone_prefers_nobody() -> None:
    """A node without the label."""
    world = World("n1:east n2:", "west", Place("n9", ""))
    assert world.wants(Proximity.ZONE) == "1.1 1.2 2.1"


def test_clusters_come_before_zones() -> None:
    """Affinity, order and weights are kept; nearness chooses within each cluster."""
    world = World("n2:west n3:west", "east west")
    local = MeshSettings(is_global=True, affinity=Affinity.LOCAL)
    assert world.wants(Proximity.ZONE, local) == "1.1 1.2"
    remote = MeshSettings(is_global=True, affinity=Affinity.REMOTE)
    assert world.wants(Proximity.ZONE, remote) == "2.1"
    weights = MeshSettings(is_global=True, weights=((ALPHA, 80), (BETA, 20)))
    assert world.wants(Proximity.ZONE, weights) == "1.1 1.2 2.1"
    assert world.row().weights == (2, 2, 1)


def test_the_threshold_counts_far_backends_too() -> None:
    """Three of four are ready and one of them is near: that is three quarters, and not one."""
    mesh = MeshSettings(is_global=True, affinity=Affinity.LOCAL, threshold_pct=75)
    world = World("n1:east n2:west n2:west n2:west!", "east")
    assert world.wants(Proximity.ZONE, mesh) == "1.1"
    world.ours("n1:east n2:west n2:west! n2:west!")
    assert world.chosen() == "1.1 2.1"


def test_a_near_cluster_out_of_reach_is_not_near() -> None:
    """Nobody is sent to a cluster that is down, or more than its part to one that returns."""
    world = World("n2:west", "east")
    assert world.wants(Proximity.ZONE) == "2.1"
    world.table.set_share(BETA, 0)
    assert world.chosen() == "1.1"
    world.table.set_share(BETA, 50)
    assert world.chosen() == "1.1 2.1"
    assert world.row().weights == (3, 1)


def test_a_backend_that_moves_is_told() -> None:
    """Zones and hints change without anything else, ours and theirs."""
    world = World("n2:west", "west")
    assert world.wants(Proximity.ZONE) == "1.1 2.1"
    world.told.clear()
    world.theirs("east")
    assert world.told == [FRONT]
    assert world.chosen() == "2.1"
    world.told.clear()
    world.ours("n2:west>east")
    assert world.told == [FRONT]
    assert world.chosen() == "1.1 2.1"

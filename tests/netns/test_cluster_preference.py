"""Claims about a global service → its row → the kernel → where real connections end."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from mesh.guard import LocalPrefixes
from mesh.service_table import Services
from mesh.topology import Place
from model.address import parse_address
from model.cluster import ClusterId, ClusterName
from model.local_service import LocalBackend, LocalService, Proximity
from model.service import L4, Frontend, Protocol, Selection, ServiceName, SharedService, Zone
from tests.support.nodes import Pod, Stage, two_nodes
from wire.k8s.meta import ObjectMeta
from wire.k8s.service import mesh_settings

pytestmark = pytest.mark.root

VIP = parse_address("10.202.0.10")
NAME = ServiceName("default", "web")
FRONT = Frontend(VIP, 80, Protocol.TCP)
TARGET = {"http": L4(8080, Protocol.TCP)}
CONNECTIONS = 400


class World:
    """A client and three backends: one of ours, one of cluster2, one of cluster3."""

    def __init__(self, stage: Stage, client: Pod, backends: dict[str, Pod]) -> None:
        self.stage, self.client, self.backends = stage, client, backends
        self.now_s = 0.0
        self.table = Services(
            LocalPrefixes(),
            Selection.RANDOM,
            lambda frontend: None,
            ClusterName("cluster1"),
            lambda: self.now_s,
            60.0,
            Place("one", "east"),
        )

    async def publish(self) -> None:
        row = self.table.get(FRONT)
        assert row is not None
        for node in self.stage.nodes:
            assert await node.datapath.services.upsert([(FRONT, row)]) == {}

    async def annotate(
        self,
        selection: Selection = Selection.RANDOM,
        proximity: Proximity = Proximity.ANYWHERE,
        **values: str,
    ) -> None:
        """Our Service, as its annotations say."""
        names = {
            "affinity": "service.cilium.io/affinity",
            "order": "isthmus.io/affinity-order",
            "threshold": "isthmus.io/failover-threshold",
            "weights": "isthmus.io/cluster-weights",
        }
        annotations = {"service.cilium.io/global": "true"}
        annotations |= {names[word]: value for word, value in values.items()}
        mesh, problems = mesh_settings(ObjectMeta(name="web", annotations=annotations))
        assert problems == ()
        frontends = {VIP: {"http": L4(80, Protocol.TCP)}}
        service = LocalService(
            NAME,
            frontends,
            mesh=mesh,
            proximity=proximity,
            selection=selection.name.lower(),
        )
        self.table.set_service(NAME, service)
        await self.publish()

    async def ours(
        self, *, ready: int = 1, unready: int = 0, node: str = "", zone: str = ""
    ) -> None:
        """One backend that exists, and some that never become ready."""
        address = self.backends["cluster1"].address
        place = Zone(zone)
        found = {address: LocalBackend(address, TARGET, bool(ready), node=node, zone=place)}
        for number in range(unready):
            other = parse_address(f"10.201.1.{200 + number}")
            found[other] = LocalBackend(other, TARGET, ready=False)
        self.table.set_backends(NAME, found)
        await self.publish()

    async def says(self, cluster: str, *, there: bool = True, zone: str = "") -> None:
        backends = {self.backends[cluster].address: TARGET} if there else {}
        number = ClusterId(int(cluster[-1]))
        zones = {address: Zone(zone) for address in backends if zone}
        record = SharedService(ClusterName(cluster), number, NAME, {}, backends, zones=zones)
        self.table.set_shared(ClusterName(cluster), NAME, record)
        await self.publish()

    def shares(self) -> dict[str, float]:
        """Where new connections end."""
        answer = self.client.run("tcp", VIP, 80, CONNECTIONS)
        assert sum(answer["names"].values()) == CONNECTIONS, answer
        return {name: count / CONNECTIONS for name, count in answer["names"].items()}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with two_nodes() as stage:
        one, two = stage.nodes
        client = await one.add_pod("client", 70001)
        backends = {
            "cluster1": await one.add_pod("cluster1", 70002),
            "cluster2": await two.add_pod("cluster2", 131072 + 300),
            "cluster3": await two.add_pod("cluster3", 196608 + 300),
        }
        for pod in backends.values():
            pod.serve()
        made = World(stage, client, backends)
        made.table.set_service(NAME, LocalService(NAME, {VIP: {"http": L4(80, Protocol.TCP)}}))
        await made.ours()
        await made.says("cluster2")
        await made.says("cluster3")
        yield made


def near(**shares: float) -> Any:
    """Six standard deviations of 400 draws are 0.15 at most."""
    return pytest.approx(shares, abs=0.15)


@pytest.mark.parametrize("selection", list(Selection))
async def test_connections_come_out_as_clusters_weigh(world: World, selection: Selection) -> None:
    """80:20 is that of real connections, 10:90 after a change, and a third without any before."""
    await world.annotate(selection)
    assert world.shares() == near(cluster1=1 / 3, cluster2=1 / 3, cluster3=1 / 3)
    await world.annotate(selection, weights="cluster1=80,cluster2=20")
    assert world.shares() == near(cluster1=0.8, cluster2=0.2)
    await world.annotate(selection, weights="cluster1=10,cluster3=90")
    assert world.shares() == near(cluster1=0.1, cluster3=0.9)


async def test_order_moves_connections(world: World) -> None:
    """The first cluster of the order that has a backend has all, and gets them back."""
    await world.annotate(order="cluster3,cluster1")
    assert world.shares() == {"cluster3": 1}
    await world.says("cluster3", there=False)
    assert world.shares() == {"cluster1": 1}
    await world.ours(ready=0)
    assert world.shares() == {"cluster2": 1}
    await world.says("cluster3")
    assert world.shares() == {"cluster3": 1}


async def test_threshold_adds_the_next_cluster(world: World) -> None:
    """With one of three ready the next cluster of the order helps; with one of two it does not."""
    await world.annotate(affinity="local", order="cluster3", threshold="50%")
    assert world.shares() == {"cluster1": 1}
    await world.ours(unready=1)
    assert world.shares() == {"cluster1": 1}
    await world.ours(unready=2)
    assert world.shares() == near(cluster1=0.5, cluster3=0.5)
    await world.says("cluster3", there=False)
    assert world.shares() == near(cluster1=0.5, cluster2=0.5)
    await world.ours()
    assert world.shares() == {"cluster1": 1}


async def test_near_backends_have_all_connections(world: World) -> None:
    """In our zone whatever the cluster, within a cluster that comes first, and on our node."""
    await world.ours(node="two", zone="west")
    await world.says("cluster2", zone="east")
    await world.says("cluster3", zone="west")
    await world.annotate(proximity=Proximity.ZONE)
    assert world.shares() == {"cluster2": 1}
    await world.says("cluster3", zone="east")
    assert world.shares() == near(cluster2=0.5, cluster3=0.5)
    await world.annotate(proximity=Proximity.ZONE, affinity="local")
    assert world.shares() == {"cluster1": 1}
    await world.annotate(proximity=Proximity.NODE)
    assert world.shares() == near(cluster2=0.5, cluster3=0.5)
    await world.ours(node="one", zone="west")
    assert world.shares() == {"cluster1": 1}
    await world.annotate(proximity=Proximity.ONLY_NODE, affinity="remote")
    assert world.shares() == {"cluster1": 1}


async def test_connections_to_a_vanished_backend_live_on(world: World) -> None:
    """Between its vanishing and the end of its time a connection goes on and no new one comes;
    after it the datapath knows the backend no more."""
    await world.annotate(affinity="remote", order="cluster2")
    stream = world.client.start("steady-tcp", VIP, 80, 0.001).ready()
    await world.says("cluster2", there=False)
    assert world.shares() == {"cluster3": 1}
    seen = stream.finish()
    assert seen["errors"] == []
    assert seen["rounds"] > 10  # it lived through 400 connections of others
    world.now_s += 61
    world.table.expire()
    await world.publish()
    rows = await world.client.node.datapath.services.read()
    assert world.backends["cluster2"].address not in {b.address for b in rows[FRONT].backends}

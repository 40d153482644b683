"""Two nodes without a tunnel: real packets by real routes, and what must not pass."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from datapath.routes import Route
from model.address import host_prefix, parse_address, parse_prefix
from model.endpoint import EndpointId
from model.identity import NumericIdentity
from model.ipcache import IpcacheEntry
from model.policy_map import Direction, PolicyEntry, PolicyKey
from tests.support.nodes import Pod, Stage, two_nodes
from tests.support.sniffer import Sniffer
from wire.bpf.layouts import DropReason, TrafficDirection

pytestmark = pytest.mark.root

PODS = ["10.201.0.0/16"]
IN, OUT = TrafficDirection.DIRECTION_INGRESS, TrafficDirection.DIRECTION_EGRESS


@dataclass
class World:
    stage: Stage
    client: Pod
    far: Pod


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with two_nodes(native=True) as stage:
        one, two = stage.nodes
        yield World(stage, await one.add_pod("client", 70001), await two.add_pod("far", 70003))


async def test_packets_cross_as_they_are(world: World) -> None:
    """Pods and nodes, both ways, of full size, and the wire shows the pods' own packets."""
    one, two = world.stage.nodes
    assert one.datapath.route_mtu == one.datapath.device_mtu == 1500
    assert "ist_vxlan" not in one.sh("ip link")
    world.far.serve()
    world.far.serve("udp", 8081)
    world.client.serve(port=8082)
    sniffer = Sniffer(one.namespace, PODS, "under0")
    answer = world.client.run("tcp", world.far.address, 8080, 3, 200_000)
    assert answer["names"] == {"far": 3}, answer
    answer = world.client.run("udp", world.far.address, 8081, 3, 1400)
    assert answer["names"] == {"far": 3}, answer
    assert world.far.run("tcp", world.client.address, 8082, 1)["names"] == {"client": 1}
    assert world.client.run("ping", world.far.address, 2)["answered"] == 2
    assert world.client.run("ping", two.config.node_ip, 2)["answered"] == 2
    assert world.client.run("ping", two.config.router_ip, 2)["answered"] == 2
    one.sh(f"ping -c 2 -W 10 {world.far.address}")
    one.sh(f"ping -c 2 -W 10 {two.config.router_ip}")
    seen = sniffer.stop()
    assert seen.leaked_bytes > 600_000
    assert any("pod address" in leak or "canary" in leak for leak in seen.leaks), seen.leaks
    assert not any("tunnel" in leak for leak in seen.leaks), seen.leaks
    assert await one.drops() == {}
    assert await two.drops() == {}


async def test_the_sender_is_known_by_its_address(world: World) -> None:
    """Policy admits the pod by its identity, and nobody that it does not know."""
    one, two = world.stage.nodes
    for node in (one, two):
        await node.reopen(policy=True)
    open_rows = {PolicyKey(0, way): PolicyEntry() for way in (Direction.INGRESS, Direction.EGRESS)}
    only = {PolicyKey(world.client.identity, Direction.INGRESS): PolicyEntry()}
    assert await one.datapath.policy.upsert([(EndpointId(2), open_rows)]) == {}
    assert await two.datapath.policy.upsert([(EndpointId(2), only)]) == {}
    assert world.client.run("ping", world.far.address, 1)["answered"] == 1

    here = host_prefix(world.client.address)
    stranger = IpcacheEntry(NumericIdentity(70009), one.config.node_ip)
    assert await two.datapath.ipcache.upsert([(here, stranger)]) == {}
    assert world.client.try_("ping", world.far.address, 1)["answered"] == 0
    assert await two.drops() == {(DropReason.DROP_POLICY_DENIED, IN): 1}

    assert await two.datapath.ipcache.delete([here]) == {}
    untold = IpcacheEntry(NumericIdentity(0), one.config.node_ip)
    prefix = one.config.pod_cidrs[0]
    assert await two.datapath.ipcache.upsert([(prefix, untold)]) == {}
    assert world.client.try_("ping", world.far.address, 1)["answered"] == 0
    assert (await two.drops())[(DropReason.DROP_UNKNOWN_SENDER, IN)] == 1


async def test_nobody_on_the_link_speaks_as_a_pod(world: World) -> None:
    """A neighbour sends with the address of a pod of the node that it sends to."""
    two = world.stage.nodes[1]
    near = await two.add_pod("near", 70004)
    one = world.stage.nodes[0]
    assert (
        await one.datapath.routes.upsert(
            [(host_prefix(world.far.address), Route("under0", gateway=two.config.node_ip))]
        )
        == {}
    )
    one.sh(f"ip addr add {near.address}/32 dev lo")
    one.sh(f"bash -c 'ping -c 1 -W 1 -I {near.address} {world.far.address} || true'")
    assert await two.drops() == {(DropReason.DROP_INVALID_IDENTITY, IN): 1}


async def test_what_has_no_way_is_dropped_and_counted(world: World) -> None:
    """A node without a route, and a pod that is no more."""
    one, two = world.stage.nodes
    assert world.client.try_("ping", "10.201.2.77", 1)["answered"] == 0
    assert await two.drops() == {(DropReason.DROP_UNROUTABLE_IP, OUT): 1}  # of the node's stack
    gone = IpcacheEntry(NumericIdentity(0), two.config.node_ip)
    assert await one.datapath.ipcache.upsert([(parse_prefix("10.201.9.0/24"), gone)]) == {}
    assert world.client.try_("ping", "10.201.9.9", 1)["answered"] == 0
    assert await one.drops() == {(DropReason.DROP_FIB_LOOKUP_FAILED, OUT): 1}


async def test_a_node_that_is_on_no_link_is_named(world: World) -> None:
    """The route fails with what to do about it, and the others stand."""
    one = world.stage.nodes[0]
    prefix = parse_prefix("10.201.77.0/24")
    away = Route("under0", gateway=parse_address("203.0.113.7"))
    errors = await one.datapath.routes.upsert([(prefix, away)])
    assert "node 203.0.113.7 is not on the link of under0" in str(errors[prefix])
    assert "direct-routing-skip-unreachable" in str(errors[prefix])
    assert world.client.run("ping", world.far.address, 1)["answered"] == 1


async def test_routing_changes_under_what_runs(world: World) -> None:
    """Tunnel and native in turn: devices, programs and sizes are those of the mode."""
    one, two = world.stage.nodes
    world.far.serve()
    for native in (False, True):
        for node, other in ((one, two), (two, one)):
            await node.reopen(native=native)
            route = Route(source=node.config.router_ip, mtu=node.datapath.route_mtu)
            if native:
                route = Route("under0", gateway=other.config.node_ip)
            rows = [(other.config.pod_cidrs[0], route)]
            assert await node.datapath.routes.upsert(rows) == {}
        assert one.datapath.route_mtu == (1500 if native else 1450)
        assert ("ist_vxlan" in one.sh("ip link")) is not native
        answer = world.client.run("tcp", world.far.address, 8080, 2, 20_000)
        assert answer["names"] == {"far": 2}, answer

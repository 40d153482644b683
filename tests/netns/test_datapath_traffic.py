"""Two nodes and their pods with the real programs: packets arrive, through every change we make."""

import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from datapath import inspect, links, runtime, syscall
from datapath.attach import AttachMode
from datapath.routes import Route
from datapath.syscall import AttachType
from model.address import parse_address, parse_prefix
from model.identity import NumericIdentity
from model.service import (
    Backend,
    BackendState,
    Frontend,
    LoadBalancer,
    Protocol,
    Selection,
    ServiceName,
)
from tests.support.nodes import Node, Pod, Stage, netns_path, two_nodes

pytestmark = pytest.mark.root

VIP = parse_address("10.202.0.10")


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with two_nodes() as made:
        yield made


async def pods(stage: Stage) -> tuple[Pod, Pod, Pod]:
    """Two pods on the first node, one on the second."""
    one, two = stage.nodes
    return (
        await one.add_pod("client", 70001),
        await one.add_pod("near", 70002),
        await two.add_pod("far", 70003),
    )


def service(*backends: Pod, protocol: Protocol = Protocol.TCP, **terms: object) -> LoadBalancer:
    found = tuple(Backend(pod.address, 8080, protocol) for pod in backends)
    frontend = Frontend(VIP, 80, protocol)
    name = ServiceName("default", "web")
    made = LoadBalancer(frontend, name, found, len(found))
    return replace(made, **terms)


async def publish(stage: Stage, balancer: LoadBalancer) -> None:
    for node in stage.nodes:
        assert await node.datapath.services.upsert([(balancer.frontend, balancer)]) == {}


async def dropped(stage: Stage) -> dict[str, dict[tuple[int, int], int]]:
    return {node.name: await node.drops() for node in stage.nodes if await node.drops()}


async def test_pods_of_one_node_reach_each_other(stage: Stage) -> None:
    """Ping, TCP and UDP between pods of a node work, sources are kept, nothing is dropped."""
    client, near, _ = await pods(stage)
    for protocol in ("tcp", "udp"):
        near.serve(protocol)
        answer = client.run(protocol, near.address, 8080, 5)
        assert answer["names"] == {"near": 5}, answer
        assert answer["peers"] == [str(client.address)]
    assert client.run("ping", near.address, 3) == {"answered": 3, "errors": []}
    assert await dropped(stage) == {}


async def test_pods_of_two_nodes_reach_each_other(stage: Stage) -> None:
    """Ping, TCP and UDP between pods of two nodes work, sources are kept, nothing is dropped."""
    client, _, far = await pods(stage)
    for protocol in ("tcp", "udp"):
        far.serve(protocol)
        answer = client.run(protocol, far.address, 8080, 5)
        assert answer["names"] == {"far": 5}, answer
        assert answer["peers"] == [str(client.address)]
    assert client.run("ping", far.address, 3) == {"answered": 3, "errors": []}
    assert far.run("ping", client.address, 3) == {"answered": 3, "errors": []}
    assert await dropped(stage) == {}


async def test_source_identity_arrives_with_the_packet(stage: Stage) -> None:
    """The node of the destination knows the identity of the source from the tunnel."""
    client, _, far = await pods(stage)
    far.serve()
    client.run("tcp", far.address, 8080)
    flows = await far.node.datapath.conntrack.entries()
    arrived = [f for f in flows if (f.source, f.destination) == (client.address, far.address)]
    assert {f.source_identity for f in arrived} == {NumericIdentity(70001)}


async def test_host_and_pods_reach_each_other(stage: Stage) -> None:
    """A node reaches its own and the other node's pods, and pods reach their node."""
    client, near, far = await pods(stage)
    for pod in (near, far):
        pod.serve()
        host = replace_namespace(client, stage.nodes[0])
        answer = host.run("tcp", pod.address, 8080)
        assert answer["names"] == {pod.name: 1}, answer
        assert answer["peers"] == [str(stage.nodes[0].config.router_ip)]
    assert client.run("ping", stage.nodes[0].config.node_ip, 2)["answered"] == 2
    assert client.run("ping", stage.nodes[0].config.router_ip, 2)["answered"] == 2


def replace_namespace(pod: Pod, node: Node) -> Pod:
    """The node's own stack, used like a pod's; its processes end with the pod's."""
    return replace(pod, namespace=node.namespace)


@pytest.mark.parametrize("selection", list(Selection))
async def test_service_reaches_all_its_backends(stage: Stage, selection: Selection) -> None:
    """New connections to a service address spread over backends of both nodes, TCP and UDP."""
    client, near, far = await pods(stage)
    for protocol in (Protocol.TCP, Protocol.UDP):
        word = protocol.name.lower()
        for pod in (near, far):
            pod.serve(word)
        await publish(stage, service(near, far, protocol=protocol, selection=selection))
        answer = client.run(word, VIP, 80, 40)
        assert answer["errors"] == []
        assert sum(answer["names"].values()) == 40
        assert answer["names"].keys() == {"near", "far"}
        assert answer["peers"] == [str(client.address)]


async def test_service_without_backends_recovers(stage: Stage) -> None:
    """With no backend connections fail; with one again they succeed."""
    client, near, _ = await pods(stage)
    near.serve()
    await publish(stage, service())
    assert client.try_("tcp", VIP, 80)["names"] == {}
    await publish(stage, service(near))
    assert client.run("tcp", VIP, 80, 3)["names"] == {"near": 3}


async def test_removed_backend_gets_no_new_connection(stage: Stage) -> None:
    """After a backend left the service, new connections go to the others only."""
    client, near, far = await pods(stage)
    for pod in (near, far):
        pod.serve()
    await publish(stage, service(near, far))
    client.run("tcp", VIP, 80, 10)
    await publish(stage, service(far))
    assert client.run("tcp", VIP, 80, 20)["names"] == {"far": 20}


async def test_session_affinity_keeps_a_client_on_its_backend(stage: Stage) -> None:
    """With session affinity all connections of one client go to one backend."""
    client, near, far = await pods(stage)
    for pod in (near, far):
        pod.serve()
    await publish(stage, service(near, far, affinity_timeout_s=600))
    answer = client.run("tcp", VIP, 80, 20)
    assert list(answer["names"].values()) == [20]


async def test_pod_reaches_itself_through_its_service(stage: Stage) -> None:
    """A pod that is the only backend of a service reaches it, and so itself."""
    _, near, _ = await pods(stage)
    near.serve()
    await publish(stage, service(near))
    assert near.run("tcp", VIP, 80, 2)["names"] == {"near": 2}


async def test_small_underlay_is_respected() -> None:
    """On a wire of 1400 bytes large transfers arrive, and no packet is cut in pieces."""
    async with two_nodes(mtu=1400) as stage:
        client, near, far = await pods(stage)
        assert (client.node.datapath.device_mtu, client.node.datapath.route_mtu) == (1400, 1350)
        for pod in (near, far):
            pod.serve()
            answer = client.run("tcp", pod.address, 8080, 1, 1_000_000)
            assert answer["errors"] == []
            assert answer["mss"] <= 1350 - 40
        assert client.run("ping", far.address, 1, 1350 - 28)["answered"] == 1
        assert fragments(stage) == 0


async def test_path_mtu_is_told_to_who_does_not_know_it() -> None:
    """A pod whose route says nothing of the MTU is told by ICMP, and its transfer arrives."""
    async with two_nodes(mtu=1400) as stage:
        client, _, far = await pods(stage)
        client.sh(f"ip route replace default via {client.node.config.router_ip} dev eth0")
        far.sh(f"ip route replace default via {far.node.config.router_ip} dev eth0")
        far.serve()
        answer = client.run("tcp", far.address, 8080, 1, 1_000_000)
        assert answer["errors"] == []
        assert fragments(stage) == 0


async def test_large_datagrams_arrive_in_pieces(stage: Stage) -> None:
    """What a pod's stack cuts is put together by the receiver's, on its node and across nodes."""
    client, near, far = await pods(stage)
    for pod in (near, far):
        assert client.run("ping", pod.address, 3, 6000)["answered"] == 3
        pod.serve("udp", 53)
        assert client.run("udp", pod.address, 53, 3, 6000)["names"] == {pod.name: 3}


def fragments(stage: Stage) -> int:
    """Packets that a node cut or put together."""
    total = 0
    for node in stage.nodes:
        head, values = node.sh("grep ^Ip: /proc/net/snmp").splitlines()
        row = dict(zip(head.split(), values.split(), strict=True))
        total += int(row["FragCreates"]) + int(row["ReasmReqds"])
    return total


@pytest.mark.parametrize("mode", list(AttachMode))
async def test_replacing_programs_loses_nothing(mode: AttachMode) -> None:
    """While all programs of both nodes are replaced ten times, no datagram of a flow is lost."""
    async with two_nodes(attach_mode=mode) as stage:
        client, near, far = await pods(stage)
        for pod in (near, far):
            pod.serve("udp")
            pod.serve("tcp", 8081)
        flows = [client.start("steady-udp", p.address, 8080, 0.001).ready() for p in (near, far)]
        streams = [client.start("steady-tcp", p.address, 8081, 0.001).ready() for p in (near, far)]
        for _ in range(10):
            for node in stage.nodes:
                await node.reopen()
                for pod in node.pods:
                    await node.datapath.attach_endpoint(pod.interface)
        for flow in flows:
            seen = flow.finish()
            assert seen["sent"] > 50
            assert seen["answered"] == seen["sent"]
        for stream in streams:
            seen = stream.finish()
            assert seen["errors"] == []
            assert seen["rounds"] > 50
        assert await dropped(stage) == {}


async def test_restart_keeps_flows_and_numbers(stage: Stage) -> None:
    """A flow to a service lives through a restart that adds and removes other backends."""
    client, near, far = await pods(stage)
    third = await stage.nodes[1].add_pod("third", 70003)
    near.serve()
    await publish(stage, service(near, far))
    await publish(stage, service(near))
    stream = client.start("steady-tcp", VIP, 80, 0.001).ready()
    before = inspect.services(client.node.config.pin_dir)
    for node in stage.nodes:
        await node.reopen()
    assert inspect.services(client.node.config.pin_dir) == before
    await publish(stage, service(third, near))
    await publish(stage, service(near))
    assert inspect.services(client.node.config.pin_dir) == before
    seen = stream.finish()
    assert seen["errors"] == []
    assert seen["rounds"] > 0


async def test_terminating_backend_keeps_its_flows(stage: Stage) -> None:
    """A backend that terminates gets no new connection, and those it has go on."""
    client, near, far = await pods(stage)
    for pod in (near, far):
        pod.serve()
    await publish(stage, service(near))
    stream = client.start("steady-tcp", VIP, 80, 0.001).ready()
    await publish(stage, service(far, near))
    leaving = Backend(near.address, 8080, Protocol.TCP, BackendState.TERMINATING)
    last = service(far)
    await publish(stage, replace(last, backends=(*last.backends, leaving)))
    assert client.run("tcp", VIP, 80, 10)["names"] == {"far": 10}
    seen = stream.finish()
    assert seen["errors"] == []


async def test_deleted_pod_leaves_nothing(stage: Stage) -> None:
    """After a pod is deleted its device, link pin, rows and flows are gone; others go on."""
    client, near, far = await pods(stage)
    for pod in (near, far):
        pod.serve()
        client.run("tcp", pod.address, 8080)
    node = near.node
    for process in near.processes:
        process.kill()
    await node.thread.call(links.delete_endpoint_link, near.interface)
    await node.datapath.detach_endpoint(near.interface)
    number = next(
        n for n, e in (await node.datapath.endpoints.read()).items() if near.address in e.addresses
    )
    assert await node.datapath.endpoints.delete([number]) == {}
    await node.datapath.conntrack.flush_address(near.address)
    assert not await node.thread.call(links.endpoint_link_exists, near.interface)
    assert not [p for p in (node.config.pin_dir / "links").iterdir() if near.interface in p.name]
    flows = await node.datapath.conntrack.entries()
    assert not [f for f in flows if near.address in (f.source, f.destination)]
    assert client.run("tcp", far.address, 8080)["names"] == {"far": 1}


async def test_expired_flows_are_collected(stage: Stage) -> None:
    """Garbage collection removes what is past its time, and only that."""
    client, near, _ = await pods(stage)
    near.serve()
    client.run("tcp", near.address, 8080)
    conntrack = client.node.datapath.conntrack
    entries = await conntrack.entries()
    assert entries
    assert await conntrack.collect_garbage(0) == 0
    assert await conntrack.collect_garbage(max(e.expires_s for e in entries) + 1) == len(entries)
    assert await conntrack.entries() == []


STRANGERS = """
ip link add str0 type veth peer name str1; ip link set str0 up; ip link set str1 up
ip addr add 192.0.2.1/24 dev str0; ip link set str0 alias stranger
ip route add 10.77.0.0/16 via 192.0.2.9; ip route add 10.201.9.0/24 dev str0 proto static
ip rule add from 192.0.2.0/24 lookup 77 priority 500; ip route add default dev str0 table 77
ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev str0; tc qdisc add dev str0 clsact
"""
LOOK = """
ip -o route show dev str0; ip rule; ip route show table 77; ip -o neigh show dev str0 nud permanent
ip -o link show str0 | sed s/state.*alias/alias/; tc qdisc show dev str0
ip -o addr show under0 | sed "s/ tentative//"
"""


async def test_strangers_are_left_alone(stage: Stage) -> None:
    """Others' routes, rules, devices and qdiscs stay through start, restart and removal of ours."""
    client, _, _ = await pods(stage)
    node = client.node
    node.sh(f"bash -ec '{STRANGERS}'")
    before = node.sh(f"bash -ec '{LOOK}'")
    await node.reopen()
    taken = parse_prefix("10.201.9.0/24")
    errors = await node.datapath.routes.upsert([(taken, Route(mtu=1400))])
    assert "not ours" in str(errors[taken])
    assert await node.datapath.routes.delete([taken]) == {}
    assert node.sh(f"bash -ec '{LOOK}'") == before
    await runtime.remove_all(node.config.pin_dir, node.thread)
    assert node.sh(f"bash -ec '{LOOK}'") == before


async def test_removal_leaves_nothing_of_ours(stage: Stage) -> None:
    """After ``remove_all`` there is no device, route, pin or program of ours; repeating is fine."""
    await pods(stage)
    node = stage.nodes[0]
    for _ in range(2):
        await runtime.remove_all(node.config.pin_dir, node.thread)
        assert "ist_" not in node.sh("ip -o link")
        assert node.sh("ip route show proto 73") == ""
        assert not node.config.pin_dir.exists()
        for pod in node.pods:
            assert await node.thread.call(programs_at, pod.interface) == []


def programs_at(device: str) -> list[int]:
    return syscall.query_programs(socket.if_nametoindex(device), AttachType.TCX_INGRESS)


async def test_opening_twice_changes_nothing(stage: Stage) -> None:
    """A second start leaves devices, addresses, routes and maps exactly as they are."""
    client, _, _ = await pods(stage)
    node = client.node
    look = "ip -d -o link; ip -o addr | sed s/.tentative//; ip route"
    before = node.sh(f"bash -ec '{look}'")
    ids = await node.thread.call(map_ids, node)
    await node.reopen()
    assert node.sh(f"bash -ec '{look}'") == before
    assert await node.thread.call(map_ids, node) == ids


def map_ids(node: Node) -> dict[str, int]:
    tables = node.datapath._programs.tables
    return {name: syscall.map_info(table.fd).id for name, table in tables.items()}


async def test_killed_start_harms_nothing(stage: Stage) -> None:
    """A start that is killed, at eight moments spread over its course, leaves traffic running.

    The next start finds its way, and no datagram is lost through all of it.
    """
    client, near, far = await pods(stage)
    for pod in (near, far):
        pod.serve("udp")
    flows = [client.start("steady-udp", p.address, 8080, 0.002).ready() for p in (near, far)]
    begun = time.monotonic()
    assert start_and_kill(client.node, None) == 0
    whole_s = time.monotonic() - begun
    for moment in range(1, 9):
        start_and_kill(client.node, whole_s * moment / 9)
    await client.node.reopen()
    for flow in flows:
        seen = flow.finish()
        assert seen["answered"] == seen["sent"] > 100


OPEN = """
import asyncio, sys
from pathlib import Path
from datapath.runtime import DatapathConfig, open_datapath
from model.address import parse_address
node, router = map(parse_address, sys.argv[1:3])
asyncio.run(open_datapath(DatapathConfig(node, router, pin_dir=Path(sys.argv[3]))))
"""


def start_and_kill(node: Node, after_s: float | None) -> int:
    """Open the datapath in a process of its own, in the node's network; kill it after a while."""
    config = node.config
    inside = ["nsenter", f"--net={netns_path(node.namespace)}"]
    terms = [str(config.node_ip), str(config.router_ip), str(config.pin_dir)]
    child = subprocess.Popen(
        [*inside, sys.executable, "-c", OPEN, *terms], cwd=Path(__file__).parents[2]
    )
    try:
        return child.wait(after_s if after_s is not None else 60)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()

"""Ways through the programs that only real stacks show: the node as a client, and errors."""

import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from datapath.routes import Route
from model.address import Address, parse_address, parse_prefix
from model.service import Backend, Frontend, LoadBalancer, Protocol, ServiceName
from tests.support.nodes import Node, Pod, Stage, two_nodes

pytestmark = pytest.mark.root

VIP = parse_address("10.202.0.10")


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with two_nodes() as made:
        for node in made.nodes:
            for prefix in ("10.202.0.0/16", "169.254.42.1/32"):
                row = (parse_prefix(prefix), Route(source=node.config.router_ip))
                assert await node.datapath.routes.upsert([row]) == {}
        yield made


async def publish(stage: Stage, address: Address | None, protocol: Protocol = Protocol.TCP) -> None:
    backends = () if address is None else (Backend(address, 8080, protocol),)
    frontend = Frontend(VIP, 80, protocol)
    row = LoadBalancer(frontend, ServiceName("default", "web"), backends, len(backends))
    for node in stage.nodes:
        assert await node.datapath.services.upsert([(frontend, row)]) == {}


def stack_of(node: Node, pod: Pod) -> Pod:
    """The node's own stack, used like a pod's; its processes end with the pod's."""
    return replace(pod, namespace=node.namespace)


async def test_node_reaches_services_wherever_the_backend_is(stage: Stage) -> None:
    """A process of the node reaches a service's backend here, elsewhere, and on the nodes."""
    one, two = stage.nodes
    near, far = await one.add_pod("near", 70001), await two.add_pod("far", 70002)
    here, there = stack_of(one, near), stack_of(two, far)
    servers = {
        "near": (near, near.address),
        "far": (far, far.address),
        "here": (here, one.config.node_ip),
        "there": (there, two.config.node_ip),
    }
    for name, (pod, address) in servers.items():
        pod.start("serve-tcp", address, 8080, name).ready()
    for name, (_, address) in servers.items():
        await publish(stage, address)
        answer = here.run("tcp", VIP, 80, 3, 100_000)
        assert answer["names"] == {name: 3}, answer
    assert await one.drops() == {}
    assert await two.drops() == {}


async def test_a_node_is_another_node_to_others(stage: Stage) -> None:
    """What a node itself sends has the host's identity here and a remote node's elsewhere."""
    one, two = stage.nodes
    near, far = await one.add_pod("near", 70001), await two.add_pod("far", 70002)
    for pod, identity in ((near, 1), (far, 6)):
        pod.serve()
        stack_of(one, near).run("tcp", pod.address, 8080)
        flows = await pod.node.datapath.conntrack.entries()
        seen = {f.source_identity for f in flows if f.destination == pod.address}
        assert seen == {identity}


async def test_pod_reaches_services_of_nodes(stage: Stage) -> None:
    """Backends may be nodes, like the API server's: the own node, and another."""
    one, two = stage.nodes
    pod, other = await one.add_pod("client", 70001), await two.add_pod("other", 70002)
    for name, server, node in (("here", pod, one), ("there", other, two)):
        at = node.config.node_ip
        stack_of(node, server).start("serve-tcp", at, 8080, name).ready()
        await publish(stage, at)
        answer = pod.run("tcp", VIP, 80, 3, 100_000)
        assert answer["names"] == {name: 3}, answer


PROBE = """
import socket, sys
with socket.socket(socket.AF_INET, socket.{kind}) as s:
    s.settimeout(30)
    try:
        s.connect(("{host}", {port}))
        s.send(b"x")
        s.recv(1)
        print("answered")
    except OSError as error:
        print(type(error).__name__)
"""


def probe(pod: Pod, kind: str, host: Address, port: int) -> str:
    return inside(pod, PROBE.format(kind=kind, host=host, port=port))


def inside(pod: Pod, text: str) -> str:
    """What a small program prints in the pod's namespace."""
    command = ["ip", "netns", "exec", pod.namespace, "/usr/bin/python3", "-c"]
    done = subprocess.run([*command, text], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


async def test_closed_port_behind_a_service_is_refused(stage: Stage) -> None:
    """A UDP client of a service learns that nobody listens at the backend, here and elsewhere."""
    one, two = stage.nodes
    client, near = await one.add_pod("client", 70001), await one.add_pod("near", 70002)
    far = await two.add_pod("far", 70003)
    for backend in (near, far):
        await publish(stage, backend.address, Protocol.UDP)
        assert probe(client, "SOCK_DGRAM", VIP, 80) == "ConnectionRefusedError"
        assert probe(stack_of(one, client), "SOCK_DGRAM", VIP, 80) == "ConnectionRefusedError"


async def test_service_without_backend_refuses_at_once(stage: Stage) -> None:
    """Neither a pod nor a process of the node waits for what cannot come."""
    one, _ = stage.nodes
    client = await one.add_pod("client", 70001)
    for kind, protocol in (("SOCK_STREAM", Protocol.TCP), ("SOCK_DGRAM", Protocol.UDP)):
        await publish(stage, None, protocol)
        for pod in (client, stack_of(one, client)):
            begun = time.monotonic()
            assert probe(pod, kind, VIP, 80) == "ConnectionRefusedError"
            assert time.monotonic() - begun < 20
    assert {reason for reason, _ in await one.drops()} == {158}


HOP = """
import errno, socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.settimeout(30)
    s.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR: report what routers say
    s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
    s.sendto(b"x", ("{host}", 9999))
    try:
        s.recv(1)
    except OSError as error:
        print(errno.errorcode.get(error.errno, error))
    print(s.recvmsg(100, 1000, socket.MSG_ERRQUEUE)[1][0][2][20:24].hex())
"""


async def test_hops_are_seen(stage: Stage) -> None:
    """A packet that dies on the first hop is answered by the node's router address."""
    one, two = stage.nodes
    client, far = await one.add_pod("client", 70001), await two.add_pod("far", 70002)
    said = inside(client, HOP.format(host=far.address)).split()
    assert said == ["EHOSTUNREACH", one.config.router_ip.packed.hex()]

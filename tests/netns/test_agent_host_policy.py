"""An agent that judges its own node: who reaches it, whom it reaches, and that it is never cut off.

Beside the node, on its underlay, stands a second namespace: the world, another node, and the API
server, each by an address of its own.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from datapath import inspect, map_names, namespaces, pins
from datapath.kernel_table import KernelTable
from model.endpoint import EndpointId
from model.policy_map import Direction, PolicyKey
from tests.support.agent import (
    NODE_IP,
    AgentNode,
    Forwarder,
    agent_node,
    drop,
    put,
    traffic,
    until,
)
from tests.support.agent_policy import kernel_rows
from tests.support.kube import write_kubeconfig
from tests.support.nodes import Process, netns_path, sh
from tests.support.underlay import beside

pytestmark = pytest.mark.root

WORLD, OTHER_NODE, API = "172.31.9.50", "172.31.9.66", "172.31.9.99"
SECOND_ADDRESS = "172.31.77.1"
HOST = 0
POLICIES = "ciliumclusterwidenetworkpolicies"
ANYBODY = {"fromEntities": ["all"]}


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[tuple[AgentNode, str]]:
    """A ready agent whose API server is reached by the underlay, and the namespace beside it."""
    async with agent_node(tmp_path) as node:
        outside = beside(node, SECOND_ADDRESS, WORLD, OTHER_NODE, API)
        assert node.forwarder is not None
        api = await Forwarder(outside, node.forwarder._target, "0.0.0.0").start()
        node.forwarder = api
        server = f"http://{API}:{api.port}"
        file = tmp_path / "kubeconfig-underlay"
        node.kubeconfig = write_kubeconfig(file, server, {"token": "secret-token"}, {})
        _other_node(node, {"zone": "b"})
        node.flags = {
            "enable-host-firewall": "true",
            "enable-node-selector-labels": "true",
            "policy-kubelet-port": "10250",
        }
        node.start()
        await node.ready()
        yield node, outside
        await api.stop()


def _other_node(node: AgentNode, labels: dict[str, str]) -> None:
    spec = {"addresses": [{"type": "InternalIP", "ip": OTHER_NODE}]}
    put(node.fake, "ciliumnodes", {"metadata": {"name": "n2", "labels": labels}, "spec": spec})


def policy(node: AgentNode, spec: dict[str, Any], name: str = "node") -> None:
    body = {"nodeSelector": {"matchLabels": {"zone": "a"}}, **spec}
    put(node.fake, POLICIES, {"metadata": {"name": name}, "spec": body})


def tcp_port(port: int) -> list[dict[str, Any]]:
    return [{"ports": [{"port": str(port), "protocol": "TCP"}]}]


def answered(
    namespace: str, target: str, port: int, source: str = "", patience_s: float = 6.0
) -> bool:
    """One connection, from an address of the namespace."""
    code = (
        "import socket,sys\n"
        f"s=socket.create_connection(({target!r},{port}),{patience_s},({source!r},0))\n"
        "sys.exit(not s.recv(1))"
    )
    try:
        sh(f'ip netns exec {namespace} python3 -c "{code}" 2>/dev/null')
    except RuntimeError:
        return False
    return True


def silent(namespace: str, target: str, port: int, source: str = "") -> bool:
    """One connection that is left without an answer."""
    return not answered(namespace, target, port, source, 0.6)


def rows(node: AgentNode) -> set[PolicyKey]:
    return kernel_rows(node, HOST)


async def judged(node: AgentNode, *ways: Direction) -> None:
    """Wait until default deny holds in these directions and no other."""

    def claim() -> bool:
        found = rows(node)
        return {w for w in Direction if PolicyKey(0, w) not in found} == set(ways)

    await until(claim, f"the node is judged: {ways}, {rows(node)}")


async def serving(node: AgentNode, *ports: int) -> list[Process]:
    return [traffic(node.namespace, "serve-tcp", "0.0.0.0", port, "node").ready() for port in ports]


async def test_who_reaches_the_node(stage: tuple[AgentNode, str]) -> None:
    """Nodes by their labels, pods by theirs, the world not; on every address of the node; labels
    that change on either side count at once."""
    node, outside = stage
    servers = await serving(node, 8080, 9090)
    assert answered(outside, NODE_IP, 8080, WORLD), "nothing is said about the node"
    pods = [await node.add(node.pod(name, {"app": name})) for name in ("friend", "stranger")]
    friend, stranger = (p.namespace for p in pods)
    policy(
        node,
        {
            "ingress": [
                {"fromNodes": [{"matchLabels": {"zone": "b"}}], "toPorts": tcp_port(8080)},
                {"fromEndpoints": [{"matchLabels": {"app": "friend"}}]},
            ]
        },
    )
    await judged(node, Direction.INGRESS)
    assert answered(outside, NODE_IP, 8080, OTHER_NODE)
    assert silent(outside, NODE_IP, 9090, OTHER_NODE)
    assert silent(outside, NODE_IP, 8080, WORLD)
    assert silent(outside, SECOND_ADDRESS, 8080, WORLD), "it is an address of the node"
    assert answered(outside, SECOND_ADDRESS, 8080, OTHER_NODE)
    assert answered(friend, NODE_IP, 9090)
    assert silent(stranger, NODE_IP, 9090)
    assert silent(stranger, SECOND_ADDRESS, 9090)

    _other_node(node, {"zone": "c"})
    await until(lambda: silent(outside, NODE_IP, 8080, OTHER_NODE), "it is in zone c now")
    own = node.fake.objects["nodes", "", "n1"]
    put(node.fake, "nodes", own | {"metadata": own["metadata"] | {"labels": {"zone": "z"}}})
    await judged(node)
    assert answered(outside, NODE_IP, 8080, WORLD), "the policy is not about this node any more"
    (told,) = (await node.get("policy/rules"))[:1]
    assert told["kind"] == "CiliumClusterwideNetworkPolicy"
    for server in servers:
        server.kill()


async def test_whom_the_node_reaches(stage: tuple[AgentNode, str]) -> None:
    """Pods of its own and others by the underlay; replies to what it may send; a policy that goes
    leaves nothing behind."""
    node, outside = stage
    pod = await node.add(node.pod("server", {"app": "server"}))
    other = await node.add(node.pod("other", {"app": "other"}))
    servers = [pod.serve(), other.serve()]
    for address, port in ((WORLD, 8080), (OTHER_NODE, 8080)):
        servers.append(traffic(outside, "serve-tcp", address, port, "far").ready())
    everybody = [(pod.address, True), (other.address, False), (OTHER_NODE, True), (WORLD, False)]
    assert all(answered(node.namespace, address, 8080) for address, _ in everybody)
    policy(
        node,
        {
            "egress": [
                {"toEndpoints": [{"matchLabels": {"app": "server"}}], "toPorts": tcp_port(8080)},
                {"toNodes": [{"matchLabels": {"zone": "b"}}]},
            ]
        },
    )
    await judged(node, Direction.EGRESS)
    for address, expected in everybody:
        tried = answered if expected else silent
        assert tried(node.namespace, address, 8080), address
    drop(node.fake, POLICIES, "", "node")
    await judged(node)
    assert all(answered(node.namespace, address, 8080) for address, _ in everybody)
    for server in servers:
        server.kill()


async def test_the_api_server_is_never_cut_off(stage: tuple[AgentNode, str]) -> None:
    """All is denied by rules: the agent goes on hearing the API server, is killed and starts again
    under it, the kubelet's port answers the API server and nobody else, and a better policy is
    heard."""
    node, outside = stage
    servers = await serving(node, 10250, 8080)
    policy(
        node,
        {
            "ingressDeny": [{"fromEntities": ["all"]}],
            "egressDeny": [{"toEntities": ["all"]}],
        },
    )
    put(
        node.fake,
        "endpointslices",
        {
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [API]}],
            "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}],
        },
    )
    await judged(node, *Direction)
    await until(lambda: answered(outside, NODE_IP, 10250, API), "the kubelet's port")
    assert silent(outside, NODE_IP, 8080, API)
    assert silent(outside, NODE_IP, 10250, WORLD)
    node.kill()
    assert silent(outside, NODE_IP, 8080, WORLD), "closed while nobody runs"
    node.start()
    await node.ready()
    assert (await node.get("healthz"))["host-firewall"] == {
        "mode": "Enabled",
        "devices": ["under0"],
    }
    assert silent(outside, NODE_IP, 8080, WORLD)

    async def heard() -> bool:
        return bool((await node.get("healthz"))["kubernetes"]["state"] == "Ok")

    await until(heard, "the API server is heard")
    policy(node, {"ingress": [{**ANYBODY, "toPorts": tcp_port(8080)}]})
    await judged(node, Direction.INGRESS)
    assert answered(outside, NODE_IP, 8080, WORLD)
    for server in servers:
        server.kill()


async def test_a_policy_in_audit_forbids_the_node_nothing(stage: tuple[AgentNode, str]) -> None:
    """And the setting taken away takes the rows out of the kernel."""
    node, outside = stage
    (server,) = await serving(node, 8080)
    audit = {"policy.isthmus.io/audit": "true"}
    spec = {"nodeSelector": {}, "ingress": [{}]}
    put(node.fake, POLICIES, {"metadata": {"name": "node", "annotations": audit}, "spec": spec})

    def audited() -> bool:
        found = inspect.policies(node.bpf_root / "isthmus").get(EndpointId(HOST))
        return found is not None and any(entry.audit for entry, _ in found.values())

    await until(audited, "the node's default deny is on paper")
    assert answered(outside, NODE_IP, 8080, WORLD)
    put(node.fake, POLICIES, {"metadata": {"name": "node", "annotations": {}}, "spec": spec})
    await until(lambda: silent(outside, NODE_IP, 8080, WORLD), "in earnest")
    node.kill()
    node.flags = {}
    node.start()
    await node.ready()
    assert answered(outside, NODE_IP, 8080, WORLD)
    await until(lambda: not rows(node), "no rows of the node are left")
    assert (await node.get("healthz"))["host-firewall"]["mode"] == "Disabled"
    server.kill()


def _forget_connections(node: AgentNode) -> None:
    """As when the programs come to a node whose connections are older than they are."""
    fd = pins.open_pinned(pins.map_pin(node.bpf_root / "isthmus", map_names.CONNTRACK))
    assert fd is not None
    table = KernelTable(fd, map_names.CONNTRACK)
    try:
        table.remove([key for key, _ in list(table.rows())])
    finally:
        table.close()


def _arrives(source: socket.socket, target: socket.socket, within_s: float = 10.0) -> bool:
    """Whether a byte comes through."""
    source.send(b"x")
    target.settimeout(within_s)
    try:
        return target.recv(1) == b"x"
    except TimeoutError:
        return False


async def test_connections_older_than_the_programs(stage: tuple[AgentNode, str]) -> None:
    """One that the node has opened lives on when the other side speaks first; one that was opened
    from outside is judged as such."""
    node, outside = stage

    def listener(address: str, port: int) -> socket.socket:
        return socket.create_server((address, port))

    def client(source: str, target: str, port: int) -> socket.socket:
        return socket.create_connection((target, port), 10, (source, 0))

    async def inside(namespace: str, work: Callable[..., socket.socket], *words: object) -> Any:
        path = netns_path(namespace)
        return await asyncio.to_thread(namespaces.run_inside, path, lambda: work(*words))

    with contextlib.ExitStack() as opened:
        keep = opened.enter_context
        far = keep(await inside(outside, listener, WORLD, 7000))
        near = keep(await inside(node.namespace, listener, NODE_IP, 9090))
        own = keep(await inside(node.namespace, client, NODE_IP, WORLD, 7000))
        answering = keep(far.accept()[0])
        foreign = keep(await inside(outside, client, WORLD, NODE_IP, 9090))
        served = keep(near.accept()[0])
        assert _arrives(answering, own)
        assert _arrives(foreign, served)
        policy(node, {"ingress": [{"fromEndpoints": [{"matchLabels": {"app": "nobody"}}]}]})
        await judged(node, Direction.INGRESS)
        _forget_connections(node)
        assert _arrives(answering, own), "the node has opened it"
        assert _arrives(own, answering)
        assert not _arrives(foreign, served, 1.0)

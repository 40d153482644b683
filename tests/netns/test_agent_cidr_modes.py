"""An agent with `policy-cidr-match-mode`: rules of prefixes and the addresses of pods and nodes.

Beside the node, on its underlay, stands a second namespace: another node, and the world.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import NODE_IP, AgentNode, TestPod, agent_node, drop, put, traffic, until
from tests.support.agent_policy import POLICIES, isthmus, policy, reaches, refused
from tests.support.nodes import sh
from tests.support.underlay import beside

pytestmark = pytest.mark.root

WORLD, OTHER_NODE = "172.31.9.50", "172.31.9.66"
SECOND_ADDRESS = "172.31.77.1"  # of the node itself
POD_CIDR = "10.203.1.0/24"


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[tuple[AgentNode, str]]:
    async with agent_node(tmp_path) as found:
        outside = beside(found, SECOND_ADDRESS, WORLD, OTHER_NODE)
        sh(f"ip -n {outside} route add {POD_CIDR} via {NODE_IP}")
        spec = {"addresses": [{"type": "InternalIP", "ip": OTHER_NODE}]}
        put(found.fake, "ciliumnodes", {"metadata": {"name": "n2"}, "spec": spec})
        yield found, outside


async def started(node: AgentNode, modes: str) -> dict[str, TestPod]:
    node.flags = {"policy-cidr-match-mode": modes}
    node.start()
    await node.ready()
    names = ("server", "friend", "stranger")
    return {name: await node.add(node.pod(name, {"app": name})) for name in names}


def only_to(*cidrs: str, **more: Any) -> dict[str, Any]:
    selector = {"matchLabels": {"app": "friend"}}
    return {"endpointSelector": selector, "egress": [{"toCIDR": list(cidrs)}], **more}


def answered(pod: TestPod, address: str, patience_s: float = 6.0) -> bool:
    tried = traffic(pod.namespace, "tcp", address, 8080, patience_s=patience_s)
    return bool(tried.finish()["names"])


def silent(pod: TestPod, address: str) -> bool:
    return not answered(pod, address, 0.7)


async def test_pods_by_their_addresses(stage: tuple[AgentNode, str]) -> None:
    """One pod of two that a prefix names; a deny by address; a restart opens and cuts nothing;
    what selects whom is told. Nodes are not meant."""
    node, _ = stage
    pods = await started(node, "pods")
    server, friend, stranger = pods["server"], pods["friend"], pods["stranger"]
    listeners = [pod.serve() for pod in (server, stranger)]
    at_node = traffic(node.namespace, "serve-tcp", "0.0.0.0", 8080, "node").ready()
    policy(node, "out", only_to(f"{server.address}/32", f"{NODE_IP}/32"))
    await until(lambda: refused(friend, stranger), "only the server is named")
    assert reaches(friend, server)
    assert silent(friend, NODE_IP)
    kept = traffic(friend.namespace, "steady-tcp", server.address, 8080, 0.02).ready()
    flood = traffic(friend.namespace, "steady-tcp", stranger.address, 8080, 0.02)
    node.kill()
    node.start()
    await node.ready()
    assert refused(friend, stranger)
    assert reaches(friend, server)
    assert kept.finish()["errors"] == []
    flood.kill()

    shown = await isthmus(node, "policy", "selectors", "-o", "json")
    members = {row["selector"]: row["identities"] for row in json.loads(shown.out)}
    world, inner = members[f"{server.address}/32"]
    assert (world >> 24, inner >> 24) == (1, 3), "outside, and by the address of a pod"
    assert json.loads((await node.get("policy"))["policy"])[0]["warnings"] == []

    policy(node, "out", only_to(POD_CIDR, egressDeny=[{"toCIDR": [f"{server.address}/32"]}]))
    await until(lambda: reaches(friend, stranger), "the whole pod CIDR is named")
    assert refused(friend, server)
    drop(node.fake, POLICIES, "default", "out")
    await until(lambda: reaches(friend, server), "nothing is said any more")
    for process in (*listeners, at_node):
        process.kill()


async def test_nodes_by_their_addresses(stage: tuple[AgentNode, str]) -> None:
    """This node by one address of its two, another one by its own, the world as ever; no pod."""
    node, outside = stage
    pods = await started(node, "nodes")
    server, friend = pods["server"], pods["friend"]
    servers = [
        server.serve(),
        traffic(node.namespace, "serve-tcp", "0.0.0.0", 8080, "node").ready(),
        traffic(outside, "serve-tcp", "0.0.0.0", 8080, "outside").ready(),
    ]
    for address in (NODE_IP, SECOND_ADDRESS, OTHER_NODE, WORLD, server.address):
        assert answered(friend, address), f"{address}: nothing is forbidden yet"
    policy(node, "out", only_to(f"{NODE_IP}/32", f"{OTHER_NODE}/32", POD_CIDR))
    await until(lambda: refused(friend, server), "a pod is not meant")
    (told,) = json.loads((await node.get("policy"))["policy"])
    assert [w["reason"].split()[0] for w in told["warnings"]] == [POD_CIDR]
    listed = await isthmus(node, "policy", "list")
    assert f"pods are passed by: {POD_CIDR} has addresses of pods" in listed.out
    assert answered(friend, NODE_IP)
    assert answered(friend, OTHER_NODE)
    assert silent(friend, SECOND_ADDRESS)
    assert silent(friend, WORLD)
    block = {"cidr": "0.0.0.0/0", "except": [f"{OTHER_NODE}/32"]}
    selector = {"endpointSelector": {"matchLabels": {"app": "friend"}}}
    policy(node, "out", {**selector, "egress": [{"toCIDRSet": [block]}]})
    await until(lambda: answered(friend, WORLD), "everything but one node is named")
    assert answered(friend, NODE_IP)
    assert answered(friend, SECOND_ADDRESS)
    assert silent(friend, OTHER_NODE)
    assert refused(friend, server)
    for process in servers:
        process.kill()

"""An agent of both families: addresses, ways, objects; switched on and off under pods that live."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from datapath import inspect
from tests.support.agent import (
    NODE_IP,
    POD_CIDR,
    AgentNode,
    TestPod,
    agent_node,
    endpoint_slice,
    put,
    remote_cluster,
    service,
    traffic,
    until,
)
from tests.support.nodes import sh

pytestmark = pytest.mark.root

POD_CIDR6 = "fd00:203:1::/64"
NODE_IP6 = "fd00:31:9::1"
REMOTE_NODE = "172.31.9.66"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[AgentNode]:
    async with agent_node(tmp_path) as found:
        sh(f"ip -n {found.namespace} addr add {NODE_IP6}/64 dev under0 nodad")
        _give(found, POD_CIDR, POD_CIDR6)
        found.flags["enable-ipv6"] = "true"
        yield found


def _give(node: AgentNode, *cidrs: str) -> None:
    addresses = [{"type": "InternalIP", "address": ip} for ip in (NODE_IP, NODE_IP6)]
    put(
        node.fake,
        "nodes",
        {
            "metadata": {"name": "n1", "uid": "uid-n1", "labels": {}},
            "spec": {"podCIDR": cidrs[0], "podCIDRs": list(cidrs)},
            "status": {"addresses": addresses},
        },
    )


def _families(pod: TestPod) -> dict[int, str]:
    """Addresses of the CNI result by family."""
    found = [str(ip["address"]).partition("/")[0] for ip in pod.result["ips"]]
    return {6 if ":" in text else 4: text for text in found}


def _reaches(namespace: str, pod: TestPod, version: int) -> bool:
    """Whether a TCP connection to a pod's address of a family is answered by that pod."""
    address = _families(pod)[version]
    server = traffic(pod.namespace, "serve-tcp", address, 8080, pod.name).ready()
    try:
        seen = traffic(namespace, "tcp", address, 8080, 1, 4000).finish()
    finally:
        server.kill()
    return bool(seen["names"] == {pod.name: 1})


def _routes(node: AgentNode) -> dict[str, str]:
    """Our IPv6 routes of the node, prefix → line."""
    lines = sh(f"ip -n {node.namespace} -6 route show proto 73").splitlines()
    return {line.split()[0]: line for line in lines if line}


async def test_pods_of_both_families(node: AgentNode) -> None:
    """Both addresses in the result, the pod and its object; node and pods reach one another."""
    node.start()
    status = await node.ready()
    assert f"allocated from {POD_CIDR6}" in status["ipam"]["status"]
    web = await node.add(node.pod("web", {"app": "web"}))
    client = await node.add(node.pod("client"))
    four, six = _families(web)[4], _families(web)[6]
    assert [ip["gateway"].count(":") > 0 for ip in web.result["ips"]] == [False, True]
    assert {r["dst"] for r in web.result["routes"]} >= {"0.0.0.0/0", "::/0"}
    assert f"{six}/128" in web.sh("ip -6 -o addr show eth0")
    for namespace in (node.namespace, client.namespace):
        assert _reaches(namespace, web, 4)
        assert _reaches(namespace, web, 6)
    assert "1 received" in client.sh(f"ping -6 -c 1 -W 10 {six}")
    assert "1 received" in client.sh(f"ping -6 -c 1 -W 10 {NODE_IP6}"), "the node itself"

    made = await until(
        lambda: node.fake.objects.get(("ciliumendpoints", "default", "web")), "its CiliumEndpoint"
    )
    assert made["status"]["networking"]["addressing"] == [{"ipv4": four, "ipv6": six}]
    mine = node.fake.objects[("ciliumnodes", "", "n1")]["spec"]
    assert mine["ipam"]["podCIDRs"] == [POD_CIDR, POD_CIDR6]
    routers = [a["ip"] for a in mine["addresses"] if a["type"] == "CiliumInternalIP"]
    assert [":" in ip for ip in routers] == [False, True]
    config = await node.get("config")
    assert config["status"]["addressing"]["ipv6"]["ip"] == routers[1]
    assert POD_CIDR6 in _routes(node)
    assert (await node.get("ipam"))["allocations"][six] == "default/web"
    assert await node.cni("CHECK", web) == {}
    assert await node.cni("DEL", web) == {}
    assert six not in (await node.get("ipam"))["allocations"]


async def test_services_of_both_families(node: AgentNode) -> None:
    """A frontend leads to backends of its own family, by slices of both address types."""
    node.start()
    await node.ready()
    web = await node.add(node.pod("web"))
    client = await node.add(node.pod("client"))
    made = service("web", "10.204.0.10")
    made["spec"] |= {"clusterIPs": ["10.204.0.10", "fd00:204::10"], "ipFamilies": ["IPv4", "IPv6"]}
    put(node.fake, "services", made)
    put(node.fake, "endpointslices", endpoint_slice("web", _families(web)[4]))
    six = endpoint_slice("web", _families(web)[6]) | {"addressType": "IPv6"}
    six["metadata"] = six["metadata"] | {"name": "web-2"}
    put(node.fake, "endpointslices", six)

    def in_force() -> bool:
        lines = inspect.services(node.bpf_root / "isthmus")
        return sum(any(b.selectable for b in line.backends) for line in lines) == 2

    await until(in_force, "both frontends")
    for version, frontend in ((4, "10.204.0.10"), (6, "fd00:204::10")):
        server = traffic(web.namespace, "serve-tcp", _families(web)[version], 8080, "web").ready()
        for namespace in (client.namespace, web.namespace):  # itself, too
            seen = traffic(namespace, "tcp", frontend, 80).finish()
            assert seen["names"] == {"web": 1}, (version, namespace, seen)
        server.kill()


async def test_restart_and_the_family_switched(node: AgentNode) -> None:
    """A restart keeps both routers; without IPv6 its ways go and pods stay; new ones get one."""
    node.start()
    await node.ready()
    old = await node.add(node.pod("old"))
    before = (await node.get("config"))["status"]["addressing"]
    node.kill()
    assert _reaches(node.namespace, old, 6), "packets need no agent"
    node.start()
    await node.ready()
    assert (await node.get("config"))["status"]["addressing"] == before
    assert _reaches(node.namespace, old, 6)
    node.kill()

    node.flags["enable-ipv6"] = "false"
    node.start()
    await node.ready()
    assert _reaches(node.namespace, old, 4)
    await until(lambda: _routes(node) == {}, "its ways go")
    assert "inet6" not in sh(f"ip -n {node.namespace} addr show ist_host")
    one = await node.add(node.pod("one"))
    assert set(_families(one)) == {4}
    assert "inet6" not in one.sh("ip -6 addr show eth0")
    node.kill()

    node.flags["enable-ipv6"] = "true"
    node.start()
    await node.ready()
    assert (await node.get("config"))["status"]["addressing"]["ipv6"] == before["ipv6"]
    assert (await node.add(one)).result["ips"] == one.result["ips"], "of a family until it is anew"
    both = await node.add(node.pod("both"))
    assert set(_families(both)) == {4, 6}
    assert _families(both)[6] != _families(old)[6], "the old pod's address is not free"
    assert _reaches(both.namespace, old, 6)
    assert _reaches(both.namespace, one, 4)


async def test_prefixes_of_remote_nodes(node: AgentNode) -> None:
    """A remote node's IPv6 prefix leads into the tunnel to its IPv4 address; a pod is known."""
    node.start()
    await node.ready()
    async with remote_cluster(node) as beta:
        await beta.add_node("m1", REMOTE_NODE, "10.213.1.0/24", "fd00:213:1::/64")
        await beta.add_pod("fd00:213:1::5", REMOTE_NODE)
        beta.connect()

        async def told() -> Any:
            rows = {row["cidr"]: row for row in await node.get("ip")}
            return rows.get("fd00:213:1::5/128") and rows.get("fd00:213:1::/64")

        assert (await until(told, "the remote pod"))["hostIP"] == REMOTE_NODE
        await until(lambda: "fd00:213:1::/64" in _routes(node), "its way")
        assert "mtu 1450" in _routes(node)["fd00:213:1::/64"]


async def test_a_node_without_a_prefix_of_ipv6_waits(node: AgentNode) -> None:
    """The agent says what is missing, and goes on when it comes."""
    _give(node, POD_CIDR)
    node.start()
    await until(lambda: "Node n1 has no IPv6 pod CIDR yet" in node.log.read_text(), "the reason")
    _give(node, POD_CIDR, POD_CIDR6)
    await node.ready()

"""An agent that enforces policies: packets between pods of a node, and its kernel's tables."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from datapath import inspect
from model.policy_map import Direction, PolicyKey
from policy.facts import from_json
from policy.table import PolicyTable
from tests.support.agent import (
    AgentNode,
    RemoteCluster,
    TestPod,
    drop,
    endpoint_slice,
    put,
    remote_cluster,
    traffic,
    until,
)
from tests.support.agent_policy import (
    POLICIES,
    REMOTE_IDENTITY,
    REMOTE_NODE,
    REMOTE_POD,
    kernel_ipcache,
    kernel_rows,
    number,
    only_friend,
    policy,
    reaches,
    refused,
)

pytestmark = pytest.mark.root


@pytest.fixture
async def pods(node: AgentNode) -> dict[str, TestPod]:
    """A running agent with a server and two clients."""
    node.start()
    await node.ready()
    found = {}
    for name in ("server", "friend", "stranger"):
        pod = node.pod(name, {"app": name})
        found[name] = await node.add(pod)
    return found


async def rejected(node: AgentNode) -> list[str]:
    return list((await node.get("healthz"))["rejected"]["problems"])


async def test_a_policy_opens_and_shuts(node: AgentNode, pods: dict[str, TestPod]) -> None:
    """Open without a policy; with one only who it names passes, connections that are forbidden now
    are cut; it goes, and all is open again. A relabelled pod is somebody else."""
    server, friend, stranger = pods["server"], pods["friend"], pods["stranger"]
    listener = server.serve()
    assert reaches(friend, server)
    assert reaches(stranger, server)
    kept = traffic(friend.namespace, "steady-tcp", server.address, 8080, 0.02).ready()
    cut = traffic(stranger.namespace, "steady-tcp", server.address, 8080, 0.02).ready()

    policy(node, "server", only_friend())
    endpoint = await number(node, server)
    await until(lambda: PolicyKey(0, Direction.INGRESS) not in kernel_rows(node, endpoint), "shut")
    assert refused(stranger, server)
    assert reaches(friend, server)
    await _api_tells(node, endpoint, server)
    cut.kill()  # it waits for an echo that never comes
    assert kept.finish()["errors"] == []

    other = put(
        node.fake,
        "pods",
        {
            "metadata": {
                "name": "stranger",
                "namespace": "default",
                "uid": stranger.uid,
                "labels": {"app": "friend"},
            },
            "spec": {"nodeName": "n1", "serviceAccountName": "default"},
            "status": {},
        },
    )
    assert other["metadata"]["uid"] == stranger.uid
    await until(lambda: reaches(stranger, server), "relabelled, the stranger is a friend")

    drop(node.fake, POLICIES, "default", "server")
    await until(lambda: PolicyKey(0, Direction.INGRESS) in kernel_rows(node, endpoint), "open")
    assert reaches(friend, server)
    listener.kill()


async def _api_tells(node: AgentNode, endpoint: int, server: TestPod) -> None:
    """What is enforced, in every shape that it is asked for."""

    async def realized_now() -> bool:  # the kernel knows of it first
        found = await _realized(node, endpoint)
        told = await node.get("policy")
        return bool(
            found["policy-enabled"] == "ingress" and found["policy-revision"] == told["revision"]
        )

    await until(realized_now, "it is told")
    shape = await node.get(f"endpoint/{endpoint}")
    realized = shape["status"]["policy"]["realized"]
    assert realized["policy-enabled"] == "ingress"
    assert shape["status"]["health"]["policy"] == "OK"
    told = await node.get("policy")
    assert realized["policy-revision"] == told["revision"]
    (said,) = json.loads(told["policy"])
    assert (said["kind"], said["name"], said["valid"]) == ("CiliumNetworkPolicy", "server", True)
    (rule,) = await node.get("policy/rules")
    computed = await node.get(f"policy/endpoint/{endpoint}")
    (row,) = [r for r in computed["rows"] if r["rule"] == rule["number"]]
    assert (row["port"], row["verdict"]) == (8080, "allow")
    assert "k8s:app=friend" in row["labels"]
    assert row["identity"] in realized["allowed-ingress-identities"]
    selectors = {s["selector"]: s["identities"] for s in await node.get("policy/selectors")}
    assert [row["identity"]] in selectors.values()
    facts = from_json(await node.get("policy/facts"))
    assert facts.endpoints[endpoint].addresses == (server.address,)
    table = PolicyTable(facts.options)
    table.put_identities(facts.identities)
    table.put_object("all", facts.rules())
    table.put_endpoint("server", facts.endpoints[endpoint].subject)
    table.compute()
    assert set(table.rows("server")) == kernel_rows(node, endpoint)


async def test_a_restart_opens_nothing(node: AgentNode, pods: dict[str, TestPod]) -> None:
    """Killed and started again three times under a flood of what is forbidden and a flow that is
    allowed: nothing of the one passes, nothing of the other is lost."""
    server, friend, stranger = pods["server"], pods["friend"], pods["stranger"]
    spec = only_friend("5000")
    spec["ingress"][0]["toPorts"][0]["ports"][0]["protocol"] = "UDP"
    policy(node, "server", spec)
    listener = traffic(server.namespace, "count-udp", server.address, 5000, "server").ready()
    endpoint = await number(node, server)
    await until(lambda: PolicyKey(0, Direction.INGRESS) not in kernel_rows(node, endpoint), "shut")
    flood = traffic(stranger.namespace, "steady-udp", server.address, 5000, 0.0002).ready()
    allowed = traffic(friend.namespace, "steady-udp", server.address, 5000, 0.005).ready()
    for _ in range(3):
        node.kill()
        node.start()
        await node.ready()
    passed = allowed.finish()
    assert passed["sent"] > 200
    assert passed["answered"] == passed["sent"]
    seen = flood.finish()
    assert seen["sent"] > 5000, seen
    assert seen["answered"] == 0, seen
    assert listener.finish() == {friend.address: passed["sent"]}, "not one came to the pod"


async def test_what_is_invalid_closes_and_says_so(
    node: AgentNode, pods: dict[str, TestPod]
) -> None:
    """An invalid policy closes what it selects and nothing else, with the field's path in the
    agent's health; put right, it opens. With a policy too large for the map the pod is closed."""
    server, friend = pods["server"], pods["friend"]
    listener, other = server.serve(), pods["stranger"].serve()
    policy(node, "server", only_friend("70000"))

    async def told() -> bool:
        return any("toPorts[0].ports[0].port" in text for text in await rejected(node))

    await until(told, "the path of the field")
    await until(lambda: refused(friend, server), "closed")
    assert reaches(friend, pods["stranger"])
    policy(node, "server", only_friend())
    await until(lambda: reaches(friend, server), "open again")
    assert await rejected(node) == []

    spec = only_friend()
    ports = [{"port": str(1001 + 2 * n), "protocol": "TCP"} for n in range(40)]
    more = [{**spec["ingress"][0], "toPorts": [{"ports": ports}]}]
    spec["ingress"] = [{**rule, "fromEndpoints": [{}]} for rule in (spec["ingress"] + more)]
    node.kill()
    node.flags["bpf-policy-map-max"] = "256"
    node.start()
    await node.ready()
    policy(node, "server", spec)

    async def full() -> bool:
        messages = (await node.get("healthz"))["messages"]
        return any("a map holds 256" in text for text in messages)

    for name in range(6):
        await node.add(node.pod(f"more-{name}", {"app": f"more-{name}"}))
    await until(full, "the agent says that the map is full")
    await until(lambda: refused(friend, server), "closed")
    drop(node.fake, POLICIES, "default", "server")
    await until(lambda: reaches(friend, server), "open without it")
    listener.kill()
    other.kill()


async def test_prefixes_and_audit(node: AgentNode, pods: dict[str, TestPod]) -> None:
    """Prefixes of rules are local identities in the kernel while a rule names them, never inside
    the pods' own; a policy in audit drops nothing."""
    server, friend = pods["server"], pods["friend"]
    listener = server.serve()
    block = {"cidr": "0.0.0.0/0", "except": ["192.0.2.0/24"]}
    spec = {
        "endpointSelector": {"matchLabels": {"app": "friend"}},
        "egress": [{"toCIDRSet": [block]}, {"toCIDR": ["10.203.1.128/25"]}],
    }
    policy(node, "out", spec, {"policy.isthmus.io/audit": "true"})

    def found() -> bool:
        rows = kernel_ipcache(node)
        return "0.0.0.0/0" in rows and "192.0.2.0/24" in rows

    await until(found, "the prefixes")
    rows = kernel_ipcache(node)
    assert rows["0.0.0.0/0"] > 1 << 24
    assert rows["0.0.0.0/0"] != rows["192.0.2.0/24"]
    assert "10.203.1.128/25" not in rows
    assert reaches(friend, server), "audit drops nothing"
    policy(node, "out", spec)
    await until(lambda: refused(friend, server), "a CIDR rule is not about pods")
    numbers = (rows["0.0.0.0/0"], rows["192.0.2.0/24"])
    node.kill()
    node.start()
    await node.ready()
    rows = kernel_ipcache(node)
    assert (rows["0.0.0.0/0"], rows["192.0.2.0/24"]) == numbers
    drop(node.fake, POLICIES, "default", "out")
    await until(lambda: "0.0.0.0/0" not in kernel_ipcache(node), "they go")
    await until(lambda: reaches(friend, server), "open")
    listener.kill()


@pytest.fixture
async def beta(node: AgentNode) -> AsyncIterator[RemoteCluster]:
    async with remote_cluster(node) as found:
        await found.add_node("m1", REMOTE_NODE, "10.213.1.0/24")
        yield found


async def test_identities_of_another_cluster(
    node: AgentNode, pods: dict[str, TestPod], beta: RemoteCluster
) -> None:
    """An address of a connected cluster is nobody's until its labels are told, and never the
    world's; a policy selects it then, and holds while its cluster is silent over a restart."""
    spec = only_friend()
    spec["ingress"].append({"fromEntities": ["world"]})
    policy(node, "server", spec)
    endpoint = await number(node, pods["server"])
    key = PolicyKey(REMOTE_IDENTITY, Direction.INGRESS, 6, 8080, 24)
    beta.connect()
    await until(lambda: kernel_ipcache(node).get("10.213.1.0/24") == 0, "the prefix is nobody's")
    await beta.add_pod(REMOTE_POD, REMOTE_NODE, REMOTE_IDENTITY)
    await until(lambda: kernel_ipcache(node).get(f"{REMOTE_POD}/32") == 0, "the pod is nobody's")
    assert key not in kernel_rows(node, endpoint)
    await beta.add_identity(REMOTE_IDENTITY, app="friend")
    await until(
        lambda: kernel_ipcache(node).get(f"{REMOTE_POD}/32") == REMOTE_IDENTITY, "it is known"
    )
    assert key in kernel_rows(node, endpoint)

    kept = node.state / "state" / "remote-clusters"
    files = kept / "beta.json", kept / "journal.lines"  # by whether all had been told before

    def is_kept() -> bool:
        return any(str(REMOTE_IDENTITY) in file.read_text() for file in files if file.exists())

    await until(is_kept, "kept")
    node.kill()
    await beta.close()
    node.start()
    await node.ready()
    await asyncio.sleep(0.5)
    assert kernel_ipcache(node)[f"{REMOTE_POD}/32"] == REMOTE_IDENTITY
    assert key in kernel_rows(node, endpoint)


async def test_modes(node: AgentNode, pods: dict[str, TestPod]) -> None:
    """``never`` asks no policy and leaves no rows behind; with ``always`` what no policy allows is
    denied, but in audit mode, in which nothing is."""
    server, friend = pods["server"], pods["friend"]
    listener = server.serve()
    policy(node, "server", only_friend("1"))
    await until(lambda: refused(friend, server), "shut")
    node.kill()
    node.flags["enable-policy"] = "never"
    node.start()
    await node.ready()
    assert reaches(friend, server)
    await until(lambda: not inspect.policies(node.bpf_root / "isthmus"), "no rows")
    drop(node.fake, POLICIES, "default", "server")
    node.kill()
    node.flags["enable-policy"] = "always"
    node.start()
    await node.ready()
    assert refused(friend, server)
    node.kill()
    node.flags["policy-audit-mode"] = "true"
    node.start()
    await node.ready()
    await until(lambda: reaches(friend, server), "what would be denied passes")
    policy(node, "server", only_friend("1"))
    endpoint = await number(node, server)
    await until(lambda: len(kernel_rows(node, endpoint)) > 2, "the policy's rows")
    assert reaches(friend, server)

    async def audited() -> bool:
        return bool((await _realized(node, endpoint))["policy-enabled"] == "audit-both")

    await until(audited, "it is told")
    listener.kill()
    assert node.reaches(server), "the node reaches its pods"


async def _realized(node: AgentNode, endpoint: int) -> Any:
    return (await node.get(f"endpoint/{endpoint}"))["status"]["policy"]["realized"]


async def test_names_of_ports_and_the_api_server(node: AgentNode, pods: dict[str, TestPod]) -> None:
    """A port's name is its number in the server's own pod coming in, and in all pods going out; the
    API server is the address of its service's endpoint, without a policy naming it."""
    port = {"name": "web", "containerPort": 8080, "protocol": "TCP"}
    named = await node.add(node.pod("named", {"app": "named"}, (port,)))
    friend, stranger = pods["friend"], pods["stranger"]
    listener, other = named.serve(), pods["server"].serve()
    spec = only_friend("web")
    spec["endpointSelector"] = {"matchLabels": {"app": "named"}}
    policy(node, "in", spec)
    await until(lambda: refused(stranger, named), "shut")
    assert reaches(friend, named)
    ports = [{"ports": [{"port": "web", "protocol": "TCP"}]}]
    spec = {
        "endpointSelector": {"matchLabels": {"app": "friend"}},
        "egress": [{"toEntities": ["kube-apiserver"], "toPorts": ports}, {"toPorts": ports}],
        "egressDeny": [{"toEndpoints": [{"matchLabels": {"app": "server"}}]}],
    }
    policy(node, "out", spec)
    await until(lambda: refused(friend, pods["server"]), "denied")
    await until(lambda: reaches(friend, named), "by the port's name")
    key_of_named = ("ciliumendpoints", "default", "named")
    found = await until(lambda: node.fake.objects.get(key_of_named), "its CiliumEndpoint")
    assert found["status"]["named-ports"] == [{"name": "web", "port": 8080, "protocol": "TCP"}]

    assert "203.0.113.7/32" not in kernel_ipcache(node)
    put(node.fake, "endpointslices", endpoint_slice("kubernetes", "203.0.113.7"))
    await until(lambda: kernel_ipcache(node).get("203.0.113.7/32", 0) > 1 << 24, "an identity")
    identity = kernel_ipcache(node)["203.0.113.7/32"]
    endpoint = await number(node, friend)
    key = PolicyKey(identity, Direction.EGRESS, 6, 8080, 24)
    facts = from_json(await node.get("policy/facts"))
    assert "reserved:kube-apiserver" in facts.identities[identity].strings()
    drop(node.fake, POLICIES, "default", "out")
    policy(node, "out", {**spec, "egress": spec["egress"][:1]})
    await until(lambda: key in kernel_rows(node, endpoint), "its row")
    listener.kill()
    other.kill()

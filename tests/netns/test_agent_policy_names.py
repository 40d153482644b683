"""What policies name that is no label of a pod: labels of namespaces, services, groups of CIDRs.

Through a running agent: the API server says something, packets and the kernel's rows follow.
"""

from typing import Any

import pytest

from model.policy_map import Direction, PolicyKey
from tests.support.agent import (
    AgentNode,
    TestPod,
    drop,
    endpoint_slice,
    put,
    service,
    until,
)
from tests.support.agent_policy import (
    kernel_ipcache,
    kernel_rows,
    number,
    policy,
    reaches,
    refused,
)

pytestmark = pytest.mark.root

OUTSIDE = "203.0.113.9"


@pytest.fixture
async def pods(node: AgentNode) -> dict[str, TestPod]:
    """A running agent with two servers and a client."""
    node.start()
    await node.ready()
    return {name: await node.add(node.pod(name, {"app": name})) for name in ("web", "db", "client")}


def namespace(node: AgentNode, labels: dict[str, str]) -> None:
    put(node.fake, "namespaces", {"metadata": {"name": "default", "labels": labels}})


async def test_labels_of_a_namespace(node: AgentNode, pods: dict[str, TestPod]) -> None:
    """They come, change and go while pods run: who is selected by them follows, in a NetworkPolicy
    and in a policy of Cilium."""
    web, db, client = (pods[name] for name in ("web", "db", "client"))
    listeners = web.serve(), db.serve()
    peer = {"namespaceSelector": {"matchLabels": {"team": "x"}}}
    body: dict[str, Any] = {"metadata": {"name": "web", "namespace": "default"}}
    body["spec"] = {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [peer]}]}
    put(node.fake, "networkpolicies", body)
    labels = {"k8s:io.cilium.k8s.namespace.labels.team": "x"}
    policy(
        node,
        "db",
        {
            "endpointSelector": {"matchLabels": {"app": "db"}},
            "ingress": [{"fromEndpoints": [{"matchLabels": labels}]}],
        },
    )
    await until(lambda: refused(client, web) and refused(client, db), "nobody is of the team")
    namespace(node, {"team": "x"})
    await until(lambda: reaches(client, web) and reaches(client, db), "now they are")
    namespace(node, {"team": "y"})
    await until(lambda: refused(client, web) and refused(client, db), "of another team")
    for listener in listeners:
        listener.kill()


async def test_services(node: AgentNode, pods: dict[str, TestPod]) -> None:
    """The pods that a service selects now; the addresses of one without a selector, though none
    that are pods'; and of one that is gone, nobody."""
    web, db, client = (pods[name] for name in ("web", "db", "client"))
    listeners = web.serve(), db.serve()
    names = ({"serviceName": name, "namespace": "default"} for name in ("pods", "outside"))
    to = {"toServices": [{"k8sService": name} for name in names]}
    policy(node, "out", {"endpointSelector": {"matchLabels": {"app": "client"}}, "egress": [to]})
    await until(lambda: refused(client, web) and refused(client, db), "there are no services")

    def select(app: str) -> None:
        made = service("pods", "10.204.0.20")
        made["spec"]["selector"] = {"app": app}
        put(node.fake, "services", made)

    select("web")
    await until(lambda: reaches(client, web), "the pods of the service")
    assert refused(client, db)
    select("db")
    await until(lambda: reaches(client, db) and refused(client, web), "it has other pods")

    put(node.fake, "services", service("outside", "10.204.0.21"))
    put(node.fake, "endpointslices", endpoint_slice("outside", OUTSIDE, web.address))
    await until(lambda: kernel_ipcache(node).get(f"{OUTSIDE}/32", 0) > 1 << 24, "its address")
    endpoint = await number(node, client)
    key = PolicyKey(kernel_ipcache(node)[f"{OUTSIDE}/32"], Direction.EGRESS)
    await until(lambda: key in kernel_rows(node, endpoint), "its row")
    assert refused(client, web), "a prefix is no pod"

    for name in ("pods", "outside"):
        drop(node.fake, "services", "default", name)
    await until(lambda: refused(client, db), "it is gone")
    await until(lambda: key not in kernel_rows(node, endpoint), "and its addresses")
    for listener in listeners:
        listener.kill()


async def test_groups_of_cidrs(node: AgentNode, pods: dict[str, TestPod]) -> None:
    """Their prefixes, by name and by label, as groups come, change and go."""
    endpoint = await number(node, pods["client"])
    chosen = [{"cidrGroupRef": "g"}, {"cidrGroupSelector": {"matchLabels": {"team": "x"}}}]
    policy(
        node,
        "out",
        {
            "endpointSelector": {"matchLabels": {"app": "client"}},
            "egress": [{"toCIDRSet": chosen}],
        },
    )

    def group(name: str, *cidrs: str, **labels: str) -> None:
        body = {"metadata": {"name": name, "labels": labels}, "spec": {"externalCIDRs": cidrs}}
        put(node.fake, "ciliumcidrgroups", body)

    def allowed() -> set[str]:
        numbers = {n: prefix for prefix, n in kernel_ipcache(node).items() if n >> 24 == 1}
        rows = kernel_rows(node, endpoint)
        return {numbers[k.identity] for k in rows if k.identity in numbers}

    group("g", "198.51.100.0/24")
    group("h", "203.0.113.0/24", team="x")
    group("i", "192.0.2.0/28", team="y")
    await until(lambda: allowed() == {"198.51.100.0/24", "203.0.113.0/24"}, "two of three")
    group("g", "198.51.100.0/25", "198.51.100.200/32")
    group("i", "192.0.2.0/28", team="x")
    wanted = {"198.51.100.0/25", "198.51.100.200/32", "203.0.113.0/24", "192.0.2.0/28"}
    await until(lambda: allowed() == wanted, "as they are now")
    for name in ("g", "h", "i"):
        drop(node.fake, "ciliumcidrgroups", "", name)
    await until(lambda: not allowed(), "gone")

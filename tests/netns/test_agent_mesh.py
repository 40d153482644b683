"""An agent and a remote cluster's real etcd: what is learnt, kept, refused and forgotten."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.agent import (
    AgentNode,
    RemoteCluster,
    endpoint_slice,
    put,
    remote_cluster,
    selectable,
    service,
    until,
)
from tests.support.agent_mesh import kernel_addresses, remote_ready, remote_status
from tests.support.nodes import sh
from wire.etcd import keys

pytestmark = pytest.mark.root

REMOTE_NODE = "172.31.9.66"


@pytest.fixture
async def beta(node: AgentNode) -> AsyncIterator[RemoteCluster]:
    async with remote_cluster(node) as found:
        await found.add_node("m1", REMOTE_NODE, "10.213.1.0/24")
        await found.add_pod("10.213.1.5", REMOTE_NODE)
        yield found


async def _ip(node: AgentNode, prefix: str) -> Any:
    rows = await node.get("ip")
    return next((row for row in rows if row["cidr"] == prefix), None)


async def _backends(node: AgentNode, name: str = "web") -> list[tuple[str, bool]]:
    rows = await node.get("service")
    return sorted(
        (b["ip"], b["selectable"])
        for row in rows
        if row["spec"]["flags"]["name"] == name
        for b in row["spec"]["backend-addresses"]
    )


def _services(node: AgentNode) -> None:
    put(node.fake, "services", service("web", "10.204.0.10", {"service.cilium.io/global": "true"}))
    put(node.fake, "endpointslices", endpoint_slice("web", "10.203.1.77"))


async def test_connect_and_disconnect(node: AgentNode, beta: RemoteCluster) -> None:
    """What a cluster says reaches the kernel; when it leaves the mesh all of that goes."""
    _services(node)
    await beta.share("web", "10.213.1.5")
    node.start()
    await node.ready()
    beta.connect()
    found = await remote_ready(node)
    assert found["num-nodes"] == 1
    assert found["num-endpoints"] == 1
    assert found["num-shared-services"] == 1
    row = await _ip(node, "10.213.1.5/32")
    assert row["hostIP"] == REMOTE_NODE
    assert row["identity"] == (2 << 16) + 300
    assert row["metadata"]["source"] == "clustermesh"
    await until(lambda: "10.213.1.5" in kernel_addresses(node), "the pod's row")
    assert await _backends(node) == [("10.203.1.77", True), ("10.213.1.5", True)]
    way = "10.213.1.0/24 dev ist_host"
    await until(lambda: way in sh(f"ip netns exec {node.namespace} ip route"), "its route")

    beta.disconnect()

    async def gone() -> bool:
        return await _backends(node) == [
            ("10.203.1.77", True)
        ] and "10.213.1.5" not in kernel_addresses(node)

    await until(gone, "everything of the cluster goes")
    await until(
        lambda: "10.213.1.0/24" not in sh(f"ip netns exec {node.namespace} ip route"), "its route"
    )
    assert await _ip(node, "10.213.1.5/32") is None


async def test_changes_arrive(node: AgentNode, beta: RemoteCluster) -> None:
    """A new pod, a changed one and a deleted one of the other cluster show in our kernel."""
    node.start()
    await node.ready()
    beta.connect()
    await remote_ready(node)
    await beta.add_pod("10.213.1.6", REMOTE_NODE)
    first = await until(lambda: kernel_addresses(node).get("10.213.1.6"), "the new pod")
    await beta.add_identity((2 << 16) + 301, app="other")
    await beta.add_pod("10.213.1.6", REMOTE_NODE, (2 << 16) + 301)
    await until(
        lambda: kernel_addresses(node).get("10.213.1.6", first) != first, "its new identity"
    )
    await beta.remove_pod("10.213.1.6")
    await until(lambda: "10.213.1.6" not in kernel_addresses(node), "the deletion")


async def test_a_dead_store_takes_nothing_away(node: AgentNode, beta: RemoteCluster) -> None:
    """Store killed, then the agent killed and started: the last words of the cluster stay in the
    kernel; when the store is back, what changed meanwhile arrives."""
    _services(node)
    await beta.share("web", "10.213.1.5")
    node.start()
    await node.ready()
    beta.connect()
    await remote_ready(node)
    assert len(await _backends(node)) == 2
    beta.etcd.kill()

    async def lost() -> bool:
        return not (await remote_status(node))["connected"]

    await until(lost, "the loss is noticed")
    await until(lambda: "10.213.1.5" in kernel_addresses(node), "the pod's row")
    await until(lambda: "10.213.1.5" in selectable(node), "the backend's row")
    node.kill()
    node.start()
    await node.ready()
    assert "10.213.1.5" in kernel_addresses(node)
    assert await _backends(node) == [("10.203.1.77", True), ("10.213.1.5", True)]
    assert "10.213.1.0/24 dev ist_host" in sh(f"ip netns exec {node.namespace} ip route")
    row = await _ip(node, "10.213.1.5/32")
    assert row["metadata"]["source"] == "restored"

    beta.etcd.start()
    await beta.close()
    await beta.open()
    beta.connect()
    await beta.remove_pod("10.213.1.5")
    await beta.add_pod("10.213.1.9", REMOTE_NODE)
    await beta.share("web", "10.213.1.9")
    await until(lambda: "10.213.1.9" in kernel_addresses(node), "what changed meanwhile", 60)
    await until(lambda: "10.213.1.5" not in kernel_addresses(node), "what went meanwhile")

    async def changed() -> bool:
        # The one that went may still have connections: it drains.
        return await _backends(node) == [
            ("10.203.1.77", True),
            ("10.213.1.5", False),
            ("10.213.1.9", True),
        ]

    await until(changed, "the changed backends")


async def test_a_cluster_that_left_while_we_were_away(node: AgentNode, beta: RemoteCluster) -> None:
    """Rows of a cluster whose configuration went while no agent ran go with the next start."""
    node.start()
    await node.ready()
    beta.connect()
    await remote_ready(node)
    await until(lambda: "10.213.1.5" in kernel_addresses(node), "the pod's row")
    node.kill()
    beta.disconnect()
    node.start()
    await node.ready()
    await until(lambda: "10.213.1.5" not in kernel_addresses(node), "its rows go")


async def test_compaction_is_survived(node: AgentNode, beta: RemoteCluster) -> None:
    """History thrown away while the connection was cut: what went meanwhile goes here too."""
    node.start()
    await node.ready()
    beta.connect()
    await remote_ready(node)
    assert beta._forwarder is not None
    for writer in list(beta._forwarder._writers):
        writer.transport.abort()
    await beta.remove_pod("10.213.1.5")
    await beta.add_pod("10.213.1.7", REMOTE_NODE)
    assert beta.store is not None
    await beta.store.compact((await beta.store.status()).revision)
    await until(lambda: "10.213.1.7" in kernel_addresses(node), "the new pod", 60)
    await until(lambda: "10.213.1.5" not in kernel_addresses(node), "the deleted pod")


async def test_bad_records_harm_no_others(node: AgentNode, beta: RemoteCluster) -> None:
    """A value that does not decode, an identity of another cluster, an address in our prefix: each
    is refused, counted and shown; the others work."""
    await beta.put(keys.IP.join(("cilium/state/", "/v1/default/10.213.1.30")), b"{not json")
    await beta.add_pod("10.213.1.31", REMOTE_NODE, (7 << 16) + 300)
    await beta.add_pod("10.203.1.200", REMOTE_NODE)
    await beta.add_node("m2", "172.31.9.67", "10.203.1.0/25")
    node.start()
    await node.ready()
    beta.connect()
    found = await remote_ready(node)
    kinds = {v["kind"]: v["count"] for v in found["violations"]}
    assert kinds == {"record-ip": 2, "own-pod-prefix": 2}
    await until(lambda: "10.213.1.5" in kernel_addresses(node), "the pod's row")
    kernel = kernel_addresses(node)
    assert not {"10.213.1.30", "10.213.1.31", "10.203.1.200"} & kernel.keys()
    mesh = (await node.get("healthz"))["cluster-mesh"]
    assert mesh["num-rejected"] == 2
    assert any("10.203.1.200" in p and "do not overlap" in p for p in mesh["problems"])
    assert any("10.203.1.0/25" in p for p in mesh["problems"])
    assert "10.203.1.0/25" not in sh(f"ip netns exec {node.namespace} ip route")


async def test_affinity_and_failover(node: AgentNode, beta: RemoteCluster) -> None:
    """`local` uses local backends while one is ready, then the others; `remote` the reverse."""
    await beta.share("web", "10.213.1.5")
    _services(node)
    node.start()
    await node.ready()
    beta.connect()
    await remote_ready(node)

    async def becomes(wanted: list[tuple[str, bool]]) -> None:
        async def claim() -> bool:
            return await _backends(node) == wanted

        try:
            await until(claim, f"backends are {wanted}")
        except AssertionError as error:
            raise AssertionError(f"{error}: {await _backends(node)}") from error

    def annotate(**more: str) -> None:
        annotations = {f"service.cilium.io/{k}": v for k, v in more.items()}
        put(node.fake, "services", service("web", "10.204.0.10", annotations))

    mine, theirs = "10.203.1.77", "10.213.1.5"
    await becomes([(mine, True), (theirs, True)])
    annotate(**{"global": "true", "affinity": "local"})
    await becomes([(mine, True), (theirs, False)])
    put(node.fake, "endpointslices", endpoint_slice("web", mine, ready=False))
    await becomes([(mine, False), (theirs, True)])
    put(node.fake, "endpointslices", endpoint_slice("web", mine))
    await becomes([(mine, True), (theirs, False)])
    annotate(**{"global": "true", "affinity": "remote"})
    await becomes([(mine, False), (theirs, True)])
    await beta.unshare("web")
    await becomes([(mine, True), (theirs, False)])  # it drains
    await beta.share("web", theirs)
    await becomes([(mine, False), (theirs, True)])
    annotate()
    await becomes([(mine, True)])


async def test_order_threshold_and_weights(node: AgentNode, beta: RemoteCluster) -> None:
    """Annotations of `isthmus.io` move new connections; a wrong one is told, counted, and replaced
    by the default, and the others stay in force."""
    mine, other, theirs = "10.203.1.77", "10.203.1.78", "10.213.1.5"
    await beta.share("web", theirs)
    _services(node)
    node.start()
    await node.ready()
    beta.connect()
    await remote_ready(node)

    def annotate(**more: str) -> None:
        annotations = {"service.cilium.io/global": "true"}
        annotations |= {f"isthmus.io/{k.replace('_', '-')}": v for k, v in more.items()}
        put(node.fake, "services", service("web", "10.204.0.10", annotations))

    async def weights() -> dict[str, int]:
        rows = await node.get("service")
        spec = next(row["spec"] for row in rows if row["spec"]["flags"]["name"] == "web")
        return {b["ip"]: b["weight"] for b in spec["backend-addresses"] if "weight" in b}

    async def becomes(*wanted: tuple[str, bool]) -> None:
        async def claim() -> bool:
            return await _backends(node) == sorted(wanted)

        await until(claim, f"backends are {wanted}")

    await becomes((mine, True), (theirs, True))
    annotate(affinity_order="beta,alpha")
    await becomes((mine, False), (theirs, True))
    annotate(affinity_order="alpha", failover_threshold="60%")
    await becomes((mine, True), (theirs, False))
    half = endpoint_slice("web", mine, other)
    half["endpoints"][1]["conditions"] = {"ready": False}
    put(node.fake, "endpointslices", half)
    await becomes((mine, True), (other, False), (theirs, True))
    annotate(affinity_order="alpha", failover_threshold="50%")
    await becomes((mine, True), (other, False), (theirs, False))

    annotate(cluster_weights="alpha=80,beta=20")

    async def weighted() -> bool:
        return await weights() == {mine: 4, theirs: 1}

    await until(weighted, "weights are 4 to 1")
    before = (await node.get("healthz"))["rejected"]["count"]
    annotate(cluster_weights="alpha:80", affinity_order="beta")
    await becomes((mine, False), (other, False), (theirs, True))
    assert await weights() == {}
    rejected = (await node.get("healthz"))["rejected"]
    assert rejected["count"] == before + 1
    assert any(
        'annotation isthmus.io/cluster-weights is "alpha:80"' in problem
        for problem in rejected["problems"]
    )


async def test_a_vanished_backend_drains(node: AgentNode, beta: RemoteCluster) -> None:
    """It keeps its connections for `clustermesh-backend-drain`, and then goes by itself; over a
    restart of the agent too."""
    theirs, leaving = "10.213.1.5", "10.213.1.6"
    await beta.share("web", theirs, leaving)
    put(node.fake, "services", service("web", "10.204.0.10", {"service.cilium.io/global": "true"}))
    node.flags["clustermesh-backend-drain"] = "8s"
    node.start()
    await node.ready()
    beta.connect()
    await remote_ready(node)

    async def becomes(*wanted: tuple[str, bool]) -> None:
        async def claim() -> bool:
            return await _backends(node) == sorted(wanted)

        await until(claim, f"backends are {wanted}")

    await becomes((theirs, True), (leaving, True))
    await beta.share("web", theirs)
    await becomes((theirs, True), (leaving, False))
    await becomes((theirs, True))
    await beta.share("web", theirs, leaving)
    await becomes((theirs, True), (leaving, True))
    await until(lambda: selectable(node) == {theirs, leaving}, "the kernel chooses both again")
    node.kill()
    await beta.share("web", theirs)
    node.flags["clustermesh-backend-drain"] = "60s"
    node.start()
    await node.ready()
    await becomes((theirs, True), (leaving, False))
    beta.disconnect()
    await becomes()

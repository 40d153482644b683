"""A real agent on a store that is written as the reference writes it: tables and kernel, exactly.

Keys and values are built by ``tests.support.reference_writer`` from the published format.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kvstore.config import StoreConfig
from tests.support.agent import (
    AgentNode,
    Forwarder,
    agent_node,
    endpoint_slice,
    put,
    service,
    until,
)
from tests.support.agent_mesh import kernel_addresses, remote_ready, remote_status
from tests.support.etcd import plain_etcd, when_up
from tests.support.reference_writer import ReferenceWriter, Style

pytestmark = pytest.mark.root

NODES, PODS = 5, 1100  # more than one lease of 1,000 keys
OWN = ("10.203.1.77", True)
STYLES = {
    "1.18": Style(),
    "511 clusters, prefixes as text, capitals": Style(
        number=500, most=511, prefixes_as_text=True, shout=True
    ),
    "copied by a mirror": Style(cached=True, exports=True),
    "1.20, slices as well": Style(slices="services-and-endpointslices"),
    "1.20, slices only": Style(number=3, slices="endpointslices-only"),
}


def pod(n: int) -> str:
    return f"10.213.{n % NODES}.{n // NODES + 2}"


def host(n: int) -> str:
    return f"172.31.9.{100 + n % NODES}"


@asynccontextmanager
async def connected(node: AgentNode, style: Style) -> AsyncIterator[ReferenceWriter]:
    with plain_etcd() as etcd:
        store = await when_up(StoreConfig((etcd.url,)))
        forwarder = await Forwarder(node.namespace, etcd.port).start()
        (node.mesh / "beta").write_text(f"endpoints:\n- http://127.0.0.1:{forwarder.port}\n")
        try:
            yield ReferenceWriter(store, style=style)
        finally:
            await forwarder.stop()
            await store.close()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[AgentNode]:
    async with agent_node(tmp_path) as found:
        put(
            found.fake,
            "services",
            service("web", "10.204.0.10", {"service.cilium.io/global": "true"}),
        )
        put(found.fake, "endpointslices", endpoint_slice("web", OWN[0]))
        yield found


async def fill(writer: ReferenceWriter) -> None:
    style = writer.style
    await writer.begin()
    for n in range(NODES):
        await writer.node(f"n{n}", f"172.31.9.{100 + n}", f"10.213.{n}.0/24")
    await writer.node("n9", "172.31.9.99", "10.213.9.0/24", "10.213.8.0/24", "fd00:9::/64")
    for n in range(10):
        await writer.identity(300 + n, app=f"a{n}")
    for n in range(PODS):
        await writer.ip(pod(n), host(n), style.identity(300 + n % 10), f"pod-{n}")
    await writer.put(writer.where("ip", "<nil>"), b"{}")
    if not style.slices.startswith("endpointslices"):
        # A record names those that are ready, and the slices say the same of them.
        await writer.service("web", [pod(0)] if style.slices else [pod(0), pod(1)])
    if style.slices:
        await writer.slice("web-1", "web", {pod(0): (1, 1, 0), pod(2): (0, 1, 1)})
        await writer.slice("web-2", "web", {pod(3): (0, 0, 0)})


def backends_of(style: Style) -> list[tuple[str, bool]]:
    """Who is behind our service, and gets new connections: slices count where there are any."""
    theirs = [(pod(0), True), (pod(1), True)]
    if style.slices:
        theirs = [(pod(0), True), (pod(2), False), (pod(3), False)]
    return sorted([OWN, *theirs])


async def backends(node: AgentNode) -> list[tuple[str, bool]]:
    return sorted(
        (b["ip"], b["selectable"])
        for row in await node.get("service")
        for b in row["spec"]["backend-addresses"]
    )


async def addresses(node: AgentNode) -> dict[str, tuple[str, int]]:
    return {
        row["cidr"]: (row["hostIP"], row["identity"])
        for row in await node.get("ip")
        if row["cidr"].startswith("10.213.") and row["cidr"].endswith("/32")
    }


@pytest.mark.parametrize("name", STYLES)
async def test_an_agent_learns_exactly_the_tables(node: AgentNode, name: str) -> None:
    """Nothing before the canaries; then addresses, nodes, identities, backends, and the kernel."""
    style = STYLES[name]
    node.flags = {"max-connected-clusters": str(style.most)}
    async with connected(node, style) as writer:
        await fill(writer)
        await writer.canary("nodes", "identities")
        node.start()
        await node.ready()
        await until(lambda: _synced(node, nodes=True, endpoints=False), "nodes alone are listed")
        assert await addresses(node) == {}
        records = () if style.slices.startswith("endpointslices") else ("services",)
        slices = ("endpointslices",) if style.slices else ()
        await writer.canary("ip", *records, *slices, "serviceexports")
        found = await remote_ready(node)
        expected = {f"{pod(n)}/32": (host(n), style.identity(300 + n % 10)) for n in range(PODS)}
        assert await addresses(node) == expected
        assert await backends(node) == backends_of(style)
        wanted = {prefix.removesuffix("/32") for prefix in expected}
        await until(
            lambda: {a for a in kernel_addresses(node) if a.startswith("10.213.")} == wanted,
            "the kernel has exactly the same",
        )
        assert (found["num-nodes"], found["num-endpoints"]) == (NODES + 1, PODS + 1)  # and "<nil>"
        assert found["num-identities"] == 10
        assert found["config"]["cluster-id"] == style.number
        assert found["config"]["kvstoremesh"] is style.cached
        known = {i["id"]: i["labels"] for i in await node.get("identity")}
        for n in range(10):
            assert f"k8s:app=a{n}" in known[style.identity(300 + n)]
        names = {n["name"] for n in (await node.get("cluster/nodes"))["nodes-added"]}
        assert {f"beta/n{n}" for n in (0, 1, 2, 9)} <= names
        assert (await node.get("healthz"))["cluster-mesh"]["num-rejected"] == 0

        if style.slices:
            await writer.slice("web-2", "web", {pod(3): (1, 1, 0)})
            wanted = sorted((ip, on or ip == pod(3)) for ip, on in backends_of(style))
        else:
            await writer.service("web", [pod(1)])
            wanted = [
                (pod(0), False) if ip == pod(0) else (ip, on) for ip, on in backends_of(style)
            ]

        async def changed() -> bool:
            return await backends(node) == wanted

        await until(changed, f"the change of a backend: {wanted}")


async def _synced(node: AgentNode, **wanted: bool) -> bool:
    said: dict[str, Any] = (await remote_status(node)).get("synced", {})
    return all(said.get(kind) is state for kind, state in wanted.items())

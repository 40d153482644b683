"""A real agent beside a peer that lies in every field: what its kernel holds."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support import hostile
from tests.support.agent import (
    AgentNode,
    RemoteCluster,
    put,
    remote_cluster,
    service,
    until,
)
from tests.support.hostile import LIES
from tests.support.nodes import sh

pytestmark = pytest.mark.root

MAPS = ("ist_ipcache", "ist_ipcache_lpm", "ist_services", "ist_backends", "ist_revnat")


@pytest.fixture
async def beta(node: AgentNode) -> AsyncIterator[RemoteCluster]:
    async with remote_cluster(node) as found:
        for key, value in hostile.HONEST.items():
            await found.put(key, value)
        yield found


def _kernel(node: AgentNode) -> dict[str, Any]:
    """Every map that a peer has a share in, and the routes."""
    pins = {p.name: p for p in (node.bpf_root / "isthmus").rglob("ist_*")}
    found: dict[str, Any] = {
        name: sorted(
            (tuple(row["key"]), tuple(row["value"]))
            for row in json.loads(sh(f"bpftool -j map dump pinned {pins[name]}"))
        )
        for name in MAPS
    }
    found["routes"] = sorted(sh(f"ip netns exec {node.namespace} ip route").splitlines())
    found["routes6"] = sorted(sh(f"ip netns exec {node.namespace} ip -6 route").splitlines())
    return found


def _address(text: str) -> tuple[str, ...]:
    return tuple(f"0x{int(part):02x}" for part in text.split("."))


async def test_no_lie_reaches_the_kernel(node: AgentNode, beta: RemoteCluster) -> None:
    """All lies at once, to an agent that runs and to one that starts: its maps and routes are those
    of the truth alone, each kind is listed with an example, and the peer's next change works."""
    for index, name in enumerate(("web", "api")):
        address = f"10.204.0.{10 + index}"
        put(node.fake, "services", service(name, address, {"service.cilium.io/global": "true"}))
    node.start()
    await node.ready()
    beta.connect()

    async def mesh() -> dict[str, Any]:
        clusters = (await node.get("healthz"))["cluster-mesh"]["clusters"]
        return next(iter(clusters), {})

    async def ready() -> bool:
        return bool((await mesh()).get("ready"))

    def has(address: str) -> bool:
        return any(key[-4:] == _address(address) for key, _ in _kernel(node)["ist_ipcache"])

    await until(ready, "the peer is read")
    await until(lambda: has(hostile.POD), "the honest pod")
    await until(lambda: len(_kernel(node)["ist_backends"]) == 1, "the honest backend")
    honest = _kernel(node)
    # What another peer has is free here: that peer is missing.
    lies = [lie for lie in LIES if lie.kind != "other-cluster"]
    for lie in lies:
        if lie.key in hostile.HONEST:
            continue
        await beta.put(lie.key, lie.value)
    last = "10.213.1.250"
    await beta.put(f"{hostile.IPS}{last}", hostile.encoded(hostile.ip(IP=last)))
    await until(lambda: has(last), "an honest change after all lies")
    await beta.remove_pod(last)
    await until(lambda: not has(last), "and its deletion")

    async def told() -> bool:  # each type has a watch of its own
        return {v["kind"] for v in (await mesh())["violations"]} == {lie.kind for lie in lies}

    await until(told, "every kind of lie is told")
    assert _kernel(node) == honest
    kinds = {v["kind"]: v for v in (await mesh())["violations"]}
    assert all(
        (v["count"] and "beta" in v["example"]) or v["kind"].startswith("record-")
        for v in kinds.values()
    )

    node.kill()
    node.start()
    await node.ready()
    await until(ready, "the peer is read again")
    await beta.put(f"{hostile.IPS}{last}", hostile.encoded(hostile.ip(IP=last)))
    await until(lambda: has(last), "an honest change after the restart")
    await beta.remove_pod(last)
    await until(lambda: not has(last), "and its deletion")
    assert _kernel(node) == honest

"""What an agent and its kernel say of another cluster."""

import json
from typing import Any

from tests.support.agent import AgentNode, until
from tests.support.nodes import sh


async def remote_status(node: AgentNode) -> dict[str, Any]:
    status = await node.get("healthz")
    return next(iter(status["cluster-mesh"]["clusters"]), {})


async def remote_ready(node: AgentNode) -> dict[str, Any]:
    async def claim() -> Any:
        found = await remote_status(node)
        return found if found.get("ready") else None

    return await until(claim, "the remote cluster is ready")


def kernel_addresses(node: AgentNode) -> dict[str, str]:
    """The ipcache's exact part as the kernel has it: address → value."""
    path = node.bpf_root / "isthmus"
    pins = {p.name: p for p in path.rglob("ist_ipcache")}
    text = sh(f"bpftool -j map dump pinned {pins['ist_ipcache']}")
    return {
        ".".join(str(int(b, 16)) for b in row["key"][12:]): "".join(v[2:] for v in row["value"])
        for row in json.loads(text)
    }

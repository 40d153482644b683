"""Policies of an agent's node: written as a person does, read in its kernel, tried with packets."""

import asyncio
import os
import sys
from typing import Any

from datapath import inspect
from model.policy_map import PolicyKey
from tests.support.agent import AgentNode, TestPod, put, traffic
from tests.support.cli import Result

REMOTE_NODE = "172.31.9.66"
REMOTE_POD = "10.213.1.5"
REMOTE_IDENTITY = (2 << 16) + 300
POLICIES = "ciliumnetworkpolicies"


def policy(
    node: AgentNode, name: str, spec: dict[str, Any], annotations: dict[str, str] | None = None
) -> None:
    meta = {"name": name, "namespace": "default", "annotations": annotations or {}}
    put(node.fake, POLICIES, {"metadata": meta, "spec": spec})


def only_friend(port: str = "8080") -> dict[str, Any]:
    return {
        "endpointSelector": {"matchLabels": {"app": "server"}},
        "ingress": [
            {
                "fromEndpoints": [{"matchLabels": {"app": "friend"}}],
                "toPorts": [{"ports": [{"port": port, "protocol": "TCP"}]}],
            }
        ],
    }


def reaches(source: TestPod, target: TestPod, kind: str = "tcp", port: int = 8080) -> bool:
    """Whether one attempt is answered."""
    return bool(traffic(source.namespace, kind, target.address, port).finish()["names"])


def refused(source: TestPod, target: TestPod, kind: str = "tcp", port: int = 8080) -> bool:
    """Whether one attempt is left without an answer, for less long than one that should have it."""
    tried = traffic(source.namespace, kind, target.address, port, patience_s=0.7)
    return not tried.finish()["names"]


def kernel_ipcache(node: AgentNode) -> dict[str, int]:
    rows = inspect.ipcache(node.bpf_root / "isthmus")
    return {str(prefix): row.identity for prefix, row in rows.items()}


def kernel_rows(node: AgentNode, endpoint: int) -> set[PolicyKey]:
    return set(inspect.policies(node.bpf_root / "isthmus").get(endpoint, ()))


async def number(node: AgentNode, pod: TestPod) -> int:
    rows = await node.get("endpoint")
    names = {r["status"]["external-identifiers"]["pod-name"]: r["id"] for r in rows}
    return int(names[f"default/{pod.name}"])


async def isthmus(node: AgentNode, *arguments: object, stdin: str = "") -> Result:
    """Execute the command as in the agent's container."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main"),
        *map(str, arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "CILIUM_SOCK": str(node.socket)},
    )
    async with asyncio.timeout(90):
        out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return Result(process.returncode, out.decode(), err.decode())

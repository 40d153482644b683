"""The agent's IPsec on real tables of the kernel, with a mesh that a test tells of nodes."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from agent.config import AgentConfig
from agent.ipsec import IpsecNode, open_ipsec
from agent.mesh_state import MeshState
from agent.node import Self
from datapath.kernel_thread import KernelThread
from model.address import parse_address, parse_prefix
from model.cluster import ClusterId, ClusterName
from model.node import INTERNAL_IP, Node, NodeAddress, NodeName
from model.service import Selection
from reconcile.loop import Loop
from reconcile.tasks import TaskGroup
from tests.support.datapath import FakeTable

OWN = ClusterName("own")
PERIOD_S = 0.02


def node(number: int, key_id: int, **changes: Any) -> Node:
    made = Node(
        OWN,
        NodeName(f"node{number}"),
        ClusterId(1),
        (NodeAddress(INTERNAL_IP, parse_address(f"192.0.2.{number}")),),
        (parse_prefix(f"10.1.{number}.0/24"),),
        encryption_key=key_id,
        boot_id=f"{number:036d}",
    )
    return msgspec.structs.replace(made, **changes)


def line(key_id: int) -> str:
    return f"{key_id}+ rfc4106(gcm(aes)) {key_id:02x}{'5a' * 19} 128\n"


@dataclass
class Agent:
    """One life of an agent's IPsec."""

    ipsec: IpsecNode
    mesh: MeshState
    nodes: FakeTable[Any, Any]
    announced: list[int]

    def tell(self, *nodes: Node) -> None:
        for found in nodes:
            self.mesh.nodes.put(found)

    def sends_with(self) -> dict[str, int]:
        return {str(address): row.key_id for address, row in self.nodes.rows.items()}


async def until(what: str, true: Any) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


@asynccontextmanager
async def life(
    thread: KernelThread, key_file: Path, nodes: FakeTable[Any, Any], duration_s: float = 0.0
) -> AsyncIterator[Agent]:
    """From start to kill: what is in the kernel stays."""
    me = Self(node(1, 0), "uid", parse_address("192.0.2.1"), parse_prefix("10.1.1.0/24"), None)  # type: ignore[arg-type]
    config = AgentConfig(
        enable_ipsec=True, ipsec_key_file=key_file, ipsec_key_rotation_duration=duration_s
    )
    opened = await open_ipsec(config, me, thread)
    assert opened is not None
    mesh = MeshState(OWN, me.node.name, Selection.RANDOM)
    datapath = SimpleNamespace(nodes=nodes, strict=FakeTable(), underlays=("eth9",))
    announced = [opened.announced_key]
    made = IpsecNode(opened, mesh, me, datapath, lambda: announced.append(opened.announced_key))
    await made.take_over()
    agent = Agent(made, mesh, nodes, announced)
    async with TaskGroup() as tasks:
        loop = Loop(made.tables())
        running = [tasks.create_task(loop.run()), tasks.create_task(made.run(PERIOD_S))]
        try:
            yield agent
        finally:
            for task in running:
                task.cancel()


def prune(agent: Agent) -> None:
    for table in agent.ipsec.tables():
        table.allow_prune()

"""Two clusters of one node each, with the agent's own encryption on a kernel that has both kinds:
from WireGuard to IPsec and back under traffic. Announcements and settings go by the test; devices,
states, programs, proofs and decisions are real.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent import migration_view
from agent.config import AgentConfig
from agent.mesh_encryption import MeshEncryption, open_encryption
from agent.mesh_state import MeshState
from agent.node import Self
from cli import encrypt_mesh
from encryption import migration
from encryption.migration import Kind, Move, Report, Stance
from encryption.xfrm import error_counters
from model.cluster import ClusterId, ClusterName
from model.node import INTERNAL_IP, Node, NodeAddress, NodeName
from model.service import Selection
from reconcile.loop import Loop
from reconcile.tasks import TaskGroup
from tests.support import nodes
from tests.support.ipsec_agent import line
from tests.support.nodes import Pod, Process, two_nodes
from tests.support.sniffer import sniffing
from wire.bpf.layouts import DropReason, TrafficDirection

PODS = ["10.201.0.0/16"]
UNDERLAY = "under0"
TOO_BIG = (DropReason.DROP_FRAGMENTATION_NEEDED, TrafficDirection.DIRECTION_EGRESS)
LATE_S = 0.3  # of an announcement
STEP_S = 200


@dataclass
class Agent:
    """The encryption of one node, life after life; what is in the kernel stays between them."""

    node: nodes.Node
    me: Self
    directory: Path
    group: TaskGroup
    others: list["Agent"] = field(default_factory=list)
    stance: Stance = Stance(Kind.OFF)
    told: Node | None = None  # what we say of ourselves
    mesh: MeshState | None = None
    encryption: MeshEncryption | None = None
    life: "asyncio.Task[None] | None" = None

    async def start(self, stance: Stance) -> None:
        """Another life, set to a stance."""
        await self.end()
        config = AgentConfig(
            cluster_name=self.me.node.cluster,
            enable_wireguard=stance.sends is Kind.WIREGUARD,
            enable_ipsec=stance.sends is Kind.IPSEC,
            encryption_accepts=stance.accepts,
            ipsec_key_file=self.directory / "keys",
            state_dir=self.directory,
            devices=UNDERLAY,
        )
        opened = await open_encryption(config, self.me, self.node.thread)
        me = replace(self.me, node=opened.announced(self.me.node))
        await self.node.reopen(encryption=opened.for_datapath(me))
        self.stance, self.told = stance, me.node
        mesh = self.mesh = MeshState(me.node.cluster, me.node.name, Selection.RANDOM)

        def announce() -> None:
            self.told = opened.announced(me.node)
            self.tell(LATE_S)

        made = MeshEncryption(opened, mesh, me, self.node.datapath, announce)
        self.encryption = made
        await made.take_over()
        self.life = self.group.create_task(self._live(made))
        for other in self.others:
            other.tell(0)
        self.tell(LATE_S)

    async def _live(self, made: MeshEncryption) -> None:
        remotes: Any = SimpleNamespace(configured=asyncio.Event(), statuses={})
        remotes.configured.set()
        async with TaskGroup() as tasks:
            tasks.create_task(Loop(made.tables).run())
            made.start(tasks, remotes, asyncio.Event().wait)

    def tell(self, after_s: float) -> None:
        def put(node: Node | None = self.told) -> None:
            for other in self.others:
                if node is not None and other.mesh is not None:
                    other.mesh.nodes.put(node)

        asyncio.get_running_loop().call_later(after_s, put)

    async def end(self) -> None:
        if self.life is not None:
            self.life.cancel()
            await asyncio.wait([self.life])
            self.life = None

    async def report(self) -> Report:
        assert self.encryption is not None
        assert self.mesh is not None
        if self.encryption.rotation is not None:
            await self.encryption.rotation.refresh()
        said = migration_view.shape(self.encryption, self.mesh, self.me)
        return encrypt_mesh.report_of(said)


@dataclass
class World:
    agents: dict[str, Agent]
    client: Pod
    far: Pod

    async def go(self, target: Kind, until: Stance | None = None) -> None:
        """As ``isthmus encrypt migrate`` does; to the end, or until somebody has a stance."""
        deadline = time.monotonic() + STEP_S
        names = {f"{c}/{a.me.node.name}": a for c, a in self.agents.items()}
        while True:
            reports = {name: await agent.report() for name, agent in names.items()}
            stances = {cluster: agent.stance for cluster, agent in self.agents.items()}
            found = migration.decide(target, stances, list(names), reports)
            if isinstance(found, Move):
                for cluster in found.clusters:
                    await self.agents[cluster].start(found.to)
                if until in {agent.stance for agent in self.agents.values()}:
                    return
                deadline = time.monotonic() + STEP_S
                continue
            if not found.reasons:
                return
            assert time.monotonic() < deadline, found.reasons
            await asyncio.sleep(0.2)

    def steady(self) -> list[Process]:
        return [
            self.client.start("steady-tcp", self.far.address, 8080, 0.05).ready(),
            self.client.start("steady-udp", self.far.address, 8081, 0.05).ready(),
        ]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with two_nodes() as stage, TaskGroup() as group:
        agents = {}
        for number, node in enumerate(stage.nodes, start=1):
            cluster = ClusterName(f"cluster{number}")
            directory = tmp_path / node.name
            (directory / "state").mkdir(parents=True)
            (directory / "keys").write_text(line(3))
            said = Node(
                cluster,
                NodeName(node.name),
                ClusterId(number),
                (NodeAddress(INTERNAL_IP, node.config.node_ip),),
                node.config.pod_cidrs,
                boot_id=f"{number:036d}",
            )
            me = Self(said, "uid", node.config.node_ip, said.pod_cidrs[0], node.config.router_ip)
            agents[cluster] = Agent(node, me, directory, group)
        for agent in agents.values():
            agent.others = [other for other in agents.values() if other is not agent]
        one, two = stage.nodes
        client, far = await one.add_pod("client", 70001), await two.add_pod("far", 70003)
        far.serve()
        far.serve("udp", 8081)
        yield World(agents, client, far)
        for agent in agents.values():
            await agent.end()


@pytest.mark.timeout(800)
async def test_between_wireguard_and_ipsec_under_traffic(world: World) -> None:
    """To IPsec with nothing left of WireGuard, and back. No datagram is lost, no connection breaks,
    nothing is in clear text at any time.
    """
    for agent in world.agents.values():
        await agent.start(Stance(Kind.WIREGUARD))
    while world.client.try_("ping", world.far.address, 1)["answered"] == 0:  # noqa: ASYNC110
        await asyncio.sleep(0.2)  # sessions are made
    spaces = [agent.node.namespace for agent in world.agents.values()]
    with (
        sniffing(spaces[0], PODS, UNDERLAY, "out") as first,
        sniffing(spaces[1], PODS, UNDERLAY, "out") as second,
    ):
        traffic = world.steady()
        await world.go(Kind.IPSEC)
        await asyncio.sleep(1)
        for agent in world.agents.values():
            assert agent.stance == Stance(Kind.IPSEC)
            assert "ist_wg" not in agent.node.sh("ip -br link")
        await world.go(Kind.WIREGUARD, until=Stance(Kind.WIREGUARD, Kind.IPSEC))
        await asyncio.sleep(1)
        results = [await asyncio.to_thread(process.finish) for process in traffic]
    assert results[0]["errors"] == []
    assert results[0]["rounds"] > 50
    assert results[1]["answered"] == results[1]["sent"], results
    for seen in (first, second):
        assert min(seen.esp, seen.wireguard) > 20
    for agent in world.agents.values():
        counters = await error_counters(agent.node.thread.call)
        # A proof may ask before the other end has its states.
        assert {name for name, n in counters.items() if n} <= {"XfrmInNoStates"}
        # Pods that were there before learn of the smaller packets from ICMP.
        assert (await agent.node.drops()).keys() <= {TOO_BIG}

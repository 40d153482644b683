"""Who is probed, what follows for services, and what outlives the agent."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent.mesh_state import MeshState
from agent.probing import Prober
from mesh.data_path import PathState, Rules
from model.address import Address, parse_address, parse_prefix
from model.cluster import ClusterId, ClusterName
from model.local_service import LocalBackend, LocalService, MeshSettings
from model.node import CILIUM_INTERNAL_IP, INTERNAL_IP, Node, NodeAddress, NodeName
from model.service import L4, Frontend, Protocol, Selection, ServiceName, SharedService
from tests.support.fake_echo import FakeEcho

OWN, BETA, GAMMA = ClusterName("alpha"), ClusterName("beta"), ClusterName("gamma")
NUMBERS = {OWN: 1, BETA: 2, GAMMA: 3}
NAME = ServiceName("default", "web")
VIP = parse_address("10.96.0.1")
PORTS = {"http": L4(80, Protocol.TCP)}
FRONT = Frontend(VIP, 80, Protocol.TCP)


def router(cluster: ClusterName, number: int) -> Address:
    return parse_address(f"10.{NUMBERS[cluster]}.{number}.1")


def outer(cluster: ClusterName, number: int) -> Address:
    return parse_address(f"192.0.2.{16 * NUMBERS[cluster] + number}")


def node(cluster: ClusterName, number: int) -> Node:
    return Node(
        cluster,
        NodeName(f"n{number}"),
        ClusterId(NUMBERS[cluster]),
        (
            NodeAddress(INTERNAL_IP, outer(cluster, number)),
            NodeAddress(CILIUM_INTERNAL_IP, router(cluster, number)),
        ),
        (parse_prefix(f"10.{NUMBERS[cluster]}.{number}.0/24"),),
    )


class World:
    """Three nodes of ours, four of beta, two of gamma; all answer."""

    def __init__(self, directory: Path) -> None:
        self.now_s = 0.0
        self.file = directory / "data-paths.json"
        self.members = [BETA, GAMMA]
        self.echo = FakeEcho()
        for cluster, count in ((OWN, 3), (BETA, 4), (GAMMA, 2)):
            self.answers(cluster, count)
        self.start()

    def start(self) -> None:
        """An agent's life begins."""
        self.mesh = MeshState(OWN, NodeName("n1"), Selection.RANDOM)
        for cluster, count in ((OWN, 3), (BETA, 4), (GAMMA, 2)):
            for number in range(1, count + 1):
                self.mesh.nodes.put(node(cluster, number))
        services = self.mesh.services
        services.set_service(
            NAME, LocalService(NAME, {VIP: PORTS}, mesh=MeshSettings(is_global=True))
        )
        own = parse_address("10.1.1.5")
        services.set_backends(NAME, {own: LocalBackend(own, PORTS)})
        for cluster in (BETA, GAMMA):
            backend = parse_address(f"10.{NUMBERS[cluster]}.1.5")
            number = ClusterId(NUMBERS[cluster])
            record = SharedService(cluster, number, NAME, {}, {backend: PORTS})
            services.set_shared(cluster, NAME, record)
        self.prober = Prober(
            self.mesh, NodeName("n1"), Rules(), 3, self.file, lambda: self.now_s, lambda: 0.0
        )

    def answers(self, cluster: ClusterName, count: int, *, there: bool = True) -> None:
        every = {router(cluster, n) for n in range(1, count + 1)}
        every |= {outer(cluster, n) for n in range(1, count + 1)}
        self.echo.answering = self.echo.answering | every if there else self.echo.answering - every

    async def rounds(self, count: int) -> None:
        for _ in range(count):
            self.now_s += 10
            await self.prober.round(self.echo, lambda: self.members)

    def state(self, cluster: ClusterName) -> PathState:
        return self.prober.paths[cluster].state

    def chosen(self) -> set[str]:
        """Clusters that new connections go to."""
        row = self.mesh.services.get(FRONT)
        assert row is not None
        return {b.cluster or OWN for b in row.backends[: row.selectable]}

    def kept(self) -> int:
        row = self.mesh.services.get(FRONT)
        assert row is not None
        return len(row.backends)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_silent_cluster_loses_new_connections_only(world: World) -> None:
    """After three rounds its backends are out of the choice and still in the row; then they return
    in steps."""
    await world.rounds(1)
    assert world.chosen() == {OWN, BETA, GAMMA}
    world.answers(BETA, 4, there=False)
    await world.rounds(2)
    assert world.chosen() == {OWN, BETA, GAMMA}
    await world.rounds(1)
    assert (world.chosen(), world.kept()) == ({OWN, GAMMA}, 3)
    world.answers(BETA, 4)
    await world.rounds(3)
    assert world.state(BETA) is PathState.RETURNING
    assert world.chosen() == {OWN, BETA, GAMMA}
    row = world.mesh.services.get(FRONT)
    assert row is not None
    assert len(set(row.weights)) == 2
    await world.rounds(12)
    assert world.state(BETA) is PathState.UP
    assert world.prober.changes.values == {
        ("beta", "up"): 2,
        ("beta", "down"): 1,
        ("beta", "returning"): 1,
        ("gamma", "up"): 1,
    }


async def test_every_node_has_its_turn_but_not_ourselves(world: World) -> None:
    """Three of each cluster in a round, behind the tunnel; the own address only of silent ones."""
    await world.rounds(1)
    asked = set(world.echo.asked)
    assert len([a for a in asked if str(a).startswith("10.2.")]) == 3
    await world.rounds(3)
    asked = set(world.echo.asked)
    assert {router(BETA, number) for number in range(1, 5)} <= asked
    assert router(OWN, 1) not in asked
    assert {router(OWN, 2), router(OWN, 3)} <= asked
    assert not [a for a in asked if str(a).startswith("192.0.2.")]
    world.echo.answering.discard(router(GAMMA, 1))
    await world.rounds(1)
    assert [a for a in world.echo.asked if str(a).startswith("192.0.2.")] == [outer(GAMMA, 1)]


async def test_who_never_answers_is_asked_less_often(world: World) -> None:
    """After six rounds in every sixth only; after the first answer in all of them."""
    world.answers(GAMMA, 2, there=False)

    async def asked(rounds: int) -> int:
        world.echo.asked.clear()
        await world.rounds(rounds)
        return world.echo.asked.count(router(GAMMA, 1))

    assert await asked(6) == 6
    assert await asked(12) == 2
    world.answers(GAMMA, 2)
    await world.rounds(6)
    assert await asked(6) == 6


async def test_our_own_network_is_no_evidence(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody answers: everything stays, and it is said once."""
    await world.rounds(1)
    world.echo.answering = set()
    await world.rounds(9)
    assert world.chosen() == {OWN, BETA, GAMMA}
    assert [r.levelname for r in caplog.records if "no-answers" in r.message] == ["WARNING"]


async def test_what_was_down_stays_down_over_a_restart(world: World) -> None:
    """The next life begins with it out, and takes it back by the same rules."""
    await world.rounds(1)
    world.answers(BETA, 4, there=False)
    await world.rounds(3)
    assert json.loads(world.file.read_text()) == ["beta"]
    world.start()
    assert world.chosen() == {OWN, GAMMA}
    await world.rounds(3)
    assert world.chosen() == {OWN, GAMMA}
    world.answers(BETA, 4)
    await world.rounds(15)
    assert world.state(BETA) is PathState.UP
    assert json.loads(world.file.read_text()) == []


@pytest.mark.parametrize("content", ["", "{}", "[1]", "\x00"])
def test_an_unusable_file_is_passed_over(world: World, content: str) -> None:
    """Nothing is down then."""
    world.file.write_text(content)
    world.start()
    assert list(world.prober.paths) == []


async def test_a_cluster_that_leaves_is_forgotten(world: World) -> None:
    """It would be whole when it joined again."""
    await world.rounds(1)
    world.answers(BETA, 4, there=False)
    await world.rounds(3)
    world.members = [GAMMA]
    await world.rounds(1)
    assert world.chosen() == {OWN, BETA, GAMMA}
    assert list(world.prober.paths) == [GAMMA]
    assert json.loads(world.file.read_text()) == []


async def test_what_is_told(world: World) -> None:
    """State, share, figures and words."""
    shape: dict[str, Any] = world.prober.shape(BETA)
    assert (shape["state"], shape["status"]) == ("unknown", "no node was asked yet")
    await world.rounds(1)
    assert world.prober.shape(BETA) == {
        "state": "up",
        "share-percent": 100,
        "nodes-asked": 3,
        "nodes-answered": 3,
        "status": "3 of 3 asked nodes answer through the tunnel",
    }

"""A change of WireGuard keys whose agents end before each of its steps, and leave files and devices
as they are then: the next agents take it to its end. Time is virtual, WireGuard a model.
"""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.config import AgentConfig
from agent.encryption import Opened, WireguardNode, open_wireguard
from agent.key_rotation import KeyRotation
from agent.mesh_state import MeshState
from agent.node import Self
from agent.wireguard_state import KEY_FILE, Progress, StateFiles
from encryption import rotation, wireguard_keys
from encryption.choose import open_device, remove_device
from encryption.rotation import Phase
from encryption.wireguard_keys import PrivateKey
from model.address import Address, parse_address, parse_prefix
from model.cluster import ClusterId, ClusterName
from model.kernel_numbers import DEVICE_WIREGUARD
from model.node import INTERNAL_IP, Node, NodeAddress, NodeName
from model.service import Selection
from reconcile.loop import Loop
from reconcile.tasks import TaskGroup
from tests.support import virtual_time
from tests.support.datapath import FakeTable
from tests.support.fake_wireguard import Network

OWN = ClusterName("own")
NODES, FIRST, VICTIM = 3, 0, 1  # the first is asked to begin
EPOCH_S = 1_700_000_000.0  # of the virtual clock
TICK_S, HEARING_S, DOWN_S, AFTERWARDS_S = 0.1, 0.3, 5.0, 10.0
LONGEST_S = 600.0  # of virtual time; a session is renewed after two minutes


class Who(Enum):
    """Who ends when the victim is before a step."""

    AGENT = "its agent"
    AGENTS = "the agents of all nodes"
    NODE = "its node, which boots without its devices"


class Killed(Exception):
    """An agent ends, without a word."""


class Files(StateFiles):
    """Whose changes are steps."""

    def __init__(self, directory: Path, step: Callable[[str], None]) -> None:
        super().__init__(directory)
        self._step = step

    def next_key(self) -> PrivateKey:
        self._step("next_key")
        return super().next_key()

    def promote(self) -> PrivateKey:
        self._step("promote")
        return super().promote()

    def forget_next(self) -> None:
        self._step("forget_next")
        super().forget_next()

    def save(self, progress: Progress) -> None:
        self._step(progress.phase.value)
        super().save(progress)


@dataclass
class Member:
    """One node: what outlives its agents, and the one of now."""

    me: Self
    config: AgentConfig
    network: Network
    step: Callable[["Member", str], None]  # something is about to be changed; raises ``Killed``
    announced: dict[NodeName, Node]  # by all nodes, as the API server has it
    via: FakeTable[Address, int] = field(default_factory=FakeTable)  # pinned
    rotation: KeyRotation | None = None  # None: no agent runs
    doomed: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """As of a kernel thread, to which the model's devices are the kernel's."""
        if function is open_device:
            self.step(self, "open_device")
            return self.network.open(self.me.ip, arguments[0])
        if function is remove_device:
            self.step(self, "remove_device")
            left = self.network.of(self.me.ip).get(arguments[0])
            if left is not None:
                left.remove()
            return left is not None
        if not function.__name__.endswith("read"):
            self.step(self, function.__name__)
        return function(*arguments)

    async def lives(self) -> None:
        """One agent after another."""
        while True:
            await self._live()
            await asyncio.sleep(DOWN_S)

    async def _live(self) -> None:
        """One agent, wired as by the daemon."""
        self.doomed.clear()
        # In place of a thread in a node's namespace: devices are models, and its calls are counted.
        opened = await open_wireguard(self.config, self.me, self)  # type: ignore[arg-type]
        assert opened is not None
        opened.files = Files(self.config.state_dir / "state", lambda what: self.step(self, what))
        mesh = MeshState(OWN, self.me.node.name, Selection.RANDOM)
        datapath: Any = SimpleNamespace(encrypt_via=self.via, attach_wireguard=self._attach)
        node = WireguardNode(opened, mesh, self.me, datapath)
        await node.take_over()
        self._hear(mesh)
        self._announce(opened)
        made = KeyRotation(node, mesh, lambda: self._announce(opened), now_s)
        try:
            async with TaskGroup() as tasks:
                tasks.create_task(Loop(node.tables()).run())
                tasks.create_task(made.run())
                tasks.create_task(self._listen(mesh))
                tasks.create_task(self._until_doomed())
                for table in node.tables():
                    table.allow_prune()
                self.rotation = made
        except* Killed:
            self.rotation = None

    def _announce(self, opened: Opened) -> None:
        self.announced[self.me.node.name] = opened.announced(self.me.node)

    async def _attach(self, device: str) -> None:
        assert device in self.network.of(self.me.ip)

    async def _listen(self, mesh: MeshState) -> None:
        while True:
            await asyncio.sleep(HEARING_S)
            self._hear(mesh)

    def _hear(self, mesh: MeshState) -> None:
        for node in self.announced.values():
            mesh.nodes.put(node)

    async def _until_doomed(self) -> None:
        await self.doomed.wait()
        raise Killed


def now_s() -> float:
    """Unix time."""
    return EPOCH_S + asyncio.get_running_loop().time()


class World:
    """A mesh that speaks all the time, and the moment at which somebody ends."""

    def __init__(self, directory: Path, who: Who, last: int) -> None:
        """``last``: the victim ends before this step of its own, from 0 where the change begins."""
        self._who, self._last = who, last
        self.steps: list[str] = []
        self.counting = self.killed = False
        self.network = Network(now_s)
        announced: dict[NodeName, Node] = {}
        self.members = [
            Member(*_node(directory, number), self.network, self._step, announced)
            for number in range(NODES)
        ]
        self.victim = self.members[VICTIM]

    def _step(self, member: Member, what: str) -> None:
        if member is not self.victim or not self.counting or self.killed:
            return
        self.steps.append(what)
        if len(self.steps) > self._last:
            self.killed = True
            self._end()
            raise Killed

    def _end(self) -> None:
        if self._who is Who.AGENTS:
            for member in self.members:
                member.doomed.set()
        if self._who is Who.NODE:
            for device in self.network.of(self.victim.me.ip).values():
                device.remove()
            self.victim.via.rows.clear()

    async def change_keys(self, taken_back: bool) -> None:
        """From one key on every node to another one, or back; all that must hold is asserted.

        ``taken_back``: as soon as the victim takes part; its steps are those of going back then.
        """
        async with TaskGroup() as tasks:
            lives = [tasks.create_task(member.lives()) for member in self.members]
            await self._pass(lambda: self._lost() == [], "all speak with all")
            before = {m.me.node.name: _key(m) for m in self.members}
            first = self.members[FIRST].rotation
            assert first is not None
            self.counting = not taken_back
            assert await first.begin() == 1
            if taken_back:
                await self._pass(self._victim_turns, "the victim takes part", self._check_packets)
                self.counting = True
                assert await first.abort() == 1
            await self._pass(self._ended, "all have ended it", self._check_packets)
            end_s = now_s() + AFTERWARDS_S
            await self._pass(lambda: now_s() > end_s, "", self._check_packets)
            self._check_end(before, taken_back)
            for task in lives:
                task.cancel()

    async def _pass(
        self, claim: Callable[[], bool], what: str, check: Callable[[], None] = lambda: None
    ) -> None:
        end_s = now_s() + LONGEST_S
        while not claim():
            await asyncio.sleep(TICK_S)
            self.network.shake_hands()
            check()
            assert now_s() < end_s, (what, [_waits(m) for m in self.members])

    def _victim_turns(self) -> bool:
        made = self.victim.rotation
        return made is not None and made.own.phase is Phase.TURNING

    def _ended(self) -> bool:
        owns = [m.rotation.own for m in self.members if m.rotation is not None]
        return len(owns) == NODES and all(
            (own.number, own.phase) == (1, Phase.STEADY) for own in owns
        )

    def _lost(self) -> list[tuple[str, str]]:
        """Who speaks to whom in vain, by the devices that the programs take."""
        lost: list[tuple[str, str]] = []
        for one, two in itertools.permutations(self.members, 2):
            number = one.via.rows.get(two.me.ip)
            name = self.network.name(number) if number is not None else DEVICE_WIREGUARD
            if not self.network.send(one.me.ip, name, two.me.ip):
                lost.append((one.me.node.name, two.me.node.name))
        return lost

    def _check_packets(self) -> None:
        """Nobody sends with what the other has no key for; to who boots, everybody does."""
        lost = self._lost()
        if self.killed and self._who is Who.NODE:
            lost = [pair for pair in lost if self.victim.me.node.name not in pair]
        assert lost == []

    def _check_end(self, before: dict[NodeName, str], taken_back: bool) -> None:
        """One key on every node, another than before unless it was taken back, which is the one
        that the others have.
        """
        assert self._lost() == []
        after = {m.me.node.name: _key(m) for m in self.members}
        if taken_back:
            assert after == before
        else:
            assert not set(after.values()) & set(before.values())
        for member in self.members:
            name, devices = member.me.node.name, self.network.of(member.me.ip)
            files = {path.name for path in (member.config.state_dir / "state").iterdir()}
            assert files == {KEY_FILE, "wireguard-rotation.json"}
            assert devices.keys() == {DEVICE_WIREGUARD}
            assert devices[DEVICE_WIREGUARD].public_key == after[name]
            assert set(devices[DEVICE_WIREGUARD].peers) == {after[n] for n in after if n != name}
            said = member.announced[name]
            assert said.wireguard_public_key == after[name]
            assert said.annotations == {rotation.ANNOTATION: "1 steady"}
            assert member.via.rows == {}


def _node(directory: Path, number: int) -> tuple[Self, AgentConfig]:
    address = parse_address(f"192.0.2.{number + 1}")
    cidr = parse_prefix(f"10.1.{number}.0/24")
    addresses = (NodeAddress(INTERNAL_IP, address),)
    node = Node(OWN, NodeName(f"n{number}"), ClusterId(1), addresses, (cidr,))
    me = Self(node, f"uid{number}", address, cidr, parse_address(f"10.1.{number}.1"))
    state = directory / f"n{number}"
    return me, AgentConfig(enable_wireguard=True, devices="eth9", mtu=1500, state_dir=state)


def _key(member: Member) -> str:
    found = wireguard_keys.load(member.config.state_dir / "state" / KEY_FILE)
    assert found is not None
    return found.public()


def _waits(member: Member) -> Any:
    return member.rotation and member.rotation.shape()


def _end_before_each_step(directory: Path, who: Who, *, taken_back: bool) -> list[str]:
    """The steps of a node, after the run in which nothing has ended."""
    for last in itertools.count():
        world = World(directory / str(last), who, last)
        try:
            virtual_time.run(world.change_keys(taken_back))
        except* AssertionError as group:
            raise AssertionError(f"ended before step {last} of {world.steps}") from group
        if not world.killed:
            return world.steps
    raise AssertionError("unreachable")


@pytest.mark.parametrize("who", list(Who))
def test_a_change_of_keys_survives_every_end(tmp_path: Path, who: Who) -> None:
    """Before each step of a node, in its files and in its devices, between two of them too."""
    steps = _end_before_each_step(tmp_path, who, taken_back=False)
    told = [step for step in steps if step in ("promote", "turning", "settled", "steady")]
    assert told == ["turning", "promote", "settled", "steady"]


@pytest.mark.parametrize("who", list(Who))
def test_going_back_survives_every_end(tmp_path: Path, who: Who) -> None:
    """The old keys stay, and nothing is left of the others."""
    steps = _end_before_each_step(tmp_path, who, taken_back=True)
    assert [step for step in steps if step in ("aborting", "steady")] == ["aborting", "steady"]

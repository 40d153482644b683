"""One seed: rounds of faults and changes, each ended by quiet in which every kernel must be right.

Everything is drawn from the seed, and time is virtual: the same seed is the same story. A failure
says the seed and the last things that happened; ``python -m tests.simulation --seed N`` tells it
again, event by event.
"""

import asyncio
import random
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from kind.simulate.population import Population
from kind.simulate.shape import Shape
from kvstore.publisher import LEASE_TTL_S
from reconcile.tasks import TaskGroup
from tests.simulation.cluster import Mesh, Publishing
from tests.simulation.node import SimulatedNode
from tests.support import virtual_time
from tests.support.datapath import Fault
from tests.support.fake_store import Weather

SHAPE = Shape(clusters=3, nodes=2, endpoints=12, identities=4, services=2, backends=2)
NODES = 2
ROUNDS = 3
ROUND_S = 400.0
# Heartbeats, back-off, drains, full reads of tables, compares with stores: all lie below it.
QUIET_S = 900.0
WATCH_S = 5.0


@dataclass
class Story:
    """What happened, newest last; with ``aloud`` it is told at once."""

    seed: int
    aloud: bool = False
    lines: list[str] = field(default_factory=list)

    def tell(self, text: str) -> None:
        """At the loop's time."""
        line = f"{asyncio.get_running_loop().time():8.2f}  {text}"
        self.lines.append(line)
        if self.aloud:
            print(line)


class Failure(AssertionError):
    """The seed, what is wrong, and how it came."""

    def __init__(self, story: Story, what: list[str]) -> None:
        text = "\n".join(what[:10])
        last = "\n".join(story.lines[-25:])
        super().__init__(
            f"seed {story.seed}: {text}\n{last}\n"
            f"again: pytest tests/simulation --simulation-seed {story.seed}; "
            f"event by event: python -m tests.simulation --seed {story.seed}"
        )


class Play:
    """The cast of one seed, and what may befall it."""

    def __init__(self, seed: int, directory: Path, aloud: bool) -> None:
        self.story = Story(seed, aloud)
        self._draw = random.Random(seed)
        self._mesh = Mesh(Population(SHAPE), seed)
        self._nodes = [
            SimulatedNode(n, self._mesh, directory, seed + 1000 * (n + 1)) for n in range(NODES)
        ]
        self._all_tasks: TaskGroup | None = None
        self._faults: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (30, self._changes),
            (10, self._reader_weather),
            (5, self._writer_weather),
            (4, self._etcd_dies),
            (5, self._compaction),
            (3, self._snapshot),
            (3, self._older_snapshot),
            (1, self._wiped),
            (4, self._publisher_dies),
            (4, self._agent_dies),
            (4, self._membership),
            (5, self._kernel_fault),
            (3, self._stranger),
            (4, self._mischief),
            (3, self._loss),
        ]

    async def run(self) -> None:
        """All rounds. Raises ``Failure``."""
        async with TaskGroup() as tasks:
            self._all_tasks = tasks
            for cluster in self._mesh.clusters:
                cluster.start(tasks)
            for node in self._nodes:
                node.start(tasks)
            watch = tasks.create_task(self._watch())
            await self._quiet()
            for _ in range(ROUNDS):
                await self._trouble()
                await self._quiet()
            watch.cancel()
            for some in (*self._mesh.clusters, *self._nodes):
                await some.crash()

    async def _watch(self) -> None:
        """What every member said all along is in every kernel all along."""
        while True:
            await asyncio.sleep(WATCH_S)
            for node in self._nodes:
                if lost := node.lost():
                    what = f"node {node.number} lost {lost[0]}, which was never gone"
                    raise Failure(self.story, [what])

    async def _trouble(self) -> None:
        clock = asyncio.get_running_loop().time
        end = clock() + ROUND_S
        weights, actions = zip(*self._faults, strict=True)
        while clock() < end:
            await asyncio.sleep(self._draw.expovariate(1 / 8))
            await self._draw.choices(actions, weights)[0]()
        if self._draw.random() < 0.2:
            await self._long_silence()

    async def _long_silence(self) -> None:
        """A publisher is away until its leases have run out: its keys vanish without a farewell."""
        cluster = self._cluster()
        self.story.tell(f"publisher of {cluster.name} is away for long")
        await cluster.crash()
        await asyncio.sleep(1.5 * LEASE_TTL_S)

    async def _quiet(self) -> None:
        """Everything is mended; after a while every kernel is right."""
        tasks = self._all_tasks
        assert tasks is not None
        self.story.tell("quiet")
        for cluster in self._mesh.clusters:
            cluster.link.turn(Weather.FAIR)
            if not cluster.etcd.up:
                cluster.etcd.start()
            if not cluster.runs:
                cluster.start(tasks)
        for node in self._nodes:
            for link in node.links.values():
                link.mischief = link.loss = 0.0
                link.turn(Weather.FAIR)
            for table in node.kernel.tables:
                table.fault = Fault.NONE
            if not node.runs:
                node.start(tasks)
        await asyncio.sleep(QUIET_S)
        for node in self._nodes:
            if wrong := node.differences():
                raise Failure(self.story, [f"node {node.number}: {text}" for text in wrong])
            self.story.tell(f"well: node {node.number}, {node.work()}")

    def _cluster(self) -> Publishing:
        return self._draw.choice(self._mesh.clusters)

    def _node(self) -> SimulatedNode:
        return self._draw.choice(self._nodes)

    def _later(self, longest_s: float, act: Callable[[], Awaitable[None]]) -> None:
        assert self._all_tasks is not None

        async def wait(delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            await act()

        self._all_tasks.create_task(wait(self._draw.uniform(0.05, longest_s)))

    async def _changes(self) -> None:
        for _ in range(self._draw.randint(1, 12)):
            self.story.tell(self._mesh.change())
            if self._draw.random() < 0.3:
                await asyncio.sleep(self._draw.uniform(0, 0.05))

    async def _reader_weather(self) -> None:
        node, cluster = self._node(), self._cluster()
        weather = self._draw.choice([Weather.REFUSED, Weather.SILENT])
        self.story.tell(f"{weather.value}: node {node.number} to {cluster.name}")
        node.links[cluster.number].turn(weather)

        async def fair() -> None:
            node.links[cluster.number].turn(Weather.FAIR)

        self._later(200.0, fair)

    async def _writer_weather(self) -> None:
        cluster = self._cluster()
        weather = self._draw.choice([Weather.REFUSED, Weather.SILENT])
        self.story.tell(f"{weather.value}: publisher of {cluster.name}")
        cluster.link.turn(weather)

        async def fair() -> None:
            cluster.link.turn(Weather.FAIR)

        self._later(200.0, fair)

    async def _etcd_dies(self) -> None:
        cluster = self._cluster()
        self.story.tell(f"etcd of {cluster.name} dies")
        cluster.etcd.kill()

        async def start() -> None:
            if not cluster.etcd.up:
                cluster.etcd.start()

        self._later(100.0, start)

    async def _compaction(self) -> None:
        cluster = self._cluster()
        if cluster.etcd.up:
            self.story.tell(f"compaction of {cluster.name}")
            cluster.etcd.compact(cluster.etcd.revision)

    async def _snapshot(self) -> None:
        cluster = self._cluster()
        self.story.tell(f"snapshot of {cluster.name}")
        cluster.saved = cluster.etcd.save()

    async def _older_snapshot(self) -> None:
        cluster = self._cluster()
        if cluster.saved is not None:
            self.story.tell(f"older snapshot of {cluster.name} is restored")
            cluster.etcd.kill()
            cluster.etcd.start(cluster.saved)

    async def _wiped(self) -> None:
        cluster = self._cluster()
        self.story.tell(f"etcd of {cluster.name} begins anew, empty")
        cluster.etcd.kill()
        cluster.etcd.wipe()
        cluster.saved = None
        cluster.etcd.start()

    async def _publisher_dies(self) -> None:
        cluster = self._cluster()
        self.story.tell(f"publisher of {cluster.name} dies")
        await cluster.crash()

        async def start() -> None:
            if not cluster.runs and self._all_tasks is not None:
                cluster.start(self._all_tasks)

        self._later(self._draw.choice([1.0, 300.0]), start)

    async def _agent_dies(self) -> None:
        node = self._node()
        self.story.tell(f"agent of node {node.number} dies")
        await node.crash()

        async def start() -> None:
            if not node.runs and self._all_tasks is not None:
                node.start(self._all_tasks)

        self._later(60.0, start)

    async def _membership(self) -> None:
        node, cluster = self._node(), self._cluster()
        members = node.membership.clusters ^ {cluster.number}
        self.story.tell(f"node {node.number} reads {sorted(members)}")
        node.membership.set(members)
        node.learnt &= members

    async def _kernel_fault(self) -> None:
        node = self._node()
        table = self._draw.choice(node.kernel.tables)
        table.fault = self._draw.choice(list(Fault))
        self.story.tell(f"kernel of node {node.number}: {table.fault.value}")

        async def mend() -> None:
            table.fault = Fault.NONE

        self._later(60.0, mend)

    async def _stranger(self) -> None:
        node = self._node()
        table = self._draw.choice(node.kernel.tables)
        if table.rows:
            node.learnt.clear()
            key = self._draw.choice(sorted(table.rows, key=str))
            self.story.tell(f"a stranger removes {key} on node {node.number}")
            del table.rows[key]

    async def _loss(self) -> None:
        node, cluster = self._node(), self._cluster()
        self.story.tell(f"node {node.number} is not told everything by {cluster.name}")
        node.links[cluster.number].loss = 0.3

        async def fair() -> None:
            node.links[cluster.number].loss = 0.0

        self._later(100.0, fair)

    async def _mischief(self) -> None:
        node, cluster = self._node(), self._cluster()
        self.story.tell(f"node {node.number} is told twice and askew by {cluster.name}")
        node.links[cluster.number].mischief = 0.5

        async def fair() -> None:
            node.links[cluster.number].mischief = 0.0

        self._later(100.0, fair)


def play(seed: int, aloud: bool = False) -> list[str]:
    """The whole story of a seed. Raises ``Failure``."""
    with tempfile.TemporaryDirectory(prefix="ist-t-sim-") as directory:
        actors: list[Play] = []

        async def main() -> None:
            actors.append(Play(seed, Path(directory), aloud))
            await actors[0].run()

        failed: Failure | None = None  # before 3.11.4 what except* raises comes out in a group
        try:
            virtual_time.run(main())
        except* Failure as group:
            failed = _first(group)
        if failed is not None:
            raise failed
        return actors[0].story.lines


def _first(group: BaseExceptionGroup[Failure]) -> Failure:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Failure)
    return error

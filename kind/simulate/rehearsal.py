"""One rehearsal from beginning to end, inside its enclosure. Adapter.

Fill the stores, start the agent beside them and time it until the kernel holds what they say; let
things change and time each change; wait for quiet, and compare everything.
"""

import asyncio
import contextlib
import random
import shutil
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from kind.simulate import agent as under_test
from kind.simulate import churn as changes
from kind.simulate import enclosure
from kind.simulate import shape as layout
from kind.simulate.agent import Agent
from kind.simulate.churn import Churn, Effect, Table
from kind.simulate.control_plane import ControlPlane
from kind.simulate.enclosure import ROOT
from kind.simulate.kernel import Kernel
from kind.simulate.observer import LATE_S, Observer
from kind.simulate.population import Population
from kind.simulate.processes import Pki, SimulationError
from kind.simulate.progress import Bars
from kind.simulate.report import Bootstrap, ChurnReport, Report, latency
from kind.simulate.shape import Shape
from kind.simulate.stores import Stores
from reconcile.tasks import TaskGroup

LOOK_S = 0.02
SAMPLES = 2000  # rows that are looked at before everything is compared
QUIET_S = 2.0
PATIENCE_S = 20.0  # for the last rows, after everything has been read


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for."""

    shape: Shape
    churn_per_s: float
    duration_s: float
    seed: int
    direct: int = 0  # so many clusters have an etcd of their own
    services_only: bool = False  # churn changes nothing but services' backends
    timeout_s: float = 300.0  # for the bootstrap
    settings: tuple[tuple[str, str], ...] = ()  # of the agent
    keep_logs: str = ""


class Rehearsal:
    """State of the run."""

    def __init__(self, request: Request, bars: Bars) -> None:
        self._request, self._bars = request, bars
        self._population = Population(request.shape)
        self.report = Report(request.seed, asdict(request.shape), request.shape.keys)
        self._stores = Stores(self._population, Pki(), request.direct)
        self._control_plane = ControlPlane()
        self._frontends: list[str] = []

    async def run(self) -> None:
        """All of it; the report is filled on the way. Raises ``SimulationError``."""
        request = self._request
        await self._prepare()
        async with TaskGroup() as tasks:
            beat = tasks.create_task(self._stores.beat())
            agent = await self._start()
            try:
                kernel = await self._bootstrap(agent)
                if request.churn_per_s and request.duration_s:
                    await self._churn(agent, kernel)
                await self._verify(agent, kernel)
            finally:
                self._note_usage(agent)
            beat.cancel()
        await self._stores.close()

    async def _prepare(self) -> None:
        bars, request = self._bars, self._request
        enclosure.add_address(f"{layout.OWN_IP}/24")
        bars.phase("API server", 1)
        async with await self._control_plane.start():
            self._frontends = await self._control_plane.furnish(request.shape.services)
        self._control_plane.mount_service_account()
        bars.reach(1)
        bars.phase("etcd", 1 + request.direct)
        await self._stores.start()
        bars.reach(1 + request.direct)
        bars.phase("rows written", request.shape.keys)
        start = time.monotonic()
        await self._stores.fill(bars.advance)
        self.report.fill_s = time.monotonic() - start

    async def _start(self) -> Agent:
        self._stores.write_files(under_test.CLUSTERS)
        flags = under_test.settings(
            self._request.shape,
            dict(self._request.settings),
        )
        self._started_s = time.monotonic()
        return Agent(flags)

    async def _bootstrap(self, agent: Agent) -> Kernel:
        """Until every cluster is read and the kernel holds all of it."""
        shape, found = self._request.shape, Bootstrap()
        self.report.bootstrap = found
        self._bars.phase("clusters read", shape.clusters)
        deadline = self._started_s + self._request.timeout_s
        while agent.clusters_ready < shape.clusters or agent.ready_ms is None:
            agent.process.check()
            agent.read_log()
            self._bars.reach(agent.clusters_ready)
            if time.monotonic() > deadline:
                raise SimulationError(
                    f"{agent.clusters_ready} of {shape.clusters} clusters were read after "
                    f"{self._request.timeout_s:.0f} s; the agent's log ends with:\n"
                    f"{agent.process.tail()}"
                )
            await asyncio.sleep(LOOK_S)
        found.ready_s = agent.ready_ms / 1000
        found.in_sync_s = time.monotonic() - self._started_s
        kernel = Kernel(self._frontends)
        await self._programmed(kernel, found, agent)
        return kernel

    async def _programmed(self, kernel: Kernel, found: Bootstrap, agent: Agent) -> None:
        self._bars.phase("kernel compared", 1)
        deadline = time.monotonic() + PATIENCE_S
        draw = random.Random(self._request.seed)
        samples = self._samples(draw)
        while True:
            samples = [effect for effect in samples if not kernel.shows(effect)]
            late = time.monotonic() > deadline
            if not samples or late:
                found.programmed_s = time.monotonic() - self._started_s
                usage = agent.usage()
                found.cpu_s, found.rss_mb = usage.cpu_s, usage.rss_mb
                differences = kernel.differences(self._population)
                if not differences:
                    break
                if late:
                    self.report.errors += [f"after the bootstrap, {d}" for d in differences]
                    break
            await asyncio.sleep(LOOK_S)
        self._bars.reach(1)

    def _samples(self, draw: random.Random) -> list[Effect]:
        truth = self._population.truth
        hosts = draw.sample(sorted(truth.hosts), min(SAMPLES, len(truth.hosts)))
        found = [Effect(Table.HOSTS, key, truth.hosts[key]) for key in hosts]
        prefixes = islice(truth.prefixes.items(), SAMPLES)
        found += [Effect(Table.PREFIXES, key, value) for key, value in prefixes]
        return found + [
            Effect(Table.SERVICES, number, len(backends))
            for number, backends in enumerate(truth.backends)
        ]

    async def _churn(self, agent: Agent, kernel: Kernel) -> None:
        """Changes at the given rate, at random moments."""
        request = self._request
        await asyncio.sleep(QUIET_S)
        draw = random.Random(request.seed)
        mix = changes.SERVICES_ONLY if request.services_only else None
        churn = Churn(self._population, draw, mix)
        observer = Observer(kernel.shows)
        self._bars.phase("seconds of churn", round(request.duration_s))
        before, start = agent.usage(), time.monotonic()
        count, due = 0, 0.0
        async with TaskGroup() as tasks:
            looking = tasks.create_task(observer.run())
            while due < request.duration_s:
                await asyncio.sleep(max(0.0, start + due - time.monotonic()))
                change = churn.next(observer.busy)
                observer.expect(change)
                await self._stores.apply(change.row)
                count += 1
                due += draw.expovariate(request.churn_per_s)
                self._bars.reach(round(time.monotonic() - start))
            seconds, after = time.monotonic() - start, agent.usage()
            await observer.settle()
            looking.cancel()
        every = [s for samples in observer.took_s.values() for s in samples]
        self.report.churn = ChurnReport(
            asked_per_s=request.churn_per_s,
            done_per_s=round(count / seconds, 1),
            seconds=round(seconds, 1),
            core_pct=round(100 * (after.cpu_s - before.cpu_s) / seconds, 2),
            propagation=latency(every),
            by_kind={kind: latency(samples) for kind, samples in observer.took_s.items()},
            superseded=observer.superseded,
        )
        if late := observer.late():
            self.report.errors.append(
                f"{len(late)} changes are not in the kernel after {LATE_S:.0f} s ({late[0]})"
            )
        if count < 0.9 * request.churn_per_s * request.duration_s:
            self.report.warnings.append("this machine did not write changes at the wanted rate")

    def _note_usage(self, agent: Agent) -> None:
        with contextlib.suppress(SimulationError):  # it has ended, which is told elsewhere
            usage = agent.usage()
            self.report.cpu_s = round(usage.cpu_s, 2)
            self.report.rss_mb = round(usage.rss_mb, 1)
            self.report.peak_mb = round(usage.peak_mb, 1)

    async def _verify(self, agent: Agent, kernel: Kernel) -> None:
        """In quiet: kernel, counts and complaints."""
        self._bars.phase("last comparison", 1)
        report = self.report
        differences = kernel.differences(self._population)
        report.errors += [f"at the end, {difference}" for difference in differences]
        report.maps = kernel.counts()
        status = await agent.get("healthz")
        report.errors += _complaints(status, self._request.shape.clusters)
        report.warnings += [f"the agent says: {text}" for text in (status.get("messages") or ())]
        self._bars.reach(1)


def _complaints(status: dict[str, Any], clusters: int) -> list[str]:
    """What the agent itself finds wrong."""
    mesh = status["cluster-mesh"]
    found = [
        f"cluster {c['name']} is not ready: {c['status']}"
        for c in mesh["clusters"]
        if not c["ready"]
    ]
    if len(mesh["clusters"]) != clusters:
        found.append(f"the agent knows {len(mesh['clusters'])} of {clusters} clusters")
    found += [f"the agent refused: {text}" for text in (mesh.get("problems") or ())]
    if status["cilium"]["state"] != "Ok":
        found.append(f"the agent is not well: {status['cilium']}")
    return found[:20]


def keep_logs(directory: str) -> None:
    """Copy the logs to where they outlive the enclosure."""
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    for log in ROOT.glob("*.log"):
        shutil.copy(log, target / log.name)

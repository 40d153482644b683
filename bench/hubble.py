"""What seeing flows costs: taking events, keeping and counting them, and being watched.

Hubble's side runs in this process, beside a node of our datapath with pods that talk.
"""

import asyncio
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import topology
from bench.figure import Figure, interleave, ratio
from bench.node import our_node
from bench.observer import NodeFlows
from hubble.decode import Decoder
from hubble.feed import Feed
from hubble.intake import Intake
from hubble.metrics.engine import Engine
from hubble.metrics.options import parse_text
from hubble.names import Names
from hubble.ring import CAPACITY_MAX, SOURCE_KERNEL, Ring
from reconcile.tasks import TaskGroup
from wire.bpf.layouts import TRACE_EVENT, EventLimits, TraceLevel

RUNS = 9
SECONDS = 1.0
FLOOD_SECONDS = 4.0
QUEUE = 16384
USUAL_METRICS = ("dns", "drop", "tcp", "flow", "icmp", "port-distribution")
CONTEXT = "sourceContext=workload-name;destinationContext=workload-name"
BATCH = 1000  # records that come at once under load


@contextmanager
def pair(tag: str, number: int, trace: TraceLevel) -> Iterator[tuple[str, str, Path]]:
    """Two pods of one node: namespace of the client, address of the server, pin directory."""
    with ExitStack() as stack:
        node, a, b = (stack.enter_context(topology.namespace(f"{tag}{n}")) for n in "nab")
        peer = stack.enter_context(topology.namespace(f"{tag}z"))
        topology.veth(node, "eth0", peer, "eth0")
        ip = f"172.20.{number}.1"
        topology.ip(node, "address", "add", f"{ip}/24", "dev", "eth0")
        ours = stack.enter_context(our_node(node, ip, "10.1.0.1", "10.1.0.0/24", trace=trace))
        ours.pod(2, a, "10.1.0.2")
        ours.pod(3, b, "10.1.0.3")
        stack.enter_context(topology.server(b, "10.1.0.3"))
        yield a, "10.1.0.3", Path(f"/sys/fs/bpf/{node}")


def events_per_core_s() -> Figure:
    """Every packet of two pods that talk as fast as they can is told twice."""
    with pair("h0", 0, TraceLevel.TRACE_ALL) as (client, address, pins):
        ring = Ring(CAPACITY_MAX)
        intake = Intake(ring, pins, QUEUE)

        async def work() -> float:
            async with TaskGroup() as tasks:
                task = tasks.create_task(intake.run())
                await asyncio.sleep(1)
                before = time.process_time()
                await asyncio.to_thread(topology.client, client, "rr", address, FLOOD_SECONDS)
                await asyncio.sleep(1)
                spent_s = time.process_time() - before
                task.cancel()
            return spent_s

        spent_s = asyncio.run(work())
        return Figure(
            "hubble.events_per_core_s",
            round(ring.flows_seen / spent_s),
            "1/s",
            {
                "events": ring.flows_seen,
                "cpu_s": round(spent_s, 3),
                "lost_kernel": intake.lost[SOURCE_KERNEL],
                "lost_queue": intake.lost.total() - intake.lost[SOURCE_KERNEL],
            },
        )


def metrics_flows_per_core_s() -> Figure:
    """The usual metrics over traces of 50 pods that talk; and with workloads as labels."""
    node = NodeFlows(CAPACITY_MAX)
    entries = [node.ring.at(number) for number in range(1, CAPACITY_MAX + 1)]
    batches = [
        [(one.time_ns, one.record) for one in entries[at : at + BATCH] if one is not None]
        for at in range(0, len(entries), BATCH)
    ]

    def per_s(text: str) -> float:
        ring = Ring()
        feed = Feed(ring, lambda: None)
        engine = Engine(node.decode, lambda: 1)
        engine.configure(parse_text(text))
        before = time.process_time()
        for batch in batches:
            ring.extend(batch)
            while taken := feed.take():
                engine.take(taken)
        return len(entries) / (time.process_time() - before)

    plain, named = " ".join(USUAL_METRICS), " ".join(f"{n}:{CONTEXT}" for n in USUAL_METRICS)
    return Figure(
        "hubble.metrics_flows_per_core_s",
        round(statistics.median(per_s(plain) for _ in range(RUNS))),
        "1/s",
        {"with_workloads": round(statistics.median(per_s(named) for _ in range(RUNS)))},
    )


async def count(ring: Ring) -> None:
    """The usual metrics of what comes, until cancelled."""
    woken = asyncio.Event()
    feed = Feed(ring, woken.set)
    engine = Engine(Decoder(Names(), bytes(8)).decode, lambda: 1)
    engine.configure(parse_text(" ".join(USUAL_METRICS)))
    while True:
        await woken.wait()
        woken.clear()
        while taken := feed.take():
            engine.take(taken)


def rss_bytes() -> int:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def fill() -> None:
    """In a process of its own: print what a full ring of the largest size takes."""
    record = TRACE_EVENT.size + int(EventLimits.EVENT_CAPTURE_MAX)
    gc.collect()
    before = rss_bytes()
    ring = Ring(CAPACITY_MAX)
    for _ in range(2 * CAPACITY_MAX):  # twice round: what was overwritten is free again
        ring.extend([(time.time_ns(), b"\4" + os.urandom(record - 1))])
    print(rss_bytes() - before)


def ring_mb() -> Figure:
    """A full ring, record by record as the kernel's traces are."""
    said = subprocess.run(
        [sys.executable, "-c", "from bench.hubble import fill; fill()"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return Figure("hubble.ring_mb", round(int(said) / 1e6, 1), "MB", {"records": CAPACITY_MAX})


def rr_ratio() -> Figure:
    """Request and response with flows seen, at the default level, and counted, over without."""
    with (
        pair("h1", 1, TraceLevel.TRACE_OFF) as without,
        pair("h2", 2, TraceLevel.TRACE_CHANGES) as seen,
    ):
        ring = Ring()
        intake = Intake(ring, seen[2], QUEUE)

        def run(at: tuple[str, str, Path]) -> float:
            return topology.client(at[0], "rr", at[1], SECONDS)

        async def work() -> Figure:
            async with TaskGroup() as tasks:
                task = tasks.create_task(intake.run())
                counting = tasks.create_task(count(ring))
                subjects = {"seen": lambda: run(seen), "without": lambda: run(without)}
                samples = await asyncio.to_thread(interleave, RUNS, subjects)
                task.cancel()
                counting.cancel()
            return ratio("hubble.rr_ratio", samples["seen"], samples["without"])

        return asyncio.run(work())


def measure() -> Iterator[Figure]:
    """Four figures."""
    yield events_per_core_s()
    yield metrics_flows_per_core_s()
    yield ring_mb()
    yield rr_ratio()

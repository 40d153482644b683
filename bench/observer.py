"""What it takes to read flows: the newest 10,000 of a full ring, and a relay's merge.

The observer runs in a process of its own and is asked over its socket by this one, which prints
what comes as the command does, into nothing.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from bench.figure import Figure
from cli import hubble_text, hubble_times
from hubble import rpc
from hubble.observer_server import Observer, flow_answer
from hubble.peers import Peer, PeerTable
from hubble.relay_merge import time_ns
from hubble.relay_pool import Pool
from hubble.relay_server import Relay
from hubble.ring import CAPACITY_MAX, Entry, Ring
from hubble.rpc_client import connect
from hubble.rpc_server import Call, Server
from hubble.source import Message
from wire.hubble import flow_pb2, observer_pb2

RUNS = 7
LAST = 10_000
NODES = 100
FLOWS_OF_NODE = 2000
BEGIN_NS = 1_750_000_000 * 10**9


class MadeSource:
    """Flows like those of pods that talk, each record holding its flow."""

    node_name = "west/node-1"

    def __init__(self, records: int) -> None:
        self.ring = Ring(CAPACITY_MAX)
        self.ring.extend((BEGIN_NS + n * 10**6, made_record(n)) for n in range(records))

    def decode(self, entry: Entry) -> Message | None:
        """The flow of the record."""
        flow = flow_pb2.Flow.FromString(entry.record[1:])
        flow.time.FromNanoseconds(entry.time_ns)
        return flow

    def namespaces(self) -> list[tuple[str, str]]:
        """None."""
        return []


def made_record(number: int) -> bytes:
    """A trace between two pods."""
    flow = flow_pb2.Flow(
        uuid=f"00000000-0000-4000-8000-{number:012d}",
        verdict=flow_pb2.Verdict.FORWARDED,
        node_name="west/node-1",
        Type=flow_pb2.FlowType.L3_L4,
        Summary="TCP Flags: ACK",
    )
    flow.event_type.type = 4
    flow.is_reply.value = bool(number % 2)
    flow.IP.source, flow.IP.destination = "10.1.0.5", "10.2.0.9"
    flow.l4.TCP.source_port, flow.l4.TCP.destination_port = 1024 + number % 60_000, 8080
    flow.l4.TCP.flags.ACK = True
    for side, name in ((flow.source, "cart"), (flow.destination, "pay")):
        side.identity, side.namespace, side.pod_name = 21001, "shop", f"{name}-6c9d4b-x2v"
        side.labels.extend((f"k8s:app={name}", "k8s:io.kubernetes.pod.namespace=shop"))
        side.cluster_name = "west"
    return b"\4" + flow.SerializeToString()


def serve(path: str, records: int) -> None:
    """In a process of its own: an observer on this socket, until it is ended."""

    async def run() -> None:
        observer = Observer(MadeSource(records), PeerTable(), "bench")
        async with Server(observer.handlers()) as server:
            await server.listen_unix(Path(path))
            await asyncio.Event().wait()

    asyncio.run(run())


@contextmanager
def process(work: str, ready: Path) -> Iterator[None]:
    """A function of this module in a process of its own, from when ``ready`` is there."""
    child = subprocess.Popen([sys.executable, "-c", f"from bench import observer; observer.{work}"])
    try:
        while not ready.exists():
            time.sleep(0.05)
        yield
    finally:
        child.terminate()
        child.wait()


async def read_last(path: Path, nothing: TextIO) -> tuple[int, float]:
    """Flows printed and seconds, from connecting to the last line."""
    look = hubble_text.Look(time=hubble_times.formatter("StampMilli"))
    request = observer_pb2.GetFlowsRequest(number=LAST).SerializeToString()
    begin, count = time.perf_counter(), 0
    channel = await connect(f"unix://{path}", None, 5)
    async with channel.call("/observer.Observer/GetFlows", request) as answer:
        while messages := await answer.take():
            flows = [observer_pb2.GetFlowsResponse.FromString(message) for message in messages]
            lines = [hubble_text.compact(flow, look) for flow in flows]
            nothing.write("\n".join(lines))
            count += len(lines)
    channel.close()
    return count, time.perf_counter() - begin


def observe_10k_s() -> Figure:
    """``observe --last 10000`` over a full ring of 65,535."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hubble.sock"
        with process(f"serve({str(path)!r}, {CAPACITY_MAX})", path):
            samples = []
            with open(os.devnull, "w") as nothing:
                for _ in range(RUNS):
                    count, spent_s = asyncio.run(read_last(path, nothing))
                    assert count == LAST, count
                    samples.append(spent_s)
    detail = {"flows": LAST, "samples": [round(s, 3) for s in samples]}
    return Figure("hubble.observe_10k_s", round(statistics.median(samples), 3), "s", detail)


def speak(folder: str) -> None:
    """In a process of its own: simulated nodes, each a socket that says all its flows."""

    async def run() -> None:
        here = Path(folder)
        answers = []
        for number in range(FLOWS_OF_NODE):
            flow = flow_pb2.Flow.FromString(made_record(number)[1:])
            flow.time.FromNanoseconds(BEGIN_NS + number * 10**6)
            answers.append(flow_answer(flow))
        data = rpc.join(answers)

        async def flows(call: Call) -> None:
            call.answer()
            await call.stream.send_bytes(data)

        peers = PeerTable()
        peers.replace({f"node-{n}": Peer(str(here / f"{n}.sock")) for n in range(NODES)})
        handlers = Observer(MadeSource(0), peers, "bench").handlers()
        async with Server({**handlers, "/observer.Observer/GetFlows": flows}) as server:
            for number in range(NODES):
                await server.listen_unix(here / f"{number}.sock")
            (here / "ready").touch()
            await asyncio.Event().wait()

    asyncio.run(run())


def relay(folder: str) -> None:
    """In a process of its own: a relay over the simulated nodes."""

    async def run() -> None:
        pool = Pool(f"{folder}/0.sock", None, None)
        handlers = Relay(pool, "bench", "bench").handlers()
        async with Server(handlers) as server, asyncio.TaskGroup() as group:
            group.create_task(pool.run())
            while len(pool.connected()) < NODES:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await server.listen_unix(Path(folder) / "relay.sock")

    asyncio.run(run())


async def read_relay(path: Path) -> tuple[int, float]:
    """Flows that came through the relay, and seconds."""
    request = observer_pb2.GetFlowsRequest().SerializeToString()
    channel = await connect(f"unix://{path}", None, 5)
    begin, count, last_ns = time.perf_counter(), -1, 0  # the first answer names the nodes
    async with channel.call("/observer.Observer/GetFlows", request) as answer:
        while messages := await answer.take():
            count += len(messages)
            now_ns = time_ns(messages[-1])
            assert count <= len(messages) or now_ns >= last_ns
            last_ns = now_ns
    channel.close()
    return count, time.perf_counter() - begin


def relay_flows_per_s() -> Figure:
    """Flows a second that a relay over 100 nodes merges by time and passes on."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        here = Path(folder)
        stack.enter_context(process(f"speak({folder!r})", here / "ready"))
        stack.enter_context(process(f"relay({folder!r})", here / "relay.sock"))
        samples = []
        for _ in range(RUNS):
            count, spent_s = asyncio.run(read_relay(here / "relay.sock"))
            assert count == NODES * FLOWS_OF_NODE, count
            samples.append(count / spent_s)
    detail = {"nodes": NODES, "flows": NODES * FLOWS_OF_NODE, "samples": [*map(round, samples)]}
    return Figure("hubble.relay_flows_per_s", round(statistics.median(samples)), "1/s", detail)


def measure() -> Iterator[Figure]:
    """Two figures."""
    yield observe_10k_s()
    yield relay_flows_per_s()

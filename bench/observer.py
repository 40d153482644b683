"""What it takes to read flows: the newest 10,000 of a full ring, and a relay's merge.

Observers and relays run in processes of their own; the newest 10,000 are read by the command.
"""

import asyncio
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.figure import Figure
from hubble import rpc
from hubble.decode import Decoder
from hubble.names import Names
from hubble.observer_server import Observer, flow_answer
from hubble.peers import Peer, PeerTable
from hubble.relay_merge import time_ns
from hubble.relay_pool import Pool
from hubble.relay_server import Relay
from hubble.ring import CAPACITY_MAX, Ring
from hubble.rpc_client import connect
from hubble.rpc_server import Call, Server
from reconcile.tasks import TaskGroup
from wire.bpf import layouts
from wire.hubble import flow_pb2, observer_pb2
from wire.names import EndpointLine, Self, Workload

RUNS = 7
LAST = 10_000
NODES = 100
FLOWS_OF_NODE = 2000
BEGIN_NS = 1_750_000_000 * 10**9


PODS = 50
_CLUSTER = "k8s:io.cilium.k8s.policy.cluster=west"


class NodeFlows:
    """Raw traces of pods of one node that talk, decoded as a node's observer does."""

    node_name = "west/node-1"

    def __init__(self, records: int) -> None:
        names = Names()
        names.apply(Self("west", "node-1"), 0)
        for number in range(1, PODS + 1):
            line = EndpointLine(
                id=number,
                addresses=(f"10.1.0.{number}",),
                identity=65536 + number,
                namespace="shop",
                pod=f"cart-6c9d4b-{number:04d}",
                labels=(f"k8s:app=cart-{number}", _CLUSTER),
                workload=Workload(f"cart-{number}", "Deployment"),
            )
            names.apply(line, 0)
        self.ring = Ring(CAPACITY_MAX)
        self.ring.extend((BEGIN_NS + n * 10**6, made_record(n)) for n in range(records))
        decoder = Decoder(names, bytes(8))
        self.decode, self.wire = decoder.decode, decoder.wire

    def namespaces(self) -> list[tuple[str, str]]:
        """None."""
        return []


def made_record(number: int) -> bytes:
    """A trace of a segment from one pod to another."""
    client, server = number % PODS + 1, (number * 7) % PODS + 1
    packet = (
        bytes.fromhex("020000000001020000000002" + "0800")
        + struct.pack(">BBHHHBBH", 0x45, 0, 40, number & 0xFFFF, 0, 64, 6, 0)
        + bytes((10, 1, 0, client, 10, 1, 0, server))
        + struct.pack(">HHIIBBHHH", 1024 + number % 60_000, 8080, 1, 1, 0x50, 0x10, 512, 0, 0)
    )
    header = layouts.EVENT_HEADER.pack(4, 0, server, 0, len(packet), len(packet), 1)
    event = layouts.TraceEvent(header, 65536 + client, 65536 + server, 0, 1, 0, 7, bytes(16))
    return event.pack() + packet


def serve(path: str, records: int) -> None:
    """In a process of its own: an observer on this socket, until it is ended."""

    async def run() -> None:
        observer = Observer(NodeFlows(records), PeerTable(), "bench")
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


def read_last(path: Path) -> tuple[int, float]:
    """Lines that the command printed, and seconds from its start to its end."""
    command = [sys.executable, "-m", "cli.main", "hubble", "observe", "--last", str(LAST)]
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as printed:
        subprocess.run([*command, "--server", f"unix://{path}"], stdout=printed, check=True)
        spent_s = time.perf_counter() - begin
        printed.seek(0)
        return printed.read().count(b"\n"), spent_s


def observe_10k_s() -> Figure:
    """``observe --last 10000`` over a full ring of 65,535: the command from start to end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hubble.sock"
        with process(f"serve({str(path)!r}, {CAPACITY_MAX})", path):
            samples = []
            for _ in range(RUNS):
                count, spent_s = read_last(path)
                assert count == LAST, count
                samples.append(spent_s)
    detail = {"flows": LAST, "samples": [round(s, 3) for s in samples]}
    return Figure("hubble.observe_10k_s", round(statistics.median(samples), 3), "s", detail)


def speak(folder: str) -> None:
    """In a process of its own: simulated nodes, each a socket that says all its flows."""

    async def run() -> None:
        here = Path(folder)
        source = NodeFlows(FLOWS_OF_NODE)
        entries = [source.ring.at(number + 1) for number in range(FLOWS_OF_NODE)]
        flows_of_node = [source.decode(entry) for entry in entries if entry is not None]
        data = rpc.join(flow_answer(f) for f in flows_of_node if isinstance(f, flow_pb2.Flow))

        async def flows(call: Call) -> None:
            call.answer()
            await call.stream.send_bytes(data)

        peers = PeerTable()
        peers.replace({f"node-{n}": Peer(str(here / f"{n}.sock")) for n in range(NODES)})
        handlers = Observer(NodeFlows(0), peers, "bench").handlers()
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
        async with Server(handlers) as server, TaskGroup() as group:
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

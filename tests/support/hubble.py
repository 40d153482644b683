"""An observer in memory: a ring whose records hold messages of the API, and a server for it."""

import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import grpc.aio
from google.protobuf import json_format

from hubble.observer_server import Observer
from hubble.peers import PeerTable
from hubble.ring import RECORD_AGENT, RECORD_LOST, Entry, Ring, parse_lost
from hubble.rpc_server import Server
from hubble.source import Message, Source
from hubble.standard_services import Health, Reflection
from wire.hubble import flow_pb2, observer_pb2, peer_pb2

SECOND = 10**9
BEGIN_NS = 1_750_000_000 * SECOND
_DEBUG = 2


def flow(number: int = 0, **fields: object) -> flow_pb2.Flow:
    """A small forwarded flow; the fields as in JSON."""
    made = {
        "uuid": f"u{number}",
        "verdict": "FORWARDED",
        "node_name": "west/node-1",
        "event_type": {"type": 4},
        "is_reply": False,
        "Summary": f"number {number}",
        **fields,
    }
    return json_format.ParseDict(made, flow_pb2.Flow())


def record(message: Message) -> bytes:
    """A record for ``MemorySource``: its type, then the message."""
    match message:
        case flow_pb2.Flow():
            kind = message.event_type.type
        case flow_pb2.AgentEvent():
            kind = RECORD_AGENT
        case _:
            kind = _DEBUG
    return bytes((kind,)) + message.SerializeToString()


class MemorySource:
    """A ``Source`` of messages made beforehand; event n is n seconds after ``BEGIN_NS``."""

    node_name = "west/node-1"

    def __init__(self, capacity: int = 1023) -> None:
        self.ring = Ring(capacity)
        self.decoded = 0  # how often something was decoded
        self.known_namespaces: list[tuple[str, str]] = []

    def add(self, *records: bytes) -> None:
        first = self.ring.newest + 1
        self.ring.extend((BEGIN_NS + (first + n) * SECOND, r) for n, r in enumerate(records))

    def add_flows(self, count: int, **fields: object) -> None:
        first = self.ring.newest + 1
        self.add(*(record(flow(first + n, **fields)) for n in range(count)))

    def decode(self, entry: Entry) -> Message | None:
        self.decoded += 1
        kind, data = entry.record[0], entry.record[1:]
        if kind == RECORD_LOST:
            lost = parse_lost(entry.record)
            name = flow_pb2.LostEventSource.Name(lost.source)
            return flow_pb2.LostEvent(source=name, num_events_lost=lost.number)
        if kind == RECORD_AGENT:
            return flow_pb2.AgentEvent.FromString(data)
        if kind == _DEBUG:
            return flow_pb2.DebugEvent.FromString(data)
        made = flow_pb2.Flow.FromString(data)
        made.time.FromNanoseconds(entry.time_ns)
        return made

    def wire(self, entry: Entry) -> bytes | None:
        made = self.decode(entry)
        if not isinstance(made, flow_pb2.Flow):
            return None
        self.node_name = made.node_name or self.node_name  # flows of tests are of several nodes
        return made.SerializeToString()

    def namespaces(self) -> Iterable[tuple[str, str]]:
        return self.known_namespaces


@contextlib.asynccontextmanager
async def observing(
    source: Source, path: Path, peers: PeerTable | None = None
) -> AsyncIterator[Server]:
    """An observer of the source on a unix socket."""
    observer = Observer(source, peers or PeerTable(), "isthmus v0")
    names = ("observer.Observer", "peer.Peer")
    health, reflection = Health(lambda: True), Reflection(names)
    handlers = {**observer.handlers(), **health.handlers(), **reflection.handlers()}
    async with Server(handlers) as server:
        await server.listen_unix(path)
        yield server


class Stub:
    """Calls by the real gRPC library, as other clients make them."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        def stream(path: str, ask: type, answer: type):
            return channel.unary_stream(
                path,
                request_serializer=ask.SerializeToString,
                response_deserializer=answer.FromString,
            )

        def unary(path: str, ask: type, answer: type):
            return channel.unary_unary(
                path,
                request_serializer=ask.SerializeToString,
                response_deserializer=answer.FromString,
            )

        o = observer_pb2
        self.flows = stream("/observer.Observer/GetFlows", o.GetFlowsRequest, o.GetFlowsResponse)
        self.agent_events = stream(
            "/observer.Observer/GetAgentEvents", o.GetAgentEventsRequest, o.GetAgentEventsResponse
        )
        self.debug_events = stream(
            "/observer.Observer/GetDebugEvents", o.GetDebugEventsRequest, o.GetDebugEventsResponse
        )
        self.nodes = unary("/observer.Observer/GetNodes", o.GetNodesRequest, o.GetNodesResponse)
        self.namespaces = unary(
            "/observer.Observer/GetNamespaces", o.GetNamespacesRequest, o.GetNamespacesResponse
        )
        self.status = unary(
            "/observer.Observer/ServerStatus", o.ServerStatusRequest, o.ServerStatusResponse
        )
        self.notify = stream(
            "/peer.Peer/Notify", peer_pb2.NotifyRequest, peer_pb2.ChangeNotification
        )


@contextlib.asynccontextmanager
async def asking(path: Path) -> AsyncIterator[Stub]:
    """The real gRPC library connected to the socket."""
    async with grpc.aio.insecure_channel(f"unix://{path}") as channel:
        yield Stub(channel)

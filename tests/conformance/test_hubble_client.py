"""What the well-known `hubble` command asks of a server, in the order and form in which it does:
over a unix socket and TCP, of an observer and of a relay, by the real gRPC library.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.field_mask_pb2 import FieldMask
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from hubble.observer_server import Observer
from hubble.peers import Peer, PeerTable
from hubble.relay_pool import Pool
from hubble.relay_server import Relay
from hubble.rpc_server import Server
from hubble.standard_services import Health, Reflection
from reconcile.tasks import TaskGroup
from tests.support.hubble import MemorySource, Stub, observing
from wire.hubble import flow_pb2, observer_pb2, peer_pb2, recorder_pb2

Request = observer_pb2.GetFlowsRequest
Filter = flow_pb2.FlowFilter
# Of a release that sends it with all formats but JSON, in the place of its time.
MASK = [
    "time",
    "source.identity",
    "source.namespace",
    "source.pod_name",
    "destination.identity",
    "destination.namespace",
    "destination.pod_name",
    "verdict",
    "l4",
    "IP",
    "is_reply",
    "Type",
    "event_type",
    "Summary",
]
POD = {"source": {"namespace": "shop", "pod_name": "cart-1", "identity": 21001}}
# What it passes over when it walks through descriptions.
KNOWN = ("grpc.reflection.v1alpha.ServerReflection", "grpc.health.v1.Health")


def _source() -> MemorySource:
    source = MemorySource()
    source.add_flows(30, **POD)
    source.known_namespaces = [("west", "shop")]
    return source


@contextlib.asynccontextmanager
async def _observer(folder: Path) -> AsyncIterator[Server]:
    peers = PeerTable()
    peers.replace({"node-1": Peer("192.0.2.1:4244", "node-1.west.hubble-grpc.cilium.io")})
    observer = Observer(_source(), peers, "isthmus v0")
    standard = Health(lambda: True), Reflection(("observer.Observer", "peer.Peer"))
    handlers = observer.handlers()
    for one in standard:
        handlers |= one.handlers()
    async with Server(handlers) as server:
        yield server


@contextlib.asynccontextmanager
async def _relay(folder: Path) -> AsyncIterator[Server]:
    peers = PeerTable()
    peers.replace({"node-1": Peer(str(folder / "node"))})
    pool = Pool(str(folder / "node"), None, None)
    relay = Relay(pool, "west/relay", "hubble-relay v0")
    handlers = {
        **relay.handlers(),
        **Health(relay.is_serving).handlers(),
        **Reflection(("observer.Observer",)).handlers(),
    }
    async with (
        observing(_source(), folder / "node", peers),
        Server(handlers) as server,
        TaskGroup() as tasks,
    ):
        running = tasks.create_task(pool.run(0.05))
        try:
            yield server
        finally:
            running.cancel()


@pytest.fixture(params=["observer", "relay"])
def role(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["unix", "tcp"])
async def channel(
    request: pytest.FixtureRequest, role: str, tmp_path: Path
) -> AsyncIterator[grpc.aio.Channel]:
    serving = _observer if role == "observer" else _relay
    async with serving(tmp_path) as server:
        if request.param == "unix":
            await server.listen_unix(tmp_path / "hubble.sock")
            target = f"unix://{tmp_path}/hubble.sock"
        else:
            listener = await server.listen_tcp("127.0.0.1", 0, None)
            target = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with grpc.aio.insecure_channel(target) as opened:
            await _healthy(opened)
            yield opened


async def _healthy(channel: grpc.aio.Channel) -> None:
    """As `hubble status` begins; a relay is not before its peers are there."""
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    for _ in range(1200):
        answer = await check(health_pb2.HealthCheckRequest(service="hubble.server.Observer"))
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            return
        await asyncio.sleep(0.025)  # health is asked, and not told
    raise AssertionError("never healthy")


async def test_status(channel: grpc.aio.Channel, role: str) -> None:
    """Health by its name, then numbers, with a version that is read leniently."""
    call = Stub(channel).status(observer_pb2.ServerStatusRequest())
    status = await call
    headers = dict(await call.initial_metadata())
    key = "hubble-server-version" if role == "observer" else "hubble-relay-version"
    assert re.fullmatch(r"v?\d+\.\d+\.\d+.*", headers[key])
    assert (status.num_flows, status.max_flows) == (30, 1023)
    assert status.uptime_ns > 0
    assert status.HasField("num_connected_nodes") is (role == "relay")


async def _shown(channel: grpc.aio.Channel, request: Request) -> list[flow_pb2.Flow]:
    answers = [answer async for answer in Stub(channel).flows(request)]
    return [answer.flow for answer in answers if answer.HasField("flow")]


async def test_observe(channel: grpc.aio.Channel) -> None:
    """Twenty, all, the first; by namespace as either end; a mask in its old and its new place."""
    ends = [Filter(source_pod=["shop/"]), Filter(destination_pod=["shop/"])]
    assert len(await _shown(channel, Request(number=20))) == 20
    assert len(await _shown(channel, Request(number=2**64 - 1))) == 30
    first = await _shown(channel, Request(number=2, first=True))
    assert [flow.uuid for flow in first] == ["u1", "u2"]
    assert len(await _shown(channel, Request(number=20, whitelist=ends))) == 20
    assert await _shown(channel, Request(number=20, blacklist=ends)) == []
    both = await _shown(channel, Request(number=1, whitelist=[Filter(source_service=["shop/"])]))
    assert both == []
    old = Request(number=1)
    inner = FieldMask(paths=MASK).SerializeToString()
    old.experimental.MergeFromString(
        b"\x0a" + bytes((len(inner) & 0x7F | 0x80, len(inner) >> 7)) + inner
    )
    for request in (old, Request(number=1, field_mask=FieldMask(paths=MASK))):
        (flow,) = await _shown(channel, request)
        assert (flow.source.pod_name, flow.uuid) == ("cart-1", "")
        assert flow.HasField("time")


async def test_a_filter_that_is_none_ends_with_a_sentence(channel: grpc.aio.Channel) -> None:
    """Which names the field and its value; the command prints it behind the code."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _shown(channel, Request(number=1, whitelist=[Filter(source_port=["http"])]))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "source_port 'http'" in (refused.value.details() or "")


async def test_lists_and_events(channel: grpc.aio.Channel, role: str) -> None:
    """Namespaces of both; nodes of a relay, events of an observer; the other one says so."""
    stub = Stub(channel)
    told = await stub.namespaces(observer_pb2.GetNamespacesRequest())
    assert [(n.cluster, n.namespace) for n in told.namespaces] == [("west", "shop")]
    events = observer_pb2.GetAgentEventsRequest(number=20)
    debug = observer_pb2.GetDebugEventsRequest(number=20)
    if role == "relay":
        (node,) = (await stub.nodes(observer_pb2.GetNodesRequest())).nodes
        assert (node.name, node.num_flows, node.max_flows) == ("node-1", 30, 1023)
        assert node.uptime_ns > 0
        refused = [
            lambda: stub.agent_events(events).read(),
            lambda: stub.debug_events(debug).read(),
        ]
    else:
        assert [event async for event in stub.agent_events(events)] == []
        assert [event async for event in stub.debug_events(debug)] == []
        refused = [lambda: stub.nodes(observer_pb2.GetNodesRequest())]
    record = channel.stream_stream(
        "/recorder.Recorder/Record",
        request_serializer=recorder_pb2.RecordRequest.SerializeToString,
        response_deserializer=recorder_pb2.RecordResponse.FromString,
    )
    for ask in (*refused, lambda: record().read()):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await ask()
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_watch_peers(channel: grpc.aio.Channel, role: str) -> None:
    """Type, address, name and the name in the certificate; a relay has no peers to tell of."""
    call = Stub(channel).notify(peer_pb2.NotifyRequest())
    if role == "relay":
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
        return
    told = await call.read()
    kind = peer_pb2.ChangeNotificationType.Name(told.type)
    assert (kind, told.address, told.name) == ("PEER_ADDED", "192.0.2.1:4244", "node-1")
    assert told.tls.server_name == "node-1.west.hubble-grpc.cilium.io"
    call.cancel()


async def test_reflect(channel: grpc.aio.Channel) -> None:
    """Every service that is listed has a file, and so has each file's every import."""
    info = channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )()

    async def ask(**request: str) -> reflection_pb2.ServerReflectionResponse:
        await info.write(reflection_pb2.ServerReflectionRequest(**request))
        return await info.read()

    listed = (await ask(list_services="")).list_services_response.service
    wanted = [{"file_containing_symbol": s.name} for s in listed if s.name not in KNOWN]
    assert {"file_containing_symbol": "observer.Observer"} in wanted
    seen: set[str] = set()
    while wanted:
        asked = wanted.pop()
        answer = await ask(**asked)
        assert answer.WhichOneof("message_response") == "file_descriptor_response", asked
        for data in answer.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            if file.name not in seen:
                seen.add(file.name)
                wanted += [{"file_by_filename": name} for name in file.dependency]
    assert {"observer/observer.proto", "flow/flow.proto", "relay/relay.proto"} <= seen
    await info.done_writing()

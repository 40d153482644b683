"""The observer's services, asked by the real gRPC library over a unix socket."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from hubble import observer_server
from hubble.peers import Peer, PeerTable
from hubble.ring import Lost, lost_record
from tests.support.hubble import BEGIN_NS, SECOND, MemorySource, asking, flow, observing, record
from wire.hubble import flow_pb2, observer_pb2, peer_pb2

Request = observer_pb2.GetFlowsRequest


def at(number: float) -> Timestamp:
    time = Timestamp()
    time.FromNanoseconds(BEGIN_NS + int(number * SECOND))
    return time


async def numbers(calls: AsyncIterator[observer_pb2.GetFlowsResponse]) -> list[str]:
    """The flows' numbers, and losses as ``lost <how many>``."""
    shown = []
    async for answer in calls:
        if answer.HasField("flow"):
            shown.append(answer.flow.uuid.removeprefix("u"))
        else:
            shown.append(f"lost {answer.lost_events.num_events_lost}")
    return shown


def of(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


DROPS = [flow_pb2.FlowFilter(verdict=[flow_pb2.Verdict.DROPPED])]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Request(), of(1, 30)),
        (Request(number=3), of(28, 30)),
        (Request(number=3, first=True), of(1, 3)),
        (Request(number=2**64 - 1), of(1, 30)),
        (Request(since=at(25)), of(25, 30)),
        (Request(number=3, since=at(25)), of(25, 27)),
        (Request(number=3, first=True, since=at(25.5)), of(26, 28)),
        (Request(until=at(4)), of(1, 4)),
        (Request(since=at(4), until=at(6)), of(4, 6)),
        (Request(number=5, until=at(27)), of(26, 27)),
        (Request(since=at(31)), []),
        (Request(number=2, whitelist=DROPS), ["20", "30"]),
        (Request(number=2, first=True, whitelist=DROPS), ["10", "20"]),
        (Request(number=3, blacklist=DROPS), ["27", "28", "29"]),
        (Request(follow=True, number=2, until=at(29)), ["29"]),
        (Request(follow=True, since=at(3), until=at(5)), of(3, 5)),
    ],
    ids=lambda value: str(value).replace("\n", " ")[:70],
)
async def test_what_is_asked_for_is_sent(request_: Request, expected: list[str], tmp_path: Path):
    """Number, first, since, until and filters, alone and together."""
    source = MemorySource()
    for number in range(1, 31):
        verdict = {"verdict": "DROPPED", "event_type": {"type": 1}} if number % 10 == 0 else {}
        source.add(record(flow(number, **verdict)))
    async with observing(source, tmp_path / "h.sock"), asking(tmp_path / "h.sock") as stub:
        async with asyncio.timeout(20):
            assert await numbers(stub.flows(request_)) == expected


async def test_a_follower_gets_the_last_ones_and_then_what_comes(tmp_path: Path) -> None:
    """Without a number only what comes; with one the last of them first; nothing twice."""
    source = MemorySource()
    source.add_flows(5)
    async with observing(source, tmp_path / "h.sock"), asking(tmp_path / "h.sock") as stub:
        new, last = stub.flows(Request(follow=True)), stub.flows(Request(follow=True, number=2))
        assert [(await last.read()).flow.uuid for _ in range(2)] == ["u4", "u5"]
        await new.initial_metadata()
        source.add_flows(3)
        assert [(await last.read()).flow.uuid for _ in range(3)] == ["u6", "u7", "u8"]
        assert [(await new.read()).flow.uuid for _ in range(3)] == ["u6", "u7", "u8"]
        new.cancel()
        last.cancel()


async def test_an_answer_repeats_time_and_node_of_its_flow(tmp_path: Path) -> None:
    """Of the masked flow: a mask without them leaves them out; the version is in the header."""
    source = MemorySource()
    source.add_flows(1, source={"pod_name": "a", "namespace": "n"})
    async with observing(source, tmp_path / "h.sock"), asking(tmp_path / "h.sock") as stub:
        call = stub.flows(Request())
        whole = await call.read()
        assert (whole.node_name, whole.time) == ("west/node-1", at(1))
        metadata = dict(await call.initial_metadata())
        assert metadata["hubble-server-version"] == "1.19.0"
        mask = FieldMask(paths=["source.pod_name", "uuid"])
        masked = await stub.flows(Request(field_mask=mask)).read()
        expected = flow_pb2.Flow(uuid="u1", source=flow_pb2.Endpoint(pod_name="a"))
        assert masked == observer_pb2.GetFlowsResponse(flow=expected)


async def test_the_mask_that_forgets_is_completed(tmp_path: Path) -> None:
    """Exactly the default of 1.19 also gives the direction; the place of 1.18 is understood."""
    source = MemorySource()
    source.add_flows(1, traffic_direction="INGRESS")
    default = FieldMask(paths=sorted(observer_server._DEFAULT_MASK))
    async with observing(source, tmp_path / "h.sock"), asking(tmp_path / "h.sock") as stub:
        answer = await stub.flows(Request(field_mask=default)).read()
        assert answer.flow.traffic_direction == flow_pb2.TrafficDirection.INGRESS
        assert not answer.flow.uuid
        request = Request()
        mask = FieldMask(paths=["Summary"]).SerializeToString()
        request.experimental.MergeFromString(bytes([10, len(mask)]) + mask)
        old = await stub.flows(request).read()
        assert old.flow == flow_pb2.Flow(Summary="number 1")


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (Request(whitelist=[flow_pb2.FlowFilter(source_ip=["x"])]), "source_ip 'x'"),
        (Request(blacklist=[flow_pb2.FlowFilter(protocol=["x"])]), "unknown protocol 'x'"),
        (Request(field_mask=FieldMask(paths=["nothing"])), "invalid fieldmask"),
        (Request(first=True, follow=True), "first cannot be specified with follow"),
        (Request(since=Timestamp(nanos=-1)), "since is no time"),
    ],
    ids=["whitelist", "blacklist", "mask", "first", "since"],
)
async def test_what_makes_no_sense_is_refused(request_: Request, reason: str, tmp_path: Path):
    """INVALID_ARGUMENT with the reason, before anything is sent."""
    source = MemorySource()
    source.add_flows(3)
    async with observing(source, tmp_path / "h.sock"), asking(tmp_path / "h.sock") as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await numbers(stub.flows(request_))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert reason in (refused.value.details() or "")
    assert source.decoded == 0


async def test_losses_pass_filters_and_are_not_counted(tmp_path: Path) -> None:
    """A loss before the ring is told where it happened, whatever the filters."""
    source = MemorySource()
    source.add_flows(2)
    source.add(lost_record(Lost(source=1, cpu=3, number=7)))
    source.add_flows(2)
    async with observing(source, tmp_path / "h.sock"), asking(tmp_path / "h.sock") as stub:
        assert await numbers(stub.flows(Request())) == ["1", "2", "lost 7", "4", "5"]
        assert await numbers(stub.flows(Request(whitelist=DROPS))) == ["lost 7"]
        assert await numbers(stub.flows(Request(number=3))) == ["2", "lost 7", "4", "5"]


async def test_records_that_cannot_pass_are_not_decoded(tmp_path: Path) -> None:
    """A filter by verdict looks at the type of the raw record first."""
    source = MemorySource()
    source.add_flows(500)
    source.add_flows(1, verdict="DROPPED", event_type={"type": 1})
    async with observing(source, tmp_path / "h.sock"), asking(tmp_path / "h.sock") as stub:
        assert await numbers(stub.flows(Request(whitelist=DROPS))) == ["501"]
    assert source.decoded == 1


async def test_more_flows_than_are_kept_made(tmp_path: Path) -> None:
    """No flow is told for another that was made before it, with a filter or without."""
    source = MemorySource(capacity=4095)
    source.add_flows(3000)
    all_pass = [flow_pb2.FlowFilter(verdict=["FORWARDED"])]
    expected = [str(number) for number in range(1, 3001)]
    async with observing(source, tmp_path / "h.sock"), asking(tmp_path / "h.sock") as stub:
        for request in (Request(), Request(), Request(whitelist=all_pass)):
            assert await numbers(stub.flows(request)) == expected


async def test_who_does_not_read_loses_and_is_told(tmp_path: Path) -> None:
    """A follower that stops reading holds up nobody, and learns later how many it lost."""
    source = MemorySource(capacity=255)
    async with observing(source, tmp_path / "h.sock"), asking(tmp_path / "h.sock") as stub:
        slow, quick = stub.flows(Request(follow=True)), stub.flows(Request(follow=True))
        await slow.initial_metadata()
        await quick.initial_metadata()
        sent, text = 0, "x" * 4000
        while sent < 6000:
            source.add_flows(100, Summary=text)
            sent += 100
            for _ in range(100):
                assert (await quick.read()).HasField("flow")
        got = lost = 0
        async with asyncio.timeout(30):
            while got + lost < sent:
                answer = await slow.read()
                got += answer.HasField("flow")
                lost += answer.lost_events.num_events_lost
        assert got + lost == sent
        assert lost > 1000
        slow.cancel()
        quick.cancel()


async def test_too_many_readers_are_told_so(tmp_path: Path, monkeypatch) -> None:
    """RESOURCE_EXHAUSTED for one more; a place is free again when one leaves."""
    monkeypatch.setattr(observer_server, "READERS_MAX", 3)
    source = MemorySource()
    source.add_flows(1)
    async with observing(source, tmp_path / "h.sock"), asking(tmp_path / "h.sock") as stub:
        calls = [stub.flows(Request(follow=True)) for _ in range(3)]
        for call in calls:
            await call.initial_metadata()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await numbers(stub.flows(Request()))
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        calls[0].cancel()
        async with asyncio.timeout(10):
            while True:
                try:
                    assert await numbers(stub.flows(Request())) == ["1"]
                    break
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.01)
        for call in calls:
            call.cancel()


async def test_agent_and_debug_events(tmp_path: Path) -> None:
    """Each kind by its own call, with time and node; flows are not among them."""
    source = MemorySource()
    agent = flow_pb2.AgentEvent(type=flow_pb2.AgentEventType.AGENT_STARTED)
    debug = flow_pb2.DebugEvent(message="CT verdict: New")
    source.add_flows(2)
    source.add(record(agent), record(debug), lost_record(Lost(1, 0, 5)))
    async with observing(source, tmp_path / "h.sock"), asking(tmp_path / "h.sock") as stub:
        agents = [a async for a in stub.agent_events(observer_pb2.GetAgentEventsRequest())]
        assert [(a.agent_event, a.node_name, a.time) for a in agents] == [
            (agent, "west/node-1", at(3))
        ]
        debugs = [d async for d in stub.debug_events(observer_pb2.GetDebugEventsRequest(number=9))]
        assert [d.debug_event for d in debugs] == [debug]
        bad = observer_pb2.GetAgentEventsRequest(first=True, follow=True)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            [a async for a in stub.agent_events(bad)]
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_status_namespaces_and_nodes(tmp_path: Path) -> None:
    """Numbers of the ring; the nodes' wrappers unset; GetNodes is a relay's."""
    source = MemorySource(capacity=7)
    source.add_flows(10)
    source.known_namespaces = [("west", "shop"), ("east", "shop"), ("west", "a"), ("west", "a")]
    async with observing(source, tmp_path / "h.sock"), asking(tmp_path / "h.sock") as stub:
        status = await stub.status(observer_pb2.ServerStatusRequest())
        assert (status.num_flows, status.max_flows, status.seen_flows) == (7, 7, 10)
        assert status.uptime_ns > 0
        assert status.version == "isthmus v0"
        assert not status.HasField("num_connected_nodes")
        known = await stub.namespaces(observer_pb2.GetNamespacesRequest())
        assert [(n.cluster, n.namespace) for n in known.namespaces] == [
            ("east", "shop"),
            ("west", "a"),
            ("west", "shop"),
        ]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.nodes(observer_pb2.GetNodesRequest())
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_peers_come_change_and_go(tmp_path: Path) -> None:
    """All of them first, then only what changed; TLS only where it is spoken."""
    peers = PeerTable()
    peers.replace({"node-1": Peer("192.0.2.1:4244", "node-1.default.hubble-grpc.cilium.io")})
    kinds = peer_pb2.ChangeNotificationType
    async with (
        observing(MemorySource(), tmp_path / "h.sock", peers),
        asking(tmp_path / "h.sock") as stub,
    ):
        call = stub.notify(peer_pb2.NotifyRequest())
        first = await call.read()
        assert (first.type, first.name, first.address) == (
            kinds.PEER_ADDED,
            "node-1",
            "192.0.2.1:4244",
        )
        assert first.tls.server_name == "node-1.default.hubble-grpc.cilium.io"
        peers.replace({"east/node-9": Peer("192.0.2.9:4244"), **peers.peers})
        added = await call.read()
        assert (added.type, added.name, added.HasField("tls")) == (
            kinds.PEER_ADDED,
            "east/node-9",
            False,
        )
        peers.replace({"east/node-9": Peer("192.0.2.8:4244")})
        told = [await call.read(), await call.read()]
        assert [(t.type, t.name) for t in told] == [
            (kinds.PEER_DELETED, "node-1"),
            (kinds.PEER_UPDATED, "east/node-9"),
        ]
        call.cancel()


async def test_health_and_reflection(tmp_path: Path) -> None:
    """Health by the name that clients use; reflection names services and hands out all files."""
    path = tmp_path / "h.sock"
    async with observing(MemorySource(), path), grpc.aio.insecure_channel(f"unix://{path}") as ch:
        check = ch.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        for name in ("", "hubble.server.Observer"):
            answer = await check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await check(health_pb2.HealthCheckRequest(service="observer.Observer"))
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND
        watch = ch.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        for name, told in (("hubble.server.Observer", "SERVING"), ("nobody", "SERVICE_UNKNOWN")):
            watched = watch(health_pb2.HealthCheckRequest(service=name))
            state = (await watched.read()).status
            assert health_pb2.HealthCheckResponse.ServingStatus.Name(state) == told
            watched.cancel()
        newer = ch.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")()
        await newer.write(
            reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
        )
        listed = reflection_pb2.ServerReflectionResponse.FromString(await newer.read())
        assert "peer.Peer" in {one.name for one in listed.list_services_response.service}
        newer.cancel()
        info = ch.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )()
        await info.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        names = [s.name for s in (await info.read()).list_services_response.service]
        assert {"observer.Observer", "peer.Peer", "grpc.health.v1.Health"} <= set(names)
        symbol = reflection_pb2.ServerReflectionRequest(file_containing_symbol="observer.Observer")
        await info.write(symbol)
        files = (await info.read()).file_descriptor_response.file_descriptor_proto
        assert any(b"observer/observer.proto" in file for file in files)
        assert any(b"flow/flow.proto" in file[:40] for file in files)
        await info.write(reflection_pb2.ServerReflectionRequest(file_by_filename="no.proto"))
        assert (await info.read()).error_response.error_code == 5
        await info.done_writing()
        assert await info.read() == grpc.aio.EOF

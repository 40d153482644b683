"""The UI's backend before a relay: as its front end polls it, and as gRPC asks it."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc.aio
import pytest

from hubble.peers import Peer, PeerTable
from hubble.relay_pool import Pool
from hubble.relay_server import Relay
from hubble.rpc_client import connect
from hubble.rpc_server import Server
from hubble.ui import backend as ui_backend
from hubble.ui import channels
from hubble.ui.backend import Backend
from hubble.ui.serving import handlers, serving
from reconcile.tasks import TaskGroup
from tests.support.hubble import MemorySource, observing
from tests.support.hubble_ui import Stream, browsing, default_request
from wire.hubble import customprotocol_pb2 as cp
from wire.hubble import flow_pb2 as f
from wire.hubble import status_pb2
from wire.hubble import ui_pb2 as ui

TALK = {
    "source": {"identity": 21001, "namespace": "shop", "pod_name": "cart-1"},
    "destination": {"identity": 21002, "namespace": "shop", "pod_name": "pay-1"},
    "l4": {"TCP": {"source_port": 41000, "destination_port": 80}},
}


@contextlib.asynccontextmanager
async def relaying(folder: Path, source: MemorySource) -> AsyncIterator[None]:
    """A relay over one node, on the socket ``relay``."""
    peers = PeerTable()
    peers.replace({"node-1": Peer(str(folder / "node"))})
    pool = Pool(str(folder / "node"), None, None)
    async with (
        observing(source, folder / "node", peers),
        Server(Relay(pool, "west/relay", "hubble-relay v0").handlers()) as server,
        TaskGroup() as group,
    ):
        task = group.create_task(pool.run(0.05))
        try:
            async with asyncio.timeout(20):
                while not pool.connected():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await server.listen_unix(folder / "relay")
            yield
        finally:
            task.cancel()


@contextlib.asynccontextmanager
async def backing(
    folder: Path, front_end: Path | None = None
) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """A browser before the backend of that relay."""
    backend = Backend(lambda: connect(f"unix://{folder}/relay", None, 5))
    try:
        async with (
            serving(backend, "127.0.0.1", 0, front_end) as port,
            browsing() as session,
        ):
            yield session, f"http://127.0.0.1:{port}"
    finally:
        backend.close()


async def test_the_map_as_the_front_end_polls_it(tmp_path: Path) -> None:
    """Flows, cards and links of what was and what comes; filtered; goodbye ends it."""
    source = MemorySource()
    source.add_flows(3, **TALK)
    source.add_flows(1, **{**TALK, "is_reply": True})
    flows: list[str] = []
    cards: list[str] = []
    links: list[str] = []

    def take(message: cp.Message) -> bool:
        for event in ui.GetEventsResponse.FromString(message.body.content).events:
            flows.extend(flow.uuid for flow in event.flows.flows)
            if event.HasField("service_state"):
                cards.append(event.service_state.service.id)
            if event.HasField("service_link_state"):
                links.append(event.service_link_state.service_link.id)
        return len(flows) >= wanted

    async with relaying(tmp_path, source), backing(tmp_path) as (session, base):
        request = default_request("shop").SerializeToString()
        stream = Stream(session, base, "service-map-stream", request)
        wanted = 3
        await stream.until(take)
        assert (flows, cards, links) == (
            ["u1", "u2", "u3"],
            ["21001", "21002"],
            ["21001 TCP 21002:80"],
        )
        source.add_flows(2, **TALK)
        wanted = 5
        await stream.until(take)
        assert flows == ["u1", "u2", "u3", "u5", "u6"]
        assert (len(cards), len(links)) == (2, 1)
        said = await stream.post(terminate=True)
        assert said.meta.is_terminated
        async with asyncio.timeout(10):
            while source.ring._watchers:  # noqa: ASYNC110 - the node is asked no longer
                await asyncio.sleep(0.01)


async def test_who_hears_nothing_asks_less_often(tmp_path: Path) -> None:
    """The delay grows to five seconds and is short again once something came."""
    source = MemorySource()
    async with relaying(tmp_path, source), backing(tmp_path) as (session, base):
        stream = Stream(
            session, base, "service-map-stream", default_request("shop").SerializeToString()
        )
        delays = [(await stream.post()).meta.poll_delay_ms for _ in range(6)]
        assert delays == [400, 800, 1600, 3200, 5000, 5000]
        source.add_flows(1, **TALK)
        await stream.until(lambda message: bool(message.body.content))
        assert stream.delays_ms[-1] == 200


async def test_control_tells_of_namespaces_and_the_relay(tmp_path: Path) -> None:
    """Connected, namespaces of all clusters, status; away and back again without the front end."""
    source = MemorySource()
    source.add_flows(3)
    source.known_namespaces = [("east", "shop"), ("west", "bank"), ("west", "shop")]
    told: list[ui.GetControlStreamResponse] = []

    def until(what: str):  # type: ignore[no-untyped-def]
        def take(message: cp.Message) -> bool:
            if message.body.content:
                told.append(ui.GetControlStreamResponse.FromString(message.body.content))
            return bool(told) and what in str(told[-1])

        return take

    async with contextlib.AsyncExitStack() as outer:
        relay = await outer.enter_async_context(contextlib.AsyncExitStack())
        await relay.enter_async_context(relaying(tmp_path, source))
        session, base = await outer.enter_async_context(backing(tmp_path))
        stream = Stream(session, base, "control-stream", b"")
        await stream.until(until("status"))
        assert told[0].notification.conn_state.relay_connected
        names = told[1].namespaces.namespaces
        assert [(n.namespace.name, n.type) for n in names] == [
            ("bank", ui.StateChange.EXISTS),
            ("shop", ui.StateChange.EXISTS),
        ]
        status = told[2].notification.status
        assert (status.server_status.num_flows, status.nodes.nodes[0].name) == (3, "node-1")
        assert [v.version for v in status.versions] == ["isthmus v0"]
        await relay.aclose()
        await stream.until(until("relay_reconnecting"))
        await outer.enter_async_context(relaying(tmp_path, source))
        await stream.until(until("relay_connected"))


async def test_a_relay_that_comes_back_tells_each_flow_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream goes on where it was."""
    monkeypatch.setattr(ui_backend, "RETRY_S", 0.05)
    source = MemorySource()
    source.add_flows(2, **TALK)
    backend = Backend(lambda: connect(f"unix://{tmp_path}/relay", None, 5))
    seen: list[str] = []

    async def send(answer: ui.GetEventsResponse) -> None:
        seen.extend(flow.uuid for event in answer.events for flow in event.flows.flows)

    async def until(count: int) -> None:
        async with asyncio.timeout(20):
            while len(seen) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async with TaskGroup() as group:
        task = group.create_task(backend.events(default_request("shop"), send))
        for count in (2, 3):
            async with relaying(tmp_path, source):
                await until(count)
            source.add_flows(1, **TALK)
        task.cancel()
    assert seen == ["u1", "u2", "u3"]


async def test_what_the_front_end_asks_wrongly(tmp_path: Path) -> None:
    """Each with its status; a filter that the relay refuses ends its own stream with the reason."""
    async with relaying(tmp_path, MemorySource()), backing(tmp_path) as (session, base):

        async def status(path: str, data: bytes | io.BytesIO, **headers: str) -> int:
            async with session.post(base + path, data=data, headers=headers) as answer:
                return answer.status

        assert await status("/api/x", b"\xff\xff") == 400
        assert await status("/api/x", b"{", **{"Content-Type": "application/json"}) == 400
        assert (
            await status("/api/x", cp.Message(meta=cp.Meta(route_name="x")).SerializeToString())
            == 404
        )
        assert await status("/api/service-map-stream", io.BytesIO(bytes(2 << 20))) == 413
        wrong = ui.GetEventsRequest(event_types=[1])
        wrong.whitelist.add(flow_filter=f.FlowFilter(source_ip=["nowhere"]))
        services = ui.GetEventsRequest(event_types=[1])
        services.blacklist.add(service_filter=ui.ServiceFilter(namespace=["shop"]))
        for request, reason in (
            (ui.GetEventsRequest(), "event_types: none are asked for"),
            (wrong, "source_ip 'nowhere'"),
            (services, "filter flows"),
        ):
            stream = Stream(session, base, "service-map-stream", request.SerializeToString())
            async with asyncio.timeout(60):
                while not (said := await stream.post()).meta.is_terminated:
                    pass
            assert said.meta.is_error
            (error,) = said.meta.errors
            assert (error.kind, error.code) == (cp.Error.Kind.Grpc, 3)
            assert reason in error.message
        async with session.get(f"{base}/healthz") as answer:
            assert answer.status == 200


async def test_json_instead_of_bytes(tmp_path: Path) -> None:
    """As a person with curl would ask."""
    async with relaying(tmp_path, MemorySource()), backing(tmp_path) as (session, base):
        meta: dict[str, object] = {"route_name": "control-stream"}
        async with asyncio.timeout(60):
            while True:  # nobody may have said anything yet when it answers
                async with session.post(
                    f"{base}/api/control-stream", json={"meta": meta}
                ) as answer:
                    said = await answer.json()
                assert said["meta"]["route_name"] == "control-stream"
                assert said["meta"]["channel_id"]
                if said["body"].get("content"):
                    break
                meta |= {"channel_id": said["meta"]["channel_id"], "is_not_ready": True}


async def test_silent_and_too_many_streams_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who does not poll is forgotten, and makes room for others."""
    monkeypatch.setattr(channels, "CHANNELS_MAX", 2)
    source = MemorySource()
    async with relaying(tmp_path, source), backing(tmp_path) as (session, base):
        request = default_request("shop").SerializeToString()
        for _ in range(2):
            await Stream(session, base, "service-map-stream", request).post()
        message = cp.Message(meta=cp.Meta(route_name="control-stream")).SerializeToString()

        async def status() -> int:
            async with session.post(f"{base}/api/control-stream", data=message) as answer:
                return answer.status

        assert await status() == 503
        monkeypatch.setattr(channels, "SILENT_S", 0.5)
        async with asyncio.timeout(60):
            while await status() != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


async def test_files_of_the_front_end(tmp_path: Path) -> None:
    """A file, the first page for all else, nothing from outside of the folder."""
    front = tmp_path / "front"
    front.mkdir()
    (front / "index.html").write_text("first page")
    (front / "app.js").write_text("code")
    (tmp_path / "secret").write_text("secret")
    async with backing(tmp_path, front) as (session, base):
        found = {}
        for path in ("/", "/app.js", "/shop?verdicts=dropped", "/..%2fsecret"):
            async with session.get(base + path) as answer:
                found[path] = (answer.status, await answer.text())
        assert found["/app.js"] == (200, "code")
        assert {found[p] for p in found if p != "/app.js"} == {(200, "first page")}
    async with backing(tmp_path) as (session, base), session.get(base) as answer:
        assert answer.status == 404


async def test_the_service_by_grpc(tmp_path: Path) -> None:
    """``ui.UI`` by the real library: events, control and status."""
    source = MemorySource()
    source.add_flows(3, **TALK)
    backend = Backend(lambda: connect(f"unix://{tmp_path}/relay", None, 5))
    async with relaying(tmp_path, source), Server(handlers(backend)) as server:
        await server.listen_unix(tmp_path / "ui")
        async with grpc.aio.insecure_channel(f"unix://{tmp_path}/ui") as channel:
            events = channel.unary_stream(
                "/ui.UI/GetEvents",
                request_serializer=ui.GetEventsRequest.SerializeToString,
                response_deserializer=ui.GetEventsResponse.FromString,
            )
            call = events(ui.GetEventsRequest(event_types=[ui.EventType.FLOW, ui.EventType.STATUS]))
            flows: list[str] = []
            statuses = 0
            async with asyncio.timeout(20):
                while len(flows) < 3 or not statuses:
                    for event in (await call.read()).events:
                        flows += [event.flow.uuid] if event.HasField("flow") else []
                        statuses += event.HasField("notification")
            call.cancel()
            assert flows == ["u1", "u2", "u3"]
            status = channel.unary_unary(
                "/ui.UI/GetStatus",
                request_serializer=status_pb2.GetStatusRequest.SerializeToString,
                response_deserializer=status_pb2.GetStatusResponse.FromString,
            )
            said = await status(status_pb2.GetStatusRequest())
            assert said.server_status.num_flows == 3
            control = channel.unary_stream(
                "/ui.UI/GetControlStream",
                request_serializer=ui.GetControlStreamRequest.SerializeToString,
                response_deserializer=ui.GetControlStreamResponse.FromString,
            )
            stream = control(ui.GetControlStreamRequest())
            assert (await stream.read()).notification.conn_state.relay_connected
            stream.cancel()
            with pytest.raises(grpc.aio.AioRpcError, match="none are asked for"):
                async for _ in events(ui.GetEventsRequest()):
                    pass
    backend.close()

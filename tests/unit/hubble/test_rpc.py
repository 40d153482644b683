"""Our gRPC against the real library on both sides, and against callers who mean no good."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from certs.issue import create_ca, issue
from certs.profiles import Profile
from hubble import rpc, rpc_server
from hubble.rpc_client import Channel, ClientTls, connect
from hubble.rpc_server import Call, Server, server_tls
from reconcile.tasks import TaskGroup
from tests.support.hubble import MemorySource, observing
from wire.hubble import observer_pb2

LARGE = rpc.MESSAGE_MAX_BYTES


async def echo(call: Call) -> None:
    while messages := await call.stream.take():
        await call.send(*messages)


async def fail(call: Call) -> None:
    raise rpc.RpcError(rpc.Code.NOT_FOUND, 'nothing: 100 % näher\n"x"')


async def bug(call: Call) -> None:
    raise ZeroDivisionError


async def slow(call: Call) -> None:
    await asyncio.Event().wait()


async def flood(call: Call) -> None:
    await call.send(*[b"x" * FLOOD_BYTES] * 2)


FLOOD_BYTES = 1 << 20
HANDLERS = {"/t/Echo": echo, "/t/Fail": fail, "/t/Bug": bug, "/t/Slow": slow, "/t/Flood": flood}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Path]:
    async with Server(HANDLERS) as running:
        await running.listen_unix(tmp_path / "s.sock")
        yield tmp_path / "s.sock"


async def test_the_real_client_and_our_server(server: Path) -> None:
    """Small and large messages, both ways, many calls at once; codes, details, deadlines."""
    async with grpc.aio.insecure_channel(f"unix://{server}") as channel:
        call = channel.stream_stream("/t/Echo")()
        sent = [b"", b"x", b"y" * 300_000, *(str(n).encode() for n in range(200))]
        for message in sent:
            await call.write(message)
        await call.done_writing()
        assert [message async for message in call] == sent
        for path, code, text in (
            ("/t/Fail", grpc.StatusCode.NOT_FOUND, 'nothing: 100 % näher\n"x"'),
            ("/t/Bug", grpc.StatusCode.INTERNAL, "ZeroDivisionError"),
            ("/t/None", grpc.StatusCode.UNIMPLEMENTED, "unknown method /t/None"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await channel.unary_unary(path)(b"")
            assert (failed.value.code(), failed.value.details()) == (code, text)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await channel.unary_unary("/t/Slow")(b"", timeout=0.2)
        assert failed.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await channel.unary_unary("/t/Echo")(b"x" * (LARGE + 1))
        assert failed.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await channel.unary_unary("/t/Echo")(b"x" * 5000, compression=grpc.Compression.Gzip)
        assert failed.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert await channel.unary_unary("/t/Echo")(b"still here") == b"still here"


async def _echo(target: str, tls: ClientTls | None) -> None:
    channel = await connect(target, tls, 5)
    await channel.unary("/t/Echo", b"x", 5)


async def _until_it_fails(channel: Channel) -> None:
    async with asyncio.timeout(10):
        while True:
            await channel.unary("/t/One", b"y", 5, {"who": "me"})


async def test_our_client_and_the_real_server(tmp_path: Path) -> None:
    """Unary and streamed answers, larger than any window; codes and details."""

    async def many(request: bytes, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        await context.send_initial_metadata((("a-header", "there"),))
        for number in range(int(request)):
            yield str(number).encode().zfill(1000)

    async def one(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        if request == b"fail":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "nö")
        return request + dict(context.invocation_metadata())["who"].encode()

    methods = {
        "Many": grpc.unary_stream_rpc_method_handler(many),
        "One": grpc.unary_unary_rpc_method_handler(one),
    }
    real = grpc.aio.server()
    real.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t", methods),))
    real.add_insecure_port(f"unix://{tmp_path}/r.sock")
    await real.start()
    channel = await connect(f"unix://{tmp_path}/r.sock", None, 5)
    assert await channel.unary("/t/One", b"x", 5, {"who": "me"}) == b"xme"
    with pytest.raises(rpc.RpcError, match="FAILED_PRECONDITION: nö"):
        await channel.unary("/t/One", b"fail", 5, {"who": "me"})
    with pytest.raises(rpc.RpcError, match="UNIMPLEMENTED"):
        await channel.unary("/t/Nothing", b"", 5)
    async with channel.call("/t/Many", b"5000") as answer:
        assert (await answer.headers())["a-header"] == "there"
        got: list[bytes] = []
        while messages := await answer.take():
            got += messages
    assert [int(message) for message in got] == list(range(5000))
    async with channel.call("/t/Many", b"1000000") as answer:
        await answer.take()  # and leave: the rest is not sent
    assert await channel.unary("/t/One", b"y", 5, {"who": "me"}) == b"yme"
    await real.stop(0)
    with pytest.raises(rpc.RpcError, match="UNAVAILABLE"):
        await _until_it_fails(channel)
    assert not channel.is_open
    with pytest.raises(rpc.RpcError, match="UNAVAILABLE: unix:///nowhere: "):
        await connect("unix:///nowhere", None, 5)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(range(256)) * 64,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 500_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\4\0\0\0\0\0\1xxxx",
    ],
    ids=["http1", "noise", "frame too large", "data without a request"],
)
async def test_garbage_ends_its_own_connection(server: Path, garbage: bytes) -> None:
    """The connection is closed, the next caller is served."""
    reader, writer = await asyncio.open_unix_connection(server)
    writer.write(garbage)
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
    writer.close()
    channel = await connect(f"unix://{server}", None, 5)
    assert await channel.unary("/t/Echo", b"x", 5) == b"x"
    channel.close()


def _headers(path: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":authority", b"x"),
        (b":path", path),
        (b"content-type", b"application/grpc"),
    ]


def _asks(path: bytes) -> tuple[h2.connection.H2Connection, bytes]:
    """A client of HTTP/2 that has asked for a path and will never read."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    client.increment_flow_control_window(1 << 30)
    client.send_headers(1, _headers(path))
    client.increment_flow_control_window(1 << 30, 1)
    return client, client.data_to_send()


async def test_who_is_silent_is_dropped(tmp_path: Path, monkeypatch) -> None:
    """One who neither reads nor answers pings loses the connection, and its call its task."""
    monkeypatch.setattr(rpc_server, "PING_INTERVAL_S", 0.2)
    source = MemorySource(capacity=1023)
    source.add_flows(1000, Summary="x" * 4000)
    async with observing(source, tmp_path / "h.sock") as running:
        client, asked = _asks(b"/observer.Observer/GetFlows")
        request = observer_pb2.GetFlowsRequest(follow=True, number=1000).SerializeToString()
        client.send_data(1, rpc.join([request]), end_stream=True)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.connect(str(tmp_path / "h.sock"))
            dead.sendall(asked + client.data_to_send())
            async with asyncio.timeout(20):
                while not any(c.streams for c in running.connections):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                unsent = [c.transport.get_write_buffer_size() for c in running.connections]
                assert max(unsent) < 1 << 20  # of four megabytes that it asked for
                while running.connections:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)


async def test_who_takes_large_frames_is_not_given_all_at_once(tmp_path: Path) -> None:
    """Calls side by side on one connection: little waits in the server, nothing is cut."""
    calls = range(1, 17, 2)
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    codes = h2.settings.SettingCodes
    client.update_settings(
        {codes.INITIAL_WINDOW_SIZE: 1 << 30, codes.MAX_FRAME_SIZE: (1 << 24) - 1}
    )
    client.increment_flow_control_window(1 << 30)
    for number in calls:
        client.send_headers(number, _headers(b"/t/Flood"), end_stream=True)
    async with Server(HANDLERS) as running:
        await running.listen_unix(tmp_path / "s.sock")
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s.sock", limit=1 << 12)
        writer.write(client.data_to_send())
        async with asyncio.timeout(20):
            while not any(len(c.streams) == len(calls) for c in running.connections):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            (connection,) = running.connections
            assert connection.transport is not None
            got, most = 0, 0
            while got < len(calls) * 2 * FLOOD_BYTES:
                most = max(most, connection.transport.get_write_buffer_size())
                data = await reader.read(1 << 16)
                assert data, "the server has cut the connection"
                for event in client.receive_data(data):
                    if isinstance(event, h2.events.DataReceived):
                        got += len(event.data)
        writer.close()
    assert most < FLOOD_BYTES


async def test_many_followers(tmp_path: Path) -> None:
    """Two thousand follow on several connections; each gets every flow, decoded once."""
    followers, connections, flows = 2000, 20, 10
    source = MemorySource()
    request = observer_pb2.GetFlowsRequest(follow=True)
    async with observing(source, tmp_path / "h.sock"):
        channels = [await connect(f"unix://{tmp_path}/h.sock", None, 5) for _ in range(connections)]
        counts: list[int] = []

        async def follow(place: int) -> None:
            path = "/observer.Observer/GetFlows"
            call = channels[place % connections].call(path, request.SerializeToString())
            async with call as answer:
                await answer.headers()
                counts.append(0)
                if len(counts) == followers:
                    source.add_flows(flows)
                got = 0
                while got < flows:
                    got += len(await answer.take())

        async with asyncio.timeout(60), TaskGroup() as group:
            for place in range(followers):
                group.create_task(follow(place))
        for channel in channels:
            channel.close()
    assert source.decoded == flows


async def test_a_call_too_many_hurts_nobody_else(server: Path) -> None:
    """More calls on one connection than are allowed end that connection only."""
    channel = await connect(f"unix://{server}", None, 5)
    refused: list[rpc.Code] = []

    async def hold() -> None:
        try:
            await channel.unary("/t/Slow", b"", 10)
        except rpc.RpcError as error:
            refused.append(error.code)

    async with asyncio.timeout(20), TaskGroup() as group:
        for _ in range(rpc_server.CALLS_PER_CONNECTION_MAX + 1):
            group.create_task(hold())
    assert set(refused) == {rpc.Code.UNAVAILABLE}
    other = await connect(f"unix://{server}", None, 5)
    assert await other.unary("/t/Echo", b"x", 5) == b"x"
    other.close()
    channel.close()


async def test_tls_needs_the_right_certificates(tmp_path: Path) -> None:
    """Mutual TLS 1.3: the right pair talks, strangers, wrong names and old TLS do not."""
    now = datetime.now(UTC)
    ca, other = create_ca(now), create_ca(now)
    name = "node-1.west.hubble-grpc.cilium.io"
    made = {
        "ca": ca.certificate,
        "other": other.certificate,
    }
    pairs = {
        "server": issue(ca, Profile("s", (f"*.{name.split('.', 1)[1]}",), server=True), now),
        "client": issue(ca, Profile("c", client=True), now),
        "stranger": issue(other, Profile("x", client=True), now),
    }
    for who, pair in pairs.items():
        made[who], made[f"{who}.key"] = pair.certificate, pair.key
    for file, content in made.items():
        (tmp_path / file).write_bytes(content)
    context = server_tls(tmp_path / "server", tmp_path / "server.key", [tmp_path / "ca"])

    def tls(who: str | None, authority: str = "ca", server_name: str = name) -> ClientTls:
        pair = (tmp_path / who, tmp_path / f"{who}.key") if who else (None, None)
        return ClientTls((tmp_path / authority,), *pair, server_name=server_name)

    async with Server(HANDLERS) as running:
        listener = await running.listen_tcp("127.0.0.1", 0, context)
        target = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        channel = await connect(target, tls("client"), 5)
        assert await channel.unary("/t/Echo", b"x", 5) == b"x"
        channel.close()
        credentials = grpc.ssl_channel_credentials(made["ca"], made["client.key"], made["client"])
        options = (("grpc.ssl_target_name_override", name),)
        async with grpc.aio.secure_channel(target, credentials, options) as real:
            assert await real.unary_unary("/t/Echo")(b"y") == b"y"
        for refused in (
            tls(None),
            tls("stranger"),
            tls("client", authority="other"),
            tls("client", server_name="relay.west.hubble-grpc.cilium.io.example.org"),
        ):
            with pytest.raises(rpc.RpcError, match="UNAVAILABLE"):
                await _echo(target, refused)
        with pytest.raises(rpc.RpcError, match="UNAVAILABLE"):
            await _echo(target, None)
        old = ssl.create_default_context()
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(*target.split(":"), ssl=old)


async def test_a_request_that_is_none(tmp_path: Path) -> None:
    """Bytes that are no request end the call with INVALID_ARGUMENT and the name of what was due."""
    async with observing(MemorySource(), tmp_path / "h.sock"):
        channel = await connect(f"unix://{tmp_path}/h.sock", None, 5)
        for name in ("GetFlows", "GetAgentEvents", "ServerStatus"):
            with pytest.raises(rpc.RpcError, match=f"INVALID_ARGUMENT: not observer.{name}"):
                await channel.unary(f"/observer.Observer/{name}", b"\xff\xff\xff", 5)
        channel.close()


@pytest.mark.parametrize("sizes", [(1,), (5,), (3, 2000), (70_000,), (7, 11, 13)])
def test_messages_are_cut_anywhere(sizes: tuple[int, ...]) -> None:
    """However the bytes come, the messages are the same."""
    messages = [b"a" * size for size in (0, 1, 5, 4096, 70_000, 2)]
    data, splitter, got, place, step = rpc.join(messages), rpc.Splitter(100_000), [], 0, 0
    while place < len(data):
        size = sizes[step % len(sizes)]
        got += splitter.split(data[place : place + size])
        place, step = place + size, step + 1
    assert got == messages
    assert splitter.is_between
    with pytest.raises(rpc.RpcError, match="RESOURCE_EXHAUSTED"):
        splitter.split(b"\0\xff\xff\xff\xff")

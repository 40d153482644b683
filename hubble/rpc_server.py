"""The server's side of gRPC: connections, calls, limits. Adapter.

A handler gets a ``Call`` (its request's messages, headers, who called) and sends answers; it ends
the call by returning (OK) or raising ``RpcError``. Anything else that it raises is a bug: the
caller is told INTERNAL, it is logged, and nobody else suffers. A caller who leaves cancels it.
"""

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Final

import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from hubble import rpc
from hubble.rpc_stream import Connection, Stream
from reconcile.tasks import TaskGroup

log = logging.getLogger(__name__)

CONNECTIONS_MAX: Final = 8192
CALLS_PER_CONNECTION_MAX: Final = 128
PING_INTERVAL_S: Final = 30.0  # who has not answered by the next one is gone
_HEADERS_MAX_BYTES: Final = 16 << 10
_HANDSHAKE_TIMEOUT_S: Final = 10.0
_CONTENT_TYPE: Final = ("content-type", "application/grpc")


class Call:
    """A call as its handler sees it."""

    def __init__(self, connection: "_ServerConnection", stream: Stream) -> None:
        self.stream = stream
        self.headers = stream.headers
        self._connection = connection
        self._answered = False

    async def request(self) -> bytes:
        """The only message of the request; ``RpcError``."""
        messages = await self.stream.take()
        if len(messages) != 1:
            raise rpc.RpcError(rpc.Code.INVALID_ARGUMENT, "one message was expected")
        return messages[0]

    def answer(self, headers: Mapping[str, str] | None = None) -> None:
        """Send the first headers, unless they are sent."""
        if self._answered:
            return
        self._answered = True
        self._connection.send_headers(
            self.stream.number, [(":status", "200"), _CONTENT_TYPE, *(headers or {}).items()]
        )

    async def send(self, *messages: bytes) -> None:
        """Send messages, as fast as the caller takes them."""
        self.answer()
        await self.stream.send(messages)

    def finish(self, code: rpc.Code, message: str) -> None:
        """End the call."""
        trailers = [("grpc-status", str(code.value))]
        if message:
            trailers.append(("grpc-message", rpc.quoted(message)))
        if not self._answered:
            trailers = [(":status", "200"), _CONTENT_TYPE, *trailers]
        self._connection.send_headers(self.stream.number, trailers, end=True)
        if not self.stream.ended:
            self._connection.reset(self.stream.number, h2.errors.ErrorCodes.NO_ERROR)


Handler = Callable[[Call], Awaitable[None]]


class _ServerConnection(Connection):
    def __init__(self, server: "Server") -> None:
        super().__init__()
        self._server = server
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._handlers[h2.events.RequestReceived] = self._request

    def settings(self) -> dict[int, int]:
        codes = h2.settings.SettingCodes
        return {
            codes.MAX_CONCURRENT_STREAMS: CALLS_PER_CONNECTION_MAX,
            codes.MAX_HEADER_LIST_SIZE: _HEADERS_MAX_BYTES,
        }

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self._server.connections) >= CONNECTIONS_MAX:
            self.close(rpc.RpcError(rpc.Code.RESOURCE_EXHAUSTED, "too many connections"))
            return
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._server.connections.discard(self)

    def _request(self, event: h2.events.RequestReceived) -> None:
        headers = {name: value for name, value in event.headers or ()}  # str by header_encoding
        number = event.stream_id
        assert number is not None
        if not str(headers.get("content-type", "")).startswith("application/grpc"):
            self.send_headers(number, [(":status", "415")], end=True)
            self.reset(number, h2.errors.ErrorCodes.NO_ERROR)
            return
        stream = Stream(self, number, rpc.MESSAGE_MAX_BYTES)
        stream.headers = {str(name): str(value) for name, value in headers.items()}
        self.streams[number] = stream
        task = self._tasks[number] = self._server.start(self._run(Call(self, stream)))
        task.add_done_callback(lambda _: self._forget(number))

    async def _run(self, call: Call) -> None:
        code, message = await self._server.handle(call)
        if not self.closed:
            call.finish(code, message)

    def _forget(self, number: int) -> None:
        self.streams.pop(number, None)
        self._tasks.pop(number, None)

    def stream_failed(self, stream: Stream) -> None:
        if task := self._tasks.get(stream.number):
            task.cancel()

    def send_headers(
        self, number: int, headers: list[tuple[str, str]], *, end: bool = False
    ) -> None:
        """Nothing when the stream is gone."""
        try:
            self.h2.send_headers(number, headers, end_stream=end)
        except h2.exceptions.ProtocolError:
            return
        self.flush()


class Server:
    """Serves ``handlers`` (by path) on any number of sockets while its context lasts.

    ``async with Server(handlers) as server: await server.listen_unix(path)``
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        observed: Callable[[str, rpc.Code | None], None] = lambda _path, _code: None,
    ) -> None:
        """``observed``: told the path of a call that begins (``None``) or ends, with its code."""
        self._observed = observed
        self.connections: set[_ServerConnection] = set()
        self._call_handlers = handlers
        self._group = TaskGroup()
        self._listeners: list[asyncio.Server] = []
        self._pinger: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Server":
        await self._group.__aenter__()
        self._pinger = self._group.create_task(self._ping())
        return self

    async def __aexit__(self, *error: object) -> None:
        for listener in self._listeners:
            listener.close()
        for connection in tuple(self.connections):
            connection.close(rpc.RpcError(rpc.Code.UNAVAILABLE, "the server is stopping"))
            # A TLS transport that has closed itself has no buffer to ask for in Python 3.11.
            transport = connection.transport
            with contextlib.suppress(AttributeError):
                if transport is not None and transport.get_write_buffer_size():
                    transport.abort()
        if self._pinger is not None:
            self._pinger.cancel()
        await self._group.__aexit__(None, None, None)

    def start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """A call's task."""
        return self._group.create_task(work)

    async def listen_unix(self, path: Path, mode: int = 0o660) -> None:
        """Listen on a socket file, replacing what a dead predecessor left."""
        os.makedirs(path.parent, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        loop = asyncio.get_running_loop()
        listener = await loop.create_unix_server(lambda: _ServerConnection(self), path=str(path))
        os.chmod(path, mode)
        self._listeners.append(listener)

    async def listen_tcp(
        self, host: str | None, port: int, tls: ssl.SSLContext | None
    ) -> asyncio.Server:
        """Listen on TCP, with TLS when given."""
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(
            lambda: _ServerConnection(self),
            host,
            port,
            ssl=tls,
            ssl_handshake_timeout=_HANDSHAKE_TIMEOUT_S if tls else None,
        )
        self._listeners.append(listener)
        return listener

    async def handle(self, call: Call) -> tuple[rpc.Code, str]:
        """Run the call's handler; how it ended."""
        path = call.headers.get(":path", "")
        handler = self._call_handlers.get(path)
        if handler is None:
            return rpc.Code.UNIMPLEMENTED, f"unknown method {path}"
        self._observed(path, None)
        code, message = rpc.Code.CANCELLED, ""
        try:
            code, message = await self._handled(call, path, handler)
        finally:
            self._observed(path, code)
        return code, message

    async def _handled(self, call: Call, path: str, handler: Handler) -> tuple[rpc.Code, str]:
        limit_s = rpc.timeout_s(call.headers.get("grpc-timeout", ""))
        try:
            async with asyncio.timeout(limit_s):
                await handler(call)
        except rpc.RpcError as error:
            return error.code, error.message
        except TimeoutError:
            return rpc.Code.DEADLINE_EXCEEDED, "the deadline given by the caller is over"
        except Exception as error:  # the root of a call: its bug must not end the others
            log.exception("call failed: path=%s", path)
            return rpc.Code.INTERNAL, f"{type(error).__name__}"
        return rpc.Code.OK, ""

    async def _ping(self) -> None:
        """Drop who is silent: a dead reader would keep its place for ever."""
        while True:
            await asyncio.sleep(PING_INTERVAL_S)
            for connection in tuple(self.connections):
                if connection.heard:
                    connection.ping()
                elif connection.transport is not None:
                    connection.transport.abort()


def server_tls(
    certificate: Path, key: Path, client_authorities: Iterable[Path] = ()
) -> ssl.SSLContext:
    """TLS 1.3 with this certificate; with ``client_authorities`` only for clients they signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(certificate, key)
    for file in client_authorities:
        context.load_verify_locations(file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context

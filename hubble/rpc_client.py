"""The client's side of gRPC: a channel, calls on it. Adapter.

A channel is one connection; when it is lost every call on it fails with UNAVAILABLE and a new
channel is to be made. Targets: ``unix:///path``, ``/path``, ``host:port``, ``tls://host:port``.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import h2.errors
import h2.events
import h2.exceptions

from hubble import rpc
from hubble.rpc_stream import Connection, Stream


@dataclass(frozen=True, slots=True)
class ClientTls:
    """How a server is believed, and who we are."""

    authorities: tuple[Path, ...] = ()  # none: the system's
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None  # none: the target's host
    insecure: bool = False  # believe anybody


class _ClientConnection(Connection):
    client_side = True

    def __init__(self) -> None:
        super().__init__()
        self._handlers[h2.events.ResponseReceived] = self._response
        self._handlers[h2.events.TrailersReceived] = self._trailers

    def _response(self, event: h2.events.ResponseReceived) -> None:
        if stream := self.streams.get(event.stream_id or 0):
            stream.headers = {str(name): str(value) for name, value in event.headers or ()}
            stream.arrived.set()

    def _trailers(self, event: h2.events.TrailersReceived) -> None:
        if stream := self.streams.get(event.stream_id or 0):
            stream.trailers = {str(name): str(value) for name, value in event.headers or ()}

    def open(self, headers: list[tuple[str, str]]) -> Stream:
        """Send a request's headers; ``RpcError``."""
        try:
            number = self.h2.get_next_available_stream_id()
            self.h2.send_headers(number, headers)
        except h2.exceptions.ProtocolError as error:
            raise rpc.RpcError(rpc.Code.UNAVAILABLE, f"no further call possible: {error}") from None
        stream = self.streams[number] = Stream(self, number, rpc.ANSWER_MAX_BYTES)
        self.flush()
        return stream

    def end(self, number: int) -> None:
        """Say that the request is complete."""
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self.h2.end_stream(number)
        self.flush()


class Answer:
    """The answers of a call, as they come."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def headers(self) -> dict[str, str]:
        """The server's first headers; ``RpcError``."""
        return await self._stream.wait_headers()

    async def take(self) -> list[bytes]:
        """All messages that have come; none: the call ended well; ``RpcError``: it did not."""
        messages = await self._stream.take()
        if not messages:
            self._check()
        return messages

    def _check(self) -> None:
        headers = self._stream.headers
        if headers.get(":status", "200") != "200":
            raise rpc.RpcError(rpc.Code.UNKNOWN, f"HTTP status {headers[':status']}")
        last = self._stream.trailers or headers
        code = rpc.code_of(last.get("grpc-status", ""))
        if code is not rpc.Code.OK:
            raise rpc.RpcError(code, rpc.unquoted(last.get("grpc-message", "")))


class Channel:
    """One connection to a server."""

    def __init__(self, connection: _ClientConnection, authority: str, scheme: str) -> None:
        self._connection = connection
        self._authority = authority
        self._scheme = scheme

    @property
    def is_open(self) -> bool:
        """Calls can be made."""
        return not self._connection.closed

    @contextlib.asynccontextmanager
    async def call(
        self, path: str, request: bytes, metadata: Mapping[str, str] | None = None
    ) -> AsyncIterator[Answer]:
        """Make a call with one message; leaving the context ends it. ``RpcError``."""
        if self._connection.closed:
            raise rpc.RpcError(rpc.Code.UNAVAILABLE, "the connection is closed")
        headers = [
            (":method", "POST"),
            (":scheme", self._scheme),
            (":authority", self._authority),
            (":path", path),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "isthmus"),
            *(metadata or {}).items(),
        ]
        stream = self._connection.open(headers)
        try:
            await stream.send([request])
            self._connection.end(stream.number)
            yield Answer(stream)
        finally:
            if not stream.ended:
                self._connection.reset(stream.number, h2.errors.ErrorCodes.CANCEL)
            self._connection.streams.pop(stream.number, None)

    async def unary(
        self, path: str, request: bytes, timeout_s: float, metadata: Mapping[str, str] | None = None
    ) -> bytes:
        """One message for one message; ``RpcError``."""
        try:
            async with asyncio.timeout(timeout_s), self.call(path, request, metadata) as answer:
                messages: list[bytes] = []
                while taken := await answer.take():
                    messages += taken
        except TimeoutError:
            raise rpc.RpcError(
                rpc.Code.DEADLINE_EXCEEDED, f"no answer within {timeout_s:g} s"
            ) from None
        if len(messages) != 1:
            raise rpc.RpcError(rpc.Code.INTERNAL, f"{len(messages)} messages instead of one")
        return messages[0]

    def check(self) -> None:
        """Ask for a sign of life; a server that gave none since the last time is given up."""
        if self._connection.heard:
            self._connection.ping()
        else:
            gone = rpc.RpcError(rpc.Code.UNAVAILABLE, "no sign of life")
            self._connection.close(gone)
            if self._connection.transport is not None:
                self._connection.transport.abort()

    def close(self) -> None:
        """End the connection and the calls on it."""
        self._connection.close(rpc.RpcError(rpc.Code.CANCELLED, "the channel was closed"))


def _tls_context(tls: ClientTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not tls.authorities:
        context.load_default_certs()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    for file in tls.authorities:
        context.load_verify_locations(file)
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    if tls.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def connect(target: str, tls: ClientTls | None, timeout_s: float) -> Channel:
    """A channel to the target; ``RpcError`` (UNAVAILABLE) naming it and why not."""
    loop = asyncio.get_running_loop()
    if target.startswith("tls://"):
        target, tls = target.removeprefix("tls://"), tls or ClientTls()
    path = target.removeprefix("unix://")
    try:
        async with asyncio.timeout(timeout_s):
            if path.startswith("/"):
                _, connection = await loop.create_unix_connection(_ClientConnection, path)
                return Channel(connection, "localhost", "http")
            host, _, port = target.rpartition(":")
            context = _tls_context(tls) if tls else None
            name = (tls.server_name or host.strip("[]")) if tls else None
            _, connection = await loop.create_connection(
                _ClientConnection, host.strip("[]"), int(port), ssl=context, server_hostname=name
            )
            return Channel(connection, name or host, "https" if tls else "http")
    except TimeoutError:
        reason = f"no connection within {timeout_s:g} s"
    except OSError as error:  # ssl.SSLError is one, also where it is a ValueError too
        reason = str(error)
    except ValueError:
        reason = "not of the form host:port or unix:///path"
    raise rpc.RpcError(rpc.Code.UNAVAILABLE, f"{target}: {reason}")

"""One call over a connection of its own: messages out, messages in, by gRPC over HTTP/2. Adapter.

What an agent follows comes in many small messages over one stream for as long as it lives. Each of
them costs the gRPC library, its thread and the way from there more than all that is done with it.
Only this one use is made of the protocol here; every other call is the library's.
"""

import asyncio
import socket
import ssl
from typing import Final

from kvstore.http2_frames import (
    ACK,
    END_STREAM,
    MAX_FRAME_BYTES,
    PREFACE,
    FrameType,
    ProtocolError,
    Reader,
    Setting,
    encode_headers,
    frame,
    settings,
    without_padding,
)

QUIET_S, PATIENCE_S = 8.0, 8.0  # until a ping is sent, and for its answer
CONNECT_S = 5.0
MOST_BYTES: Final = 64 << 20  # of a message
WINDOW_BYTES: Final = 4 << 20  # of what nobody has read yet
BUFFER_BYTES: Final = 64 << 10  # that are taken from the connection at once
GATHERED_BYTES: Final = 256 << 10  # nothing is left lying beyond this
_DEFAULT_WINDOW_BYTES: Final = 65_535
_STREAM = 1


class StreamLostError(OSError):
    """The stream has ended, or never stood; the text says why."""


class Call(asyncio.BufferedProtocol):
    """Connect with ``open``; then ``write`` and ``read``; ``cancel`` in the end.

    Buffered: all records of TLS that have come are handed over together, in memory that stays.
    """

    def __init__(self, path: str, authority: str, secure: bool, more: dict[str, str]) -> None:
        """``more``: further headers."""
        scheme = "https" if secure else "http"
        self._headers = {
            ":method": "POST",
            ":scheme": scheme,
            ":path": path,
            ":authority": authority,
            "te": "trailers",
            "content-type": "application/grpc",
            **more,
        }
        self._reader = Reader()
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._transport: asyncio.Transport | None = None
        self._messages: list[bytes] = []
        self._part = bytearray()  # of the message that is coming
        self._unread = 0  # bytes that are not yet acknowledged
        self._window = {0: _DEFAULT_WINDOW_BYTES, _STREAM: _DEFAULT_WINDOW_BYTES}  # of the other
        self._initial_window = _DEFAULT_WINDOW_BYTES
        self._blocks: list[bytes] = []  # of headers, as they came
        self._why: StreamLostError | None = None
        self._news = asyncio.Event()  # something to read, or the end
        self._room = asyncio.Event()  # to write, or the end
        self._heard_s = 0.0
        self._asked_s: float | None = None  # when a ping was sent that is not answered
        self._timer: asyncio.TimerHandle | None = None
        self._resting: asyncio.TimerHandle | None = None

    async def open(
        self, host: str, port: int, tls: ssl.SSLContext | None, server_name: str
    ) -> None:
        """Connect and begin. Raises ``StreamLostError``."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                await loop.create_connection(
                    lambda: self, host, port, ssl=tls, server_hostname=server_name if tls else None
                )
        except TimeoutError as error:
            raise StreamLostError("no connection in time") from error
        except OSError as error:
            raise StreamLostError(str(error)) from error

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """``asyncio.BufferedProtocol``."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._why is not None:  # cancelled meanwhile
            transport.abort()
            return
        self._send(
            PREFACE
            + settings({Setting.ENABLE_PUSH: 0, Setting.INITIAL_WINDOW_SIZE: WINDOW_BYTES})
            + _more_window(0, WINDOW_BYTES - _DEFAULT_WINDOW_BYTES)
            + encode_headers(_STREAM, self._headers)
        )
        self._heard_s = asyncio.get_running_loop().time()
        self._look_later(QUIET_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """``asyncio.BufferedProtocol``."""
        self._fail(str(exc) if exc else "the connection was closed")

    def get_buffer(self, sizehint: int) -> memoryview:
        """``asyncio.BufferedProtocol``."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """``asyncio.BufferedProtocol``."""
        data = bytes(self._buffer[:nbytes])
        self._heard_s = asyncio.get_running_loop().time()
        if self._why is not None:
            return
        try:
            for kind, flags, stream, payload in self._reader.frames(data):
                self._take(kind, flags, stream, payload)
        except ProtocolError as error:
            self._fail(f"what came is no HTTP/2 that carries gRPC: {error}")
        if self._unread >= WINDOW_BYTES // 4 and not self._messages:
            self._acknowledge()  # of a message that is not whole: the rest must come

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        match kind:
            case FrameType.DATA if stream == _STREAM:
                self._unread += len(payload)
                self._add(without_padding(payload, flags))
                if flags & END_STREAM:
                    self._fail("the stream ended")
            case FrameType.HEADERS | FrameType.CONTINUATION:
                self._blocks.append(payload)
                if sum(map(len, self._blocks)) > MAX_FRAME_BYTES:
                    raise ProtocolError("headers without end")
                if flags & END_STREAM and kind == FrameType.HEADERS:
                    self._fail("the stream ended" + self._said())
            case FrameType.RST_STREAM:
                self._fail(f"the stream was broken off, code {int.from_bytes(payload)}")
            case FrameType.GOAWAY:
                self._fail(f"the server goes away {payload[8:].decode(errors='replace')}".rstrip())
            case FrameType.SETTINGS if not flags & ACK:
                self._set(payload)
                self._send(frame(FrameType.SETTINGS, ACK, 0, b""))
            case FrameType.PING:
                if flags & ACK:
                    self._asked_s = None
                else:
                    self._send(frame(FrameType.PING, ACK, 0, payload))
            case FrameType.WINDOW_UPDATE if stream in self._window:
                self._window[stream] += int.from_bytes(payload)
                self._room.set()

    def _set(self, payload: bytes) -> None:
        for at in range(0, len(payload) - 5, 6):
            if int.from_bytes(payload[at : at + 2]) == Setting.INITIAL_WINDOW_SIZE:
                size = int.from_bytes(payload[at + 2 : at + 6])
                self._window[_STREAM] += size - self._initial_window
                self._initial_window = size
                self._room.set()

    def _add(self, data: bytes) -> None:
        part = self._part
        part += data
        at = 0
        while len(part) - at >= 5:
            if part[at]:
                raise ProtocolError("a message is compressed")
            end = at + 5 + int.from_bytes(part[at + 1 : at + 5])
            if end - at > MOST_BYTES:
                raise ProtocolError(f"a message has more than {MOST_BYTES} bytes")
            if end > len(part):
                break
            self._messages.append(bytes(part[at + 5 : end]))
            at = end
        if at:
            del part[:at]
            self._news.set()

    def _acknowledge(self) -> None:
        unread, self._unread = self._unread, 0
        self._send(_more_window(0, unread) + _more_window(_STREAM, unread))

    async def write(self, *messages: bytes) -> None:
        """Messages, together. Raises ``StreamLostError``."""
        data = b"".join(b"\0" + len(message).to_bytes(4) + message for message in messages)
        while data:
            if self._why is not None:
                raise self._why
            size = min(len(data), MAX_FRAME_BYTES, *self._window.values())
            if size <= 0:
                self._room.clear()
                await self._room.wait()
                continue
            self._send(frame(FrameType.DATA, 0, _STREAM, data[:size]))
            for number in self._window:
                self._window[number] -= size
            data = data[size:]

    async def read(self) -> list[bytes]:
        """The messages that have come, at least one.

        Raises ``StreamLostError``; what came before the end comes first.
        """
        while not self._messages:
            if self._why is not None:
                raise self._why
            self._news.clear()
            await self._news.wait()
        messages, self._messages = self._messages, []
        if self._unread >= WINDOW_BYTES // 4 and self._why is None:
            self._acknowledge()
        return messages

    def rest(self, rest_s: float) -> None:
        """Leave what comes from now on with the kernel for so long, and then take it together.

        The connection's end, and more than ``GATHERED_BYTES``, are heard at once.
        """
        if self._why is None and self._resting is None and self._await_bytes(GATHERED_BYTES):
            loop = asyncio.get_running_loop()
            self._resting = loop.call_later(rest_s, self._rested)

    def _rested(self) -> None:
        self._resting = None
        self._await_bytes(1)

    def _await_bytes(self, count: int) -> bool:
        """Whether the kernel can tell us of the connection only when so much has come."""
        transport = self._transport
        found = transport.get_extra_info("socket") if transport is not None else None
        if found is None or transport is None or transport.is_closing():
            return False
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
        except OSError:  # it was closed a moment ago, which is told by itself
            return False
        return True

    def cancel(self) -> None:
        """The end; more often does no harm."""
        self._fail("cancelled")

    def _send(self, data: bytes) -> None:
        if self._transport is not None and self._why is None:
            self._transport.write(data)

    def _fail(self, why: str) -> None:
        if self._why is None:
            self._why = StreamLostError(why)
            for timer in (self._timer, self._resting):
                if timer is not None:
                    timer.cancel()
            if self._transport is not None:
                self._transport.abort()
        self._news.set()
        self._room.set()

    def _said(self) -> str:
        """What the server says of the end, if it does."""
        from hpack import Decoder, HPACKError  # hardly ever needed

        decoder = Decoder()
        found: dict[str, str] = {}
        try:
            for block in self._blocks:
                found.update((str(name), str(value)) for name, value in decoder.decode(block))
        except HPACKError:
            return ""
        text = found.get("grpc-message", "")
        return f": {text}" if text else ""

    def _look_later(self, delay_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._look)

    def _look(self) -> None:
        """Whether the other side is still there."""
        now = asyncio.get_running_loop().time()
        if self._asked_s is not None and self._heard_s > self._asked_s:
            self._asked_s = None
        if self._asked_s is not None:
            self._fail("the server does not answer any more")
        elif now - self._heard_s >= QUIET_S:
            self._asked_s = now
            self._send(frame(FrameType.PING, 0, 0, bytes(8)))
            self._look_later(PATIENCE_S)
        else:
            self._look_later(QUIET_S - (now - self._heard_s))


def _more_window(stream: int, size: int) -> bytes:
    return frame(FrameType.WINDOW_UPDATE, 0, stream, size.to_bytes(4))


def client_tls(ca_file: str, cert_file: str, key_file: str) -> ssl.SSLContext:
    """As the library would connect. Raises ``OSError`` for a file that cannot be used."""
    context = ssl.create_default_context(cafile=ca_file or None)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # as the library does not ask for it, either
    context.set_alpn_protocols(["h2"])
    if cert_file:
        context.load_cert_chain(cert_file, key_file)
    return context

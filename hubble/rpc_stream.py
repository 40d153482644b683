"""One HTTP/2 connection and its streams, as both sides of a call need them. Adapter.

``Connection`` feeds the bytes to ``h2`` and hands events to its streams; ``Stream`` sends and
receives messages. Sending waits for the reader (its window) and for the socket, so one who does not
read costs one batch of messages and no more. Between two awaits what is in h2's buffer is written.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from hubble import rpc

Headers = list[tuple[str, str]]

STREAM_WINDOW_BYTES: Final = 1 << 20
CONNECTION_WINDOW_BYTES: Final = 16 << 20
UNSENT_MAX_BYTES: Final = 4 << 20  # of answers to pings and settings that nobody reads
_BURST_BYTES: Final = 256 << 10  # into the socket at once
_VAIN_MAX_BYTES: Final = 256 << 10  # h2 waits for the end of a frame that it will refuse


class Stream:
    """One call on a connection."""

    def __init__(self, connection: "Connection", number: int, max_bytes: int) -> None:
        self.number = number
        self.headers: dict[str, str] = {}
        self.trailers: dict[str, str] = {}
        self.ended = False  # by the other side
        self.failed: rpc.RpcError | None = None
        self.window_open = asyncio.Event()
        self.arrived = asyncio.Event()
        self._connection = connection
        self._splitter = rpc.Splitter(max_bytes)
        self._messages: list[bytes] = []
        self._unacknowledged = 0

    def receive(self, data: bytes, flow_bytes: int) -> None:
        """Data came. What is not yet a whole message is acknowledged at once: it must go on."""
        if self.failed:
            self._connection.acknowledge(self.number, flow_bytes)
            return
        try:
            self._messages += self._splitter.split(data)
        except rpc.RpcError as error:
            self.fail(error)
        if self._messages and not self.failed:
            self._unacknowledged += flow_bytes
        else:
            self._connection.acknowledge(self.number, flow_bytes)
        self.arrived.set()

    def end(self) -> None:
        """The other side sends no more."""
        if not self._splitter.is_between:
            self.fail(rpc.RpcError(rpc.Code.INTERNAL, "the stream ended inside a message"))
        self.ended = True
        self.arrived.set()

    def fail(self, error: rpc.RpcError) -> None:
        """Nothing more can come or go. What came before can still be taken."""
        self.failed = self.failed or error
        self.ended = True
        self.arrived.set()
        self.window_open.set()

    async def wait_headers(self) -> dict[str, str]:
        """The other side's first headers; ``RpcError``."""
        while not self.headers:
            if self.failed:
                raise self.failed
            self.arrived.clear()
            await self.arrived.wait()
        return self.headers

    async def take(self) -> list[bytes]:
        """All messages that have come; none: the stream has ended; ``RpcError``."""
        while not self._messages:
            if self.failed:
                raise self.failed
            if self.ended:
                return []
            self.arrived.clear()
            await self.arrived.wait()
        taken, self._messages = self._messages, []
        acknowledged, self._unacknowledged = self._unacknowledged, 0
        self._connection.acknowledge(self.number, acknowledged)
        return taken

    async def send(self, messages: Iterable[bytes]) -> None:
        """Send messages, as fast as the other side takes them; ``RpcError`` when it is gone."""
        await self.send_bytes(rpc.join(messages))

    async def send_bytes(self, data: bytes) -> None:
        """Send what ``rpc.join`` made."""
        place, size = 0, len(data)
        while place < size:
            while not self._connection.writable.is_set():  # others were woken, too, and wrote
                await self._connection.writable.wait()
            if self.failed:
                raise self.failed
            sent = self._connection.write_data(self.number, data, place)
            if sent == 0:
                self.window_open.clear()
                await self.window_open.wait()
            place += sent


class Connection(asyncio.Protocol):
    """Bytes of one socket to and from ``h2``. Subclasses say what a request or response is."""

    client_side = False

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}
        self.writable = asyncio.Event()
        self.writable.set()
        self.heard = True  # since the last look of who pings
        self.closed = False
        self._vain_bytes = 0  # since the last complete frame
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=self.client_side, header_encoding="utf-8")
        )
        self.transport: asyncio.Transport | None = None
        self._handlers: dict[type, Callable[[Any], None]] = {
            h2.events.DataReceived: self._data,
            h2.events.StreamEnded: self._ended,
            h2.events.StreamReset: self._reset,
            h2.events.WindowUpdated: self._window,
            h2.events.RemoteSettingsChanged: self._settings,
            h2.events.ConnectionTerminated: self._terminated,
        }

    def settings(self) -> dict[int, int]:
        """What this side announces besides its window."""
        return {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        window = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES}
        self.h2.initiate_connection()
        self.h2.update_settings({**window, **self.settings()})
        self.h2.increment_flow_control_window(CONNECTION_WINDOW_BYTES - 65535)
        self.flush()

    def data_received(self, data: bytes) -> None:
        self.heard = True
        try:
            events = self.h2.receive_data(data)
            self._vain_bytes = 0 if events else self._vain_bytes + len(data)
            if self._vain_bytes > _VAIN_MAX_BYTES:
                raise h2.exceptions.FrameTooLargeError("a frame without end")
            for event in events:
                handle = self._handlers.get(type(event))
                if handle is not None:
                    handle(event)
        except (h2.exceptions.ProtocolError, UnicodeDecodeError) as error:
            self.flush()
            self.close(rpc.RpcError(rpc.Code.UNAVAILABLE, f"not HTTP/2: {error}"))
            return
        self.flush()

    def flush(self) -> None:
        """Write what ``h2`` has to say."""
        data = self.h2.data_to_send()
        if not data or self.transport is None or self.closed:
            return
        self.transport.write(data)
        if self.transport.get_write_buffer_size() > UNSENT_MAX_BYTES:
            self.transport.abort()

    def write_data(self, number: int, data: bytes, place: int) -> int:
        """How many bytes of ``data`` from ``place`` on were sent; none: the window is shut."""
        sent = 0
        try:
            while place + sent < len(data) and sent < _BURST_BYTES:
                room = min(
                    self.h2.local_flow_control_window(number),
                    self.h2.max_outbound_frame_size,  # gRPC's own allow megabytes
                    _BURST_BYTES - sent,
                )
                if room <= 0:
                    break
                part = data[place + sent : place + sent + room]
                self.h2.send_data(number, part)
                sent += len(part)
        except h2.exceptions.ProtocolError as error:
            raise rpc.RpcError(rpc.Code.CANCELLED, f"the stream is closed: {error}") from None
        self.flush()
        return sent

    def acknowledge(self, number: int, flow_bytes: int) -> None:
        """Let the other side send as much again."""
        if flow_bytes and not self.closed:
            self.h2.acknowledge_received_data(flow_bytes, number)
            self.flush()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        why = f"connection lost: {exc}" if exc else "connection closed by the other side"
        self.close(rpc.RpcError(rpc.Code.UNAVAILABLE, why))

    def close(self, error: rpc.RpcError) -> None:
        """End the connection and every call on it."""
        if self.closed:
            return
        self.closed = True
        self.writable.set()
        for stream in tuple(self.streams.values()):
            stream.fail(error)
            self.stream_failed(stream)
        if self.transport is not None:
            self.transport.close()

    def stream_failed(self, stream: Stream) -> None:
        """The other side reset the stream, or the connection is gone."""

    def ping(self) -> None:
        """Ask for a sign of life."""
        self.heard = False
        try:
            self.h2.ping(b"isthmus!")
        except h2.exceptions.ProtocolError:
            return
        self.flush()

    def reset(self, number: int, code: h2.errors.ErrorCodes) -> None:
        """End a stream without more words, if it is open."""
        try:
            self.h2.reset_stream(number, code)
        except h2.exceptions.ProtocolError:
            return
        self.flush()

    def _data(self, event: h2.events.DataReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is None:
            self.acknowledge(event.stream_id, event.flow_controlled_length)
        else:
            stream.receive(event.data, event.flow_controlled_length)

    def _ended(self, event: h2.events.StreamEnded) -> None:
        if stream := self.streams.get(event.stream_id):
            stream.end()

    def _reset(self, event: h2.events.StreamReset) -> None:
        if stream := self.streams.get(event.stream_id):
            stream.fail(rpc.RpcError(rpc.Code.CANCELLED, "the other side reset the stream"))
            self.stream_failed(stream)

    def _window(self, event: h2.events.WindowUpdated) -> None:
        if event.stream_id:
            if stream := self.streams.get(event.stream_id):
                stream.window_open.set()
            return
        for stream in self.streams.values():
            stream.window_open.set()

    def _settings(self, _: h2.events.RemoteSettingsChanged) -> None:
        for stream in self.streams.values():
            stream.window_open.set()

    def _terminated(self, event: h2.events.ConnectionTerminated) -> None:
        reason = event.additional_data or b""
        said = reason.decode(errors="replace") or f"code {event.error_code}"
        self.close(rpc.RpcError(rpc.Code.UNAVAILABLE, f"the other side said goodbye: {said}"))

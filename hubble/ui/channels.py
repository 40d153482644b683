"""Streams over plain HTTP, as the front end of the UI polls them. Adapter.

Each ``POST`` carries a message and is answered by one. The first opens a channel, whose work runs
until it ends, the front end says goodbye, or it has not been heard of for a minute; each answer
takes one message from the channel's queue and says when to ask again.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from hubble.rpc import Code, RpcError
from reconcile.tasks import TaskGroup
from wire.hubble import customprotocol_pb2 as cp

log = logging.getLogger("isthmus.hubble.ui")

CHANNELS_MAX: Final = 512
QUEUE_MAX: Final = 64  # messages that wait for the front end; then the work waits
SILENT_S: Final = 60.0
SWEEP_S: Final = 1.0  # how late after that one may be closed
WAIT_S: Final = 0.5  # for a message, before the front end is told to come again
_DELAYS_MS: Final = (200, 5000)  # between two polls; longer and longer while nothing comes
_MORE_MS: Final = 10  # when something waits already

Send = Callable[[bytes], Awaitable[None]]
Work = Callable[[bytes, Send], Awaitable[None]]  # of the first message's content


class ProtocolError(Exception):
    """A message that is refused; with the status of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class _Channel:
    """One emulated stream."""

    route: str
    queue: "asyncio.Queue[bytes]" = field(default_factory=lambda: asyncio.Queue(QUEUE_MAX))
    error: RpcError | None = None
    is_over: bool = False  # its work has ended
    heard_s: float = field(default_factory=time.monotonic)
    delay_ms: int = _DELAYS_MS[0]
    task: "asyncio.Task[None] | None" = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def put(self, content: bytes) -> None:
        """For the front end, as fast as it takes them."""
        await self.queue.put(content)
        self.changed.set()

    async def next(self) -> bytes:
        """A message; none: no more will come."""
        while self.queue.empty() and not self.is_over:
            self.changed.clear()
            await self.changed.wait()
        return b"" if self.queue.empty() else self.queue.get_nowait()


class Channels:
    """The channels of all viewers. ``routes``: what each route does."""

    def __init__(self, routes: Mapping[str, Work], group: TaskGroup) -> None:
        self._routes, self._group = routes, group
        self._channels: dict[str, _Channel] = {}

    def __len__(self) -> int:
        return len(self._channels)

    async def answer(self, message: cp.Message) -> cp.Message:
        """The next message of a channel; ``ProtocolError``."""
        meta = message.meta
        if meta.route_name not in self._routes:
            raise ProtocolError(404, f"no route {meta.route_name!r}")
        number = meta.channel_id or secrets.token_hex(8)
        answer = cp.Message(body=cp.Body())
        answer.meta.channel_id, answer.meta.route_name = number, meta.route_name
        answer.meta.trace_id = meta.trace_id or secrets.token_hex(8)
        channel = self._channels.get(number)
        if meta.is_terminated:
            self._drop(number)
            answer.meta.is_terminated = answer.meta.is_empty = True
            return answer
        if channel is None:
            channel = self._open(number, meta.route_name, message.body.content)
        channel.heard_s = time.monotonic()
        await self._take(channel, answer)
        if answer.meta.is_terminated and answer.meta.is_empty:
            self._drop(number)
        return answer

    def _open(self, number: str, route: str, content: bytes) -> _Channel:
        if len(self._channels) >= CHANNELS_MAX:
            raise ProtocolError(503, f"{CHANNELS_MAX} streams are open; try again later")
        channel = self._channels[number] = _Channel(route)
        channel.task = self._group.create_task(self._work(channel, content))
        return channel

    async def _work(self, channel: _Channel, content: bytes) -> None:
        try:
            await self._routes[channel.route](content, channel.put)
        except RpcError as error:
            channel.error = error
        except Exception as error:  # the root of a stream: its bug must not end the others
            log.exception("stream failed: route=%s", channel.route)
            channel.error = RpcError(Code.INTERNAL, type(error).__name__)
        finally:
            channel.is_over = True
            channel.changed.set()

    async def _take(self, channel: _Channel, answer: cp.Message) -> None:
        meta, content = answer.meta, b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                content = await channel.next()
        answer.body.content = content
        meta.is_not_ready = not content
        meta.is_empty = channel.queue.empty()
        meta.is_terminated = channel.is_over and meta.is_empty
        if meta.is_terminated and channel.error is not None:
            meta.is_error = True
            kind, code = cp.Error.Kind.Grpc, channel.error.code.value
            meta.errors.add(kind=kind, code=code, message=channel.error.message)
        slower = min(2 * channel.delay_ms, _DELAYS_MS[1])
        channel.delay_ms = _DELAYS_MS[0] if content else slower
        meta.poll_delay_ms = channel.delay_ms if meta.is_empty else _MORE_MS

    def _drop(self, number: str) -> None:
        channel = self._channels.pop(number, None)
        if channel is not None and channel.task is not None:
            channel.task.cancel()

    def close(self) -> None:
        """End all of them."""
        for number in tuple(self._channels):
            self._drop(number)

    async def sweep(self) -> None:
        """Close channels that nobody polls any more, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now_s = time.monotonic()
            for number, channel in tuple(self._channels.items()):
                if now_s - channel.heard_s > SILENT_S:
                    self._drop(number)

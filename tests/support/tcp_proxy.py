"""A TCP forwarder that a test can cut, stall or slow down, and a server behind it that is away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from reconcile.tasks import TaskGroup


class TcpProxy:
    """Forwards 127.0.0.1:port to one address."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = True
        self._swallows = False
        self.delay_s = 0.0  # before each piece, at most 16 KiB of it
        self.port = 0
        self.accepted = 0

    def cut(self) -> None:
        """Break every connection that stands; new ones are let through."""
        for writer in list(self._writers):
            writer.transport.abort()

    def close_door(self) -> None:
        """Break every connection and refuse new ones."""
        self._open = False
        self.cut()

    def open_door(self) -> None:
        """Let new connections through again."""
        self._open = True

    def swallow(self, on: bool = True) -> None:
        """Take every byte and pass none on, as a link does that has lost its far end."""
        self._swallows = on
        if not on:
            self.cut()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator["TcpProxy"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.transport.abort()
            return
        self.accepted += 1
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        try:
            async with TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, far_writer))
                tasks.create_task(self._pump(far_reader, writer))
        finally:
            self._writers -= {writer, far_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 14):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if self._swallows:
                    continue
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()

"""The node's runtime as the kubelet uses it: the blocking client, made awaitable. Adapter.

When nobody answers, the runtime is started again: it finds the containers that run.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

from kind.runtime.client import Client, RuntimeGone, ensure
from kind.runtime.records import Launch, Record

T = TypeVar("T")
RETRY_S = 0.1


class Link:
    """Requests to the runtime of one node."""

    def __init__(self, node_directory: str) -> None:
        self._directory = node_directory
        self.client = Client(node_directory)

    async def _call(self, action: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(action)
        except RuntimeGone:
            await asyncio.to_thread(ensure, self._directory)
            return await asyncio.to_thread(action)

    async def run(self, launch: Launch) -> Record:
        """Start a process."""
        return await self._call(lambda: self.client.run(launch))

    async def signal(self, name: str, number: int) -> None:
        """Send a signal to a container."""
        await self._call(lambda: self.client.signal(name, number))

    async def kill(self, name: str) -> None:
        """End a container with all its processes."""
        await self._call(lambda: self.client.kill(name))

    async def remove(self, name: str) -> None:
        """Forget a container that ended."""
        await self._call(lambda: self.client.remove(name))

    async def list(self) -> list[Record]:
        """All containers of the node."""
        return await self._call(self.client.list)

    async def execute(
        self, launch: Launch, inside: str, fds: Sequence[int], terminal: bool = False
    ) -> "Running":
        """Run a command inside a container."""
        execution = await self._call(lambda: self.client.execute(launch, inside, fds, terminal))
        return Running(*execution.detach())

    async def watch(self) -> AsyncIterator[str | None]:
        """Ids of containers as they end; ``None`` whenever some may have been missed."""
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(self.client.path)
            except OSError:
                await asyncio.to_thread(ensure, self._directory)
                continue
            try:
                writer.write(b'{"op": "watch"}\n')
                await reader.readline()
                yield None
                while line := await reader.readline():
                    yield str(json.loads(line)["exited"])
            except OSError:
                pass
            finally:
                writer.close()
            await asyncio.sleep(RETRY_S)


class Running:
    """A command in a container; closing it kills the command."""

    def __init__(self, sock: Any, buffer: bytearray) -> None:
        self._sock = sock
        self._sock.setblocking(False)
        self._buffer = buffer

    async def wait(self) -> int:
        """The exit code; 137 when the runtime went away with it."""
        loop = asyncio.get_running_loop()
        while b"\n" not in self._buffer:
            data = await loop.sock_recv(self._sock, 4096)
            if not data:
                return 137
            self._buffer += data
        return int(json.loads(self._buffer.partition(b"\n")[0])["exit"])

    def close(self) -> None:
        """Stop waiting."""
        self._sock.close()

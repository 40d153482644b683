"""The way from 127.0.0.1 of the root namespace to an API server inside one. Adapter.

    python -I -S kind/lab/forward.py LISTEN_PORT NETNS_PATH ADDRESS PORT

A socket stays in the namespace in which it was made: this process listens in the root namespace,
then enters the node's, and connects from there. So no route or address of the lab is needed
outside.
"""

import asyncio
import contextlib
import sys
from pathlib import Path

BUFFER_BYTES = 64 * 1024
CONNECT_TIMEOUT_S = 5.0


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(BUFFER_BYTES):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.close()


async def serve(listen_port: int, netns: str, address: str, port: int) -> None:
    """Forward until killed."""
    from kind.runtime import namespaces

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                far_reader, far_writer = await asyncio.open_connection(address, port)
        except (OSError, TimeoutError):
            writer.close()
            return
        async with asyncio.TaskGroup() as tasks:  # noqa: TID251 - runs without our packages
            tasks.create_task(_copy(reader, far_writer))
            tasks.create_task(_copy(far_reader, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", listen_port)
    namespaces.enter(netns, namespaces.CLONE_NEWNET)
    await server.serve_forever()


def main() -> None:
    """Start with four arguments."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    listen_port, netns, address, port = sys.argv[1:5]
    asyncio.run(serve(int(listen_port), netns, address, int(port)))


if __name__ == "__main__":
    main()

"""One connection to a port of a pod, through the API server, over a WebSocket. Adapter.

Every message begins with one byte, its channel: 0 is data, 1 what went wrong. The first message of
each channel has the port alone. There is no half-closing: either side's end is the end.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp

from reconcile.tasks import TaskGroup

PROTOCOL = "v4.channel.k8s.io"
DATA, ERROR = 0, 1
_CHUNK_BYTES = 64 << 10
_PORT_BYTES = 2


def path(namespace: str, pod: str, port: int) -> str:
    """The request's path with its query."""
    return f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward?ports={port}"


async def carry(
    session: aiohttp.ClientSession,
    url: str,
    options: Mapping[str, Any],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> str:
    """Until either side ends; what went wrong, empty when nothing did."""
    async with session.ws_connect(
        url, protocols=(PROTOCOL,), max_msg_size=0, **options
    ) as socket, TaskGroup() as group:  # fmt: skip
        sending = group.create_task(_send(reader, socket))
        error = await _receive(socket, writer)
        sending.cancel()
    return error


async def _send(reader: asyncio.StreamReader, socket: aiohttp.ClientWebSocketResponse) -> None:
    try:
        while data := await reader.read(_CHUNK_BYTES):
            await socket.send_bytes(bytes((DATA,)) + data)
    except ConnectionError:
        pass
    await socket.close()


async def _receive(socket: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> str:
    begun: set[int] = set()
    async for message in socket:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel not in begun:
            begun.add(channel)
            data = data[_PORT_BYTES:]
        if channel == ERROR and data:
            return bytes(data).decode(errors="replace").strip()
        if channel == DATA and data:
            writer.write(data)
            try:
                await writer.drain()
            except ConnectionError:
                return ""
    return ""

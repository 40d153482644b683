"""Traffic with the canary from this process, by sockets that belong to other network namespaces: no
interpreter for each client and server, and a count at any moment.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from datapath import namespaces
from tests.support.sniffer import CANARY

BLOCK = CANARY + b"." * 577
LARGE = BLOCK * 40
IP_UDP_BYTES = 28  # of headers
REPLY_S = 60.0  # a machine that is emulated takes its time; a lost packet is sent again meanwhile
RESTS, REST_S = 4, 0.3  # so many times as long as a request took; never longer than this
DATAGRAM_S = 5.0  # later than this it is lost; a busy machine takes a second now and then


@dataclass(frozen=True)
class Place:
    """Where traffic begins or ends: a namespace's file, and its address."""

    path: str
    address: str

    def socket(self, kind: int, bind_port: int | None = None) -> socket.socket:
        def make() -> socket.socket:
            made = socket.socket(socket.AF_INET, kind)
            if bind_port is not None:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.bind((self.address, bind_port))
            if kind == socket.SOCK_STREAM and bind_port is not None:
                made.listen(64)
            made.setblocking(False)
            return made

        return namespaces.run_inside(self.path, make)


@asynccontextmanager
async def serving(place: Place, port: int) -> AsyncIterator[None]:
    """TCP and UDP on one port; says back what it hears."""
    loop = asyncio.get_running_loop()
    writers: set[asyncio.StreamWriter] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()

    server = await asyncio.start_server(answer, sock=place.socket(socket.SOCK_STREAM, port))
    datagrams = place.socket(socket.SOCK_DGRAM, port)

    def reply() -> None:
        with contextlib.suppress(OSError):
            data, sender = datagrams.recvfrom(1 << 16)
            datagrams.sendto(data, sender)

    loop.add_reader(datagrams, reply)
    try:
        yield
    finally:
        loop.remove_reader(datagrams)
        datagrams.close()
        server.close()
        for writer in writers:
            writer.transport.abort()


@dataclass
class Flow:
    """One connection, or one pair of UDP ports, over which requests go one after another."""

    source: Place
    address: str
    port: int
    kind: int = socket.SOCK_STREAM
    pause_s: float = 0.03
    rounds: int = 0
    lost: int = 0
    error: str = ""

    async def run(self) -> None:
        """Until cancelled, or until it breaks."""
        loop = asyncio.get_running_loop()
        try:
            with self.source.socket(self.kind) as client:
                async with asyncio.timeout(REPLY_S):
                    await loop.sock_connect(client, (self.address, self.port))
                while True:
                    begun_s = loop.time()
                    await self._round(loop, client)
                    # Where all is slow, as in an emulated machine, whom it watches must get on.
                    rest_s = min(RESTS * (loop.time() - begun_s), REST_S)
                    await asyncio.sleep(max(self.pause_s, rest_s))
        except (OSError, TimeoutError) as error:
            self.error = repr(error)

    async def _round(self, loop: asyncio.AbstractEventLoop, client: socket.socket) -> None:
        if self.kind == socket.SOCK_DGRAM:
            with contextlib.suppress(OSError):  # what an ICMP error says is a loss
                await loop.sock_sendall(client, BLOCK)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(DATAGRAM_S):
                        await loop.sock_recv(client, 1 << 16)
                        self.rounds += 1
                        return
            self.lost += 1
            return
        body = LARGE if self.rounds % 10 == 0 else BLOCK
        async with asyncio.timeout(REPLY_S):
            await loop.sock_sendall(client, body)
            left = len(body)
            while left:
                data = await loop.sock_recv(client, left)
                if not data:
                    raise ConnectionResetError("the server has ended the connection")
                left -= len(data)
        self.rounds += 1


def say_once(source: Place, address: str, port: int = 9) -> int:
    """One datagram with the canary, to somebody who does not answer. Returns the packet's size."""
    payload = CANARY + os.urandom(8)
    with source.socket(socket.SOCK_DGRAM) as client:
        client.sendto(payload, (address, port))
    return IP_UDP_BYTES + len(payload)

"""``python -m kind.dns``: serves the cluster's names on UDP and TCP. Adapter and composition.

It learns them from its API server as any pod does: service account token, watched Services and
EndpointSlices.
"""

import argparse
import asyncio
import logging
import os
import signal
import socket
import struct
from pathlib import Path
from typing import Any

from kind.dns import answer, multicluster, zone
from kind.kubelet.api import Api, key_of
from reconcile.tasks import TaskGroup

log = logging.getLogger("kind.dns")

Json = dict[str, Any]

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TCP_IDLE_S = 10.0
MAX_TCP_CLIENTS = 100  # each holds a file; a client that opens more waits


class Names:
    """The zone, made anew when a question comes after a change."""

    def __init__(self, domain: str) -> None:
        self._domain = domain
        self._objects: dict[str, dict[str, Json]] = {
            "services": {},
            "endpointslices": {},
            "serviceimports": {},
        }
        self._synced: set[str] = set()
        self._zone: zone.Zone | None = None

    @property
    def ready(self) -> bool:
        """True when everything has been listed once that every cluster has."""
        return self._synced >= {"services", "endpointslices"}

    def apply(self, kind: str, change: str, item: Json) -> None:
        """Take one change of a watch."""
        table = self._objects[kind]
        if change == "SYNCED":
            for key in set(table) - item["keys"]:
                del table[key]
            self._synced.add(kind)
        elif change == "DELETED":
            table.pop(key_of(item), None)
        else:
            table[key_of(item)] = item
        self._zone = None

    def zone(self) -> zone.Zone:
        """All names as of now."""
        if self._zone is None:
            services, slices = self._objects["services"], self._objects["endpointslices"]
            set_domain = multicluster.DOMAIN
            made = zone.build(self._domain, services.values(), slices.values(), set_domain)
            imports = self._objects["serviceimports"]
            multicluster.add(made, imports.values(), slices.values())
            self._zone = made
        return self._zone


class Udp(asyncio.DatagramProtocol):
    """Answers each datagram at once."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        # Before everything is listed "no such name" would be a lie: silence makes clients repeat.
        if not self._names.ready or self._transport is None:
            return
        reply = answer.answer(data, self._names.zone(), over_tcp=False)
        if reply is not None:
            self._transport.sendto(reply, address)


async def _tcp_client(
    names: Names, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        while True:
            async with asyncio.timeout(TCP_IDLE_S):
                (size,) = struct.unpack("!H", await reader.readexactly(2))
                query = await reader.readexactly(size)
            reply = answer.answer(query, names.zone(), over_tcp=True)
            if reply is None or not names.ready:
                return
            writer.write(struct.pack("!H", len(reply)) + reply)
            await writer.drain()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return
    finally:
        writer.close()


async def _health_client(
    names: Names, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        async with asyncio.timeout(TCP_IDLE_S):
            words = (await reader.readline()).split()
        good = names.ready or b"/health" in words
        status = "200 OK" if good else "503 Service Unavailable"
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        await writer.drain()
    except (OSError, TimeoutError):
        return
    finally:
        writer.close()


async def serve(names: Names, api: Api, port: int, health_port: int) -> None:
    """Serve until cancelled."""
    loop = asyncio.get_running_loop()
    slots = asyncio.Semaphore(MAX_TCP_CLIENTS)

    async def tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with slots:
            await _tcp_client(names, reader, writer)

    async def health(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _health_client(names, reader, writer)

    async def follow(kind: str, path: str) -> None:
        async for change in api.follow(path):
            names.apply(kind, change.kind, change.object)

    # One socket for both families; the answer leaves from the address that was asked.
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", port))
    await loop.create_datagram_endpoint(lambda: Udp(names), sock=sock)
    async with (
        await asyncio.start_server(tcp, ["0.0.0.0", "::"], port),
        await asyncio.start_server(health, ["0.0.0.0", "::"], health_port),
        TaskGroup() as tasks,
    ):
        tasks.create_task(follow("services", "/api/v1/services"))
        slices = "/apis/discovery.k8s.io/v1/endpointslices"
        tasks.create_task(follow("endpointslices", slices))
        # A cluster without this kind has no such names; it may get them at any time.
        imports = "/apis/multicluster.x-k8s.io/v1alpha1/serviceimports"
        tasks.create_task(follow("serviceimports", imports))


async def run(port: int, health_port: int, domain: str) -> None:
    """Build and serve until SIGTERM."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    host, api_port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    token = (ACCOUNT / "token").read_text().strip()
    async with Api(f"https://{host}:{api_port}", ACCOUNT / "ca.crt", token) as api:
        await serve(Names(domain), api, port, health_port)


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser(prog="python -m kind.dns", description=__doc__)
    parser.add_argument("--port", type=int, default=53)
    parser.add_argument("--health-port", type=int, default=8181)
    parser.add_argument("--domain", default="cluster.local")
    wanted = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(run(wanted.port, wanted.health_port, wanted.domain))
    except asyncio.CancelledError:
        log.info("event=stopped")


if __name__ == "__main__":
    main()

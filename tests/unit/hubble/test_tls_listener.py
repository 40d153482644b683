"""A listener whose certificates come late, change, and are told to be bad."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from certs.issue import KeyPair, create_ca, issue
from certs.profiles import HUBBLE_SERVER_SECRET, RELAY_CLIENT_SECRET, hubble_profiles
from hubble.peers import tls_server_name
from hubble.rpc import RpcError
from hubble.rpc_client import Channel, ClientTls, connect
from hubble.rpc_server import Call, Server
from hubble.tls_listener import Listener, ServerFiles
from reconcile.tasks import TaskGroup
from tests.support.agent import until

NOW = datetime.now(UTC)
NODE = tls_server_name("west", "ip-10-0-0-1.ec2.internal")


class World:
    """Two clusters of different authorities; files of a node and of a relay."""

    def __init__(self, path: Path) -> None:
        self.path, self.stamp = path, 1
        self.west, self.east = create_ca(NOW), create_ca(NOW)
        self.files = ServerFiles(path / "server.crt", path / "server.key", self.authorities)
        for who, ca in (("west", self.west), ("east", self.east)):
            pair = issue(ca, hubble_profiles(who)[RELAY_CLIENT_SECRET], NOW)
            self.write(f"{who}.crt", pair.certificate)
            self.write(f"{who}.key", pair.key)
            self.write(f"{who}-ca.crt", ca.certificate)

    @property
    def authorities(self) -> tuple[Path, ...]:
        return self.path / "client-ca.crt", self.path / "mesh-ca.crt"

    def write(self, name: str, content: bytes) -> None:
        (self.path / name).write_bytes(content)

    def serve(self, ca: KeyPair) -> None:
        pair = issue(ca, hubble_profiles("west")[HUBBLE_SERVER_SECRET], NOW)
        self.write("server.key", pair.key)
        self.write("server.crt", pair.certificate)

    def client(self, who: str, believes: str = "west") -> ClientTls:
        return ClientTls(
            (self.path / f"{believes}-ca.crt",),
            self.path / f"{who}.crt",
            self.path / f"{who}.key",
            server_name=NODE,
        )


async def _echo(call: Call) -> None:
    await call.send(await call.request())


async def asked(channel: Channel) -> bytes:
    return await channel.unary("/t/Echo", b"x", 5)


async def works(target: str, tls: ClientTls) -> bool:
    try:
        channel = await connect(target, tls, 5)
        try:
            return await asked(channel) == b"x"
        finally:
            channel.close()
    except RpcError:
        return False


def eventually(target: str, tls: ClientTls, result: bool) -> Callable[[], object]:
    async def look() -> bool:
        return await works(target, tls) == result

    return look


async def test_certificates_come_late_and_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path)
    async with Server({"/t/Echo": _echo}) as server, TaskGroup() as tasks:
        listener = Listener(server.listen_tcp, "127.0.0.1", 0, world.files)
        task = tasks.create_task(listener.run())
        await until(lambda: "nobody is served" in caplog.text, "the warning")
        world.serve(world.west)
        world.write("client-ca.crt", world.west.certificate)
        await until(lambda: listener.port, "the port")
        target = f"127.0.0.1:{listener.port}"
        await until(eventually(target, world.client("west"), True), "our relay")
        kept = await connect(target, world.client("west"), 5)
        assert not await works(target, world.client("east"))

        world.write("mesh-ca.crt", world.east.certificate)  # the clusters were connected
        await until(eventually(target, world.client("east"), True), "their relay")
        world.serve(world.east)  # another authority signs
        await until(eventually(target, world.client("west", "east"), True), "the new one")
        assert not await works(target, world.client("west", "west"))

        world.write("server.crt", b"no PEM")
        await until(lambda: "those before are kept" in caplog.text, "the warning")
        assert await works(target, world.client("west", "east"))
        (tmp_path / "mesh-ca.crt").unlink()
        world.serve(world.west)  # the clusters were disconnected
        await until(eventually(target, world.client("west"), True), "ours again")
        assert not await works(target, world.client("east"))
        assert await asked(kept) == b"x"  # all the time
        kept.close()
        task.cancel()


async def test_who_connects_while_certificates_change_is_not_turned_away(tmp_path: Path) -> None:
    """And meets the new ones."""
    world = World(tmp_path)
    world.serve(world.west)
    world.write("client-ca.crt", world.west.certificate)
    async with Server({"/t/Echo": _echo}) as server:
        listener = Listener(server.listen_tcp, "127.0.0.1", 0, world.files)
        await listener.look()
        waiting = socket.create_connection(("127.0.0.1", listener.port))
        world.serve(world.east)
        os.utime(world.files.certificate, (1, 1))  # as if some time had passed
        await listener.look()
        context = ssl.create_default_context(cafile=str(tmp_path / "east-ca.crt"))
        context.load_cert_chain(tmp_path / "west.crt", tmp_path / "west.key")
        _, writer = await asyncio.open_connection(sock=waiting, ssl=context, server_hostname=NODE)
        writer.transport.abort()
        listener.close()

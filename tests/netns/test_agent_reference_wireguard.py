"""A real agent and a node of another cluster that encrypts as the reference does: a record with a
key and no word of rotations, and a WireGuard device that shakes hands.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from datapath.kernel_thread import KernelThread
from encryption import wireguard_keys
from encryption.peers import Peer, PublicKey
from encryption.wireguard import PeerTable
from kvstore.config import StoreConfig
from model.address import parse_address, parse_prefix
from model.kernel_numbers import WIREGUARD_PORT
from tests.support import wireguard
from tests.support.agent import NODE_IP, POD_CIDR, Forwarder, agent_node, until
from tests.support.etcd import plain_etcd, when_up
from tests.support.forked_agent import ForkedNode
from tests.support.nodes import enter, new_namespace, sh
from tests.support.reference_writer import ReferenceWriter
from tests.support.wireguard import Encrypted

pytestmark = pytest.mark.root

PATIENCE_S = 60.0
THEIRS, SILENT = "172.31.9.101", "172.31.9.102"
CIDRS = "10.213.1.0/24", "10.213.8.0/24", "fd00:9::/64"
# Its addresses, the one of its router (behind it, and in none of its pod CIDRs), and its pods.
ALLOWED = {f"{THEIRS}/32", "10.199.9.101/32", *CIDRS}


@dataclass
class World:
    """Our node with its agent, and theirs: a store's records and a device."""

    node: ForkedNode
    writer: ReferenceWriter
    device: Encrypted

    async def status(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.node.get("encryption")
        return found

    async def our_key(self) -> PublicKey:
        return PublicKey((await self.status())["wireguard"]["interfaces"][0]["public-key"])

    async def they_learn(self, ours: PublicKey) -> None:
        """Their node takes our announced key in place of the one it had."""
        table = PeerTable(self.device.device, self.device.thread.call, keepalive_s=1)
        known = await table.read()
        prefixes = frozenset(map(parse_prefix, (f"{NODE_IP}/32", POD_CIDR)))
        row = Peer(parse_address(NODE_IP), WIREGUARD_PORT, prefixes)
        assert await table.upsert([(ours, row)]) == {}
        assert await table.delete(known.keys() - {ours}) == {}

    async def peers(self) -> dict[str, tuple[str, str, set[str]]]:
        """Of the main device, by key."""
        interface = (await self.status())["wireguard"]["interfaces"][0]
        return {
            p["public-key"]: (p["node"], p["endpoint"], set(p["allowed-ips"]))
            for p in interface["peers"]
        }

    async def shaken(self, ours: PublicKey) -> None:
        """Both have shaken hands under our key."""

        async def claim() -> bool:
            state = await self.device.thread.call(self.device.device.read)
            (seen,) = (await self.status())["wireguard"]["interfaces"][0]["peers"]
            return bool(state.peers[ours].handshake_s and seen["last-handshake-time"])

        await until(claim, "hands are shaken", PATIENCE_S)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(agent_node(tmp_path, made_by=ForkedNode))
        space = new_namespace("theirs")
        sh(f"ip -n {node.namespace} link set wire0 netns {space}")
        sh(f"ip -n {space} addr add {THEIRS}/24 dev wire0")
        sh(f"ip -n {space} link set wire0 up")
        stack.callback(node.keep().end)
        stack.enter_context(wireguard.keeper(space, tmp_path / "theirs"))
        thread = KernelThread("theirs")
        stack.callback(thread.close)
        enter(thread, space)
        device = await wireguard.start(thread, tmp_path / "theirs")
        etcd = stack.enter_context(plain_etcd())
        store = await when_up(StoreConfig((etcd.url,)))
        stack.push_async_callback(store.close)
        forwarder = await Forwarder(node.namespace, etcd.port).start()
        stack.push_async_callback(forwarder.stop)
        (node.mesh / "beta").write_text(f"endpoints:\n- http://127.0.0.1:{forwarder.port}\n")
        node.flags = {"enable-wireguard": "true"}
        yield World(node, ReferenceWriter(store), device)


async def test_their_node_is_a_peer_that_no_rotation_waits_for(world: World) -> None:
    """By its key, address and pods; a live one that knows no rotations holds none up, and goes on
    when it has the promoted key; a key of its own that is another replaces it.
    """
    node, writer = world.node, world.writer
    theirs = world.device.key.public()
    await writer.begin()
    await writer.node("w1", THEIRS, *CIDRS, wireguard_key=theirs)
    await writer.node("w2", SILENT, "10.213.2.0/24")
    await writer.identity(300, app="a")
    number = writer.style.identity(300)
    await writer.ip("10.213.1.7", THEIRS, number, Key=255)  # inside of a CIDR that says it
    await writer.canary("nodes", "identities", "ip", "services")
    node.start()
    await node.ready()
    wanted = {theirs: ("beta/w1", f"{THEIRS}:{WIREGUARD_PORT}", ALLOWED)}

    async def is_peer() -> bool:
        return await world.peers() == wanted

    await until(is_peer, f"the peers are {wanted}", PATIENCE_S)
    old = await world.our_key()
    await world.they_learn(old)
    await world.shaken(old)

    assert await node.change("encryption/rotate") == {"number": 1}

    async def over() -> bool:
        status = await world.status()
        rotation = status["rotation"]
        assert rotation["waiting-for"] == []
        done = (rotation["number"], rotation["phase"]) == (1, "steady")
        return done and len(status["wireguard"]["interfaces"]) == 1

    await until(over, "the rotation is over", PATIENCE_S)
    fresh = await world.our_key()
    assert fresh != old
    assert await world.peers() == wanted
    assert (await world.status())["problems"] == []
    await world.they_learn(fresh)
    await world.shaken(fresh)

    another = wireguard_keys.generate().public()
    await writer.node("w1", THEIRS, *CIDRS, wireguard_key=another)
    wanted = {another: wanted[theirs]}
    await until(is_peer, f"the peers are {wanted}", PATIENCE_S)

"""Two nodes with real programs and a real WireGuard: what is on the wire between them, in both
routing modes.
"""

from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from datapath.runtime import Encryption
from encryption import wireguard_keys as keys
from encryption.device import MARK, OVERHEAD_BYTES
from encryption.peers import Peer
from encryption.wireguard import PeerTable
from model.address import host_prefix, parse_prefix
from model.identity import NumericIdentity
from model.ipcache import IpcacheEntry
from tests.support import wireguard
from tests.support.nodes import Node, Pod, Stage, two_nodes
from tests.support.sniffer import Sniffer, sniffing
from tests.support.wireguard import Encrypted
from wire.bpf.layouts import DropReason, TrafficDirection

pytestmark = pytest.mark.root

PODS = ["10.201.0.0/16"]
ALL_FRAMES = "under0"


@dataclass
class World:
    stage: Stage
    devices: list[Encrypted]
    client: Pod
    far: Pod
    native: bool

    async def introduce(self) -> None:
        """Each node becomes the other's peer."""
        for mine, other, node in zip(
            self.devices, self.devices[::-1], self.stage.nodes[::-1], strict=True
        ):
            prefixes = {host_prefix(node.config.node_ip), *node.config.pod_cidrs}
            row = Peer(node.config.node_ip, 51871, frozenset(prefixes))
            table = PeerTable(mine.device, mine.thread.call)
            assert await table.upsert([(other.key.public(), row)]) == {}

    async def encrypt(self, **changes: bool) -> None:
        for node, made in zip(self.stage.nodes, self.devices, strict=True):
            for prefix, row in (await node.datapath.ipcache.read()).items():
                if row.tunnel_endpoint is not None:
                    row = msgspec.structs.replace(row, encrypt_key=255)
                    assert await node.datapath.ipcache.upsert([(prefix, row)]) == {}
            names = (made.device.name,)
            encryption = Encryption(made.ifindex, OVERHEAD_BYTES, names, **changes)
            await node.reopen(encryption=encryption)

    def traffic(self) -> None:
        """TCP, UDP and ICMP, of both sizes."""
        answer = self.client.run("tcp", self.far.address, 8080, 3, 30_000)
        assert answer["names"] == {"far": 3}, answer
        answer = self.client.run("udp", self.far.address, 8081, 3, 1000)
        assert answer["names"] == {"far": 3}, answer
        assert self.client.run("ping", self.far.address, 2)["answered"] == 2


@pytest.fixture(params=["tunnel", "native"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    native = request.param == "native"
    with ExitStack() as stack:
        async with two_nodes(native=native) as stage:
            devices = []
            for node in stage.nodes:
                directory = tmp_path / node.name
                stack.enter_context(wireguard.keeper(node.namespace, directory))
                devices.append(await wireguard.start(node.thread, directory))
            one, two = stage.nodes
            client, far = await one.add_pod("client", 70001), await two.add_pod("far", 70003)
            far.serve()
            far.serve("udp", 8081)
            yield World(stage, devices, client, far, native)


def _by_the_stack(node: Node) -> str:
    """How many packets a node's stack has sent to its pods."""
    return node.sh("cat /sys/class/net/ist_host/statistics/tx_packets")


def _by_the_tunnel(node: Node) -> str:
    """How many packets have come to a node by the tunnel's device, if it has one."""
    return node.sh("cat /sys/class/net/ist_vxlan/statistics/rx_packets 2>/dev/null || echo none")


async def test_pods_speak_in_cipher(world: World) -> None:
    """Without encryption the sniffer sees everything; with it nothing, and nothing is dropped."""
    sniffer = Sniffer(world.stage.nodes[0].namespace, PODS, ALL_FRAMES)
    world.traffic()
    seen = sniffer.stop()
    assert seen.missed == 0
    assert seen.wireguard == 0
    for word in ("canary", "pod address" if world.native else "tunnel"):
        assert any(word in leak for leak in seen.leaks), (word, seen.leaks)

    await world.introduce()
    await world.encrypt()
    before = [_by_the_stack(node) for node in world.stage.nodes]
    with sniffing(world.stage.nodes[0].namespace, PODS, ALL_FRAMES) as sightings:
        world.traffic()
    assert sightings.bytes > 4 * 30_000
    assert [_by_the_stack(node) for node in world.stage.nodes] == before
    before = [_by_the_tunnel(node) for node in world.stage.nodes]
    assert world.client.run("ping", world.far.address, 2)["answered"] == 2
    # Straight to the pod: nothing joins these into what goes the long way.
    assert [_by_the_tunnel(node) for node in world.stage.nodes] == before
    too_big = (DropReason.DROP_FRAGMENTATION_NEEDED, TrafficDirection.DIRECTION_EGRESS)
    for node in world.stage.nodes:
        # Pods that were there before learn of the smaller packets from ICMP.
        assert (await node.drops()).keys() <= {too_big}
        assert node.datapath.route_mtu == 1500 - (0 if world.native else 50) - 80
    state = await world.devices[0].thread.call(world.devices[0].device.read)
    (peer,) = state.peers.values()
    assert peer.handshake_s > 0
    assert peer.sent_bytes > 90_000


async def test_a_stream_is_joined_before_it_goes_through_the_stack(world: World) -> None:
    """Also inside the tunnel. Without that, the receiver gets each segment that was sent alone."""
    await world.introduce()
    await world.encrypt()
    world.traffic()  # pods learn of the smaller packets
    sent, came = _segments(world.client)["OutSegs"], _segments(world.far)["InSegs"]
    answer = world.client.run("tcp", world.far.address, 8080, 1, 500_000)
    assert answer["names"] == {"far": 1}, answer
    sent = _segments(world.client)["OutSegs"] - sent
    came = _segments(world.far)["InSegs"] - came
    assert sent > 500_000 / 1460
    assert came < 0.75 * sent


def _segments(pod: Pod) -> dict[str, int]:
    lines = [line for line in pod.sh("cat /proc/net/snmp").splitlines() if line.startswith("Tcp:")]
    names, values = (line.split()[1:] for line in lines)
    return dict(zip(names, map(int, values), strict=True))


async def test_no_peer_no_packet(world: World) -> None:
    """What cannot be encrypted does not go in clear text either; it flows once there is a peer."""
    await world.encrypt()
    sniffer = Sniffer(world.stage.nodes[0].namespace, PODS, ALL_FRAMES)
    assert world.client.try_("ping", world.far.address, 1)["answered"] == 0
    assert sniffer.stop().leaks == []
    await world.introduce()
    with sniffing(world.stage.nodes[0].namespace, PODS, ALL_FRAMES):
        world.traffic()


async def test_own_key_changes_under_traffic(world: World) -> None:
    """What a peer sends under an earlier key of ours is still understood."""
    await world.introduce()
    await world.encrypt()
    steady = world.far.start("steady-udp", world.client.address, 9, 0.01)
    steady.kill()
    world.traffic()
    mine = world.devices[1]
    counter = (await mine.thread.call(mine.device.read)).peers
    await mine.thread.call(mine.device.configure, keys.generate(), 51871, MARK)
    for _ in range(3):
        world.client.try_("udp", world.far.address, 8081, 1, 900)
    after = (await mine.thread.call(mine.device.read)).peers
    for name, peer in after.items():
        assert peer.received_bytes >= counter[name].received_bytes + 3 * 900


async def test_strict_mode(world: World) -> None:
    """An address that the mesh owns and that no tunnel leads to: nothing of it on the wire."""
    await world.introduce()
    await world.encrypt(strict=True)
    one, two = world.stage.nodes
    assert await one.datapath.strict.upsert([(parse_prefix(PODS[0]), True)]) == {}
    assert await one.datapath.strict.read() == {parse_prefix(PODS[0]): True}
    one.sh("ip route add default via 172.31.0.2 dev under0")
    world.traffic()
    # The row of the far pod goes, and its node's prefix was never told: the stack would route it.
    assert await one.datapath.ipcache.delete([host_prefix(world.far.address)]) == {}
    assert await one.datapath.routes.delete(list(two.config.pod_cidrs)) == {}
    with sniffing(one.namespace, PODS, ALL_FRAMES) as sightings:
        assert world.client.try_("ping", world.far.address, 2)["answered"] == 0
        one.sh("ping -c 1 -W 10 172.31.0.2")
        row = IpcacheEntry(NumericIdentity(70003), two.config.node_ip, 255)
        assert await one.datapath.ipcache.upsert([(host_prefix(world.far.address), row)]) == {}
        world.traffic()
    key = (DropReason.DROP_UNENCRYPTED, TrafficDirection.DIRECTION_EGRESS)
    assert (await one.drops())[key] == 2
    assert sightings.leaked_bytes == 0


async def test_encryption_is_taken_off(world: World) -> None:
    """The program leaves the device, and packets go on in clear text."""
    await world.introduce()
    await world.encrypt()
    world.traffic()
    for node in world.stage.nodes:
        await node.reopen(encryption=None)
        assert node.datapath.route_mtu == (1500 if world.native else 1450)
    world.traffic()

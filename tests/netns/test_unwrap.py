"""What WireGuard's device hands over of our tunnel: straight to the pod, or the long way through
the tunnel's device. Both ways judge alike.

The device is a plain TUN here: whatever the test writes into it, a peer might have encrypted.
"""

import fcntl
import os
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from scapy.layers.inet import IP, UDP, IPOption_NOP, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from datapath.kernel_thread import KernelThread
from datapath.runtime import Encryption
from encryption.device import OVERHEAD_BYTES
from model.address import host_prefix, parse_address
from model.endpoint import EndpointId, LocalEndpoint
from model.identity import NumericIdentity
from model.ipcache import IpcacheEntry
from model.kernel_numbers import VXLAN_PORT
from tests.support.nodes import Node, Pod, enter, two_nodes
from wire.bpf.layouts import DropReason as R

pytestmark = [pytest.mark.root, pytest.mark.asyncio(loop_scope="module")]

TUN = "ist_t_tun"
TUNSETIFF, IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x400454CA, 0x0001, 0x1000, 0x4000
NEEDS_CSUM, GSO_UDP_L4 = 1, 5  # of virtio_net_hdr
PORT = 5300
FAR = "10.201.2.9"  # a pod of the other node
FAR6, NEAR6 = "fd00:201:2::9", "fd00:201:1::2"
FAR_IDENTITY = 70009
NODE, OTHER_NODE = "172.31.0.1", "172.31.0.2"
FAR_MAC, NEAR_MAC = "02:00:00:00:00:09", "02:00:00:00:00:02"


@contextmanager
def _tun(thread: KernelThread) -> Iterator[int]:
    """A TUN device in the thread's namespace, whose frames begin with a virtio_net_hdr."""

    def work() -> int:
        made = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR
        fcntl.ioctl(made, TUNSETIFF, struct.pack("=16sH22x", TUN.encode(), flags))
        return made

    made = thread.submit(work).result(timeout=30)
    try:
        yield made
    finally:
        os.close(made)


@dataclass
class World:
    """A node with a pod, and the device by which everything comes."""

    node: Node
    pod: Pod
    tun: int
    ears: dict[int, socket.socket]  # the pod's, by IP version
    node_ear: socket.socket
    before: Counter[int] = field(default_factory=Counter)

    def send(self, packet: Packet | bytes, *, segment: int = 0) -> None:
        """As the device does. ``segment``: UDP payloads of this size have been joined."""
        header = bytes(10)
        if segment:
            header = struct.pack("=BBHHHH", NEEDS_CSUM, GSO_UDP_L4, 28, segment, 20, 6)
        os.write(self.tun, header + bytes(packet))

    def heard(self, wanted: int, version: int = 4) -> list[bytes]:
        """Payloads that have reached the pod since last time; so many are waited for."""
        return _heard(self.ears[version], wanted)

    def long_way(self) -> int:
        """Packets that the tunnel's device has received so far."""
        return int(self.node.sh("cat /sys/class/net/ist_vxlan/statistics/rx_packets"))

    async def reopen(self, **changes: object) -> None:
        await self.node.reopen(encryption=Encryption(0, OVERHEAD_BYTES, (TUN,)), **changes)

    async def forget(self) -> None:
        """What was dropped, and flows, of earlier cases."""
        await self.node.datapath.conntrack.flush_address(parse_address(FAR))
        self.before = await self._drops()

    async def reasons(self) -> dict[int, int]:
        """Drops since ``forget``, by reason."""
        return dict(await self._drops() - self.before)

    async def _drops(self) -> Counter[int]:
        found = Counter[int]()
        for counter in await self.node.datapath.metrics():
            if counter.reason:
                found[counter.reason] += counter.packets
        return found


def _heard(ear: socket.socket, wanted: int) -> list[bytes]:
    found: list[bytes] = []
    try:
        while True:
            ear.settimeout(10.0 if len(found) < wanted else 0.05 if wanted else 0.3)
            found.append(ear.recv(65536))
    except TimeoutError:
        return found


def _ear(thread: KernelThread, address: str) -> socket.socket:
    def work() -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = socket.socket(family, socket.SOCK_DGRAM)
        made.bind((address, PORT))
        return made

    return thread.submit(work).result(timeout=30)


async def _furnish(node: Node, pod: Pod) -> None:
    """A second family for the pod, and who is far away."""
    pod.sh("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0")
    pod.sh(f"ip -6 addr add {NEAR6}/128 dev eth0 nodad")
    endpoint = LocalEndpoint(
        EndpointId(2),
        pod.identity,
        *(pod.link.ifindex, pod.interface, pod.link.mac, pod.link.host_mac),
        (pod.address, parse_address(NEAR6)),
    )
    assert await node.datapath.endpoints.upsert([(endpoint.id, endpoint)]) == {}
    there = IpcacheEntry(NumericIdentity(FAR_IDENTITY), parse_address(OTHER_NODE))
    rows = [(host_prefix(parse_address(text)), there) for text in (FAR, FAR6)]
    assert await node.datapath.ipcache.upsert(rows) == {}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened() -> AsyncIterator[World]:
    async with two_nodes() as stage:
        node = stage.nodes[0]
        with ExitStack() as stack:
            tun = stack.enter_context(_tun(node.thread))
            node.sh(f"ip link set {TUN} up mtu 1420")
            node.sh(f"sysctl -qw net.ipv4.conf.{TUN}.rp_filter=0")
            pod = await node.add_pod("near", 70002)
            await _furnish(node, pod)
            inside = KernelThread("pod")
            stack.callback(inside.close)
            enter(inside, pod.namespace)
            ears = {4: _ear(inside, str(pod.address)), 6: _ear(inside, NEAR6)}
            node_ear = _ear(node.thread, str(node.config.router_ip))
            for ear in (*ears.values(), node_ear):
                stack.callback(ear.close)
            yield World(node, pod, tun, ears, node_ear)


@pytest_asyncio.fixture(loop_scope="module")
async def world(opened: World) -> World:
    """With nothing of earlier tests."""
    await opened.reopen(policy=False, redirect_peer=True)
    for version in (4, 6):
        opened.heard(0, version)
    await opened.forget()
    return opened


def inner(
    text: bytes = b"hello", source: str = FAR, destination: str | None = None, **fields: object
) -> Packet:
    """A pod's packet, in the frame that the tunnel carries."""
    destination = destination or (NEAR6 if ":" in source else "10.201.1.2")
    kind = IPv6 if ":" in source else IP
    packet = kind(src=source, dst=destination, **fields) / UDP(sport=4000, dport=PORT) / text
    return Ether(src=FAR_MAC, dst=NEAR_MAC) / packet


def outer(
    frame: Packet | bytes,
    *,
    vni: int = FAR_IDENTITY,
    port: int = VXLAN_PORT,
    flags: int = 8,
    checksum: int | None = 0,
    **fields: object,
) -> Packet:
    """The other node's tunnel around a frame."""
    header = VXLAN(vni=vni, flags=flags)
    udp = UDP(sport=40000, dport=port, chksum=checksum)
    fields = {"src": OTHER_NODE, "dst": NODE} | fields
    return IP(**fields) / udp / header / Raw(bytes(frame))


@pytest.mark.parametrize("source", [FAR, FAR6])
@pytest.mark.parametrize("peer", [True, False], ids=["peer", "host-end"])
async def test_straight_to_the_pod(world: World, source: str, peer: bool) -> None:
    """With the identity that the tunnel told, and no second way through the stack."""
    await world.reopen(redirect_peer=peer)
    before, version = world.long_way(), 6 if ":" in source else 4
    for size in (1, 3, 1000, 1300):
        sent = bytes(size)
        world.send(outer(inner(sent, source)))
        assert world.heard(1, version) == [sent]
    assert world.long_way() == before
    assert await world.reasons() == {}
    flows = await world.node.datapath.conntrack.entries()
    seen = {f.source_identity for f in flows if str(f.source) == source}
    assert seen == {FAR_IDENTITY}


async def test_what_is_broken_inside_the_pod_refuses(world: World) -> None:
    """Nobody has verified the inner checksum, and nobody is told so."""
    frame = inner(b"hello")
    frame[UDP].chksum = 0x1234
    world.send(outer(frame))
    assert world.heard(0) == []


UNUSUAL: dict[str, Callable[[], Packet]] = {
    "options": lambda: outer(inner(), options=[IPOption_NOP()] * 4),
    "checksum": lambda: outer(inner(), checksum=None),
    "congested": lambda: outer(inner(tos=1), tos=3),
}


@pytest.mark.parametrize("name", UNUSUAL)
async def test_the_unusual_goes_the_long_way(world: World, name: str) -> None:
    """And arrives."""
    before = world.long_way()
    world.send(UNUSUAL[name]())
    assert world.heard(1) == [b"hello"]
    assert world.long_way() == before + 1


async def test_fragments_are_joined_first(world: World) -> None:
    """By the node's stack, of which the tunnel's device is a part."""
    before = world.long_way()
    for piece in fragment(outer(inner(bytes(1200))), 600):
        world.send(piece)
    assert world.heard(1) == [bytes(1200)]
    assert world.long_way() == before + 1


async def test_what_was_joined_goes_the_long_way(world: World) -> None:
    """Two packets of one size in one."""
    one = outer(inner(b"a" * 500), checksum=None)
    two = outer(inner(b"b" * 500), checksum=None)
    payload = bytes(one[UDP].payload) + bytes(two[UDP].payload)
    both = IP(src=OTHER_NODE, dst=NODE) / UDP(sport=40000, dport=VXLAN_PORT) / Raw(payload)
    both = IP(bytes(both))
    both[UDP].chksum = _pseudo(both)
    before = world.long_way()
    world.send(both, segment=len(bytes(one[UDP].payload)))
    assert world.heard(2) == [b"a" * 500, b"b" * 500]
    assert world.long_way() == before + 2


def _pseudo(packet: Packet) -> int:
    """The sum that a device completes: of the pseudo header alone."""
    words = struct.pack(
        "!4s4sHH",
        *(socket.inet_aton(packet.src), socket.inet_aton(packet.dst), 17, packet[UDP].len),
    )
    total = sum(struct.unpack("!6H", words))
    return (total & 0xFFFF) + (total >> 16)


def _longer_udp() -> Packet:
    packet = IP(bytes(outer(inner())))
    packet[UDP].len += 8
    return packet


# What is no packet of our tunnel, and what the tunnel's device takes for one and nobody gets.
WRONG: dict[str, tuple[Callable[[], Packet | bytes], int]] = {
    "port": (lambda: outer(inner(), port=VXLAN_PORT + 1), 0),
    "pod's own": (lambda: inner(destination=NODE).payload, 0),
    "other node": (lambda: outer(inner(), dst="172.31.0.77"), 0),
    "no identity": (lambda: outer(inner(), flags=0), 0),
    "other flags": (lambda: outer(inner(), flags=0x0C), 0),
    "cut": (lambda: bytes(outer(inner()))[:80], 0),
    "cut in the tunnel's header": (lambda: bytes(outer(inner()))[:32], 0),
    "longer than it is": (lambda: _longer_udp(), 0),
    "nothing inside": (lambda: outer(bytes(inner())[:20]), 0),
    "arp": (lambda: outer(Ether(src=FAR_MAC, dst=NEAR_MAC) / ARP(psrc=FAR)), 1),
    "unknown pod": (lambda: outer(inner(destination="10.201.1.99")), 1),
    "nobody's": (lambda: outer(inner(destination="10.9.9.9")), 1),
}


@pytest.mark.parametrize("name", WRONG)
async def test_the_wrong_does_not_arrive(world: World, name: str) -> None:
    """Short, foreign, contradicting itself, or for nobody here."""
    before, (make, seen) = world.long_way(), WRONG[name]
    world.send(make())
    assert world.heard(0) == []
    assert world.long_way() - before == seen
    world.send(outer(inner()))
    assert world.heard(1) == [b"hello"]


async def test_the_node_gets_its_own_by_its_stack(world: World) -> None:
    """Through the tunnel's device."""
    before = world.long_way()
    world.send(outer(inner(destination=str(world.node.config.router_ip))))
    assert _heard(world.node_ear, 1) == [b"hello"]
    assert world.long_way() == before + 1


# Whose the packet says it is, what the tunnel claims, with policy or without.
CLAIMS = [
    (FAR, 0, False, R.DROP_INVALID_IDENTITY),
    (FAR, 1, False, R.DROP_INVALID_IDENTITY),
    (FAR, FAR_IDENTITY + 1, True, R.DROP_INVALID_IDENTITY),
    (FAR, 6, True, R.DROP_INVALID_IDENTITY),
    ("10.201.2.77", FAR_IDENTITY, True, None),  # nobody has told; the pod is open to all
    (FAR, FAR_IDENTITY, True, None),
]


@pytest.mark.parametrize("is_long", [False, True], ids=["short", "long"])
@pytest.mark.parametrize(("source", "claimed", "policy", "reason"), CLAIMS)
async def test_both_ways_judge_alike(
    world: World, source: str, claimed: int, policy: bool, reason: R | None, is_long: bool
) -> None:
    """An identity that is not its address's, or nobody's, and one that is right."""
    await world.reopen(policy=policy, policy_opens=(EndpointId(2),))
    before = world.long_way()
    options = {"options": [IPOption_NOP()] * 4} if is_long else {}
    world.send(outer(inner(source=source), vni=claimed, **options))
    assert world.heard(0 if reason else 1) == ([] if reason else [b"hello"])
    assert await world.reasons() == ({reason: 1} if reason else {})
    assert world.long_way() - before == is_long


async def test_the_last_hop(world: World) -> None:
    """Pods are one router further on this way, too."""
    world.send(outer(inner(ttl=1)))
    assert world.heard(0) == []
    assert await world.reasons() == {R.DROP_TTL_EXCEEDED: 1}

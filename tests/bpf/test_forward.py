"""Where packets go, and what of them changes on the way."""

import struct

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether

from model.address import pack, parse_address
from tests.support import packets
from tests.support.addresses import truncated
from tests.support.bpf import (
    MTU,
    NODE,
    OK,
    REDIRECT,
    REMOTE,
    REMOTE6,
    REMOTE_IDENTITY,
    ROUTER4,
    SHOT,
    A,
    B,
    Machine,
)
from tests.support.packets import assert_checksums, echo, frame, remote_tcp, tcp, udp
from wire.bpf import layouts as w

EGRESS, INGRESS = w.ConntrackScope.CONNTRACK_EGRESS, w.ConntrackScope.CONNTRACK_INGRESS


@pytest.mark.parametrize("build", [tcp, udp, echo])
def test_pod_to_pod_is_delivered(machine: Machine, build) -> None:
    """To a pod of this node: its MAC addresses, one hop less, all else as it was."""
    sent = build()
    done = machine.run("from_container", sent)
    assert done.delivered
    assert not done.drops
    expected = sent.copy()
    expected[Ether].src, expected[Ether].dst = B.node_mac, B.mac
    expected[IP].ttl = 63
    assert bytes(done.packet) == bytes(packets.recomputed(expected))


def test_pod_to_pod_over_ipv6_is_delivered(machine: Machine) -> None:
    """IPv6 takes the same way."""
    done = machine.run("from_container", tcp(A.address6, B.address6))
    assert done.delivered
    assert done.packet[Ether].dst == B.mac
    assert done.packet[IPv6].hlim == 63
    assert_checksums(done.packet)


def test_source_identity_is_stored_at_the_destination(machine: Machine) -> None:
    """The destination's entry holds the sender's identity: from its interface, or the VNI."""
    machine.run("from_container", tcp())
    assert machine.flow(INGRESS).source_identity == A.identity
    machine.clear()
    machine.pod(A)
    assert machine.run("from_overlay", remote_tcp(), vni=REMOTE_IDENTITY).delivered
    entry = machine.flow(INGRESS)
    assert entry.source_identity == REMOTE_IDENTITY
    assert entry.flags & w.ConntrackFlags.CONNTRACK_FROM_TUNNEL


@pytest.mark.parametrize(
    ("source", "identity"),
    [(NODE, 1), (ROUTER4, 1), (REMOTE, REMOTE_IDENTITY), ("203.0.113.9", 2)],
)
def test_source_identity_of_what_the_stack_sends(
    machine: Machine, source: str, identity: int
) -> None:
    """The node's own addresses are the host; others are what the ipcache knows, or the world."""
    done = machine.run("from_host", tcp(src=source, dst=B.address))
    assert done.delivered
    assert done.packet[IP].ttl == 64  # the stack has counted this hop
    assert machine.flow(INGRESS).source_identity == identity


def test_prefix_gives_identity_where_no_address_does(machine: Machine) -> None:
    """The trie behind the exact table answers for prefixes, the longest one first."""
    for length, identity in ((96 + 8, 1001), (96 + 24, 1002)):
        key = w.IpcachePrefixKey(length, packets_address("203.0.113.0", length)).pack()
        machine.put("ist_ipcache_lpm", key, w.IpcacheValue(bytes(16), identity, 0, 0, 0).pack())
    machine.run("from_host", tcp(src="203.0.113.9", dst=B.address))
    assert machine.flow(INGRESS).source_identity == 1002


def packets_address(text: str, length: int) -> bytes:
    return pack(truncated(parse_address(text), length - 96).network_address)


def test_kube_apiserver_behind_a_remote_node_keeps_its_identity(machine: Machine) -> None:
    """A node's VNI is refined to kube-apiserver where the ipcache says so, and to nothing else."""
    machine.remote("10.2.0.1", 7)
    sent = packets.from_tunnel(tcp(src="10.2.0.1", dst=A.address))
    machine.run("from_overlay", sent, vni=6)
    assert machine.flow(INGRESS).source_identity == 7


@pytest.mark.parametrize("destination", [REMOTE, REMOTE6])
def test_pod_of_another_node_is_sent_into_the_tunnel(machine: Machine, destination: str) -> None:
    """Redirected to the tunnel, a hop less, addresses and ports untouched."""
    source = A.address6 if ":" in destination else A.address
    done = machine.run("from_container", tcp(src=source, dst=destination))
    assert done.left
    assert packets.layer3(done.packet).dst == destination
    assert machine.flow(EGRESS).source_identity == A.identity
    assert_checksums(done.packet)


def test_own_node_and_world_go_to_the_stack(machine: Machine) -> None:
    """What is for this node, or for nobody we know, is the stack's business."""
    for destination in (NODE, ROUTER4, "203.0.113.9"):
        done = machine.run("from_container", tcp(dst=destination))
        assert done.verdict == OK
        assert not done.drops
        assert done.packet[IP].ttl == 64


def test_tunnel_to_the_node_itself_goes_to_the_stack(machine: Machine) -> None:
    """A packet of another node for this node's router address passes."""
    sent = packets.from_tunnel(tcp(src=REMOTE, dst=ROUTER4))
    assert machine.run("from_overlay", sent, vni=REMOTE_IDENTITY).verdict == OK


def test_skip_tunnel_means_the_underlay(machine: Machine) -> None:
    """An ipcache entry may have a tunnel endpoint and be reached without it."""
    row = w.IpcacheValue(bytes(10) + b"\xff\xff\xc0\0\2\2", 6, 0, 0, 1)
    machine.put("ist_ipcache", bytes(10) + b"\xff\xff\xc0\0\2\2", row.pack())
    assert machine.run("from_container", tcp(dst="192.0.2.2")).verdict == OK


def test_arp_is_answered_for_everybody_else(machine: Machine) -> None:
    """The host end's MAC stands for every address but the pod's own."""
    ask = ARP(op=1, hwsrc=A.mac, psrc=A.address, pdst="10.1.0.1")
    done = machine.run("from_container", Ether(src=A.mac, dst="ff:ff:ff:ff:ff:ff") / ask)
    answer = done.packet[ARP]
    assert done.verdict == REDIRECT
    assert (answer.op, answer.hwsrc, answer.psrc) == (2, A.node_mac, "10.1.0.1")
    assert (answer.hwdst, answer.pdst) == (A.mac, A.address)
    assert (done.packet[Ether].src, done.packet[Ether].dst) == (A.node_mac, A.mac)
    own = ARP(op=1, hwsrc=A.mac, psrc="0.0.0.0", pdst=A.address)
    assert machine.run("from_container", Ether(src=A.mac) / own).verdict == OK


def test_neighbour_solicitation_is_answered(machine: Machine) -> None:
    """IPv6's question gets the same answer, with a valid checksum."""
    ask = (
        IPv6(src=A.address6, dst="ff02::1:ff00:1", hlim=255)
        / ICMPv6ND_NS(tgt="fd00:1::1")
        / ICMPv6NDOptSrcLLAddr(lladdr=A.mac)
    )
    done = machine.run("from_container", frame(ask))
    assert done.verdict == REDIRECT
    answer = done.packet[ICMPv6ND_NA]
    assert (answer.tgt, answer.S, answer.O, answer.R) == ("fd00:1::1", 1, 1, 0)
    assert done.packet[ICMPv6NDOptDstLLAddr].lladdr == A.node_mac
    assert (done.packet[IPv6].src, done.packet[IPv6].dst) == ("fd00:1::1", A.address6)
    assert_checksums(done.packet)


def test_ipv6_chatter_of_a_pod_is_no_drop(machine: Machine) -> None:
    """Link-local multicast, as every stack sends it, goes no further and counts as nothing bad."""
    chatter = frame(IPv6(src="fe80::1", dst="ff02::16", nh=0) / b"\x3a\0\5\2\0\0\1\0" / bytes(20))
    done = machine.run("from_container", chatter)
    assert done.verdict == OK
    assert not done.drops


def test_ipv6_chatter_before_a_pod_is_known_is_no_drop(machine: Machine) -> None:
    """A stack reports its groups as soon as its link is up, before the pod's row is written."""
    machine.tables["ist_interfaces"].remove([struct.pack("=I", A.ifindex)])
    chatter = frame(IPv6(src="::", dst="ff02::16", nh=0) / b"\x3a\0\5\2\0\0\1\0" / bytes(20))
    done = machine.run("from_container", chatter)
    assert done.verdict == OK
    assert not done.drops
    assert machine.run("from_container", tcp()).reason is w.DropReason.DROP_UNKNOWN_SENDER


@pytest.mark.parametrize(("size", "passes"), [(MTU, True), (MTU + 1, False)])
def test_largest_packet_for_the_tunnel(machine: Machine, size: int, passes: bool) -> None:
    """Exactly the route MTU passes, one byte more is refused."""
    done = machine.run("from_container", udp(dst=REMOTE, payload=b"x" * (size - 28), flags="DF"))
    assert done.left if passes else done.reason is w.DropReason.DROP_FRAGMENTATION_NEEDED


def test_size_does_not_matter_on_the_node(machine: Machine) -> None:
    """Between pods of one node the tunnel's limit does not hold."""
    assert machine.run("from_container", udp(payload=b"x" * (MTU + 10))).delivered


@pytest.mark.parametrize(("segment", "passes"), [(MTU - 40, True), (MTU - 39, False)])
def test_segments_count_not_their_sum(machine: Machine, segment: int, passes: bool) -> None:
    """A packet that will be segmented passes when its segments do."""
    sent = tcp(dst=REMOTE, flags="A", payload=b"x" * 2500)
    done = machine.run("from_container", sent, gso_size=segment)
    assert done.left if passes else done.reason is w.DropReason.DROP_FRAGMENTATION_NEEDED


def test_no_hop_left_is_said(machine: Machine) -> None:
    """A packet at the end of its life is answered by the router's time exceeded."""
    sent = udp(ttl=1)
    done = machine.run("from_container", sent)
    assert done.reason is w.DropReason.DROP_TTL_EXCEEDED
    assert done.verdict == REDIRECT
    error = done.packet
    assert (error[IP].src, error[IP].dst) == (ROUTER4, A.address)
    assert (error[ICMP].type, error[ICMP].code) == (11, 0)
    assert bytes(error[ICMP].payload) == bytes(sent[IP])
    assert (error[Ether].src, error[Ether].dst) == (A.node_mac, A.mac)
    assert_checksums(error)


def test_echo_over_ipv6(machine: Machine) -> None:
    """A ping of IPv6 is tracked by its identifier."""
    done = machine.run(
        "from_container", frame(IPv6(src=A.address6, dst=B.address6) / ICMPv6EchoRequest(id=7))
    )
    assert done.delivered
    assert (A.address6, 7, B.address6, 0, 58, EGRESS) in machine.flows()


def test_without_redirect_peer_delivery_is_the_same(loaded: Machine) -> None:
    """The constant chooses the way into the pod, not what arrives there."""
    from tests.bpf.conftest import furnish

    plain = furnish(Machine(changes={"config_redirect_peer": 0}).load())
    try:
        done = plain.run("from_container", tcp())
        assert done.delivered
        assert done.packet[Ether].dst == B.mac
        assert TCP in done.packet
        assert done.verdict != SHOT
    finally:
        plain.close()

"""What the leak sniffer (``tests/support/sniffer.py``) takes for a leak: tests of encryption are
worth no more than its judgement.
"""

import struct
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from model.kernel_numbers import VXLAN_PORT, WIREGUARD_PORT
from tests.support.sniffer import CANARY, Sightings, canary_seen, frames, judge

PODS = [ip_network("10.203.0.0/16"), ip_network("fd00:203::/64")]
NODES = [ip_network("172.31.9.0/24"), ip_network("fd00:31::/64")]
NODE, OTHER, POD, FAR = "172.31.9.1", "172.31.9.2", "10.203.1.5", "10.203.2.5"
NODE6, OTHER6, POD6, FAR6 = "fd00:31::1", "fd00:31::2", "fd00:203::5", "fd00:203::6"
IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
DETOUR_PORT = WIREGUARD_PORT + 1
ALERT = [IPOption_Router_Alert()]  # the payload does not begin where it usually does
ESP = Raw(bytes(40))  # as an ESP packet is seen from outside: nothing in it means anything


def between(source: str, target: str, payload: Packet, **fields: Any) -> bytes:
    """An IP packet, of the family of its addresses."""
    kind = IPv6 if ":" in source else IP
    return bytes(kind(src=source, dst=target, **fields) / payload)


def udp(port: int, payload: bytes) -> Packet:
    return UDP(sport=40000, dport=port, chksum=0) / Raw(payload)


def esp(source: str, target: str) -> bytes:
    return between(source, target, ESP, **{"nh" if ":" in source else "proto": 50})


def vxlan(vni: int) -> bytes:
    """Its header in the port's own words: flags, and the number in three bytes; then a frame."""
    return struct.pack(">II", 0x08 << 24, vni << 8) + bytes(60)


def message(kind: int) -> bytes:
    """A message of WireGuard: its type, three zero bytes, and what cannot be read."""
    return bytes([kind, 0, 0, 0]) + bytes(range(60))


def seen(protocol: int, packet: bytes) -> Sightings:
    found = Sightings()
    judge(found, protocol, packet, PODS, NODES)
    assert (found.frames, found.bytes) == (1, len(packet))
    return found


@pytest.mark.parametrize(
    ("protocol", "packet", "said"),
    [
        (
            *(IPV4, between(POD, FAR, TCP(dport=80))),
            "pod address in 10.203.1.5 > 10.203.2.5 protocol 6",
        ),
        (
            *(IPV6, between(POD6, FAR6, udp(53, b"question"))),
            "pod address in fd00:203::5 > fd00:203::6 protocol 17",
        ),
        (
            *(IPV4, between("192.0.2.1", FAR, TCP())),  # neither a pod nor a node of the mesh
            "pod address in 192.0.2.1 > 10.203.2.5 protocol 6",
        ),
        (
            *(IPV4, esp(POD, FAR)),  # who speaks with whom is seen, though not what
            "pod address in 10.203.1.5 > 10.203.2.5 protocol 50",
        ),
        (
            *(IPV4, between(NODE, OTHER, udp(VXLAN_PORT, vxlan(4711)))),
            "tunnel in 172.31.9.1 > 172.31.9.2 VNI 4711",
        ),
        (
            *(IPV6, between(NODE6, OTHER6, udp(VXLAN_PORT, vxlan(2)))),
            "tunnel in fd00:31::1 > fd00:31::2 VNI 2",
        ),
        (
            *(IPV4, between(NODE, OTHER, udp(WIREGUARD_PORT, message(0)))),
            "no WireGuard in 172.31.9.1 > 172.31.9.2 port 51871",
        ),
        (
            *(IPV4, between(NODE, OTHER, udp(WIREGUARD_PORT, message(5)))),
            "no WireGuard in 172.31.9.1 > 172.31.9.2 port 51871",
        ),
        (
            *(IPV6, between(NODE6, OTHER6, udp(DETOUR_PORT, b"\x04\0\0\1" + bytes(28)))),
            "no WireGuard in fd00:31::1 > fd00:31::2 port 51872",
        ),
    ],
)
def test_what_is_a_leak(protocol: int, packet: bytes, said: str) -> None:
    """Pod addresses, the tunnel in clear text, and what only has WireGuard's port: by name, with
    all of their bytes, and none of them counts as encrypted.
    """
    found = seen(protocol, packet)
    assert (found.leaks, found.leaked_bytes) == ([said], len(packet))
    assert (found.wireguard, found.esp) == (0, 0)
    with pytest.raises(AssertionError, match="bytes in clear text"):
        found.assert_clean()
    with pytest.raises(AssertionError, match="nothing encrypted"):
        found.assert_clean(but=[said])  # a leak that was meant proves no encryption


@pytest.mark.parametrize(
    ("protocol", "packet", "counted"),
    [
        (IPV4, between(NODE, OTHER, udp(WIREGUARD_PORT, message(1))), (1, 0)),
        (IPV4, between(NODE, OTHER, udp(WIREGUARD_PORT, message(4))), (1, 0)),
        (IPV6, between(NODE6, OTHER6, udp(DETOUR_PORT, message(2))), (1, 0)),
        (IPV4, between(NODE, OTHER, udp(DETOUR_PORT, message(3)), options=ALERT), (1, 0)),
        (IPV4, esp(NODE, OTHER), (0, 1)),
        (IPV6, esp(NODE6, OTHER6), (0, 1)),
        (IPV4, between(NODE, OTHER, TCP(dport=6443)), (0, 0)),  # of the nodes themselves
        (IPV4, between(POD, OTHER, TCP(dport=6443)), (0, 0)),  # a pod and a node
        (IPV6, between(NODE6, POD6, TCP(dport=80)), (0, 0)),
        (IPV4, between(NODE, OTHER, udp(53, message(1))), (0, 0)),  # at no port of WireGuard
        (ARP, bytes(range(28)), (0, 0)),
        (IPV4, between(POD, FAR, TCP())[:19], (0, 0)),  # no whole header
    ],
)
def test_what_is_none(protocol: int, packet: bytes, counted: tuple[int, int]) -> None:
    """WireGuard and ESP between nodes are counted as such, the nodes' own traffic as frames."""
    found = seen(protocol, packet)
    assert (found.leaks, found.leaked_bytes) == ([], 0)
    assert (found.wireguard, found.esp) == counted
    if any(counted):
        found.assert_clean()


def test_a_pod_and_a_node_are_told_apart_only_where_nodes_are_known() -> None:
    """Where nodes are encrypted, too, none is named, and a pod's address is a leak to anybody."""
    found = Sightings()
    judge(found, IPV4, between(POD, OTHER, TCP()), PODS)
    assert found.leaks == ["pod address in 10.203.1.5 > 172.31.9.2 protocol 6"]


@pytest.mark.parametrize(
    ("protocol", "packet"),
    [
        (IPV4, between(NODE, OTHER, udp(WIREGUARD_PORT, message(4) + CANARY))),
        (IPV6, between(NODE6, OTHER6, Raw(bytes(16) + CANARY), nh=50)),
        (IPV4, between(POD, OTHER, TCP() / Raw(CANARY))),
        (IPV4, between(NODE, OTHER, udp(VXLAN_PORT, vxlan(1) + CANARY))),
        (ARP, bytes(28) + CANARY),
        (0x88B5, CANARY),  # of a family that nobody knows
    ],
)
def test_a_canary_is_a_leak_in_anything(protocol: int, packet: bytes) -> None:
    """Also inside what looks encrypted, which then is not counted as that."""
    found = seen(protocol, packet)
    assert (found.leaks, found.leaked_bytes) == ([canary_seen(len(packet))], len(packet))
    assert (found.wireguard, found.esp) == (0, 0)


def test_a_missed_frame_is_a_failure() -> None:
    """It might have been a leak. Leaks that were meant are let through by name alone."""
    found = seen(IPV4, esp(NODE, OTHER))
    found.assert_clean()
    found.missed = 1
    with pytest.raises(AssertionError, match="missed 1 frames"):
        found.assert_clean()
    found.missed = 0
    judge(found, IPV4, CANARY, PODS)
    found.assert_clean(but=[canary_seen(len(CANARY))])
    with pytest.raises(AssertionError, match=f"{len(CANARY)} bytes in clear text"):
        found.assert_clean(but=["another"])


def test_only_the_first_leaks_are_named_and_all_are_counted() -> None:
    """A mesh that leaks everything is told in a few lines."""
    found = Sightings()
    for _ in range(100):
        judge(found, IPV4, CANARY, PODS)
    assert (len(found.leaks), found.leaked_bytes, found.frames) == (20, 100 * len(CANARY), 100)


@pytest.mark.parametrize(("link", "header"), [(1, bytes(12)), (113, bytes(14))])
def test_frames_of_a_capture(tmp_path: Path, link: int, header: bytes) -> None:
    """Of Ethernet, and of all devices at once ("cooked"); one that is cut off at the end of the
    file was never seen whole.
    """
    packets = [(IPV4, esp(NODE, OTHER)), (ARP, bytes(28))]
    file = tmp_path / "frames.pcap"
    with file.open("wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link))
        for protocol, packet in packets:
            frame = header + struct.pack(">H", protocol) + packet
            out.write(struct.pack("<IIII", 1, 2, len(frame), len(frame)) + frame)
        out.write(bytes(7))
    assert list(frames(file)) == packets

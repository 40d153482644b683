"""Packets, as a pod or a node would send them, and checks of those that come out."""

from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from tests.support.bpf import REMOTE, A, B


def frame(l3: Packet, source: str = A.mac, destination: str = A.node_mac) -> Packet:
    return Ether(src=source, dst=destination) / l3


def ip(src: str = A.address, dst: str = B.address, **fields: Any) -> Packet:
    return IPv6(src=src, dst=dst, **fields) if ":" in src else IP(src=src, dst=dst, **fields)


def tcp(
    src: str = A.address,
    dst: str = B.address,
    sport: int = 40000,
    dport: int = 80,
    flags: str = "S",
    payload: bytes = b"",
    **fields: Any,
) -> Packet:
    return frame(ip(src, dst, **fields) / TCP(sport=sport, dport=dport, flags=flags) / payload)


def udp(
    src: str = A.address,
    dst: str = B.address,
    sport: int = 40000,
    dport: int = 53,
    payload: bytes = b"question",
    **fields: Any,
) -> Packet:
    return frame(ip(src, dst, **fields) / UDP(sport=sport, dport=dport) / payload)


def echo(
    src: str = A.address, dst: str = B.address, number: int = 7, reply: bool = False
) -> Packet:
    return frame(ip(src, dst) / ICMP(type=0 if reply else 8, id=number, seq=1) / b"abcdefgh")


def unreachable(src: str, dst: str, quoted: Packet, code: int = 3) -> Packet:
    """An ICMP error about a packet (given without its frame)."""
    return frame(ip(src, dst) / ICMP(type=3, code=code) / bytes(quoted)[:60])


def from_tunnel(packet: Packet) -> Packet:
    packet[Ether].src, packet[Ether].dst = "02:00:00:00:00:99", "02:00:00:00:00:98"
    return packet


def remote_tcp(dst: str = A.address, **fields: Any) -> Packet:
    return from_tunnel(tcp(src=REMOTE, dst=dst, **fields))


def layer3(packet: Packet) -> Packet:
    return packet[IPv6] if IPv6 in packet else packet[IP]


def recomputed(packet: Packet) -> Packet:
    """The same packet with every checksum computed anew, also of a quoted packet."""
    copy = packet.copy()
    for layer in copy.layers():
        for name in ("chksum", "cksum"):
            found = copy.getlayer(layer)
            if found is not None and name in found.fields:
                delattr(found, name)
    return Ether(bytes(copy))


def assert_checksums(packet: Packet) -> None:
    assert bytes(packet) == bytes(recomputed(packet)), packet.show(dump=True)

"""The beginning of a packet into a flow's fields. Pure.

What is above IP and not known here is left out; what ends in the middle of a header is an error.
"""

import functools
import ipaddress
import struct
from typing import NamedTuple

from hubble.icmp_names import icmp_text
from wire.hubble import flow_pb2 as f

_ETHERNET = 14
_IP4, _IP6 = 0x0800, 0x86DD
_PORTS = struct.Struct("!HH")
_PLAIN_IP4 = struct.Struct("!B5xHxB2x4s4s")  # version and length, fragment, protocol, addresses
_PLAIN_IP6 = struct.Struct("!6xBx16s16s")  # next header, addresses
_NO_OPTIONS, _FRAGMENT = 0x45, 0x1FFF
TCP, UDP, ICMP4, ICMP6, SCTP, VRRP, IGMP = 6, 17, 1, 58, 132, 112, 2
_WITH_PORTS = {TCP: 20, UDP: 8, SCTP: 12}  # bytes of the header
# Bits of the header's last flag byte, in the order in which a summary names them.
_TCP_FLAGS = (
    ("SYN", 0x02),
    ("ACK", 0x10),
    ("RST", 0x04),
    ("FIN", 0x01),
    ("PSH", 0x08),
    ("URG", 0x20),
    ("ECE", 0x40),
    ("CWR", 0x80),
    ("NS", 0x100),
)


class CutShortError(ValueError):
    """The packet ends within a header."""


class Addresses(NamedTuple):
    """What the rest of decoding needs of a packet. Empty bytes: it is not IP."""

    source: bytes
    destination: bytes
    protocol: int
    source_port: int
    destination_port: int


NOT_IP = Addresses(b"", b"", 0, 0, 0)


def _tcp_variants() -> dict[int, tuple[f.TCPFlags, str]]:
    found = {}
    for bits in range(512):
        names = [name for name, bit in _TCP_FLAGS if bits & bit]
        flags = f.TCPFlags(**dict.fromkeys(names, True))
        found[bits] = (flags, "TCP Flags: " + ", ".join(names))
    return found


_TCP = _tcp_variants()


def _mac(data: bytes) -> str:
    return data.hex(":")


@functools.lru_cache(maxsize=1 << 14)
def address_text(address: bytes) -> str:
    """An address of 4 or 16 bytes as people write it."""
    return str(ipaddress.ip_address(address))


def fill(flow: f.Flow, data: bytes) -> Addresses:
    """Ethernet, IP, L4 and summary of ``flow`` from a captured packet. ``CutShortError``."""
    if len(data) < _ETHERNET:
        raise CutShortError(f"Ethernet header in {len(data)} bytes")
    flow.ethernet.source, flow.ethernet.destination = _mac(data[6:12]), _mac(data[:6])
    kind = data[12] << 8 | data[13]
    if kind == _IP4:
        return _fill_ip4(flow, data)
    if kind == _IP6:
        return _fill_ip6(flow, data)
    flow.Summary = "Ethernet"
    return NOT_IP


def _fill_ip4(flow: f.Flow, data: bytes) -> Addresses:
    at = _ETHERNET
    if len(data) < at + 20:
        raise CutShortError(f"IPv4 header in {len(data) - at} bytes")
    source, destination, protocol = data[at + 12 : at + 16], data[at + 16 : at + 20], data[at + 9]
    ip = flow.IP
    ip.source, ip.destination = address_text(source), address_text(destination)
    ip.ipVersion = f.IPv4
    flow.Summary = "IPv4"
    if (data[at + 6] & 0x1F) << 8 | data[at + 7]:  # not the first fragment: no header above
        return Addresses(source, destination, protocol, 0, 0)
    ports = _fill_l4(flow, data, at + (data[at] & 15) * 4, protocol)
    return Addresses(source, destination, protocol, *ports)


def _fill_ip6(flow: f.Flow, data: bytes) -> Addresses:
    at = _ETHERNET
    if len(data) < at + 40:
        raise CutShortError(f"IPv6 header in {len(data) - at} bytes")
    source, destination, protocol = data[at + 8 : at + 24], data[at + 24 : at + 40], data[at + 6]
    ip = flow.IP
    ip.source, ip.destination = address_text(source), address_text(destination)
    ip.ipVersion = f.IPv6
    flow.Summary = "IPv6"
    ports = _fill_l4(flow, data, at + 40, protocol)
    return Addresses(source, destination, protocol, *ports)


def likeness(data: bytes) -> tuple[bytes, Addresses] | None:
    """All that ``fill`` reads of this packet but the ports, and what it returns.

    ``None``: a packet without ports, or one that is not plain and whole.
    """
    if len(data) < _ETHERNET + 20:
        return None
    kind = data[12] << 8 | data[13]
    if kind == _IP4:
        first, fragment, protocol, source, destination = _PLAIN_IP4.unpack_from(data, _ETHERNET)
        at = _ETHERNET + _PLAIN_IP4.size
        if first != _NO_OPTIONS or fragment & _FRAGMENT:
            return None
    elif kind == _IP6 and len(data) >= _ETHERNET + _PLAIN_IP6.size:
        protocol, source, destination = _PLAIN_IP6.unpack_from(data, _ETHERNET)
        at = _ETHERNET + _PLAIN_IP6.size
    else:
        return None
    size = _WITH_PORTS.get(protocol)
    if size is None or len(data) < at + size:
        return None
    flags = data[at + 12 : at + 14] if protocol == TCP else b""  # with the header's length
    found = Addresses(source, destination, protocol, *_PORTS.unpack_from(data, at))
    return data[:_ETHERNET] + source + destination + bytes((protocol,)) + flags, found


def set_ports(flow: f.Flow, found: Addresses) -> None:
    """Of a TCP, UDP or SCTP flow."""
    protocol = found.protocol
    l4 = flow.l4.TCP if protocol == TCP else flow.l4.UDP if protocol == UDP else flow.l4.SCTP
    l4.source_port, l4.destination_port = found.source_port, found.destination_port


def _need(data: bytes, at: int, size: int, what: str) -> None:
    if len(data) < at + size:
        raise CutShortError(f"{what} header in {max(len(data) - at, 0)} bytes")


def _fill_l4(flow: f.Flow, data: bytes, at: int, protocol: int) -> tuple[int, int]:
    """Ports; 0 where there are none."""
    if protocol == TCP:
        _need(data, at, 20, "TCP")
        ports: tuple[int, int] = _PORTS.unpack_from(data, at)
        flags, flow.Summary = _TCP[(data[at + 12] & 1) << 8 | data[at + 13]]
        tcp = flow.l4.TCP
        tcp.source_port, tcp.destination_port = ports
        tcp.flags.CopyFrom(flags)
        return ports
    if protocol in (UDP, SCTP):
        _need(data, at, 8 if protocol == UDP else 12, "UDP" if protocol == UDP else "SCTP")
        ports = _PORTS.unpack_from(data, at)
        l4 = flow.l4.UDP if protocol == UDP else flow.l4.SCTP
        l4.source_port, l4.destination_port = ports
        flow.Summary = "UDP" if protocol == UDP else "SCTP"
        return ports
    if protocol in (ICMP4, ICMP6):
        _need(data, at, 8, "ICMP")
        icmp = flow.l4.ICMPv4 if protocol == ICMP4 else flow.l4.ICMPv6
        icmp.type, icmp.code = data[at], data[at + 1]
        version = 4 if protocol == ICMP4 else 6
        flow.Summary = f"ICMPv{version} {icmp_text(version, data[at], data[at + 1])}"
        # A type or code of 0 leaves nothing to set: the message itself must still be there.
        icmp.SetInParent()
    elif protocol == VRRP:
        _need(data, at, 8, "VRRP")
        vrrp = flow.l4.VRRP
        vrrp.type, vrrp.vrid, vrrp.priority = data[at] & 15, data[at + 1], data[at + 2]
        flow.Summary = "VRRP"
    elif protocol == IGMP:
        _need(data, at, 8, "IGMP")
        flow.l4.IGMP.type = data[at]
        flow.l4.IGMP.group_address = address_text(data[at + 4 : at + 8])
        flow.Summary = "IGMP"
    return 0, 0

"""Every reason to drop is driven by a packet."""

import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot3, Ether
from scapy.packet import Packet, Raw

from datapath import syscall
from datapath.syscall import MapType
from tests.bpf.conftest import furnish
from tests.support.bpf import (
    NODE,
    REMOTE,
    REMOTE6,
    REMOTE_IDENTITY,
    ROUTER4,
    SHOT,
    A,
    B,
    Machine,
)
from tests.support.packets import frame, from_tunnel, ip, remote_tcp, tcp, udp, unreachable
from wire.bpf import layouts as w
from wire.bpf.layouts import DropReason as R
from wire.bpf.layouts import SourceFile as F

ROOT = Path(__file__).parents[2]
VIP = "10.96.0.10"
# What a packet cannot bring about: the kernel's helpers refuse to write for lack of memory only.
BEYOND_PACKETS = {R.DROP_WRITE_FAILED}

Preparation = Callable[[Machine], None]


def _empty_service(machine: Machine) -> None:
    machine.service(VIP, 80, [])


def _sctp_service(machine: Machine) -> None:
    machine.backend(1, B.address, 8080, protocol=132)
    machine.service(VIP, 80, [1], protocol=132)


def _dangling_service(machine: Machine) -> None:
    machine.service(VIP, 80, [5])  # no such backend


def _no_pod(machine: Machine) -> None:
    machine.tables["ist_interfaces"].remove([struct.pack("=I", A.ifindex)])


def _tunnel_over_ipv6(machine: Machine) -> None:
    machine.remote(REMOTE, REMOTE_IDENTITY, "fd00::9")


def _cut(packet: Packet, length: int) -> Raw:
    return Raw(bytes(packet)[:length])


def _arp(**fields: object) -> Packet:
    return Ether(src=A.mac) / ARP(**{"psrc": A.address, "pdst": ROUTER4, **fields})


V6 = (A.address6, B.address6)
DF_TOO_BIG = udp(dst=REMOTE, payload=b"x" * 1500, flags="DF")
LONG = bytes(60)

# name: (reason, file, program, packet, arguments of run, what to prepare)
CASES: dict[str, tuple[R, F, str, object, dict[str, int], Preparation | None]] = {
    "address of another pod": (
        *(R.DROP_INVALID_SOURCE_IP, F.SOURCE_FROM_CONTAINER),
        *("from_container", tcp(src=B.address, dst=REMOTE), {}, None),
    ),
    "address of another pod, IPv6": (
        *(R.DROP_INVALID_SOURCE_IP, F.SOURCE_FROM_CONTAINER),
        *("from_container", tcp(B.address6, REMOTE6), {}, None),
    ),
    "ARP in another's name": (
        *(R.DROP_INVALID_SOURCE_IP, F.SOURCE_NEIGHBOUR),
        *("from_container", _arp(psrc=B.address), {}, None),
    ),
    "ARP for something else than IPv4": (
        *(R.DROP_MALFORMED, F.SOURCE_NEIGHBOUR, "from_container", _arp(ptype=0x86DD), {}, None),
    ),
    "version of IP": (
        *(R.DROP_MALFORMED, F.SOURCE_PARSE, "from_container", tcp(version=5), {}, None),
    ),
    "header shorter than a header": (
        *(R.DROP_MALFORMED, F.SOURCE_PARSE, "from_container", tcp(ihl=4), {}, None),
    ),
    "longer than the frame": (
        *(R.DROP_MALFORMED, F.SOURCE_PARSE, "from_container", tcp(len=500), {}, None),
    ),
    "longer than the frame, IPv6": (
        *(R.DROP_MALFORMED, F.SOURCE_PARSE, "from_container", tcp(*V6, plen=500), {}, None),
    ),
    "v4-mapped address on the wire": (
        *(R.DROP_MALFORMED, F.SOURCE_PARSE, "from_container"),
        *(tcp("::ffff:10.1.0.10", B.address6), {}, None),
    ),
    "TCP header cut short": (
        *(R.DROP_CT_TRUNCATED, F.SOURCE_PARSE, "from_container"),
        *(frame(ip(proto=6) / bytes(12)), {}, None),
    ),
    "UDP header cut short": (
        *(R.DROP_CT_TRUNCATED, F.SOURCE_PARSE, "from_container"),
        *(frame(ip(proto=17) / bytes(4)), {}, None),
    ),
    "ICMP header cut short": (
        *(R.DROP_CT_TRUNCATED, F.SOURCE_PARSE, "from_container"),
        *(frame(ip(proto=1) / bytes(4)), {}, None),
    ),
    "ICMP error that quotes too little": (
        *(R.DROP_CT_TRUNCATED, F.SOURCE_ICMP, "from_container"),
        *(frame(ip() / ICMP(type=3, code=3) / bytes(10)), {}, None),
    ),
    "ICMP error that quotes no ports": (
        *(R.DROP_CT_TRUNCATED, F.SOURCE_ICMP, "from_container"),
        *(frame(ip() / ICMP(type=3) / bytes(IP(src=B.address, dst=A.address, proto=6))), {}, None),
    ),
    "ICMP error that quotes no IP": (
        *(R.DROP_MALFORMED, F.SOURCE_ICMP, "from_container"),
        *(frame(ip() / ICMP(type=3) / LONG), {}, None),
    ),
    "too big for the tunnel": (
        *(R.DROP_FRAGMENTATION_NEEDED, F.SOURCE_FORWARD, "from_container", DF_TOO_BIG, {}, None),
    ),
    "GRE": (
        *(R.DROP_CT_UNKNOWN_L4, F.SOURCE_PARSE, "from_container"),
        *(frame(ip(proto=47) / LONG), {}, None),
    ),
    "neither IP nor ARP": (
        *(R.DROP_UNSUPPORTED_L3, F.SOURCE_PARSE, "from_container"),
        *(Ether(src=A.mac, dst=A.node_mac, type=0x88CC) / LONG, {}, None),
    ),
    "not Ethernet II": (
        *(R.DROP_UNSUPPORTED_L2, F.SOURCE_PARSE, "from_container"),
        *(Dot3(src=A.mac, dst=A.node_mac, len=60) / LONG, {}, None),
    ),
    "no tunnel key": (
        *(R.DROP_NO_TUNNEL_KEY, F.SOURCE_FROM_OVERLAY, "from_overlay", remote_tcp(), {}, None),
    ),
    "out of the tunnel, not for us": (
        *(R.DROP_UNROUTABLE_IP, F.SOURCE_FROM_OVERLAY, "from_overlay"),
        *(remote_tcp(dst="10.1.0.77"), {"vni": REMOTE_IDENTITY}, None),
    ),
    "from the stack, nobody's": (
        *(R.DROP_UNROUTABLE_IP, F.SOURCE_FORWARD, "from_host"),
        *(tcp(src=NODE, dst="10.3.0.1"), {}, None),
    ),
    "from the stack to the node": (
        *(R.DROP_UNROUTABLE_IP, F.SOURCE_FORWARD, "from_host"),
        *(tcp(src=NODE, dst=ROUTER4), {}, None),
    ),
    "to the loopback address, no such flow": (
        *(R.DROP_UNROUTABLE_IP, F.SOURCE_FORWARD, "from_container"),
        *(tcp(dst="169.254.42.1", flags="A"), {}, None),
    ),
    "extension header": (
        *(R.DROP_INVALID_EXTENSION_HEADER, F.SOURCE_PARSE, "from_container"),
        *(frame(ip(*V6) / IPv6ExtHdrHopByHop() / UDP()), {}, None),
    ),
    "fragment of which the first did not come": (
        *(R.DROP_FIRST_FRAGMENT_UNKNOWN, F.SOURCE_PARSE, "from_container", udp(frag=10), {}, None),
    ),
    "fragment in the header of TCP": (
        *(R.DROP_FRAGMENT_UNSUPPORTED, F.SOURCE_PARSE, "from_container", tcp(frag=2), {}, None),
    ),
    "fragment of a neighbour's question, IPv6": (
        *(R.DROP_FRAGMENT_UNSUPPORTED, F.SOURCE_PARSE, "from_container"),
        *(frame(ip(*V6) / IPv6ExtHdrFragment(nh=58, m=1) / ICMPv6ND_NS()), {}, None),
    ),
    "fragment of which the first did not come, IPv6": (
        *(R.DROP_FIRST_FRAGMENT_UNKNOWN, F.SOURCE_PARSE, "from_container"),
        *(frame(ip(*V6) / IPv6ExtHdrFragment(nh=17, offset=9) / bytes(8)), {}, None),
    ),
    "fragment header cut short, IPv6": (
        *(R.DROP_MALFORMED, F.SOURCE_PARSE, "from_container"),
        *(frame(ip(*V6, nh=44) / bytes(7)), {}, None),
    ),
    "SCTP header cut short": (
        *(R.DROP_CT_TRUNCATED, F.SOURCE_PARSE, "from_container"),
        *(frame(ip(proto=132) / bytes(8)), {}, None),
    ),
    "SCTP to another port of a service's backend": (
        *(R.DROP_UNSUPPORTED_SERVICE_PROTOCOL, F.SOURCE_NAT, "from_container"),
        *(frame(ip(dst=VIP, proto=132) / struct.pack(">HHII", 1, 80, 0, 0)), {}, _sctp_service),
    ),
    "service without backend": (
        *(R.DROP_NO_BACKEND, F.SOURCE_SERVICE, "from_container", tcp(dst=VIP), {}, _empty_service),
    ),
    "service whose backend is missing": (
        *(R.DROP_NO_BACKEND, F.SOURCE_SERVICE, "from_host"),
        *(tcp(src=NODE, dst=VIP), {}, _dangling_service),
    ),
    "tunnel endpoint of another family": (
        *(R.DROP_NO_TUNNEL_ENDPOINT, F.SOURCE_FORWARD, "from_container"),
        *(tcp(dst=REMOTE), {}, _tunnel_over_ipv6),
    ),
    "tunnel traffic from a pod": (
        *(R.DROP_TUNNEL_FROM_POD, F.SOURCE_FROM_CONTAINER, "from_container"),
        *(udp(dst=NODE, dport=8472), {}, None),
    ),
    "identity of the host in the VNI": (
        *(R.DROP_INVALID_IDENTITY, F.SOURCE_FROM_OVERLAY),
        *("from_overlay", remote_tcp(), {"vni": 1}, None),
    ),
    "no identity in the VNI": (
        *(R.DROP_INVALID_IDENTITY, F.SOURCE_FROM_OVERLAY),
        *("from_overlay", remote_tcp(), {"vni": 0}, None),
    ),
    "interface that no pod has": (
        *(R.DROP_UNKNOWN_SENDER, F.SOURCE_FROM_CONTAINER, "from_container", tcp(), {}, _no_pod),
    ),
    "no hop left": (
        *(R.DROP_TTL_EXCEEDED, F.SOURCE_DELIVER, "from_container", tcp(ttl=1), {}, None),
    ),
    "no hop left, IPv6": (
        *(R.DROP_TTL_EXCEEDED, F.SOURCE_DELIVER, "from_container", tcp(*V6, hlim=1), {}, None),
    ),
    "no hop left, out of the tunnel": (
        *(R.DROP_TTL_EXCEEDED, F.SOURCE_DELIVER, "from_overlay"),
        *(remote_tcp(ttl=1), {"vni": REMOTE_IDENTITY}, None),
    ),
}
ANSWERED = {R.DROP_NO_BACKEND, R.DROP_FRAGMENTATION_NEEDED, R.DROP_TTL_EXCEEDED}


@pytest.mark.parametrize("name", CASES)
def test_packet_is_dropped_with_its_reason(machine: Machine, name: str) -> None:
    """The packet is dropped, counted once, with reason and file."""
    reason, file, program, packet, arguments, prepare = CASES[name]
    if prepare is not None:
        prepare(machine)
    done = machine.run(program, packet, **arguments)
    assert done.drops == [(reason, file)]
    assert done.forwarded == {}
    answered = reason in ANSWERED and program != "from_overlay"
    assert (done.verdict == SHOT) is not answered


@pytest.mark.parametrize(
    ("file", "prepare"),
    [
        (F.SOURCE_FORWARD, lambda m: None),
        (F.SOURCE_SERVICE, lambda m: (m.backend(1, B.address, 80), m.service(VIP, 80, [1]))),
    ],
)
def test_full_conntrack_is_a_reason(file: F, prepare: Preparation) -> None:
    """Where an entry cannot be made, the packet does not go on without one."""
    full = syscall.map_create(MapType.HASH, w.CONNTRACK_KEY.size, w.CONNTRACK_VALUE.size, 1)
    syscall.map_update(full, bytes(w.CONNTRACK_KEY.size), bytes(w.CONNTRACK_VALUE.size))
    machine = furnish(Machine(replaced={"ist_ct": full}).load())
    try:
        prepare(machine)
        dst = VIP if file is F.SOURCE_SERVICE else B.address
        assert machine.run("from_container", tcp(dst=dst)).drops == [
            (R.DROP_CT_INSERT_FAILED, file)
        ]
        sent = from_tunnel(tcp(src=REMOTE, dst=A.address))
        done = machine.run("from_overlay", sent, vni=REMOTE_IDENTITY)
        assert done.drops == [(R.DROP_CT_INSERT_FAILED, F.SOURCE_DELIVER)]
    finally:
        machine.close()
        os.close(full)


def test_every_reason_in_the_code_is_driven() -> None:
    """No file of bpf/ drops for a reason that no case above drives."""
    text = "".join(p.read_text() for p in (ROOT / "bpf").glob("**/*.[ch]"))
    used = {R[name] for name in re.findall(r"DROP\(\s*SOURCE_\w+,\s*(DROP_\w+)\s*\)", text)}
    driven = {case[0] for case in CASES.values()} | {R.DROP_CT_INSERT_FAILED}
    driven |= {R.DROP_UNENCRYPTED, R.DROP_NO_NODE_ID}  # by test_encrypt.py, test_ipsec.py
    driven |= {R.DROP_FIB_LOOKUP_FAILED}  # by test_native.py
    assert used - BEYOND_PACKETS == driven


def test_error_about_an_error_is_not_sent(machine: Machine) -> None:
    """An ICMP error that cannot go on is dropped and not answered."""
    quoted = IP(src=B.address, dst=A.address) / UDP()
    sent = unreachable(A.address, B.address, quoted)
    sent[IP].ttl = 1
    del sent[IP].chksum
    done = machine.run("from_container", sent)
    assert done.reason is R.DROP_TTL_EXCEEDED
    assert done.verdict == SHOT
    assert IPv6 not in done.packet

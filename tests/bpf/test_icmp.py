"""ICMP errors about flows that were translated, and those of our own."""

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, TCPerror, UDPerror
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPerror6, IPv6, in6_chksum
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import checksum

from tests.support import packets
from tests.support.bpf import (
    MTU,
    OK,
    REDIRECT,
    REMOTE,
    REMOTE6,
    REMOTE_IDENTITY,
    ROUTER4,
    ROUTER6,
    A,
    Machine,
)
from tests.support.packets import assert_checksums, frame, from_tunnel, tcp, udp, unreachable

VIP, VIP6 = "10.96.0.10", "fd00:96::10"
HOP = "10.9.9.9"


def serve(machine: Machine, protocol: int) -> None:
    machine.backend(1, REMOTE, 8080, protocol)
    machine.service(VIP, 80, [1], protocol=protocol)


def quoted_checksums_hold(quoted: Packet) -> None:
    """A quoted packet, if it is whole, is a valid one."""
    assert bytes(quoted) == bytes(packets.recomputed(Ether() / IP(bytes(quoted)))[IP])


@pytest.mark.parametrize("protocol", [6, 17])
@pytest.mark.parametrize("sender", [REMOTE, HOP])
@pytest.mark.parametrize("code", [1, 3, 4])
def test_error_reaches_the_client_about_what_it_sent(
    machine: Machine, protocol: int, sender: str, code: int
) -> None:
    """Inside the error stands the packet to the service again; so does the sender if it was it."""
    serve(machine, protocol)
    sent = (tcp if protocol == 6 else udp)(dst=VIP, dport=80)
    translated = machine.run("from_container", sent).packet
    error = from_tunnel(unreachable(sender, A.address, translated[IP], code))
    if code == 4:
        error[ICMP].nexthopmtu = 1300
    done = machine.run("from_overlay", error, vni=REMOTE_IDENTITY)
    assert done.delivered
    assert done.packet[IP].src == (VIP if sender == REMOTE else HOP)
    inner = done.packet[IPerror]
    assert (inner.src, inner.dst) == (A.address, VIP)
    ports = done.packet[TCPerror] if protocol == 6 else done.packet[UDPerror]
    assert (ports.sport, ports.dport) == (40000, 80)
    if code == 4:
        assert done.packet[ICMP].nexthopmtu == 1300
    expected = sent.copy()
    expected[IP].ttl = 63
    assert bytes(inner) == bytes(packets.recomputed(expected)[IP])
    assert_checksums(done.packet)


def test_error_that_quotes_eight_bytes_is_enough(machine: Machine) -> None:
    """The least that a router must quote holds the ports, not TCP's checksum."""
    serve(machine, 6)
    translated = machine.run("from_container", tcp(dst=VIP)).packet
    short = bytes(translated[IP])[:28]
    error = from_tunnel(frame(IP(src=HOP, dst=A.address) / ICMP(type=11, code=0) / short))
    done = machine.run("from_overlay", error, vni=REMOTE_IDENTITY)
    assert done.packet[IPerror].dst == VIP
    checked = IP(bytes(done.packet[IP]))
    del checked[ICMP].chksum
    assert IP(bytes(checked))[ICMP].chksum == done.packet[ICMP].chksum


def test_quoted_udp_without_checksum_stays_without(machine: Machine) -> None:
    """Zero inside the quotation means "none" there too."""
    serve(machine, 17)
    sent = udp(dst=VIP, dport=80)
    sent[UDP].chksum = 0
    translated = machine.run("from_container", sent).packet
    error = from_tunnel(unreachable(REMOTE, A.address, translated[IP]))
    done = machine.run("from_overlay", error, vni=REMOTE_IDENTITY)
    assert (done.packet[UDPerror].dport, done.packet[UDPerror].chksum) == (80, 0)


def test_error_about_an_untranslated_flow_is_untouched(machine: Machine) -> None:
    """Nothing is rewritten where nothing was translated, or nothing is known."""
    for known in (False, True):
        if known:
            machine.run("from_container", udp(dst=REMOTE))
        error = from_tunnel(unreachable(HOP, A.address, udp(dst=REMOTE)[IP]))
        before = bytes(error[ICMP])
        done = machine.run("from_overlay", error, vni=REMOTE_IDENTITY)
        assert done.delivered
        assert bytes(done.packet[ICMP]) == before


def test_error_about_a_pods_own_answer(machine: Machine) -> None:
    """A server learns that its client is gone."""
    error = from_tunnel(unreachable(REMOTE, A.address, udp(A.address, REMOTE, 53, 9999)[IP]))
    assert machine.run("from_overlay", error, vni=REMOTE_IDENTITY).delivered


@pytest.mark.parametrize("protocol", [6, 17])
def test_error_of_the_client_reaches_the_backend(machine: Machine, protocol: int) -> None:
    """A client that refuses an answer tells the backend, about the backend's own packet."""
    serve(machine, protocol)
    build, layer = (tcp, TCP) if protocol == 6 else (udp, UDP)
    machine.run("from_container", build(dst=VIP, dport=80))
    answer = build(VIP, A.address, 80, 40000)
    done = machine.run("from_container", unreachable(A.address, VIP, answer[IP]))
    assert done.left
    assert done.packet[IP].dst == REMOTE
    inner = done.packet[IPerror]
    assert (inner.src, inner.dst) == (REMOTE, A.address)
    assert inner.payload.sport == 8080
    expected = build(REMOTE, A.address, 8080, 40000)
    assert bytes(inner) == bytes(expected[IP])
    assert layer in packets.recomputed(expected)
    assert_checksums(done.packet)


def test_error_for_a_process_of_the_node(machine: Machine) -> None:
    """The node's own flows through services get their errors translated too."""
    serve(machine, 17)
    translated = machine.run("from_host", udp(src=ROUTER4, dst=VIP, dport=80)).packet
    error = from_tunnel(unreachable(REMOTE, ROUTER4, translated[IP]))
    done = machine.run("from_overlay", error, vni=REMOTE_IDENTITY)
    assert done.verdict == OK
    assert (done.packet[IP].src, done.packet[IPerror].dst) == (VIP, VIP)
    assert_checksums(done.packet)


def test_error_over_ipv6(machine: Machine) -> None:
    """ICMPv6 errors are translated by the same code; their checksum covers the addresses."""
    machine.backend(2, REMOTE6, 8080, 17)
    machine.service(VIP6, 80, [2], protocol=17, revnat=10)
    sent = udp(A.address6, VIP6, 40000, 80)
    translated = machine.run("from_container", sent).packet
    error = (
        IPv6(src=REMOTE6, dst=A.address6) / ICMPv6DestUnreach(code=4) / Raw(bytes(translated[IPv6]))
    )
    done = machine.run("from_overlay", from_tunnel(frame(error)), vni=REMOTE_IDENTITY)
    assert done.delivered
    assert done.packet[IPv6].src == VIP6
    inner = done.packet[IPerror6]
    assert (inner.src, inner.dst) == (A.address6, VIP6)
    assert done.packet[UDPerror].dport == 80
    assert_checksums(done.packet)


@pytest.mark.parametrize("flags", ["DF", ""])
def test_too_big_names_the_mtu(machine: Machine, flags: str) -> None:
    """The pod learns the size that fits; the error quotes the packet, cut to a bearable length."""
    sent = udp(dst=REMOTE, payload=b"x" * 1472, flags=flags)
    done = machine.run("from_container", sent)
    assert done.verdict == REDIRECT
    assert (done.packet[IP].src, done.packet[IP].dst) == (ROUTER4, A.address)
    assert (done.packet[ICMP].type, done.packet[ICMP].code) == (3, 4)
    assert done.packet[ICMP].nexthopmtu == MTU
    quoted = bytes(done.packet[ICMP].payload)
    assert len(quoted) == 96
    assert bytes(sent[IP]).startswith(quoted)
    checked = IP(bytes(done.packet[IP]))
    assert icmp_sum_holds(checked)


def icmp_sum_holds(packet: IP) -> bool:
    return checksum(bytes(packet[ICMP])) == 0 and checksum(bytes(packet)[:20]) == 0


def test_too_big_through_a_service_quotes_the_service(machine: Machine) -> None:
    """The pod would not know the backend's address."""
    serve(machine, 17)
    done = machine.run("from_container", udp(dst=VIP, dport=80, payload=b"x" * 1472))
    assert done.packet[IPerror].dst == VIP
    assert done.packet[UDPerror].dport == 80


def test_too_big_over_ipv6(machine: Machine) -> None:
    """Packet too big, with a checksum that holds."""
    done = machine.run("from_container", udp(A.address6, REMOTE6, payload=b"x" * 1452))
    assert done.verdict == REDIRECT
    assert done.packet[ICMPv6PacketTooBig].mtu == MTU
    assert (done.packet[IPv6].src, done.packet[IPv6].dst) == (ROUTER6, A.address6)
    quoted = bytes(done.packet[IPv6])[48:]
    assert len(quoted) == 96
    assert in6_chksum(58, done.packet[IPv6], bytes(done.packet[IPv6])[40:]) == 0


def test_stack_is_told_as_well(machine: Machine) -> None:
    """What the node itself sends too big is answered to the node."""
    done = machine.run("from_host", udp(src=ROUTER4, dst=REMOTE, payload=b"x" * 1472))
    assert done.verdict == REDIRECT
    assert done.packet[ICMP].nexthopmtu == MTU
    assert done.packet[IP].dst == ROUTER4

"""Services: which backend a packet goes to, and what the client sees of it."""

import struct
from collections import Counter

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.layers.l2 import Ether

from tests.support import packets
from tests.support.bpf import (
    NODE,
    OK,
    REDIRECT,
    REMOTE,
    REMOTE_IDENTITY,
    ROUTER4,
    SHOT,
    A,
    B,
    Machine,
    now_s,
)
from tests.support.bpf import address as packed
from tests.support.packets import assert_checksums, echo, tcp, udp
from wire.bpf import layouts as w
from wire.bpf.layouts import ServiceFlags

VIP, VIP6 = "10.96.0.10", "fd00:96::10"
LOOPBACK = "169.254.42.1"
EGRESS = w.ConntrackScope.CONNTRACK_EGRESS
INGRESS = w.ConntrackScope.CONNTRACK_INGRESS
SERVICE = w.ConntrackScope.CONNTRACK_SERVICE
BACKENDS = {1: B.address, 2: REMOTE, 3: "10.2.0.31"}


def serve(machine: Machine, backends: list[int], **options: int) -> None:
    for number in backends:
        machine.backend(number, BACKENDS[number], 8080, options.get("protocol", 6))
        if number > 1:
            machine.remote(BACKENDS[number], REMOTE_IDENTITY)
    machine.service(VIP, 80, backends, **options)


def reply_to(packet: Ether, source: str, flags: str = "SA") -> Ether:
    """What the backend answers, as its own pod sends it."""
    l3 = packets.layer3(packet)
    return tcp(l3.dst, l3.src, packet[TCP].dport, packet[TCP].sport, flags)


@pytest.mark.parametrize(("backend", "protocol"), [(1, 6), (1, 17), (2, 6), (2, 17)])
def test_packet_goes_to_the_backend(machine: Machine, backend: int, protocol: int) -> None:
    """Address and port become the backend's, here or elsewhere; the source stays."""
    serve(machine, [backend], protocol=protocol)
    sent = (tcp if protocol == 6 else udp)(dst=VIP, dport=80)
    done = machine.run("from_container", sent)
    assert done.delivered if backend == 1 else done.left
    assert (done.packet[IP].src, done.packet[IP].dst) == (A.address, BACKENDS[backend])
    l4 = done.packet[TCP] if protocol == 6 else done.packet[UDP]
    assert (l4.sport, l4.dport) == (40000, 8080)
    assert_checksums(done.packet)
    assert machine.flow(SERVICE).backend_id == backend


@pytest.mark.parametrize(("share", "expected"), [(0, 0.0), (16384, 0.125), (65535, 0.5)])
def test_a_slot_shares_its_draws(machine: Machine, share: int, expected: float) -> None:
    """Of two slots one gives a part of its draws to the other's backend: with none of them each
    has half, with nearly all of them the other has nearly all."""
    serve(machine, [1, 2])
    key = w.ServiceKey(packed(VIP), 80, 1, 6, 0)
    machine.put("ist_services", key.pack(), w.ServiceSlot(1, 2, share, 9, 0).pack())
    seen: Counter[str] = Counter()
    for port in range(1000):
        done = machine.run("from_container", tcp(dst=VIP, sport=20000 + port))
        seen[done.packet[IP].dst] += 1
    assert sum(seen.values()) == seen[B.address] + seen[REMOTE] == 1000
    assert seen[B.address] / 1000 == pytest.approx(0.5 - expected, abs=0.08)


def test_a_draining_backend_keeps_connections_only(machine: Machine) -> None:
    """Packets of a connection go on to it; an attempt that it never answered is led elsewhere."""
    serve(machine, [1])
    assert machine.run("from_container", tcp(dst=VIP)).packet[IP].dst == B.address
    machine.run("from_container", tcp(dst=VIP, sport=40001))
    machine.run("from_container", tcp(dst=VIP, sport=40001, flags="A"))
    row = w.BackendValue(packed(B.address), 8080, 6, w.BackendState.BACKEND_TERMINATING, 0)
    machine.put("ist_backends", struct.pack("=I", 1), row.pack())
    serve(machine, [2])
    assert machine.run("from_container", tcp(dst=VIP)).packet[IP].dst == REMOTE
    still = machine.run("from_container", tcp(dst=VIP, sport=40001, flags="A"))
    assert still.packet[IP].dst == B.address


def test_reply_carries_the_service_address(machine: Machine) -> None:
    """On its way into the client, the backend's answer gets the service's address and port."""
    serve(machine, [1])
    request = machine.run("from_container", tcp(dst=VIP)).packet
    machine.pod(as_interface_1(B))
    reply = machine.run("from_container", reply_to(request, B.address))
    assert reply.delivered
    assert (reply.packet[IP].src, reply.packet[TCP].sport) == (VIP, 80)
    assert (reply.packet[IP].dst, reply.packet[TCP].dport) == (A.address, 40000)
    assert reply.packet[Ether].dst == A.mac
    assert_checksums(reply.packet)


def as_interface_1(pod):
    """Packets come in on interface 1; let it be another pod's."""
    from dataclasses import replace

    return replace(pod, ifindex=1)


def test_reply_out_of_the_tunnel_carries_the_service_address(machine: Machine) -> None:
    """The same for a backend on another node."""
    serve(machine, [2])
    machine.run("from_container", tcp(dst=VIP))
    sent = packets.from_tunnel(tcp(REMOTE, A.address, 8080, 40000, "SA"))
    reply = machine.run("from_overlay", sent, vni=REMOTE_IDENTITY)
    assert reply.delivered
    assert (reply.packet[IP].src, reply.packet[TCP].sport) == (VIP, 80)
    assert_checksums(reply.packet)


def test_reply_of_an_external_backend_comes_through_the_stack(machine: Machine) -> None:
    """A backend in no pod is reached by the stack; its answer is translated back as well."""
    machine.backend(7, "203.0.113.9", 6443)
    machine.service(VIP, 443, [7])
    out = machine.run("from_container", tcp(dst=VIP, dport=443))
    assert out.verdict == OK
    assert (out.packet[IP].dst, out.packet[TCP].dport) == ("203.0.113.9", 6443)
    reply = machine.run("from_host", tcp("203.0.113.9", A.address, 6443, 40000, "SA"))
    assert reply.delivered
    assert (reply.packet[IP].src, reply.packet[TCP].sport) == (VIP, 443)


@pytest.mark.parametrize("flags", [0, ServiceFlags.SERVICE_MAGLEV])
def test_service_over_ipv6(machine: Machine, flags: int) -> None:
    """One set of maps serves both families, with their checksums."""
    machine.backend(4, B.address6, 8080)
    machine.service(VIP6, 80, [4], flags=flags)
    machine.maglev(9, struct.pack("=I", 4) * 16381)
    request = machine.run("from_container", tcp(A.address6, VIP6))
    assert request.delivered
    assert (request.packet[IPv6].dst, request.packet[TCP].dport) == (B.address6, 8080)
    assert_checksums(request.packet)
    machine.pod(as_interface_1(B))
    reply = machine.run("from_container", reply_to(request.packet, B.address6))
    assert (reply.packet[IPv6].src, reply.packet[TCP].sport) == (VIP6, 80)
    assert_checksums(reply.packet)


def test_every_backend_gets_flows(machine: Machine) -> None:
    """Random selection reaches all of three backends, each with about its third."""
    serve(machine, [1, 2, 3])
    chosen = Counter(
        machine.run("from_container", tcp(dst=VIP, sport=p)).packet[IP].dst
        for p in range(20000, 20300)
    )
    assert set(chosen) == set(BACKENDS.values())
    assert min(chosen.values()) > 50


def test_flow_keeps_its_backend(machine: Machine) -> None:
    """All packets of one flow go to one backend, whichever others there are."""
    serve(machine, [1, 2, 3])
    first = machine.run("from_container", tcp(dst=VIP)).packet[IP].dst
    for _ in range(20):
        assert machine.run("from_container", tcp(dst=VIP, flags="A")).packet[IP].dst == first


def test_maglev_decides_by_the_flow_alone(machine: Machine) -> None:
    """With a table, a flow finds the same backend without any memory of it."""
    serve(machine, [1, 2], flags=ServiceFlags.SERVICE_MAGLEV)
    machine.maglev(9, struct.pack("=II", 1, 2) * 8190 + struct.pack("=I", 1))
    seen = {}
    for _ in range(3):
        machine.tables["ist_ct"].remove([k for k, _ in list(machine.tables["ist_ct"].rows())])
        for port in range(30000, 30040):
            done = machine.run("from_container", tcp(dst=VIP, sport=port))
            assert seen.setdefault(port, done.packet[IP].dst) == done.packet[IP].dst
    assert set(seen.values()) == {B.address, REMOTE}


def test_maglev_without_table_falls_back(machine: Machine) -> None:
    """A table that is not there yet, or names a backend that is gone, costs no flow."""
    serve(machine, [1], flags=ServiceFlags.SERVICE_MAGLEV)
    assert machine.run("from_container", tcp(dst=VIP, sport=1)).delivered
    machine.maglev(9, struct.pack("=I", 99) * 16381)
    assert machine.run("from_container", tcp(dst=VIP, sport=2)).delivered


def test_terminating_backend_keeps_its_flows_and_gets_no_new(machine: Machine) -> None:
    """It is no longer among the slots, but its row stays for who knows it."""
    serve(machine, [1])
    machine.run("from_container", tcp(dst=VIP, sport=1000))
    machine.backend(1, B.address, 8080, state=w.BackendState.BACKEND_TERMINATING)
    serve(machine, [2])
    old = machine.run("from_container", tcp(dst=VIP, sport=1000, flags="A"))
    assert old.packet[IP].dst == B.address
    new = {machine.run("from_container", tcp(dst=VIP, sport=p)).packet[IP].dst for p in range(20)}
    assert new == {REMOTE}


def test_flow_whose_backend_vanished_gets_another(machine: Machine) -> None:
    """No packet goes to a backend that is no more."""
    serve(machine, [1])
    machine.run("from_container", tcp(dst=VIP))
    machine.tables["ist_backends"].remove([struct.pack("=I", 1)])
    serve(machine, [2])
    done = machine.run("from_container", tcp(dst=VIP, flags="A"))
    assert done.packet[IP].dst == REMOTE
    assert machine.flow(SERVICE).backend_id == 2


def test_slot_that_shrinking_took_away(machine: Machine) -> None:
    """Between two writes of a shrinking service a flow still finds a backend."""
    serve(machine, [1])
    key = w.ServiceKey(w_address(VIP), 80, 0, 6, 0).pack()
    machine.put("ist_services", key, w.ServiceValue(0, 0, 1000, 9, 0).pack())
    for port in range(1000, 1050):
        assert machine.run("from_container", tcp(dst=VIP, sport=port)).delivered


def w_address(text: str) -> bytes:
    from tests.support.bpf import address

    return address(text)


def test_new_connection_on_closed_ports_chooses_anew(machine: Machine) -> None:
    """A SYN that finds the closing entry of an earlier connection is a new flow."""
    serve(machine, [1])
    machine.run("from_container", tcp(dst=VIP))
    machine.run("from_container", tcp(dst=VIP, flags="FA"))
    serve(machine, [2])
    assert machine.run("from_container", tcp(dst=VIP, flags="A")).packet[IP].dst == B.address
    assert machine.run("from_container", tcp(dst=VIP)).packet[IP].dst == REMOTE


def test_affinity_keeps_a_client_on_its_backend(machine: Machine) -> None:
    """New flows of one client go where its last one went."""
    serve(machine, [1, 2, 3], flags=ServiceFlags.SERVICE_AFFINITY, affinity_s=100)
    chosen = {
        machine.run("from_container", tcp(dst=VIP, sport=p)).packet[IP].dst
        for p in range(1000, 1030)
    }
    assert len(chosen) == 1


def test_affinity_ends_with_time_and_with_the_backend(machine: Machine) -> None:
    """What is remembered counts neither after its time nor for a backend that left."""
    serve(machine, [1], flags=ServiceFlags.SERVICE_AFFINITY, affinity_s=100)
    machine.run("from_container", tcp(dst=VIP, sport=1))
    serve(machine, [2], flags=ServiceFlags.SERVICE_AFFINITY, affinity_s=100)
    assert machine.run("from_container", tcp(dst=VIP, sport=2)).packet[IP].dst == B.address
    ((key, value),) = list(machine.tables["ist_affinity"].rows())
    late = w.AffinityValue.parse(value)._replace(last_used_ns=max(0, now_s() - 101) * 10**9)
    machine.put("ist_affinity", key, late.pack())
    assert machine.run("from_container", tcp(dst=VIP, sport=3)).packet[IP].dst == REMOTE
    # It is remembered for backend 2 now; that one leaves.
    machine.tables["ist_aff_match"].remove([w.AffinityMatchKey(2, 9).pack()])
    serve(machine, [1], flags=ServiceFlags.SERVICE_AFFINITY, affinity_s=100)
    assert machine.run("from_container", tcp(dst=VIP, sport=4)).packet[IP].dst == B.address


def test_affinity_to_a_terminating_backend_ends(machine: Machine) -> None:
    """A client's new flows do not follow its old ones to a backend that is going."""
    serve(machine, [1], flags=ServiceFlags.SERVICE_AFFINITY, affinity_s=100)
    machine.run("from_container", tcp(dst=VIP, sport=1))
    machine.backend(1, B.address, 8080, state=w.BackendState.BACKEND_TERMINATING)
    serve(machine, [2], flags=ServiceFlags.SERVICE_AFFINITY, affinity_s=100)
    assert machine.run("from_container", tcp(dst=VIP, sport=2)).packet[IP].dst == REMOTE


def test_no_backend_is_told_to_the_client(machine: Machine) -> None:
    """Port unreachable from the router, about the packet as the client sent it."""
    machine.service(VIP, 80, [])
    sent = tcp(dst=VIP)
    done = machine.run("from_container", sent)
    assert done.verdict == REDIRECT
    assert (done.packet[IP].src, done.packet[IP].dst) == (ROUTER4, A.address)
    assert (done.packet[ICMP].type, done.packet[ICMP].code) == (3, 3)
    assert bytes(done.packet[ICMP].payload) == bytes(sent[IP])
    assert_checksums(done.packet)


def test_no_backend_is_told_over_ipv6(machine: Machine) -> None:
    """The same in ICMPv6."""
    machine.service(VIP6, 80, [])
    done = machine.run("from_container", tcp(A.address6, VIP6))
    assert done.verdict == REDIRECT
    assert done.packet[ICMPv6DestUnreach].code == 4
    assert_checksums(done.packet)


def test_pod_reaches_itself(machine: Machine) -> None:
    """A pod that is its own backend sees a loopback address as client, the service as server."""
    machine.backend(8, A.address, 8080)
    machine.service(VIP, 80, [8])
    request = machine.run("from_container", tcp(dst=VIP))
    assert request.delivered
    assert (request.packet[IP].src, request.packet[IP].dst) == (LOOPBACK, A.address)
    assert request.packet[Ether].dst == A.mac
    assert_checksums(request.packet)
    reply = machine.run("from_container", tcp(A.address, LOOPBACK, 8080, 40000, "SA"))
    assert reply.delivered
    assert (reply.packet[IP].src, reply.packet[TCP].sport) == (VIP, 80)
    assert (reply.packet[IP].dst, reply.packet[TCP].dport) == (A.address, 40000)
    assert_checksums(reply.packet)


def test_host_reaches_services(machine: Machine) -> None:
    """A process of the node goes through a service like a pod, and so does the answer."""
    serve(machine, [1])
    request = machine.run("from_host", tcp(src=ROUTER4, dst=VIP))
    assert request.delivered
    machine.pod(as_interface_1(B))
    reply = machine.run("from_container", reply_to(request.packet, B.address))
    assert reply.verdict == OK
    assert (reply.packet[IP].src, reply.packet[TCP].sport) == (VIP, 80)
    assert_checksums(reply.packet)


def test_host_reaches_a_remote_backend(machine: Machine) -> None:
    """The answer out of the tunnel is given to the node's stack as the service's."""
    serve(machine, [2])
    assert machine.run("from_host", tcp(src=ROUTER4, dst=VIP)).left
    sent = packets.from_tunnel(tcp(REMOTE, ROUTER4, 8080, 40000, "SA"))
    reply = machine.run("from_overlay", sent, vni=REMOTE_IDENTITY)
    assert reply.verdict == OK
    assert (reply.packet[IP].src, reply.packet[TCP].sport) == (VIP, 80)


def test_host_reaches_itself(machine: Machine) -> None:
    """A service whose backend is the node: there and back through the loopback address."""
    machine.backend(8, NODE, 6443)
    machine.service(VIP, 443, [8])
    request = machine.run("from_host", tcp(src=ROUTER4, dst=VIP, dport=443))
    assert request.verdict == REDIRECT
    assert (request.packet[IP].src, request.packet[IP].dst) == (LOOPBACK, NODE)


def test_same_ports_directly_and_through_the_service(machine: Machine) -> None:
    """The last packet of the client says which address its answers carry."""
    serve(machine, [1])
    machine.run("from_container", tcp(dst=VIP))
    assert machine.flow(EGRESS).revnat_id == 9
    machine.run("from_container", tcp(dst=B.address, dport=8080))
    assert machine.flow(EGRESS).revnat_id == 0


def test_other_ports_and_protocols_are_no_service(machine: Machine) -> None:
    """Only the frontend's own port and protocol lead to backends; a ping does not."""
    serve(machine, [1])
    for sent in (tcp(dst=VIP, dport=81), udp(dst=VIP, dport=80), echo(dst=VIP)):
        done = machine.run("from_container", sent)
        assert done.verdict == OK
        assert done.packet[IP].dst == VIP
    assert machine.run("from_host", tcp(src=NODE, dst=VIP, dport=81)).verdict == SHOT


def test_udp_without_checksum_stays_without(machine: Machine) -> None:
    """Zero means "none" in UDP over IPv4 and is no sum to be corrected."""
    serve(machine, [1], protocol=17)
    sent = udp(dst=VIP, dport=80)
    sent[UDP].chksum = 0
    assert machine.run("from_container", sent).packet[UDP].chksum == 0


def test_identity_of_the_client_reaches_the_backend(machine: Machine) -> None:
    """Translation changes nothing about whom the destination sees."""
    serve(machine, [1])
    machine.run("from_container", tcp(dst=VIP))
    assert machine.flow(INGRESS).source_identity == A.identity

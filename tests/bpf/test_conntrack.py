"""Flows: their entries, their life, their end."""

import pytest
from scapy.layers.inet import IP, TCP, IPOption_NOP

from tests.support.bpf import (
    REMOTE,
    REMOTE_IDENTITY,
    A,
    B,
    Machine,
    now_s,
)
from tests.support.packets import echo, from_tunnel, remote_tcp, tcp, udp
from wire.bpf import layouts as w
from wire.bpf.layouts import ConntrackFlags as Flag

EGRESS = w.ConntrackScope.CONNTRACK_EGRESS
INGRESS = w.ConntrackScope.CONNTRACK_INGRESS
SERVICE = w.ConntrackScope.CONNTRACK_SERVICE
VIP = "10.96.0.10"
BOTH = Flag.CONNTRACK_RX_CLOSING | Flag.CONNTRACK_TX_CLOSING


def send(machine: Machine, flags: str, **fields: int) -> None:
    """The client's part of a connection with a pod of another node."""
    assert machine.run("from_container", tcp(dst=REMOTE, flags=flags, **fields)).left


def answer(machine: Machine, flags: str) -> None:
    """The server's part."""
    sent = from_tunnel(tcp(REMOTE, A.address, 80, 40000, flags))
    assert machine.run("from_overlay", sent, vni=REMOTE_IDENTITY).delivered


def lives(entry: w.ConntrackValue, expected_s: int) -> bool:
    """So long, from the last packet on, a moment ago."""
    return 0 <= expected_s - (entry.expires_s - now_s()) <= 5


def test_one_entry_for_each_side(machine: Machine) -> None:
    """Between pods of one node the opener has an entry, and who is opened to has one."""
    machine.run("from_container", tcp())
    name = (A.address, 40000, B.address, 80, 6)
    assert set(machine.flows()) == {(*name, EGRESS), (*name, INGRESS)}


def test_replies_make_no_entry(machine: Machine) -> None:
    """Both directions live in the entry of the opener's."""
    send(machine, "S")
    answer(machine, "SA")
    send(machine, "A")
    assert len(machine.flows()) == 1
    entry = machine.flow(EGRESS)
    assert entry.packets == 3
    assert entry.size == len(tcp()) * 3
    assert (entry.tx_tcp_flags, entry.rx_tcp_flags) == (0x12, 0x12)


def test_server_side_likewise(machine: Machine) -> None:
    """A pod that is opened to from outside answers in the same entry."""
    machine.run("from_overlay", remote_tcp(), vni=REMOTE_IDENTITY)
    assert machine.run("from_container", tcp(A.address, REMOTE, 80, 40000, "SA")).left
    assert len(machine.flows()) == 1
    assert machine.flow(INGRESS).rx_tcp_flags == 0x12


@pytest.mark.parametrize(
    ("exchange", "expected_s"),
    [
        ("S", 60),
        ("S sa", 60),
        ("S sa A", 8000),
        ("A", 8000),  # seen for the first time in the middle: a forgotten flow goes on
        ("S sa A FA", 8000),
        ("S sa A fa", 8000),
        ("S sa A FA fa", 10),
        ("S sa A R", 8000),
        ("S sa A R r", 10),
        ("S ra", 10),
        ("S R", 10),
    ],
)
def test_life_of_a_connection(machine: Machine, exchange: str, expected_s: int) -> None:
    """How long an entry lives after what was exchanged (capitals: the opener)."""
    for flags in exchange.split():
        if flags.isupper():
            send(machine, flags)
        else:
            answer(machine, flags.upper())
    assert lives(machine.flow(EGRESS), expected_s)


@pytest.mark.parametrize("build", [udp, echo])
def test_life_of_others(machine: Machine, build) -> None:
    """UDP and pings live for a minute."""
    machine.run("from_container", build(dst=REMOTE))
    assert lives(machine.flow(EGRESS), 60)


def test_service_entry_lives_on_after_the_client_closed(machine: Machine) -> None:
    """The last packets of a connection still find their backend."""
    machine.backend(1, B.address, 80)
    machine.service(VIP, 80, [1])
    for flags, expected_s in (("S", 60), ("A", 8000), ("FA", 60), ("A", 60)):
        machine.run("from_container", tcp(dst=VIP, flags=flags))
        assert lives(machine.flow(SERVICE), expected_s)


def test_expired_entry_is_none(machine: Machine) -> None:
    """What is past its time counts as not there, whether or not it was collected."""
    send(machine, "S")
    machine.change_flow(EGRESS, expires_s=now_s() - 2, revnat_id=5, packets=100)
    send(machine, "A")
    entry = machine.flow(EGRESS)
    assert (entry.packets, entry.revnat_id) == (1, 0)


@pytest.mark.parametrize("closing", [Flag.CONNTRACK_RX_CLOSING, Flag.CONNTRACK_TX_CLOSING, BOTH])
def test_syn_on_a_closing_entry_begins_anew(machine: Machine, closing: int) -> None:
    """The same ports, another connection: nothing of the old one is kept."""
    send(machine, "A")
    machine.change_flow(EGRESS, flags=closing | Flag.CONNTRACK_SEEN_NON_SYN)
    send(machine, "S")
    entry = machine.flow(EGRESS)
    assert (entry.packets, entry.flags) == (1, 0)
    assert lives(entry, 60)


def test_syn_again_on_a_living_entry_changes_nothing(machine: Machine) -> None:
    """A SYN that is sent once more belongs to the connection it opened."""
    send(machine, "S")
    send(machine, "S")
    assert machine.flow(EGRESS).packets == 2


def test_ping_and_its_answer_are_one_flow(machine: Machine) -> None:
    """The identifier stands for the port on the asking side."""
    machine.run("from_container", echo(dst=REMOTE, number=77))
    assert (A.address, 77, REMOTE, 0, 1, EGRESS) in machine.flows()
    sent = from_tunnel(echo(REMOTE, A.address, 77, reply=True))
    assert machine.run("from_overlay", sent, vni=REMOTE_IDENTITY).delivered
    assert len(machine.flows()) == 1


def test_identity_of_an_entry_follows_its_sender(machine: Machine) -> None:
    """A pod whose labels change has another identity in flows that go on."""
    machine.run("from_overlay", remote_tcp(), vni=REMOTE_IDENTITY)
    machine.run("from_overlay", remote_tcp(flags="A"), vni=REMOTE_IDENTITY + 1)
    assert machine.flow(INGRESS).source_identity == REMOTE_IDENTITY + 1


def test_segments_are_counted_as_the_packet_they_came_in(machine: Machine) -> None:
    """Bytes are those that passed, however many segments they become."""
    sent = tcp(dst=REMOTE, flags="A", payload=b"x" * 3000)
    assert machine.run("from_container", sent, gso_size=1400).left
    entry = machine.flow(EGRESS)
    assert (entry.packets, entry.size) == (1, len(sent))


def test_host_leaves_no_entry_of_its_own(machine: Machine) -> None:
    """The node's own flows are the pod's business only, unless a service is between."""
    machine.run("from_host", tcp(src="192.0.2.1", dst=B.address))
    assert {name[5] for name in machine.flows()} == {INGRESS}


def test_options_of_ip_are_skipped(machine: Machine) -> None:
    """Ports are found behind IP options."""
    sent = tcp(dport=443, options=[IPOption_NOP()] * 4)
    done = machine.run("from_container", sent)
    assert done.delivered
    assert done.packet[IP].ihl == 6
    assert done.packet[TCP].dport == 443
    assert (A.address, 40000, B.address, 443, 6, EGRESS) in machine.flows()

"""Fragments of IPv4: the later ones go where the first goes, and nowhere without it."""

from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, UDP

from model.policy_map import Direction, PolicyEntry, PolicyKey
from tests.bpf.conftest import furnish
from tests.support.bpf import REMOTE_IDENTITY, A, B, Machine
from tests.support.packets import frame, from_tunnel, ip
from wire.bpf.layouts import DropReason as R

VIP = "10.96.0.10"
SENT = bytes(range(256)) * 8
ALLOW = PolicyEntry()


def pieces(whole: Any, size: int = 1000) -> list[Any]:
    """As a stack would cut it, each in a frame."""
    whole = IP(bytes(whole))  # with lengths and checksums
    data = bytes(whole.payload)
    made = []
    for at in range(0, len(data), size):
        flags = "MF" if at + size < len(data) else 0
        head = IP(src=whole.src, dst=whole.dst, id=77, proto=whole.proto, flags=flags, frag=at // 8)
        made.append(frame(head / data[at : at + size]))
    return made


def datagram(dport: int = 53, dst: str = B.address, src: str = A.address) -> Any:
    return ip(src, dst) / UDP(sport=40000, dport=dport) / SENT


def reassembled(found: list[Any]) -> Any:
    """What the receiver's stack makes of them."""
    parts = sorted((p[IP] for p in found), key=lambda p: p.frag)
    data = b"".join(bytes(p.payload) for p in parts)
    first = parts[0]
    return IP(bytes(IP(src=first.src, dst=first.dst, proto=first.proto) / data))


@pytest.fixture(scope="module")
def enforcing() -> Iterator[Machine]:
    machine = Machine(changes={"config_policy": 1}).load()
    yield machine
    machine.close()


def test_all_pieces_arrive(machine: Machine) -> None:
    """Of UDP and of a large echo request; in any order once the first is there."""
    for whole in (datagram(), ip() / ICMP(type=8, id=7, seq=1) / SENT):
        first, *later = pieces(whole)
        for piece in (first, *reversed(later)):
            assert machine.run("from_container", piece).delivered


def test_without_the_first_none_arrives(machine: Machine) -> None:
    """Nor with the first of another datagram."""
    first, later, *_ = pieces(datagram())
    assert machine.run("from_container", later).reason is R.DROP_FIRST_FRAGMENT_UNKNOWN
    first[IP].id = 78
    assert machine.run("from_container", first).delivered
    assert machine.run("from_container", later).reason is R.DROP_FIRST_FRAGMENT_UNKNOWN


def test_service_translates_all_pieces(machine: Machine) -> None:
    """Addresses in all, the port and the checksum of the whole in the first; no data is changed."""
    machine.backend(1, B.address, 5353, protocol=17)
    machine.service(VIP, 53, [1], protocol=17)
    found = []
    for piece in pieces(datagram(dst=VIP)):
        done = machine.run("from_container", piece)
        assert done.delivered
        found.append(done.packet)
    whole = reassembled(found)
    assert (whole.dst, whole[UDP].dport, bytes(whole[UDP].payload)) == (B.address, 5353, SENT)
    checksum = whole[UDP].chksum
    del whole[UDP].chksum
    assert IP(bytes(whole))[UDP].chksum == checksum


def test_policy_judges_later_pieces_by_the_ports_of_the_first(enforcing: Machine) -> None:
    """A row with a port lets all of them pass; what it does not name loses all of them."""
    furnish(enforcing)
    enforcing.policy(A.number, {PolicyKey(B.identity, Direction.EGRESS, 17, 53, 24): ALLOW})
    enforcing.policy(B.number, {PolicyKey(A.identity, Direction.INGRESS, 17, 53, 24): ALLOW})
    for piece in pieces(datagram()):
        assert enforcing.run("from_container", piece).delivered
    for piece in pieces(datagram(54)):
        assert enforcing.run("from_container", piece).reason is R.DROP_POLICY_DENIED


def test_pieces_from_the_tunnel(enforcing: Machine) -> None:
    """The receiver's node keeps the first of its own."""
    furnish(enforcing)
    enforcing.policy(A.number, {PolicyKey(REMOTE_IDENTITY, Direction.INGRESS, 17, 53, 24): ALLOW})
    first, *later = pieces(datagram(src="10.2.0.30", dst=A.address))
    lost = enforcing.run("from_overlay", from_tunnel(later[0]), vni=REMOTE_IDENTITY)
    assert lost.reason is R.DROP_FIRST_FRAGMENT_UNKNOWN
    for piece in (first, *later):
        done = enforcing.run("from_overlay", from_tunnel(piece), vni=REMOTE_IDENTITY)
        assert done.delivered

"""Fragments: the later ones go where the first goes, and nowhere without it."""

from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment

from model.policy_map import Direction, PolicyEntry, PolicyKey
from tests.bpf.conftest import furnish
from tests.support.bpf import REMOTE, REMOTE6, REMOTE_IDENTITY, A, B, Machine
from tests.support.packets import frame, from_tunnel, ip
from wire.bpf.layouts import DropReason as R

VIPS = {4: "10.96.0.10", 6: "fd00:96::10"}
SENT = bytes(range(256)) * 8
ALLOW = PolicyEntry()
FAMILIES = pytest.mark.parametrize("version", [4, 6])


def pieces(whole: Any, size: int = 1000, number: int = 77) -> list[Any]:
    """As a stack would cut it, each in a frame."""
    whole = type(whole)(bytes(whole))  # with lengths and checksums
    data = bytes(whole.payload)
    made = []
    for at in range(0, len(data), size):
        more = at + size < len(data)
        part = data[at : at + size]
        if IPv6 in whole:
            head: Any = IPv6(src=whole.src, dst=whole.dst) / IPv6ExtHdrFragment(
                nh=whole.nh, m=more, offset=at // 8, id=number
            )
        else:
            flags = "MF" if more else 0
            head = IP(src=whole.src, dst=whole.dst, id=number, proto=whole.proto, flags=flags)
            head.frag = at // 8
        made.append(frame(head / part))
    return made


def addresses(version: int) -> tuple[str, str]:
    return (A.address, B.address) if version == 4 else (A.address6, B.address6)


def datagram(version: int = 4, dport: int = 53, dst: str = "", src: str = "") -> Any:
    own, other = addresses(version)
    return ip(src or own, dst or other) / UDP(sport=40000, dport=dport) / SENT


def large_echo(version: int) -> Any:
    own, other = addresses(version)
    if version == 6:
        return IPv6(src=own, dst=other) / ICMPv6EchoRequest(id=7, seq=1, data=SENT)
    return ip() / ICMP(type=8, id=7, seq=1) / SENT


def joined(found: list[Any]) -> Any:
    """What the receiver's stack makes of them."""
    first = found[0]
    if IPv6ExtHdrFragment in first:
        parts = sorted((p[IPv6ExtHdrFragment] for p in found), key=lambda p: p.offset)
        data = b"".join(bytes(p.payload) for p in parts)
        six = IPv6(src=first[IPv6].src, dst=first[IPv6].dst, nh=parts[0].nh, hlim=63)
        return IPv6(bytes(six / data))
    return reassembled(found)


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


@FAMILIES
def test_all_pieces_arrive(machine: Machine, version: int) -> None:
    """Of UDP and of a large echo request; in any order once the first is there."""
    for whole in (datagram(version), large_echo(version)):
        first, *later = pieces(whole)
        for piece in (first, *reversed(later)):
            assert machine.run("from_container", piece).delivered


@FAMILIES
def test_without_the_first_none_arrives(machine: Machine, version: int) -> None:
    """Nor with the first of another datagram; of IPv6 all 32 bits of its number count."""
    _, later, *_ = pieces(datagram(version))
    assert machine.run("from_container", later).reason is R.DROP_FIRST_FRAGMENT_UNKNOWN
    other = 78 if version == 4 else 77 + (1 << 16)
    assert machine.run("from_container", pieces(datagram(version), number=other)[0]).delivered
    assert machine.run("from_container", later).reason is R.DROP_FIRST_FRAGMENT_UNKNOWN


def test_a_fragment_that_is_the_whole(machine: Machine) -> None:
    """Some stacks of IPv6 say so of every packet after they were told of a small MTU."""
    own, other = addresses(6)
    alone = IPv6(src=own, dst=other) / IPv6ExtHdrFragment(nh=17, id=5) / UDP(dport=53) / b"x"
    assert machine.run("from_container", frame(alone)).delivered


@FAMILIES
def test_service_translates_all_pieces(machine: Machine, version: int) -> None:
    """Addresses in all, the port and the checksum of the whole in the first; no data is changed."""
    vip, backend = VIPS[version], addresses(version)[1]
    machine.backend(1, backend, 5353, protocol=17)
    machine.service(vip, 53, [1], protocol=17)
    found = []
    for piece in pieces(datagram(version, dst=vip)):
        done = machine.run("from_container", piece)
        assert done.delivered
        found.append(done.packet)
    whole = joined(found)
    assert (whole.dst, whole[UDP].dport, bytes(whole[UDP].payload)) == (backend, 5353, SENT)
    checksum = whole[UDP].chksum
    del whole[UDP].chksum
    assert type(whole)(bytes(whole))[UDP].chksum == checksum


@FAMILIES
def test_policy_judges_later_pieces_by_the_ports_of_the_first(
    enforcing: Machine, version: int
) -> None:
    """A row with a port lets all of them pass; what it does not name loses all of them."""
    furnish(enforcing)
    enforcing.policy(A.number, {PolicyKey(B.identity, Direction.EGRESS, 17, 53, 24): ALLOW})
    enforcing.policy(B.number, {PolicyKey(A.identity, Direction.INGRESS, 17, 53, 24): ALLOW})
    for piece in pieces(datagram(version)):
        assert enforcing.run("from_container", piece).delivered
    for piece in pieces(datagram(version, 54)):
        assert enforcing.run("from_container", piece).reason is R.DROP_POLICY_DENIED


@FAMILIES
def test_pieces_from_the_tunnel(enforcing: Machine, version: int) -> None:
    """The receiver's node keeps the first of its own."""
    furnish(enforcing)
    enforcing.policy(A.number, {PolicyKey(REMOTE_IDENTITY, Direction.INGRESS, 17, 53, 24): ALLOW})
    source = REMOTE if version == 4 else REMOTE6
    first, *later = pieces(datagram(version, src=source, dst=addresses(version)[0]))
    lost = enforcing.run("from_overlay", from_tunnel(later[0]), vni=REMOTE_IDENTITY)
    assert lost.reason is R.DROP_FIRST_FRAGMENT_UNKNOWN
    for piece in (first, *later):
        done = enforcing.run("from_overlay", from_tunnel(piece), vni=REMOTE_IDENTITY)
        assert done.delivered

"""Whatever is translated, checksums hold: compared with scapy's own."""

from ipaddress import IPv6Address

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP

from tests.bpf.conftest import furnish
from tests.support.bpf import REMOTE_IDENTITY, A, Machine
from tests.support.packets import assert_checksums, from_tunnel, layer3, tcp, udp

addresses = st.integers(1, 2**24 - 2).map(lambda n: f"11.{n >> 16}.{n >> 8 & 255}.{n & 255}")
addresses6 = st.integers(1, 2**64 - 1).map(lambda n: str(IPv6Address((0xFD11 << 112) + n)))
ports = st.integers(1, 65535).filter(lambda p: p != 8472)
few = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@few
@given(
    vip=st.one_of(st.tuples(addresses, addresses), st.tuples(addresses6, addresses6)),
    ends=st.tuples(ports, ports, ports),
    payload=st.binary(max_size=64),
    is_tcp=st.booleans(),
)
def test_there_and_back(loaded: Machine, vip, ends, payload: bytes, is_tcp: bool) -> None:
    """To any service and back: every checksum holds, and the client sees whom it spoke to."""
    (service, backend), (sport, dport, target) = vip, ends
    if service == backend:
        return
    loaded.clear()
    machine = furnish(loaded)
    machine.remote(backend, REMOTE_IDENTITY)
    build, layer, protocol = (tcp, TCP, 6) if is_tcp else (udp, UDP, 17)
    machine.backend(1, backend, target, protocol)
    machine.service(service, dport, [1], protocol=protocol)
    own = A.address6 if ":" in service else A.address
    out = machine.run("from_container", build(own, service, sport, dport, payload=payload))
    assert out.left
    assert layer3(out.packet).dst == backend
    assert out.packet[layer].dport == target
    assert_checksums(out.packet)
    answer = from_tunnel(build(backend, own, target, sport, payload=payload))
    if is_tcp:
        answer = from_tunnel(build(backend, own, target, sport, "SA", payload=payload))
    back = machine.run("from_overlay", answer, vni=REMOTE_IDENTITY)
    assert back.delivered
    assert layer3(back.packet).src == service
    assert (back.packet[layer].sport, back.packet[layer].dport) == (dport, sport)
    assert bytes(back.packet[layer].payload) == payload
    assert_checksums(back.packet)


@few
@given(ttl=st.integers(2, 255), identification=st.integers(0, 65535), tos=st.integers(0, 255))
def test_header_checksum_after_a_hop(
    loaded: Machine, ttl: int, identification: int, tos: int
) -> None:
    """One hop less, and the sum of the IPv4 header holds."""
    loaded.clear()
    machine = furnish(loaded)
    done = machine.run("from_container", tcp(ttl=ttl, id=identification, tos=tos))
    assert done.packet[IP].ttl == ttl - 1
    assert_checksums(done.packet)

"""Policy, packet by packet: what a row says is what happens to the packet."""

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.sctp import SCTP

from model.policy_map import UNKNOWN_IDENTITY, Direction, PolicyEntry, PolicyKey
from tests.bpf.conftest import furnish
from tests.support.bpf import (
    NODE,
    OK,
    REMOTE_IDENTITY,
    SHOT,
    A,
    B,
    Machine,
    Pod,
    address,
)
from tests.support.packets import echo, frame, from_tunnel, ip, remote_tcp, tcp, udp, unreachable
from wire.bpf import layouts as w
from wire.bpf.layouts import DropReason as R

IN, OUT = Direction.INGRESS, Direction.EGRESS
ALLOW, DENY = PolicyEntry(), PolicyEntry(deny=True)
AUDITED = PolicyEntry(deny=True, audit=True)
EVERYTHING = {PolicyKey(0, IN): ALLOW, PolicyKey(0, OUT): ALLOW}
VIP = "10.96.0.10"
WORLD = "198.51.100.7"


@pytest.fixture(scope="module")
def enforcing() -> Iterator[Machine]:
    machine = Machine(changes={"config_policy": 1}).load()
    yield machine
    machine.close()


@pytest.fixture
def machine(enforcing: Machine) -> Machine:
    """Both pods may do everything; a test takes away what it is about."""
    enforcing.clear()
    furnish(enforcing)
    enforcing.policy(A.number, EVERYTHING)
    enforcing.policy(B.number, EVERYTHING)
    return enforcing


def only(*keys: PolicyKey) -> dict[PolicyKey, PolicyEntry]:
    return dict.fromkeys(keys, ALLOW)


def sctp(**fields: Any) -> Any:
    return frame(ip() / SCTP(sport=40000, dport=80, **fields) / bytes(8))


PACKETS = {
    "TCP 80": tcp(),
    "UDP 53": udp(),
    "SCTP 80": sctp(),
    "ping": echo(),
}
# bits, what they say, and whom of PACKETS that allows
ROWS = {
    "all": (PolicyKey(0, OUT), set(PACKETS)),
    "L3-Only": (PolicyKey(B.identity, OUT), set(PACKETS)),
    "L3-Proto": (PolicyKey(B.identity, OUT, 6, 0, 8), {"TCP 80"}),
    "Proto-Only": (PolicyKey(0, OUT, 17, 0, 8), {"UDP 53"}),
    "L3-L4": (PolicyKey(B.identity, OUT, 132, 80, 24), {"SCTP 80"}),
    "L4-Only": (PolicyKey(0, OUT, 6, 80, 24), {"TCP 80"}),
    "range": (PolicyKey(0, OUT, 6, 64, 18), {"TCP 80"}),
    "range beside it": (PolicyKey(0, OUT, 6, 0, 18), set[str]()),
    "ICMP type": (PolicyKey(0, OUT, 1, 8, 24), {"ping"}),
    "another ICMP type": (PolicyKey(0, OUT, 1, 0, 24), set[str]()),
    "another identity": (PolicyKey(A.identity, OUT), set[str]()),
    "another direction": (PolicyKey(B.identity, IN), set[str]()),
}


@pytest.mark.parametrize("name", ROWS)
def test_row_allows_what_it_says(machine: Machine, name: str) -> None:
    """Every kind of row, in both directions, allows its packets and no others."""
    key, allowed = ROWS[name]
    inward = key._replace(
        direction=IN if key.direction is OUT else OUT,
        identity={B.identity: A.identity, A.identity: B.identity}.get(key.identity, 0),
    )
    for number, rows in ((A.number, only(key)), (B.number, only(inward))):
        machine.policy(A.number, EVERYTHING)
        machine.policy(B.number, EVERYTHING)
        machine.policy(number, rows)
        for title, packet in PACKETS.items():
            machine.tables["ist_ct"].remove([k for k, _ in list(machine.tables["ist_ct"].rows())])
            done = machine.run("from_container", packet)
            assert done.delivered is (title in allowed), (number, title)
            assert done.reason is (None if title in allowed else R.DROP_POLICY_DENIED)


def test_denied_packets_are_counted_with_their_direction(machine: Machine) -> None:
    """What the receiver's policy drops counts as ingress, although the sender's program drops."""
    machine.policy(B.number, only(PolicyKey(0, OUT)))
    done = machine.run("from_container", tcp())
    assert done.drops == [(R.DROP_POLICY_DENIED, w.SourceFile.SOURCE_POLICY)]
    assert done.drop_directions == [w.TrafficDirection.DIRECTION_INGRESS]
    assert done.verdict == SHOT


@pytest.mark.parametrize(
    ("deny", "allow"),
    [
        (PolicyKey(B.identity, OUT), PolicyKey(0, OUT, 6, 80, 24)),
        (PolicyKey(0, OUT), PolicyKey(B.identity, OUT, 6, 80, 24)),
        (PolicyKey(0, OUT, 6, 80, 24), PolicyKey(B.identity, OUT)),
        (PolicyKey(B.identity, OUT, 6, 80, 24), PolicyKey(0, OUT, 6, 80, 24)),
    ],
)
def test_deny_wins(machine: Machine, deny: PolicyKey, allow: PolicyKey) -> None:
    """A denying row decides whichever of the two says more."""
    machine.policy(A.number, {deny: DENY, allow: ALLOW})
    assert machine.run("from_container", tcp()).reason is R.DROP_POLICY_DENY_RULE


def test_audit_lets_pass_what_it_would_deny(machine: Machine) -> None:
    """An audited deny drops nothing; an enforced one beside it does."""
    machine.policy(A.number, {PolicyKey(0, OUT): AUDITED})
    assert machine.run("from_container", tcp()).delivered
    machine.policy(A.number, {PolicyKey(0, OUT): AUDITED, PolicyKey(B.identity, OUT): DENY})
    assert machine.run("from_container", tcp()).reason is R.DROP_POLICY_DENY_RULE
    machine.policy(A.number, {PolicyKey(0, OUT): DENY, PolicyKey(B.identity, OUT): AUDITED})
    assert machine.run("from_container", tcp()).reason is R.DROP_POLICY_DENY_RULE


def test_endpoint_without_rows_is_closed(machine: Machine) -> None:
    """No table yet, and an empty one: nothing passes, in either direction."""
    for number in (A.number, B.number):
        machine.policy(A.number, EVERYTHING)
        machine.policy(B.number, EVERYTHING)
        machine.tables["ist_policy"].remove([struct.pack("=I", number)])
        assert machine.run("from_container", tcp()).reason is R.DROP_NO_POLICY_PROGRAM
        machine.policy(number, {})
        assert machine.run("from_container", tcp()).reason is R.DROP_POLICY_DENIED


def test_enforcement_off_asks_nobody(loaded: Machine) -> None:
    """Without the setting an endpoint without rows is as free as ever."""
    loaded.clear()
    assert furnish(loaded).run("from_container", tcp()).delivered


def test_host_needs_its_row(machine: Machine) -> None:
    """The local host reaches a closed pod by its own row, and only by it."""
    machine.policy(A.number, {})
    assert machine.run("from_host", tcp(src=NODE, dst=A.address)).reason is R.DROP_POLICY_DENIED
    machine.policy(A.number, only(PolicyKey(1, IN)))
    assert machine.run("from_host", tcp(src=NODE, dst=A.address)).delivered
    machine.remote("192.0.2.9", 6, None)
    done = machine.run("from_host", tcp(src="192.0.2.9", dst=A.address))
    assert done.reason is R.DROP_POLICY_DENIED


def test_replies_pass_without_rows(machine: Machine) -> None:
    """A reply needs no row of its own, at either side; a packet like it without a flow does."""
    machine.policy(A.number, only(PolicyKey(B.identity, OUT)))
    machine.policy(B.number, only(PolicyKey(A.identity, IN)))
    assert machine.run("from_container", tcp()).delivered
    machine.pod(as_interface_1(B))
    answer = tcp(B.address, A.address, 80, 40000, "SA")
    assert machine.run("from_container", answer).delivered
    stray = tcp(B.address, A.address, 80, 40001, "SA")
    assert machine.run("from_container", stray).reason is R.DROP_POLICY_DENIED


def as_interface_1(pod: Pod) -> Pod:
    """Its packets come in on the only interface that a test has."""
    return replace(pod, ifindex=1)


@pytest.mark.parametrize("side", [A, B], ids=["at the sender", "at the receiver"])
def test_withdrawn_allow_cuts_a_live_connection(machine: Machine, side: Pod) -> None:
    """Every packet is asked about; what the other side still sends is no connection of its own,
    though it might open one. Allowed again, it goes on."""

    def opener() -> Any:
        machine.pod(A)
        machine.pod(B)
        return machine.run("from_container", tcp(flags="A"))

    def answer() -> Any:
        machine.pod(replace(A, ifindex=2))
        machine.pod(as_interface_1(B))
        return machine.run("from_container", tcp(B.address, A.address, 80, 40000, "A"))

    assert machine.run("from_container", tcp()).delivered
    assert opener().delivered
    assert answer().delivered
    withdrawn = PolicyKey(0, OUT if side is A else IN)
    machine.policy(side.number, {k: v for k, v in EVERYTHING.items() if k != withdrawn})
    for _ in range(2):
        assert opener().reason is R.DROP_POLICY_DENIED
        assert answer().reason is R.DROP_POLICY_DENIED
    machine.policy(side.number, EVERYTHING)
    assert opener().delivered
    assert answer().delivered


def test_setting_keeps_live_connections() -> None:
    """With the setting a flow stays allowed, and new ones are not."""
    keeping = {"config_policy": 1, "config_policy_keeps_flows": 1}
    machine = furnish(Machine(changes=dict(keeping)).load())
    try:
        machine.policy(A.number, EVERYTHING)
        machine.policy(B.number, EVERYTHING)
        assert machine.run("from_container", tcp()).delivered
        machine.policy(A.number, {})
        machine.policy(B.number, {})
        assert machine.run("from_container", tcp(flags="A")).delivered
        assert machine.run("from_container", tcp(sport=1)).reason is R.DROP_POLICY_DENIED
    finally:
        machine.close()


def test_policy_sees_the_backend(machine: Machine) -> None:
    """Through a service, egress is asked about the backend's identity and port."""
    machine.backend(1, B.address, 8080)
    machine.service(VIP, 80, [1])
    machine.policy(A.number, only(PolicyKey(B.identity, OUT, 6, 8080, 24)))
    assert machine.run("from_container", tcp(dst=VIP)).delivered
    machine.policy(A.number, only(PolicyKey(0, OUT, 6, 80, 24)))
    assert machine.run("from_container", tcp(dst=VIP, sport=1)).reason is R.DROP_POLICY_DENIED


def test_pod_reaches_itself_whatever_its_policy(machine: Machine) -> None:
    """A pod that is its own backend asks nobody."""
    machine.backend(8, A.address, 8080)
    machine.service(VIP, 80, [8])
    machine.policy(A.number, {})
    assert machine.run("from_container", tcp(dst=VIP)).delivered


def test_world_and_nodes_have_their_identities(machine: Machine) -> None:
    """What leaves by the node's stack is asked about as world, host, or whose prefix it is."""
    cases = {WORLD: 2, NODE: 1, "203.0.113.9": 1 << 24 | 5}
    machine.remote("203.0.113.9", 1 << 24 | 5, None)
    for target, identity in cases.items():
        machine.policy(A.number, only(PolicyKey(identity, OUT)))
        for other in cases:
            done = machine.run("from_container", tcp(dst=other))
            assert (done.verdict == OK) is (other == target), (target, other)


# Errors of ICMP


def test_errors_of_known_flows_pass(machine: Machine) -> None:
    """An error about an allowed flow passes; one about a flow that nobody opened is asked about."""
    for sent in (tcp(), udp(), echo()):
        machine.policy(A.number, only(PolicyKey(B.identity, OUT)))
        machine.policy(B.number, only(PolicyKey(A.identity, IN)))
        assert machine.run("from_container", sent).delivered
        machine.pod(as_interface_1(B))
        error = unreachable(B.address, A.address, sent[IP])
        assert machine.run("from_container", error).delivered
        machine.pod(A)
    machine.pod(as_interface_1(B))
    stray = unreachable(B.address, A.address, tcp(sport=1)[IP])
    assert machine.run("from_container", stray).reason is R.DROP_POLICY_DENIED
    needed = unreachable(B.address, A.address, tcp(sport=1)[IP], code=4)
    assert machine.run("from_container", needed).delivered


def test_stray_errors_are_asked_about_at_both_sides(machine: Machine) -> None:
    """The receiver's policy judges them by their type as well."""
    stray = unreachable(A.address, B.address, tcp(B.address, A.address)[IP])
    machine.policy(B.number, only(PolicyKey(0, IN, 1, 8, 24)))
    assert machine.run("from_container", stray).reason is R.DROP_POLICY_DENIED
    machine.policy(B.number, only(PolicyKey(0, IN, 1, 3, 24)))
    assert machine.run("from_container", stray).delivered


def test_other_icmp_is_asked_about(machine: Machine) -> None:
    """Neither a flow nor an error: its type decides."""
    sent = frame(ip() / ICMP(type=13))
    machine.policy(A.number, only(PolicyKey(0, OUT, 1, 13, 24)))
    assert machine.run("from_container", sent).delivered
    machine.policy(A.number, only(PolicyKey(0, OUT, 1, 8, 24)))
    assert machine.run("from_container", sent).reason is R.DROP_POLICY_DENIED


# Across the tunnel


def test_tunnel_identity_must_be_that_of_the_address(machine: Machine) -> None:
    """A VNI that is not the identity of the source's row is dropped, whoever is allowed."""
    assert machine.run("from_overlay", remote_tcp(), vni=REMOTE_IDENTITY).delivered
    for claimed in (REMOTE_IDENTITY + 1, A.identity, 2, 6, 7):
        done = machine.run("from_overlay", remote_tcp(sport=claimed & 0xFFFF), vni=claimed)
        assert done.reason is R.DROP_INVALID_IDENTITY, claimed


def test_nodes_and_world_in_the_tunnel(machine: Machine) -> None:
    """A node may have a number of its own here, and so may a prefix of the world."""
    machine.remote("192.0.2.2", 7, None)
    machine.remote("192.0.2.3", 2 << 24 | 1, None)
    machine.remote("203.0.113.9", 1 << 24 | 5, None)
    cases = (("192.0.2.2", 6, 7), ("192.0.2.3", 6, 2 << 24 | 1), ("203.0.113.9", 2, 1 << 24 | 5))
    for source, vni, identity in (*cases, *((WORLD, vni, 2) for vni in (2, 9, 10))):
        machine.policy(A.number, only(PolicyKey(identity, IN)))
        sent = from_tunnel(tcp(src=source, dst=A.address))
        assert machine.run("from_overlay", sent, vni=vni).delivered, source
        machine.policy(A.number, only(PolicyKey(99, IN)))
        done = machine.run("from_overlay", from_tunnel(tcp(src=source, dst=A.address)), vni=vni)
        assert done.reason is R.DROP_POLICY_DENIED


def test_halves_of_the_world_are_no_pods(machine: Machine) -> None:
    """What Cilium calls world-ipv4 or world-ipv6 must not come from an address of a pod."""
    machine.policy(A.number, only(PolicyKey(REMOTE_IDENTITY, IN)))
    for claimed in (9, 10):
        done = machine.run("from_overlay", remote_tcp(), vni=claimed)
        assert done.reason is R.DROP_INVALID_IDENTITY, claimed


def test_identity_that_is_not_known_yet(machine: Machine) -> None:
    """An address whose cluster has not told its identity is nobody, and least of all the world."""
    prefix = w.IpcachePrefixKey(96 + 16, address("10.9.0.0")).pack()
    machine.put("ist_ipcache_lpm", prefix, w.IpcacheValue(bytes(16), 0, 2, 0, 0).pack())
    assert machine.run("from_container", tcp(dst="10.9.0.1")).reason is R.DROP_UNKNOWN_RECEIVER
    machine.policy(A.number, {PolicyKey(UNKNOWN_IDENTITY, OUT): ALLOW, PolicyKey(0, IN): ALLOW})
    assert not machine.run("from_container", tcp(dst="10.9.0.1")).reason, "nothing is forbidden"
    for source in ("10.9.0.1", "10.200.0.1"):  # one of the prefix, and one that nobody told of
        sent = from_tunnel(tcp(src=source, dst=A.address))
        done = machine.run("from_overlay", sent, vni=REMOTE_IDENTITY)
        assert done.reason is R.DROP_UNKNOWN_SENDER
    done = machine.run("from_overlay", from_tunnel(tcp(src="10.9.0.1", dst=A.address)), vni=2)
    assert done.reason is R.DROP_UNKNOWN_SENDER
    assert machine.run("from_host", tcp(src="10.9.0.1", dst=A.address)).reason is (
        R.DROP_UNKNOWN_SENDER
    )
    machine.remote("10.9.0.1", REMOTE_IDENTITY)
    sent = from_tunnel(tcp(src="10.9.0.1", dst=A.address))
    assert machine.run("from_overlay", sent, vni=REMOTE_IDENTITY).delivered


# Counters


def test_every_packet_is_counted_in_its_row(machine: Machine) -> None:
    """Packets and bytes of the row that decided, of denied packets too; replies count nowhere."""
    allow, deny = PolicyKey(B.identity, OUT, 6, 80, 24), PolicyKey(0, OUT, 17, 0, 8)
    machine.policy(A.number, {allow: ALLOW, deny: DENY})
    sent = tcp(payload=b"x" * 100)
    machine.run("from_container", tcp())
    machine.run("from_container", sent)
    machine.run("from_container", udp())
    found = machine.policy_traffic(A.number)
    assert found[allow] == (2, len(tcp()) + len(sent))
    assert found[deny] == (1, len(udp()))


def test_ports_of_ipv6(machine: Machine) -> None:
    """The same rows serve both families."""
    machine.policy(A.number, only(PolicyKey(B.identity, OUT, 6, 80, 24)))
    assert machine.run("from_container", tcp(A.address6, B.address6)).delivered
    done = machine.run("from_container", tcp(A.address6, B.address6, dport=81))
    assert done.reason is R.DROP_POLICY_DENIED

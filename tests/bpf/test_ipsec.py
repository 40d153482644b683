"""Marks by which the kernel's IPsec knows whom a packet is for, or from."""

from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether

from tests.bpf.conftest import furnish
from tests.support.bpf import (
    NODE,
    REMOTE,
    REMOTE6,
    REMOTE_IDENTITY,
    REMOTE_NODE,
    A,
    Machine,
    address,
)
from tests.support.packets import tcp, udp
from wire.bpf.layouts import DropReason as R
from wire.bpf.layouts import NodeValue
from wire.bpf.layouts import SourceFile as F

NEXT = 0xFFFFFFFF
NODE_ID, KEY = 0xBEEF, 5
OUT, IN = 0xBEEF5E00, 0xBEEF0D00


def _furnished(**changes: int) -> Machine:
    constants = {
        "config_ipsec": 1,
        "config_hears_ipsec": 1,
        "config_wireguard_ifindex": 0,
        **changes,
    }
    machine = furnish(Machine(changes=constants).load())
    machine.put("ist_nodes", address(REMOTE_NODE), NodeValue(NODE_ID, KEY).pack())
    return machine


@pytest.fixture(scope="module")
def ipsec() -> Iterator[Machine]:
    machine = _furnished()
    yield machine
    machine.close()


@pytest.fixture(scope="module")
def strict() -> Iterator[Machine]:
    machine = _furnished(config_strict=1)
    yield machine
    machine.close()


@pytest.mark.parametrize("destination", [REMOTE, REMOTE6])
def test_what_goes_into_the_tunnel_is_marked(ipsec: Machine, destination: str) -> None:
    """With the receiver's node ID and the key that we send with."""
    source = A.address if destination == REMOTE else A.address6
    done = ipsec.run("from_container", tcp(source, destination))
    assert done.left
    assert done.mark == OUT


def test_no_node_no_packet(ipsec: Machine) -> None:
    """A node that nobody has told us of gets nothing, not even in clear text."""
    ipsec.remote("10.9.0.1", REMOTE_IDENTITY, "192.0.2.77")
    done = ipsec.run("from_container", tcp(A.address, "10.9.0.1"))
    assert done.drops == [(R.DROP_NO_NODE_ID, F.SOURCE_ENCRYPT)]


@pytest.mark.parametrize("kind", ["ipsec", "strict"])
def test_a_node_without_keys_is_spoken_to_in_clear_text(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """So that it can be switched on node by node; in strict mode not."""
    machine = request.getfixturevalue(kind)
    machine.put("ist_nodes", address("192.0.2.78"), NodeValue(2, 0).pack())
    machine.remote("10.9.0.2", REMOTE_IDENTITY, "192.0.2.78")
    done = machine.run("from_container", tcp(A.address, "10.9.0.2"))
    if kind == "strict":
        assert done.drops == [(R.DROP_UNENCRYPTED, F.SOURCE_ENCRYPT)]
    else:
        assert done.left
        assert done.mark & 0x0F00 == 0x0400


def test_without_ipsec_marks_are_the_tunnels(machine: Machine) -> None:
    """The mark says that a packet is the tunnel's, and nothing of nodes."""
    done = machine.run("from_container", tcp(A.address, REMOTE))
    assert done.left
    assert done.mark & 0x0F00 == 0x0400


def test_what_comes_in_encrypted_is_marked(ipsec: Machine) -> None:
    """ESP gets its sender's node ID; from strangers, and everything else, it gets none."""
    esp = Ether() / IP(src=REMOTE_NODE, dst=NODE, proto=50) / (b"\0\0\0\x05" + bytes(60))
    stranger = Ether() / IP(src="203.0.113.9", dst=NODE, proto=50) / bytes(64)
    assert ipsec.run("from_network", esp, mark=0x1234).mark == IN
    assert ipsec.run("from_network", stranger, mark=IN).mark == 0
    for other in (
        udp(src=REMOTE_NODE, dst=NODE, sport=4, dport=8472),
        Ether() / IPv6(src="fd01::2", dst="fd01::1", nh=50) / bytes(64),
        Ether() / ARP(pdst=REMOTE_NODE),
    ):
        done = ipsec.run("from_network", other)
        assert (done.verdict, done.mark) == (NEXT, 0)


def test_strict_mode_lets_pass_what_was_judged(strict: Machine) -> None:
    """At the device: what is encrypted and the tunnel's own pass; a pod's bare packet does not."""
    tunnel = udp(src=NODE, dst=REMOTE_NODE, sport=40000, dport=8472)
    for mark in (OUT, 0x0E00, 0x0400):
        assert strict.run("to_netdev", tunnel, mark=mark).verdict == NEXT
    done = strict.run("to_netdev", tcp(A.address, REMOTE))
    assert done.drops == [(R.DROP_UNENCRYPTED, F.SOURCE_ENCRYPT)]
    assert strict.run("to_netdev", tcp(A.address, "203.0.113.7")).verdict == NEXT

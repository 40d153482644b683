"""What leaves the node: into the WireGuard device, in clear text, or not at all."""

import pytest
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from datapath.encoding import ipcache_prefix_key
from model.address import parse_prefix
from tests.bpf.conftest import machine_of_its_own
from tests.support.bpf import (
    NODE,
    REDIRECT,
    REMOTE,
    REMOTE6,
    REMOTE_IDENTITY,
    REMOTE_NODE,
    SHOT,
    A,
    Machine,
)
from tests.support.packets import tcp, udp
from wire.bpf.layouts import DropReason as R
from wire.bpf.layouts import SourceFile as F

NEXT = 0xFFFFFFFF  # as if the program were not there
OVERLAY, WIREGUARD = 0x0400, 0x1E00
IDENTITY = 0xBEEF0000
NODE_IDENTITY = 6
NODE6, REMOTE_NODE6 = "fd01::1", "fd01::2"
UNTOLD, UNTOLD6 = "10.2.0.99", "fd00:2::99"


def _with_keys(machine: Machine) -> None:
    machine.remote(REMOTE, REMOTE_IDENTITY, encrypt_key=255)
    machine.remote(REMOTE6, REMOTE_IDENTITY, encrypt_key=255)
    machine.host(NODE6)
    for node in (REMOTE_NODE, REMOTE_NODE6):
        machine.remote(node, NODE_IDENTITY, None, encrypt_key=255)


def _guarded(machine: Machine) -> None:
    _with_keys(machine)
    for text in (UNTOLD, UNTOLD6):
        machine.remote(text, 0, None)  # a cluster owns it and has not told whose it is
    for text in ("10.0.0.0/8", "fd00::/16"):
        machine.put("ist_strict", ipcache_prefix_key(parse_prefix(text)), b"\1")


def _guarded_nodes(machine: Machine) -> None:
    _with_keys(machine)
    machine.put("ist_strict", ipcache_prefix_key(parse_prefix("192.0.2.0/24")), b"\1")


lenient = machine_of_its_own(_with_keys)
with_nodes = machine_of_its_own(_with_keys, config_encrypt_nodes=1)
strict = machine_of_its_own(_guarded, config_strict=1)
but_nodes = machine_of_its_own(_guarded_nodes, config_strict=1, config_strict_nodes=1)


def _tunnel(dst: str = REMOTE_NODE) -> Packet:
    return udp(src=NODE, dst=dst, sport=40000, dport=8472)


@pytest.mark.parametrize("kind", ["lenient", "with_nodes", "strict"])
def test_tunnel_is_encrypted_and_what_wireguard_sends_passes(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """VXLAN inside WireGuard, always; its own packets are not caught a second time."""
    machine = request.getfixturevalue(kind)
    assert machine.run("to_netdev", _tunnel(), mark=OVERLAY | IDENTITY).verdict == REDIRECT
    assert machine.run("to_netdev", _tunnel("203.0.113.9"), mark=OVERLAY).verdict == REDIRECT
    own = udp(src=NODE, dst=REMOTE_NODE, sport=51871, dport=51871)
    assert machine.run("to_netdev", own, mark=WIREGUARD).verdict == NEXT


@pytest.mark.parametrize(("src", "dst"), [(A.address, REMOTE), (A.address6, REMOTE6)])
def test_pod_to_remote_pod_is_encrypted(lenient: Machine, src: str, dst: str) -> None:
    """Also where no tunnel is between; the packet itself is left as it was."""
    sent = tcp(src, dst)
    done = lenient.run("to_netdev", sent)
    assert done.verdict == REDIRECT
    assert bytes(done.packet) == bytes(sent)
    assert done.drops == []


NODE_PAIRS = [
    (NODE, REMOTE_NODE),
    (NODE6, REMOTE_NODE6),
    (A.address, REMOTE_NODE),
    (A.address6, REMOTE_NODE6),
    (NODE, REMOTE),
    (NODE6, REMOTE6),
]


@pytest.mark.parametrize(("src", "dst"), NODE_PAIRS)
def test_nodes_are_encrypted_only_when_told(
    lenient: Machine, with_nodes: Machine, src: str, dst: str
) -> None:
    """Node to node, pod to node and node to pod, outside the tunnel."""
    assert lenient.run("to_netdev", tcp(src, dst)).verdict == NEXT
    assert with_nodes.run("to_netdev", tcp(src, dst)).verdict == REDIRECT


def test_a_node_that_opted_out_is_reached_in_clear_text(with_nodes: Machine) -> None:
    """Its key is 0."""
    with_nodes.remote("192.0.2.7", NODE_IDENTITY, None, encrypt_key=0)
    assert with_nodes.run("to_netdev", tcp(NODE, "192.0.2.7")).verdict == NEXT


def test_what_is_nobodys_of_the_mesh_passes(strict: Machine) -> None:
    """The world, ARP, and neighbours that look for each other."""
    world = tcp(A.address, "203.0.113.9")
    assert strict.run("to_netdev", world).verdict == NEXT
    assert strict.run("to_netdev", Ether(src=A.mac) / ARP(pdst=REMOTE_NODE)).verdict == NEXT
    search = Ether() / IPv6(src=NODE6, dst=REMOTE_NODE6) / ICMPv6ND_NS(tgt=REMOTE_NODE6)
    assert strict.run("to_netdev", search).verdict == NEXT


CLEAR = {
    "a remote pod, from the node": (NODE, REMOTE),
    "a remote pod, from the node, IPv6": (NODE6, REMOTE6),
    "an address nobody has told of": (A.address, UNTOLD),
    "an address nobody has told of, IPv6": (A.address6, UNTOLD6),
    "a pod that is no more": (A.address, "10.9.0.1"),
    "a pod that is no more, IPv6": (A.address6, "fd00:9::1"),
    "from a pod that is not yet": ("10.1.0.200", "10.9.0.1"),
}


@pytest.mark.parametrize("name", CLEAR)
def test_strict_mode_drops_what_would_leave_in_clear_text(
    strict: Machine, lenient: Machine, name: str
) -> None:
    """With a reason of its own, in both families."""
    done = strict.run("to_netdev", tcp(*CLEAR[name]))
    assert done.verdict == SHOT
    assert done.drops == [(R.DROP_UNENCRYPTED, F.SOURCE_ENCRYPT)]
    assert lenient.run("to_netdev", tcp(*CLEAR[name])).drops == []


def test_strict_mode_may_let_nodes_through(but_nodes: Machine) -> None:
    """Where nodes have addresses inside the strict prefixes."""
    assert but_nodes.run("to_netdev", tcp(NODE, REMOTE_NODE)).verdict == NEXT
    unknown = tcp("192.0.2.70", "192.0.2.71")
    assert but_nodes.run("to_netdev", unknown).reason is R.DROP_UNENCRYPTED

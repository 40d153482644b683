"""Without a tunnel: what goes out by the node's routes, and what comes in as it is."""

from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from datapath.encoding import ipcache_prefix_key
from datapath.kernel_thread import KernelThread
from model.address import parse_prefix
from model.policy_map import Direction, PolicyEntry, PolicyKey
from tests.bpf.conftest import machine_of_its_own
from tests.support.bpf import (
    MTU,
    NODE,
    REDIRECT,
    REMOTE,
    REMOTE6,
    REMOTE_IDENTITY,
    REMOTE_NODE,
    ROUTER4,
    SHOT,
    A,
    B,
    Machine,
    Outcome,
    address,
)
from tests.support.datapath import kernel_thread
from tests.support.nodes import sh
from tests.support.packets import assert_checksums, frame, from_tunnel, tcp, udp
from wire.bpf import layouts as w
from wire.bpf.layouts import DropReason as R
from wire.bpf.layouts import SourceFile as F

NEXT = 0xFFFFFFFF
VIP = "10.96.0.10"
UNTOLD = "10.2.0.99"  # in the other node's prefix; nobody has told whose
ENCRYPT, DECRYPT = 0x0E00, 0x0D00


def _untold(machine: Machine) -> None:
    row = w.IpcacheValue(address(REMOTE_NODE), 0, 0, 0, 0)
    machine.put("ist_ipcache_lpm", ipcache_prefix_key(parse_prefix("10.2.0.0/24")), row.pack())


def _open_to_all(machine: Machine) -> None:
    _untold(machine)
    machine.policy(A.number, {PolicyKey(0, Direction.INGRESS): PolicyEntry()})


def _numbered(machine: Machine) -> None:
    _untold(machine)
    machine.put("ist_nodes", address(REMOTE_NODE), w.NodeValue(7, 3).pack())


native = machine_of_its_own(_untold, config_native=1)
judging = machine_of_its_own(_open_to_all, config_native=1, config_policy=1)
ipsec = machine_of_its_own(
    _numbered, config_native=1, config_ipsec=1, config_hears_ipsec=1, config_wireguard_ifindex=0
)


@pytest.fixture
def here() -> Iterator[KernelThread]:
    """A network namespace that forwards, with a way to the other node's pods and no other."""
    with kernel_thread(own_network=True) as thread:
        work = (
            "ip link set lo up; sysctl -qw net.ipv4.ip_forward=1;"
            " ip link add under0 up type veth peer name other0; ip link set other0 up;"
            f" ip addr add {NODE}/24 dev under0;"
            f" ip route add 10.2.0.0/24 via {REMOTE_NODE} dev under0"
        )
        thread.submit(sh, work).result(timeout=30)
        yield thread


def _run(thread: KernelThread, machine: Machine, program: str, packet: Packet) -> Outcome:
    found: Outcome = thread.submit(machine.run, program, packet).result(timeout=30)
    return found


def test_a_pod_reaches_another_node_by_the_routes(native: Machine, here: KernelThread) -> None:
    """As it is, one hop older; without a tunnel's mark."""
    done = _run(here, native, "from_container", tcp(dst=REMOTE))
    assert (done.verdict, done.drops, done.mark) == (REDIRECT, [], 0)
    assert done.forwarded == {w.TrafficDirection.DIRECTION_EGRESS: 1}
    assert (done.packet[IP].src, done.packet[IP].dst) == (A.address, REMOTE)
    assert done.packet[IP].ttl == 63
    assert_checksums(done.packet)


def test_without_a_route_it_is_dropped(native: Machine, here: KernelThread) -> None:
    """With the reason of a failed lookup, and not handed to the stack."""
    here.submit(sh, "ip route del 10.2.0.0/24").result(timeout=30)
    done = _run(here, native, "from_container", tcp(dst=REMOTE))
    assert (done.verdict, done.drops) == (SHOT, [(R.DROP_FIB_LOOKUP_FAILED, F.SOURCE_ROUTE)])


def test_a_service_of_another_node_goes_by_the_routes(native: Machine, here: KernelThread) -> None:
    """After translation; from the node itself by its stack, which has the routes."""
    native.backend(1, REMOTE, 8080)
    native.service(VIP, 80, [1])
    done = _run(here, native, "from_container", tcp(dst=VIP, sport=40001))
    assert (done.verdict, done.packet[IP].dst) == (REDIRECT, REMOTE)
    done = native.run("from_host", tcp(src=ROUTER4, dst=VIP, sport=40002))
    assert (done.verdict, done.packet[IP].dst) == (REDIRECT, REMOTE)
    back = from_tunnel(tcp(src=REMOTE, dst=ROUTER4, sport=8080, dport=40002, flags="SA"))
    done = native.run("from_network", back)
    assert (done.verdict, done.packet[IP].src) == (NEXT, VIP)
    assert_checksums(done.packet)


def test_too_big_for_what_encrypts_is_answered(native: Machine, here: KernelThread) -> None:
    """Our programs know the size that is left; the device's own the stack would tell."""
    sent = udp(dst=REMOTE, payload=bytes(MTU))
    done = _run(here, native, "from_container", sent)
    assert done.reason is R.DROP_FRAGMENTATION_NEEDED


def test_the_stack_has_no_way_back_into_the_programs(native: Machine) -> None:
    """What it sends to another node's pod by ist_host has lost its route: dropped."""
    done = native.run("from_host", tcp(src=ROUTER4, dst=REMOTE))
    assert done.drops == [(R.DROP_UNROUTABLE_IP, F.SOURCE_FORWARD)]


@pytest.mark.parametrize("sent", [tcp(src=REMOTE, dst=A.address), tcp(REMOTE6, A.address6)])
def test_another_nodes_pod_reaches_a_pod(native: Machine, sent: Packet) -> None:
    """Delivered by the program at the device; its identity is its address's."""
    done = native.run("from_network", from_tunnel(sent.copy()))
    assert (done.delivered, done.drops) == (True, [])
    flows = [v for k, v in native.flows().items() if k[0] in (REMOTE, REMOTE6)]
    assert {flow.source_identity for flow in flows} == {REMOTE_IDENTITY}


def test_what_is_not_the_meshs_passes(native: Machine) -> None:
    """The world, nodes, neighbours, what cannot be read: as if there were no program."""
    for sent in (
        tcp(src="203.0.113.9", dst=A.address),
        tcp(src=REMOTE_NODE, dst=NODE),
        tcp(src=REMOTE, dst="10.1.0.99"),
        tcp(src=REMOTE, dst="192.0.2.77"),
        frame(IP(src=REMOTE, dst=NODE, proto=89) / b"routing protocol"),
        frame(IP(src=REMOTE, dst=NODE, frag=9, id=77) / b"a later fragment"),
        Ether(src=A.mac) / ARP(pdst=NODE),
    ):
        done = native.run("from_network", sent)
        assert (done.verdict, done.drops, bytes(done.packet)) == (NEXT, [], bytes(sent)), sent


@pytest.mark.parametrize(("src", "dst"), [(B.address, A.address), (B.address6, A.address6)])
def test_nobody_outside_speaks_as_a_pod_of_ours(native: Machine, src: str, dst: str) -> None:
    """The address is known to be behind a device of this node."""
    done = native.run("from_network", from_tunnel(tcp(src, dst)))
    assert done.drops == [(R.DROP_INVALID_IDENTITY, F.SOURCE_FROM_NETWORK)]


def test_policy_judges_by_the_address(judging: Machine) -> None:
    """A known pod of another node passes; of whom nobody has told us is not the world."""
    done = judging.run("from_network", from_tunnel(tcp(src=REMOTE, dst=A.address)))
    assert done.delivered
    done = judging.run("from_network", from_tunnel(tcp(src=UNTOLD, dst=A.address)))
    assert done.drops == [(R.DROP_UNKNOWN_SENDER, F.SOURCE_POLICY)]
    done = judging.run("from_network", from_tunnel(tcp(src=REMOTE, dst=B.address)))
    assert done.reason is R.DROP_NO_POLICY_PROGRAM


def test_ipsec_marks_what_leaves(ipsec: Machine) -> None:
    """And gives it back to the stack, by ist_host; what is marked already passes."""
    for sent in (tcp(src=A.address, dst=REMOTE), udp(src=NODE, dst=REMOTE)):
        done = ipsec.run("to_netdev", sent)
        assert (done.verdict, done.mark) == (REDIRECT, 7 << 16 | 3 << 12 | ENCRYPT)
        assert done.packet[Ether].dst == "02:00:00:00:ff:01"
    assert ipsec.run("to_netdev", tcp(dst=REMOTE), mark=7 << 16 | 3 << 12 | ENCRYPT).verdict == NEXT
    assert ipsec.run("to_netdev", tcp(src=NODE, dst=REMOTE_NODE)).verdict == NEXT


def test_ipsec_without_a_number_for_the_node_drops(ipsec: Machine) -> None:
    """Behind a node that nobody has told us of; one without a key is spoken to in clear text."""
    ipsec.remote("10.9.0.7", REMOTE_IDENTITY, "192.0.2.9")
    done = ipsec.run("to_netdev", tcp(src=A.address, dst="10.9.0.7"))
    assert done.drops == [(R.DROP_NO_NODE_ID, F.SOURCE_ENCRYPT)]
    ipsec.put("ist_nodes", address("192.0.2.9"), w.NodeValue(9, 0).pack())
    assert ipsec.run("to_netdev", tcp(src=A.address, dst="10.9.0.7")).verdict == NEXT


def test_esp_is_marked_and_what_was_inside_delivered(ipsec: Machine) -> None:
    """Through the host end of the pair, where the marks of decryption end."""
    esp = frame(IP(src=REMOTE_NODE, dst=NODE, proto=50) / bytes(40))
    done = ipsec.run("from_network", esp)
    assert (done.verdict, done.mark) == (NEXT, 7 << 16 | DECRYPT)
    done = ipsec.run("from_network", from_tunnel(tcp(src=REMOTE, dst=A.address)), mark=DECRYPT)
    assert done.delivered


def test_udp_of_the_tunnels_port_is_no_tunnel(native: Machine) -> None:
    """A mark of another program is not ours: nothing turns off by it."""
    sent = frame(IP(src=NODE, dst="203.0.113.9") / UDP(dport=8472) / b"x")
    assert native.run("to_netdev", sent, mark=0x0400).verdict == NEXT

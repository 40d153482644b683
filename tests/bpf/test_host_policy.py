"""Policy of the node itself, packet by packet, at every door: its devices, its pods, the tunnel."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Ether

from datapath import namespaces
from model.policy_map import Direction, PolicyEntry, PolicyKey
from tests.bpf.conftest import furnish
from tests.support.bpf import NODE, OK, REMOTE, REMOTE_IDENTITY, REMOTE_NODE, A, Machine, address
from tests.support.nodes import netns_path, new_namespace, sh
from tests.support.packets import echo, frame, from_tunnel, tcp, udp, unreachable
from wire.bpf import layouts as w
from wire.bpf.layouts import DropReason as R

IN, OUT = Direction.INGRESS, Direction.EGRESS
ALLOW, DENY = PolicyEntry(), PolicyEntry(deny=True)
EVERYTHING = {PolicyKey(0, IN): ALLOW, PolicyKey(0, OUT): ALLOW}
NOTHING: dict[PolicyKey, PolicyEntry] = {}
HOST, NODE_IDENTITY, OF_NODE = 0, 6, 1
NEXT = 0xFFFFFFFF
NODE6, WORLD, API = "2001:db8::1", "198.51.100.7", "198.51.100.9"
OVERLAY, WIREGUARD, POD = 0x0400, 0x1E00, 0x0F00


def _machine(**more: int) -> Machine:
    changes: dict[str, int | bytes] = {"config_policy": 1, "config_host_policy": 1, **more}
    return Machine(changes=changes).load()


@pytest.fixture(scope="module")
def judging() -> Iterator[Machine]:
    machine = _machine(config_wireguard_ifindex=0)
    yield machine
    machine.close()


@pytest.fixture
def machine(judging: Machine) -> Machine:
    """The node may do nothing; its pods everything."""
    judging.clear()
    furnish(judging)
    judging.host(NODE6)
    judging.remote(REMOTE_NODE, NODE_IDENTITY, None)
    judging.put("ist_api_servers", address(API), b"\1")
    judging.policy(A.number, EVERYTHING)
    judging.policy(HOST, NOTHING)
    return judging


def only(*keys: PolicyKey) -> dict[PolicyKey, PolicyEntry]:
    return dict.fromkeys(keys, ALLOW)


def sent(machine: Machine, packet: Any, mark: int = 0) -> R | None:
    """What becomes of a packet that the node sends by its device; ``None``: it goes."""
    done = machine.run("to_netdev", packet, mark=mark)
    assert (done.verdict == NEXT) is (done.reason is None)
    if done.reason is not None:
        assert done.drop_directions == [w.TrafficDirection.DIRECTION_EGRESS]
    return done.reason


def received(machine: Machine, packet: Any) -> R | None:
    """The same for what comes in by the device."""
    done = machine.run("from_network", packet)
    assert (done.verdict == NEXT) is (done.reason is None)
    if done.reason is not None:
        assert done.drop_directions == [w.TrafficDirection.DIRECTION_INGRESS]
    return done.reason


def test_device_in_and_out(machine: Machine) -> None:
    """Rows of the node decide who may open a connection; answers pass whatever they say."""
    out, back = tcp(NODE, WORLD), tcp(WORLD, NODE, 80, 40000, "SA")
    assert sent(machine, out) is R.DROP_POLICY_DENIED
    machine.policy(HOST, only(PolicyKey(2, OUT, 6, 80, 24)))
    assert sent(machine, tcp(NODE, WORLD, dport=81)) is R.DROP_POLICY_DENIED
    assert received(machine, back) is R.DROP_POLICY_DENIED, "nobody asked yet"
    assert sent(machine, out) is None
    assert received(machine, back) is None
    into, answer = tcp(WORLD, NODE, 1000, 22), tcp(NODE, WORLD, 22, 1000, "SA")
    assert received(machine, into) is R.DROP_POLICY_DENIED
    machine.policy(HOST, only(PolicyKey(0, IN, 6, 22, 24)))
    assert received(machine, into) is None
    assert sent(machine, answer) is None
    machine.policy(HOST, NOTHING)
    assert received(machine, tcp(WORLD, NODE, 1000, 22, "A")) is R.DROP_POLICY_DENIED
    assert sent(machine, answer) is R.DROP_POLICY_DENIED, "and its answers with it"


def test_peers_have_their_identities(machine: Machine) -> None:
    """The world, nodes, prefixes, pods that the underlay leads to."""
    machine.remote("203.0.113.9", 1 << 24 | 5, None)
    machine.remote("192.0.2.9", 2 << 24 | 5, None)
    peers = {WORLD: 2, REMOTE_NODE: NODE_IDENTITY, "203.0.113.9": 1 << 24 | 5}
    peers |= {"192.0.2.9": 2 << 24 | 5, REMOTE: REMOTE_IDENTITY}
    for identity in peers.values():
        machine.policy(HOST, only(PolicyKey(identity, IN), PolicyKey(identity, OUT)))
        machine.tables["ist_ct"].remove([k for k, _ in list(machine.tables["ist_ct"].rows())])
        for peer, own in peers.items():
            expected = None if own == identity else R.DROP_POLICY_DENIED
            assert received(machine, tcp(peer, NODE, 1)) is expected
            assert sent(machine, udp(NODE, peer, 2)) is expected


def test_pods_and_tunnel_reach_the_node_by_its_policy(machine: Machine) -> None:
    """From a pod of its own and from another node's, and back to both."""
    far = from_tunnel(tcp(REMOTE, NODE, 1, 22))
    near = tcp(A.address, NODE, 1, 22)
    assert machine.run("from_container", near).reason is R.DROP_POLICY_DENIED
    done = machine.run("from_overlay", far, vni=REMOTE_IDENTITY)
    assert done.reason is R.DROP_POLICY_DENIED
    machine.policy(HOST, only(PolicyKey(A.identity, IN, 6, 22, 24)))
    assert machine.run("from_container", near).verdict == OK
    assert machine.run("from_overlay", far, vni=REMOTE_IDENTITY).reason is R.DROP_POLICY_DENIED
    assert machine.run("from_host", tcp(NODE, A.address, 22, 1, "SA")).delivered
    machine.policy(HOST, only(PolicyKey(REMOTE_IDENTITY, IN)))
    assert machine.run("from_overlay", far, vni=REMOTE_IDENTITY).verdict == OK
    assert machine.run("from_host", tcp(NODE, REMOTE, 22, 1, "SA")).left


def test_node_reaches_pods_by_its_policy(machine: Machine) -> None:
    """Here and behind the tunnel; their answers pass."""
    for pod, identity in ((A.address, A.identity), (REMOTE, REMOTE_IDENTITY)):
        machine.policy(HOST, NOTHING)
        opening = tcp(NODE, pod, 5, 8080)
        assert machine.run("from_host", opening).reason is R.DROP_POLICY_DENIED
        machine.policy(HOST, only(PolicyKey(identity, OUT, 6, 8080, 24)))
        assert machine.run("from_host", opening).verdict == 7
    answer = tcp(A.address, NODE, 8080, 5, "SA")
    assert machine.run("from_container", answer).verdict == OK
    far = from_tunnel(tcp(REMOTE, NODE, 8080, 5, "SA"))
    assert machine.run("from_overlay", far, vni=REMOTE_IDENTITY).verdict == OK
    stray = from_tunnel(tcp(REMOTE, NODE, 8080, 6, "SA"))
    assert machine.run("from_overlay", stray, vni=REMOTE_IDENTITY).reason is R.DROP_POLICY_DENIED


def test_api_server_is_never_shut_out(machine: Machine) -> None:
    """The node reaches it by TCP, and it the kubelet, whatever rules deny; and nothing else."""
    machine.policy(HOST, {PolicyKey(0, IN): DENY, PolicyKey(0, OUT): DENY})
    assert sent(machine, tcp(NODE, API, 4000, 6443)) is None
    assert received(machine, tcp(API, NODE, 6443, 4000, "SA")) is None
    assert received(machine, tcp(API, NODE, 4001, 10250)) is None
    assert sent(machine, tcp(NODE, API, 10250, 4001, "SA")) is None
    assert received(machine, tcp(API, NODE, 4002, 22)) is R.DROP_POLICY_DENY_RULE
    assert sent(machine, udp(NODE, API, 1, 53)) is R.DROP_POLICY_DENY_RULE
    assert sent(machine, tcp(NODE, WORLD, 4000, 6443)) is R.DROP_POLICY_DENY_RULE


def test_node_that_was_told_nothing_is_open(machine: Machine) -> None:
    """Without rows: it could not be told anything else."""
    machine.tables["ist_policy"].remove([bytes(4)])
    assert sent(machine, tcp(NODE, WORLD)) is None
    assert received(machine, tcp(WORLD, NODE, 9)) is None
    assert machine.run("from_container", tcp(A.address, NODE, 7)).verdict == OK


def test_tunnels_and_neighbours_are_not_the_nodes_own(machine: Machine) -> None:
    """Between nodes of the mesh; from anybody else they are packets like others."""
    for port in (8472, 51871, 51872):
        assert received(machine, udp(REMOTE_NODE, NODE, 5, port)) is None
        assert received(machine, udp(WORLD, NODE, 5, port)) is R.DROP_POLICY_DENIED
    assert received(machine, frame(IP(src=REMOTE_NODE, dst=NODE, proto=50) / bytes(40))) is None
    assert sent(machine, frame(IP(src=NODE, dst=REMOTE_NODE, proto=50) / bytes(40))) is None
    assert sent(machine, udp(NODE, REMOTE_NODE, 5, 8472), OVERLAY | 7) is None
    assert sent(machine, udp(NODE, WORLD, 51871, 51871), WIREGUARD) is None
    search = Ether() / IPv6(src="2001:db8::2", dst=NODE6) / ICMPv6ND_NS(tgt=NODE6)
    assert received(machine, search) is None
    assert sent(machine, Ether() / IPv6(src=NODE6, dst="ff02::1") / ICMPv6ND_NS(tgt=NODE6)) is None
    assert received(machine, Ether() / ARP(pdst=NODE)) is None


def test_what_is_not_the_nodes_passes(machine: Machine) -> None:
    """Packets that others send to others, and what a pod sends in the node's name."""
    assert received(machine, tcp(WORLD, A.address)) is None
    assert received(machine, tcp(WORLD, "198.51.100.77")) is None
    assert sent(machine, tcp(A.address, WORLD)) is None
    masked = tcp(NODE, WORLD, 7000)
    assert sent(machine, masked, POD) is None
    assert received(machine, tcp(WORLD, NODE, 80, 7000, "SA")) is None
    marked = machine.run("from_container", tcp(A.address, WORLD))
    assert (marked.verdict, marked.mark & 0xF00) == (OK, POD)


def test_protocols_without_ports_and_later_fragments(machine: Machine) -> None:
    """Only what is said of a whole protocol, or of all, counts for them."""
    other = frame(IP(src=WORLD, dst=NODE, proto=112) / bytes(20))
    later = frame(IP(src=WORLD, dst=NODE, frag=100) / UDP(bytes(16)))
    later[IP].proto = 17
    assert received(machine, other) is R.DROP_CT_UNKNOWN_L4
    assert received(machine, later) is R.DROP_FIRST_FRAGMENT_UNKNOWN
    machine.policy(HOST, only(PolicyKey(0, IN, 17, 0, 24)))
    assert received(machine, later) is R.DROP_FIRST_FRAGMENT_UNKNOWN
    machine.policy(HOST, only(PolicyKey(0, IN, 17, 0, 8), PolicyKey(2, IN, 112, 0, 8)))
    assert received(machine, later) is None
    assert received(machine, other) is None
    mine = frame(IP(src=NODE, dst=WORLD, proto=112) / bytes(20))
    assert sent(machine, mine) is R.DROP_CT_UNKNOWN_L4
    machine.policy(HOST, EVERYTHING)
    assert sent(machine, mine) is None


def test_icmp_of_the_node(machine: Machine) -> None:
    """Echo by its type, errors of known flows always, strays by their type."""
    assert received(machine, echo(WORLD, NODE)) is R.DROP_POLICY_DENIED
    machine.policy(HOST, only(PolicyKey(0, IN, 1, 8, 24), PolicyKey(0, OUT, 17, 53, 24)))
    assert received(machine, echo(WORLD, NODE)) is None
    query = udp(NODE, WORLD, 700, 53)
    assert received(machine, unreachable(WORLD, NODE, query[IP])) is R.DROP_POLICY_DENIED
    assert sent(machine, query) is None
    assert received(machine, unreachable(WORLD, NODE, query[IP])) is None


def test_audit_passes_and_other_directions_are_untouched(machine: Machine) -> None:
    """What is forbidden on paper passes."""
    audited = PolicyEntry(deny=True, audit=True, rule=3)
    machine.policy(HOST, {PolicyKey(0, IN): audited, PolicyKey(0, OUT): ALLOW})
    assert received(machine, tcp(WORLD, NODE, 3, 22)) is None
    assert sent(machine, tcp(NODE, WORLD)) is None


def test_native_routing_and_ipsec() -> None:
    """Pods of other nodes come in by the device and are judged by their identity, also where their
    packets cannot be read; the node's answers go; ESP is not its own."""
    machine = furnish(
        _machine(config_native=1, config_ipsec=1, config_hears_ipsec=1, config_wireguard_ifindex=0)
    )
    try:
        machine.remote(REMOTE_NODE, NODE_IDENTITY, None)
        other = frame(IP(src=REMOTE, dst=NODE, proto=112) / bytes(20))
        machine.policy(HOST, NOTHING)
        assert received(machine, tcp(REMOTE, NODE, 1, 22)) is R.DROP_POLICY_DENIED
        assert received(machine, other) is R.DROP_CT_UNKNOWN_L4
        assert received(machine, tcp(REMOTE_NODE, NODE, 1, 22)) is R.DROP_POLICY_DENIED
        assert received(machine, frame(IP(src=REMOTE_NODE, dst=NODE, proto=50) / bytes(40))) is None
        machine.policy(HOST, only(PolicyKey(REMOTE_IDENTITY, IN)))
        assert received(machine, tcp(REMOTE, NODE, 1, 22)) is None
        assert received(machine, other) is None
        assert sent(machine, udp(NODE, REMOTE_NODE)) is R.DROP_POLICY_DENIED
    finally:
        machine.close()


def test_without_the_setting_nobody_asks() -> None:
    """Rows of the node are there, and its packets pass."""
    machine = furnish(Machine(changes={"config_policy": 1, "config_wireguard_ifindex": 0}).load())
    try:
        machine.policy(HOST, {PolicyKey(0, IN): DENY, PolicyKey(0, OUT): DENY})
        machine.policy(A.number, EVERYTHING)
        assert received(machine, tcp(WORLD, NODE)) is None
        assert sent(machine, tcp(NODE, WORLD)) is None
        assert machine.run("from_container", tcp(A.address, NODE)).verdict == OK
        assert machine.run("from_host", tcp(NODE, A.address)).delivered
    finally:
        machine.close()


@pytest.mark.parametrize(("node", "peer"), [(NODE, WORLD), (NODE6, "2001:db8:9::7")])
def test_sockets_say_who_opened_an_older_connection(machine: Machine, node: str, peer: str) -> None:
    """Nobody has seen these begin. An answer passes where default deny holds; what has a listener,
    or no socket at all, is judged as coming from outside; so is what opens something."""
    space = new_namespace("sockets")
    flags = "nodad" if ":" in node else ""
    sh(f"ip -n {space} link set lo up")
    for address_ in (node, peer):
        sh(f"ip -n {space} addr add {address_} dev lo {flags}")

    def judged() -> dict[str, R | None]:
        family = socket.AF_INET6 if ":" in node else socket.AF_INET
        with (
            socket.create_server((peer, 80), family=family),
            socket.create_server((node, 8080), family=family),
            socket.create_connection((peer, 80), 3, (node, 40000)),
            socket.create_connection((node, 8080), 3, (peer, 40001)),
        ):
            return {
                "opened here": received(machine, tcp(peer, node, 80, 40000, "A")),
                "opened there": received(machine, tcp(peer, node, 40001, 8080, "A")),
                "no socket": received(machine, tcp(peer, node, 80, 40002, "A")),
                "opens": received(machine, tcp(peer, node, 81, 40000, "S")),
            }

    try:
        found = namespaces.run_inside(netns_path(space), judged)
    finally:
        sh(f"ip netns del {space}")
    assert found.pop("opened here") is None
    assert set(found.values()) == {R.DROP_POLICY_DENIED}
    # From now on it is known, in both directions, without its socket.
    assert received(machine, tcp(peer, node, 80, 40000, "A")) is None
    assert sent(machine, tcp(node, peer, 40000, 80, "A")) is R.DROP_POLICY_DENIED

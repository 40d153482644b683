"""Pairs of devices for pods, and the node's own devices, in namespaces that end with the test."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from datapath import devices, links
from model.address import parse_address
from tests.support.datapath import kernel_thread
from tests.support.nodes import enter, netns_path, new_namespace, sh

pytestmark = pytest.mark.root

HOST_END = "lxc0123456789ab"
ADDRESSES = [parse_address("10.201.1.7"), parse_address("fd00::7")]
ROUTER = parse_address("10.201.1.1")


class Space:
    """A node's namespace and a pod's."""

    def __init__(self, call: Callable[..., Any], node: str, pod: str) -> None:
        self.call, self.node, self.pod = call, node, pod

    def create(self, **changes: Any) -> links.EndpointLink:
        arguments = {
            "netns_path": netns_path(self.pod),
            "container_interface": "eth0",
            "host_interface": HOST_END,
            "addresses": ADDRESSES,
            "routers": [ROUTER],
            "device_mtu": 1500,
            "route_mtu": 1450,
        } | changes
        return self.call(lambda: links.create_endpoint_link(**arguments))

    def in_node(self, command: str) -> Any:
        return json.loads(sh(f"ip -n {self.node} -j {command}") or "[]")

    def in_pod(self, command: str) -> Any:
        return json.loads(sh(f"ip -n {self.pod} -j {command}") or "[]")

    def devices(self) -> set[str]:
        return {d["ifname"] for d in self.in_node("link")} - {"lo"}


@pytest.fixture
def space() -> Iterator[Space]:
    node, pod = new_namespace("n"), new_namespace("p")
    try:
        with kernel_thread() as thread:
            enter(thread, node)
            yield Space(lambda work: thread.submit(work).result(timeout=30), node, pod)
    finally:
        sh(f"ip netns del {pod}; ip netns del {node}")


def test_pod_gets_addresses_routes_and_mtu(space: Space) -> None:
    """The pod has its addresses, a route to the router and a default route with the route MTU."""
    made = space.create()
    (end,) = space.in_pod("addr show dev eth0")
    assert end["mtu"] == 1500
    assert "UP" in end["flags"]
    assert end["address"] == made.mac.hex(":")
    found = {(a["local"], a["prefixlen"]) for a in end["addr_info"]}
    assert {("10.201.1.7", 32), ("fd00::7", 128)} <= found
    routes = {r["dst"]: r for r in space.in_pod("route")}
    assert routes["default"]["gateway"] == str(ROUTER)
    assert routes["default"]["metrics"] == [{"mtu": 1450}]
    assert routes[str(ROUTER)]["scope"] == "link"
    assert "UP" in space.in_pod("link show dev lo")[0]["flags"]


def test_host_end_is_ours_and_up(space: Space) -> None:
    """The host end carries our alias and its MAC address, is up, and filters no source."""
    made = space.create()
    (end,) = space.in_node(f"link show dev {HOST_END}")
    assert (end["ifindex"], end["address"]) == (made.ifindex, made.host_mac.hex(":"))
    assert end["ifalias"] == "isthmus"
    assert "UP" in end["flags"]
    assert space.call(lambda: links.endpoint_link_exists(HOST_END))
    value = sh(f"ip netns exec {space.node} cat /proc/sys/net/ipv4/conf/{HOST_END}/rp_filter")
    assert value.strip() == "0"


def test_macs_are_local_unicast_and_differ(space: Space) -> None:
    """Both addresses are locally administered unicast, and no two pairs share one."""
    seen = set()
    for _ in range(4):
        made = space.create()
        for mac in (made.mac, made.host_mac):
            assert mac[0] & 3 == 2
            seen.add(mac)
    assert len(seen) == 8


def test_second_attempt_replaces_the_first(space: Space) -> None:
    """An ADD that is repeated ends with one pair."""
    first = space.create()
    second = space.create()
    assert second.ifindex != first.ifindex
    assert space.devices() == {HOST_END}


def test_killed_attempt_is_replaced(space: Space) -> None:
    """A pair that was made but not yet named as ours does not block the next attempt."""
    sh(f"ip -n {space.node} link add {HOST_END} type veth peer name eth0 netns {space.pod}")
    space.create()
    assert space.devices() == {HOST_END}


def test_strangers_device_is_not_replaced(space: Space) -> None:
    """A device of the same name that is not ours is an error and stays, on delete too."""
    sh(f"ip -n {space.node} link add {HOST_END} up type veth peer name other")
    for attempt in (space.create, lambda: space.call(lambda: links.delete_endpoint_link(HOST_END))):
        with pytest.raises(FileExistsError, match="remove or rename"):
            attempt()
    assert space.devices() == {HOST_END, "other"}


def test_failure_leaves_nothing(space: Space) -> None:
    """When the pod's side cannot be set up there is no device left, and the error says why."""
    twice = [ADDRESSES[0], ADDRESSES[0]]
    with pytest.raises(OSError, match=r"add address 10\.201\.1\.7 to eth0"):
        space.create(addresses=twice)
    assert space.devices() == set()
    space.create()


def test_missing_namespace_is_named(space: Space) -> None:
    """A namespace that is gone is an error that names it."""
    with pytest.raises(FileNotFoundError, match="ist-t-gone"):
        space.create(netns_path="/run/netns/ist-t-gone")
    assert space.devices() == set()


def test_delete_is_repeatable(space: Space) -> None:
    """Deleting a pair that is gone is no error."""
    space.create()
    for _ in range(2):
        space.call(lambda: links.delete_endpoint_link(HOST_END))
        assert not space.call(lambda: links.endpoint_link_exists(HOST_END))
    assert space.devices() == set()


NODE_IP = parse_address("172.31.0.1")


def ensure(space: Space, **changes: Any) -> devices.Devices:
    arguments = {"node_ip": NODE_IP, "routers": [ROUTER], "underlay": None, "mtu": None} | changes
    return space.call(lambda: devices.ensure_devices(**arguments))


@pytest.fixture
def underlay(space: Space) -> Space:
    sh(
        f"ip -n {space.node} link add under0 mtu 1400 type veth peer name wire;"
        f"ip -n {space.node} link set under0 up; ip -n {space.node} link set wire up;"
        f"ip -n {space.node} addr add {NODE_IP}/24 dev under0"
    )
    return space


def test_mtu_follows_the_underlay(underlay: Space) -> None:
    """The device with the node's address sets the MTU; routes leave room for the tunnel."""
    found = ensure(underlay)
    assert (found.underlay, found.device_mtu, found.route_mtu) == ("under0", 1400, 1350)
    mtus = {d["ifname"]: d["mtu"] for d in underlay.in_node("link")}
    assert (mtus["ist_host"], mtus["ist_net"], mtus["ist_vxlan"]) == (1400, 1400, 1350)
    sh(f"ip -n {underlay.node} link set under0 mtu 1500")
    assert ensure(underlay).route_mtu == 1450
    assert {d["ifname"]: d["mtu"] for d in underlay.in_node("link")}["ist_vxlan"] == 1450


def test_vxlan_of_another_make_is_made_anew(underlay: Space) -> None:
    """A tunnel device left by a version with other settings is replaced."""
    sh(f"ip -n {underlay.node} link add ist_vxlan type vxlan id 7 dstport 9999")
    ensure(underlay)
    (made,) = underlay.in_node("-d link show dev ist_vxlan")
    assert made["linkinfo"]["info_data"]["external"]
    assert made["linkinfo"]["info_data"]["port"] == 8472


def test_taken_tunnel_port_is_named(underlay: Space) -> None:
    """Another owner's VXLAN device on our port is an error that says which port."""
    sh(f"ip -n {underlay.node} link add other type vxlan external dstport 8472")
    sh(f"ip -n {underlay.node} link set other up")
    with pytest.raises(OSError, match="8472"):
        ensure(underlay)


def test_foreign_device_of_our_name_is_an_error(underlay: Space) -> None:
    """A device called ist_host that is somebody else's is not taken."""
    sh(
        f"ip -n {underlay.node} link add ist_host type bridge || ip -n {underlay.node} link add "
        "ist_host type vxlan id 9 dstport 9998"
    )
    with pytest.raises(FileExistsError, match="ist_host"):
        ensure(underlay)


def test_unknown_node_address_is_named(underlay: Space) -> None:
    """An address that no device holds is an error with the remedy."""
    with pytest.raises(OSError, match=r"172\.31\.9\.9.*devices"):
        ensure(underlay, node_ip=parse_address("172.31.9.9"))


def test_tiny_mtu_is_refused(underlay: Space) -> None:
    """An MTU that leaves too little inside the tunnel is refused with the number needed."""
    with pytest.raises(OSError, match="1330"):
        ensure(underlay, mtu=1300)


def test_router_address_can_change(underlay: Space) -> None:
    """A node that was given another pod prefix has the new router address and not the old."""
    ensure(underlay)
    ensure(underlay, routers=[parse_address("10.209.1.1")])
    (host,) = underlay.in_node("-4 addr show dev ist_host")
    assert [a["local"] for a in host["addr_info"]] == ["10.209.1.1"]

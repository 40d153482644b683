"""The pair of devices that ties a pod to this node. Adapter; blocking, a few milliseconds.

The peer is created inside the pod's namespace under its final name, so nothing is moved or renamed:
each of these would wait for the kernel once more. Both MAC addresses are set at creation, since
systemd's policy would change them afterwards otherwise.
"""

import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from datapath import namespaces, netlink, sysctl
from datapath.link_messages import Link, NewLink
from datapath.route_messages import Route
from model.address import Address, make_address, make_prefix
from model.kernel_numbers import ENDPOINT_PREFIX, LINK_ALIAS

_QUEUE_LENGTH = 1000


@dataclass(frozen=True, slots=True)
class EndpointLink:
    """What a pair is known by."""

    ifindex: int  # of the host end
    mac: bytes  # of the pod's end, 6 bytes
    host_mac: bytes  # of the host end, 6 bytes


def random_mac() -> bytes:
    """A locally administered unicast address."""
    data = bytearray(os.urandom(6))
    data[0] = (data[0] & 0xFE) | 0x02
    return bytes(data)


def create_endpoint_link(
    netns_path: str,
    container_interface: str,
    host_interface: str,
    addresses: Sequence[Address],
    routers: Sequence[Address],
    device_mtu: int,
    route_mtu: int,
) -> EndpointLink:
    """Make the pair, with addresses and routes in the pod, both ends up.

    Repeatable: a pair of ours left from an earlier attempt goes first. A device of that name that
    is not ours is an error, ``FileExistsError``. Nothing is left behind by a failure.
    ``routers``: one per family at most; the pod gets a way to those whose family it is of.
    """
    mac, host_mac = random_mac(), random_mac()
    target = os.open(netns_path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with netlink.Handle() as kernel:
            _remove_ours(kernel, host_interface)
            namespaces.run_inside(netns_path, lambda: _remove_leftover(container_interface))
            what = f"create device pair {host_interface} with {container_interface} in {netns_path}"
            with netlink.doing(what):
                kernel.add_pair(
                    NewLink(host_interface, host_mac, device_mtu, _QUEUE_LENGTH),
                    NewLink(container_interface, mac, device_mtu, _QUEUE_LENGTH, target),
                )
            with ExitStack() as undo:
                undo.callback(_remove_ours, kernel, host_interface)
                ifindex = _raise_host_end(kernel, host_interface, addresses)
                namespaces.run_inside(
                    netns_path,
                    lambda: _configure_pod(container_interface, addresses, routers, route_mtu),
                )
                undo.pop_all()
    finally:
        os.close(target)
    return EndpointLink(ifindex, mac, host_mac)


def delete_endpoint_link(host_interface: str) -> None:
    """Remove the pair. No error when it is gone; a device that is not ours is left alone."""
    with netlink.Handle() as kernel:
        _remove_ours(kernel, host_interface)


def endpoint_link_exists(host_interface: str) -> bool:
    """True for a device of that name that is ours."""
    with netlink.Handle() as kernel:
        link = netlink.find_link(kernel, host_interface)
        return link is not None and _is_ours(link)


def endpoint_interfaces() -> list[str]:
    """Host ends of all pairs of ours in this namespace."""
    with netlink.Handle() as kernel, netlink.doing("list devices"):
        names = [link.name for link in kernel.links() if _is_ours(link)]
    return sorted(name for name in names if name.startswith(ENDPOINT_PREFIX))


def _is_ours(link: Link) -> bool:
    """By its alias; or, if we were killed before that was set, by name, kind and being down."""
    if link.alias == LINK_ALIAS:
        return True
    return (
        link.alias is None
        and link.name.startswith(ENDPOINT_PREFIX)
        and link.kind == "veth"
        and not link.flags & netlink.IFF_UP
    )


def _remove_ours(kernel: netlink.Handle, name: str) -> None:
    link = netlink.find_link(kernel, name)
    if link is None:
        return
    if not _is_ours(link):
        raise FileExistsError(
            errno.EEXIST,
            f"device {name} exists and does not carry the alias {LINK_ALIAS!r}: "
            "remove or rename it, it is not ours to replace",
        )
    try:
        with netlink.doing(f"delete device {name}"):
            kernel.delete_link(link.index)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def _raise_host_end(kernel: netlink.Handle, name: str, addresses: Sequence[Address]) -> int:
    link = netlink.find_link(kernel, name)
    if link is None:
        raise OSError(errno.ENODEV, f"device {name} vanished while it was set up")
    index = link.index
    sysctl.write(f"net.ipv4.conf.{name}.rp_filter", "0")
    # The host end needs no address of its own; without these the kernel would add a link-local one.
    sysctl.write_if_present(f"net.ipv6.conf.{name}.addr_gen_mode", "1")
    sysctl.write_if_present(f"net.ipv6.conf.{name}.disable_ipv6", _disabled(addresses))
    with netlink.doing(f"set device {name} up"):
        kernel.set_link(index, netlink.IFF_UP, alias=LINK_ALIAS)
    return index


def _remove_leftover(name: str) -> None:
    """The runtime hands over an empty namespace; a device of this name is from a failed attempt."""
    with netlink.Handle() as kernel:
        link = netlink.find_link(kernel, name)
        if link is not None:
            with netlink.doing(f"delete left-over device {name} in the pod"):
                kernel.delete_link(link.index)


def _disabled(addresses: Sequence[Address]) -> str:
    """What a link is told of IPv6: without an address nobody would answer its solicitations."""
    return "0" if any(a.version == 6 for a in addresses) else "1"


def _configure_pod(
    name: str, addresses: Sequence[Address], routers: Sequence[Address], route_mtu: int
) -> None:
    with netlink.Handle() as kernel:
        link = netlink.find_link(kernel, name)
        if link is None:
            raise OSError(errno.ENODEV, f"device {name} vanished from the pod while it was set up")
        index = link.index
        sysctl.write_if_present(f"net.ipv6.conf.{name}.disable_ipv6", _disabled(addresses))
        with netlink.doing("set lo up in the pod"):
            kernel.set_link(1, netlink.IFF_UP)
        with netlink.doing(f"set device {name} up in the pod"):
            kernel.set_link(index, netlink.IFF_UP)
        for address in addresses:
            flags = netlink.IFA_F_NODAD if address.version == 6 else 0
            with netlink.doing(f"add address {address} to {name} in the pod"):
                kernel.add_address(index, address, flags=flags)
        for router in routers:
            if any(a.version == router.version for a in addresses):
                _add_routes(kernel, index, router, route_mtu)


def _add_routes(kernel: netlink.Handle, index: int, router: Address, route_mtu: int) -> None:
    """The router is on the link by decree: the program on the host end answers for it."""
    with netlink.doing(f"add route to router {router} in the pod"):
        kernel.add_route(make_prefix(router, router.max_prefixlen), Route(index, mtu=route_mtu))
    with netlink.doing(f"add default route via {router} in the pod"):
        everywhere = make_prefix(make_address(bytes(len(router.packed))), 0)
        kernel.add_route(everywhere, Route(index, mtu=route_mtu, gateway=router))

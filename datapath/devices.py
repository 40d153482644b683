"""The devices of the node itself: `ist_host`/`ist_net`, `ist_vxlan`. Adapter; blocking, repeatable.

`ist_host` holds the router address and is the way from the host's stack to pods; `ist_vxlan` is one
device for all tunnels, its remote and its identity set per packet by our programs. With native
routing there is none.
"""

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_interface

from datapath import netlink, sysctl
from datapath.link_messages import VXLAN_COLLECT_METADATA, VXLAN_LEARNING, Link, NewLink
from datapath.link_messages import VXLAN_PORT as PORT
from datapath.links import random_mac
from model.address import Address, Prefix, parse_prefix
from model.kernel_numbers import (
    DEVICE_HOST,
    DEVICE_NET,
    DEVICE_VXLAN,
    LINK_ALIAS,
    TUNNEL_OVERHEAD_BYTES,
    VXLAN_PORT,
)

OWN_DEVICES = (DEVICE_HOST, DEVICE_NET, DEVICE_VXLAN)
_IPV6_MINIMUM_MTU = 1280
_SERVICE_DEVICES = ("kube-ipvs0",)


@dataclass(frozen=True, slots=True)
class Devices:
    """What programs and links must know of the node's devices."""

    underlay: str
    underlay_ifindex: int
    host_ifindex: int
    host_mac: bytes
    net_ifindex: int
    net_mac: bytes
    vxlan_ifindex: int  # 0: no tunnel
    device_mtu: int  # of pods' devices: that of the underlay
    route_mtu: int  # of pods' routes: what is left inside the tunnel and what encrypts
    on_link: tuple[Prefix, ...] = ()  # what the underlay reaches without a gateway


def ensure_devices(
    node_ip: Address,
    routers: Sequence[Address],
    underlay: str | None,
    mtu: int | None,
    encryption_overhead_bytes: int = 0,
    *,
    native: bool = False,
) -> Devices:
    """Make what is missing, correct what differs, leave the rest untouched.

    ``routers``: the router's address of each family that is on.
    """
    with netlink.Handle() as kernel:
        below = _underlay(kernel, node_ip, underlay)
        device_mtu = mtu if mtu is not None else below.mtu
        overhead = (0 if native else TUNNEL_OVERHEAD_BYTES) + encryption_overhead_bytes
        route_mtu = device_mtu - overhead
        if route_mtu < _IPV6_MINIMUM_MTU:
            raise OSError(
                errno.EINVAL,
                f"MTU {device_mtu} of {below.name} leaves {route_mtu} for "
                f"packets between nodes: raise it to at least {_IPV6_MINIMUM_MTU + overhead}",
            )
        _node_settings(routers)
        host, net = _ensure_pair(kernel, device_mtu)
        if native:
            _remove_vxlan(kernel)
        vxlan = 0 if native else _ensure_vxlan(kernel, route_mtu).index
        _ensure_router_addresses(kernel, host.index, routers)
        return Devices(
            underlay=below.name,
            underlay_ifindex=below.index,
            host_ifindex=host.index,
            host_mac=host.mac,
            net_ifindex=net.index,
            net_mac=net.mac,
            vxlan_ifindex=vxlan,
            device_mtu=device_mtu,
            route_mtu=route_mtu,
            on_link=_on_link(kernel, below.index),
        )


def own_addresses() -> set[Address]:
    """Every address of the node that others can reach, except those that only stand for services
    (kube-proxy's IPVS holds all of them on one device)."""
    with netlink.Handle() as kernel:
        passed = {0}
        for name in _SERVICE_DEVICES:
            link = netlink.find_link(kernel, name)
            passed |= {link.index} if link is not None else set()
        with netlink.doing("list addresses"):
            found = [
                row.local
                for row in kernel.addresses()
                if row.device not in passed and row.scope == netlink.SCOPE_UNIVERSE
            ]
    return {address for address in found if str(address) != "::1"}


def remove_devices() -> list[str]:
    """Delete our devices. Returns their names; repeatable."""
    removed = []
    with netlink.Handle() as kernel:
        for name in (DEVICE_VXLAN, DEVICE_HOST):  # the peer goes with its pair
            link = netlink.find_link(kernel, name)
            if link is not None and _may_take(link):
                with netlink.doing(f"delete device {name}"):
                    kernel.delete_link(link.index)
                removed.append(name)
    return removed


def _remove_vxlan(kernel: netlink.Handle) -> None:
    """Of a time with tunnels; a stranger's is left alone."""
    link = netlink.find_link(kernel, DEVICE_VXLAN)
    if link is not None and _may_take(link):
        with netlink.doing(f"delete device {DEVICE_VXLAN}"):
            kernel.delete_link(link.index)


def _on_link(kernel: netlink.Handle, index: int) -> tuple[Prefix, ...]:
    """Prefixes of a device's addresses."""
    with netlink.doing("list addresses"):
        found = [row for row in kernel.addresses() if row.device == index]
    texts = ((row.address, row.length) for row in found)
    return tuple(
        parse_prefix(str(ip_interface(f"{text}/{length}").network)) for text, length in texts
    )


def _underlay(kernel: netlink.Handle, node_ip: Address, name: str | None) -> Link:
    if name is not None:
        link = netlink.find_link(kernel, name)
        if link is None:
            raise OSError(errno.ENODEV, f"underlay device {name} does not exist: check `devices`")
        return link
    with netlink.doing("list addresses"):
        for row in kernel.addresses():
            if row.local == node_ip:
                return kernel.link(index=row.device)
    raise OSError(
        errno.EADDRNOTAVAIL,
        f"no device holds the node's address {node_ip}: check its InternalIP or set `devices`",
    )


def _node_settings(routers: Sequence[Address]) -> None:
    """Forward packets, and let our programs judge sources instead of the reverse-path filter."""
    sysctl.write("net.ipv4.ip_forward", "1")
    sysctl.write("net.ipv4.conf.all.rp_filter", "0")
    if any(
        r.version == 6 for r in routers
    ):  # not otherwise: a node that forwards takes no router advertisements
        sysctl.write("net.ipv6.conf.all.forwarding", "1")


def _may_take(link: Link) -> bool:
    """The names are reserved; the alias may be missing if we were killed before it was set."""
    return link.alias in (None, LINK_ALIAS)


def _own(kernel: netlink.Handle, name: str, kind: str) -> Link | None:
    link = netlink.find_link(kernel, name)
    if link is None:
        return None
    if link.kind != kind or not _may_take(link):
        raise FileExistsError(
            errno.EEXIST, f"device {name} exists and is not ours: remove or rename it"
        )
    return link


def _ensure_pair(kernel: netlink.Handle, mtu: int) -> tuple[Link, Link]:
    if _own(kernel, DEVICE_HOST, "veth") is None:
        with netlink.doing(f"create device pair {DEVICE_HOST}, {DEVICE_NET}"):
            kernel.add_pair(NewLink(DEVICE_HOST, random_mac()), NewLink(DEVICE_NET, random_mac()))
    for name in (DEVICE_HOST, DEVICE_NET):
        for setting, value in (
            ("forwarding", "1"),
            ("rp_filter", "0"),
            ("accept_local", "1"),
            ("send_redirects", "0"),
        ):
            sysctl.write(f"net.ipv4.conf.{name}.{setting}", value)
        # Pods are reached through the program, not by asking on this link who has their address.
        _adjust(kernel, name, mtu, netlink.IFF_UP | netlink.IFF_NOARP)
    host, net = netlink.find_link(kernel, DEVICE_HOST), netlink.find_link(kernel, DEVICE_NET)
    if host is None or net is None:
        raise OSError(errno.ENODEV, f"{DEVICE_HOST} or {DEVICE_NET} vanished while it was set up")
    return host, net


def _ensure_vxlan(kernel: netlink.Handle, mtu: int) -> Link:
    link = _own(kernel, DEVICE_VXLAN, "vxlan")
    if link is not None and not _is_metadata_vxlan(link):
        with netlink.doing(f"delete device {DEVICE_VXLAN} of another make"):
            kernel.delete_link(link.index)
        link = None
    if link is None:
        try:
            with netlink.doing(f"create device {DEVICE_VXLAN} on UDP port {VXLAN_PORT}"):
                kernel.add_vxlan(NewLink(DEVICE_VXLAN), VXLAN_PORT)
        except OSError as error:
            if error.errno == errno.EEXIST:
                raise OSError(
                    errno.EEXIST,
                    f"another VXLAN device uses UDP port {VXLAN_PORT}: remove it from this node",
                ) from error
            raise
    sysctl.write(f"net.ipv4.conf.{DEVICE_VXLAN}.rp_filter", "0")
    _adjust(kernel, DEVICE_VXLAN, mtu, netlink.IFF_UP)
    found = netlink.find_link(kernel, DEVICE_VXLAN)
    if found is None:
        raise OSError(errno.ENODEV, f"{DEVICE_VXLAN} vanished while it was set up")
    return found


def _is_metadata_vxlan(link: Link) -> bool:
    data = link.data
    return (
        any(data.get(VXLAN_COLLECT_METADATA, b""))
        and data.get(PORT) == VXLAN_PORT.to_bytes(2)
        and not any(data.get(VXLAN_LEARNING, b""))
    )


def _adjust(kernel: netlink.Handle, name: str, mtu: int, flags: int) -> None:
    """MTU, alias and flags; says nothing to the kernel when all is as it should be."""
    link = netlink.find_link(kernel, name)
    if link is None:
        raise OSError(errno.ENODEV, f"device {name} vanished while it was set up")
    # No IPv6 of the device's own: it would only send solicitations into the tunnel.
    sysctl.write_if_present(f"net.ipv6.conf.{name}.addr_gen_mode", "1")
    if link.mtu == mtu and link.alias == LINK_ALIAS and link.flags & flags == flags:
        return
    with netlink.doing(f"set MTU {mtu} and flags of device {name}"):
        kernel.set_link(link.index, flags, mtu=mtu, alias=LINK_ALIAS)


def _ensure_router_addresses(
    kernel: netlink.Handle, index: int, routers: Sequence[Address]
) -> None:
    """Exactly these addresses on `ist_host`, besides a link-local one."""
    wanted = {(r, r.max_prefixlen): r for r in routers}
    with netlink.doing(f"list addresses of {DEVICE_HOST}"):
        rows = [row for row in kernel.addresses() if row.device == index]
    for row in rows:
        known = wanted.pop((row.address, row.length), None)
        is_ip4 = row.address.version == 4
        if known is None and (is_ip4 or row.scope != netlink.SCOPE_LINK):
            with netlink.doing(f"remove address {row.address} from {DEVICE_HOST}"):
                kernel.delete_address(row)
    for router in wanted.values():
        with netlink.doing(f"add router address {router} to {DEVICE_HOST}"):
            _add_router_address(kernel, index, router)


def _add_router_address(kernel: netlink.Handle, index: int, router: Address) -> None:
    """The host must not choose the address as its source for the rest of the world.

    Of IPv4 by its scope; of IPv6 by its being deprecated: routes that name it as source keep it.
    """
    if router.version == 4:
        kernel.add_address(index, router, scope=netlink.SCOPE_LINK)
    else:
        kernel.add_address(index, router, flags=netlink.IFA_F_NODAD, deprecated=True)

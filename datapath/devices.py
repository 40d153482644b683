"""The devices of the node itself: `ist_host`/`ist_net`, `ist_vxlan`. Adapter; blocking, repeatable.

`ist_host` holds the router address and is the way from the host's stack to pods; `ist_vxlan` is one
device for all tunnels, its remote and its identity set per packet by our programs. With native
routing there is none.
"""

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_interface

from datapath import netlink, sysctl
from datapath.links import mac_text, random_mac
from model.address import Address, Prefix, parse_address, parse_prefix
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
_FOR_EVER = 0xFFFFFFFF
_SERVICE_DEVICES = ("kube-ipvs0",)
_SCOPE_UNIVERSE = 0


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
    with netlink.handle() as ipr:
        below = _underlay(ipr, node_ip, underlay)
        device_mtu = mtu if mtu is not None else int(below.get_attr("IFLA_MTU"))
        overhead = (0 if native else TUNNEL_OVERHEAD_BYTES) + encryption_overhead_bytes
        route_mtu = device_mtu - overhead
        if route_mtu < _IPV6_MINIMUM_MTU:
            raise OSError(
                errno.EINVAL,
                f"MTU {device_mtu} of {below.get_attr('IFLA_IFNAME')} leaves {route_mtu} for "
                f"packets between nodes: raise it to at least {_IPV6_MINIMUM_MTU + overhead}",
            )
        _node_settings(routers)
        host, net = _ensure_pair(ipr, device_mtu)
        if native:
            _remove_vxlan(ipr)
        vxlan = 0 if native else int(_ensure_vxlan(ipr, route_mtu)["index"])
        _ensure_router_addresses(ipr, host["index"], routers)
        return Devices(
            underlay=below.get_attr("IFLA_IFNAME"),
            underlay_ifindex=int(below["index"]),
            host_ifindex=int(host["index"]),
            host_mac=_mac(host),
            net_ifindex=int(net["index"]),
            net_mac=_mac(net),
            vxlan_ifindex=vxlan,
            device_mtu=device_mtu,
            route_mtu=route_mtu,
            on_link=_on_link(ipr, int(below["index"])),
        )


def own_addresses() -> set[Address]:
    """Every address of the node that others can reach, except those that only stand for services
    (kube-proxy's IPVS holds all of them on one device)."""
    with netlink.handle() as ipr:
        passed = {0}
        for name in _SERVICE_DEVICES:
            link = netlink.find_link(ipr, name)
            passed |= {int(link["index"])} if link is not None else set()
        with netlink.doing("list addresses"):
            found = [
                parse_address(a.get_attr("IFA_LOCAL") or a.get_attr("IFA_ADDRESS"))
                for a in ipr.addr("dump")
                if a["index"] not in passed and a["scope"] == _SCOPE_UNIVERSE
            ]
    return {address for address in found if str(address) != "::1"}


def remove_devices() -> list[str]:
    """Delete our devices. Returns their names; repeatable."""
    removed = []
    with netlink.handle() as ipr:
        for name in (DEVICE_VXLAN, DEVICE_HOST):  # the peer goes with its pair
            link = netlink.find_link(ipr, name)
            if link is not None and _may_take(link):
                with netlink.doing(f"delete device {name}"):
                    ipr.link("del", index=link["index"])
                removed.append(name)
    return removed


def _remove_vxlan(ipr: netlink.Handle) -> None:
    """Of a time with tunnels; a stranger's is left alone."""
    link = netlink.find_link(ipr, DEVICE_VXLAN)
    if link is not None and _may_take(link):
        with netlink.doing(f"delete device {DEVICE_VXLAN}"):
            ipr.link("del", index=link["index"])


def _on_link(ipr: netlink.Handle, index: int) -> tuple[Prefix, ...]:
    """Prefixes of a device's addresses."""
    with netlink.doing("list addresses"):
        found = [a for a in ipr.addr("dump") if a["index"] == index]
    texts = ((a.get_attr("IFA_ADDRESS"), a["prefixlen"]) for a in found)
    return tuple(
        parse_prefix(str(ip_interface(f"{text}/{length}").network)) for text, length in texts
    )


def _mac(link: netlink.Message) -> bytes:
    return bytes.fromhex(link.get_attr("IFLA_ADDRESS").replace(":", ""))


def _underlay(ipr: netlink.Handle, node_ip: Address, name: str | None) -> netlink.Message:
    if name is not None:
        link = netlink.find_link(ipr, name)
        if link is None:
            raise OSError(errno.ENODEV, f"underlay device {name} does not exist: check `devices`")
        return link
    with netlink.doing("list addresses"):
        for address in ipr.addr("dump"):
            local = address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS")
            if local == str(node_ip):
                return next(iter(ipr.link("get", index=address["index"])))
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


def _may_take(link: netlink.Message) -> bool:
    """The names are reserved; the alias may be missing if we were killed before it was set."""
    return link.get_attr("IFLA_IFALIAS") in (None, LINK_ALIAS)


def _own(ipr: netlink.Handle, name: str, kind: str) -> netlink.Message | None:
    link = netlink.find_link(ipr, name)
    if link is None:
        return None
    if netlink.link_kind(link) != kind or not _may_take(link):
        raise FileExistsError(
            errno.EEXIST, f"device {name} exists and is not ours: remove or rename it"
        )
    return link


def _ensure_pair(ipr: netlink.Handle, mtu: int) -> tuple[netlink.Message, netlink.Message]:
    if _own(ipr, DEVICE_HOST, "veth") is None:
        with netlink.doing(f"create device pair {DEVICE_HOST}, {DEVICE_NET}"):
            ipr.link(
                "add",
                ifname=DEVICE_HOST,
                kind="veth",
                address=mac_text(random_mac()),
                peer={"ifname": DEVICE_NET, "address": mac_text(random_mac())},
            )
    for name in (DEVICE_HOST, DEVICE_NET):
        for setting, value in (
            ("forwarding", "1"),
            ("rp_filter", "0"),
            ("accept_local", "1"),
            ("send_redirects", "0"),
        ):
            sysctl.write(f"net.ipv4.conf.{name}.{setting}", value)
        # Pods are reached through the program, not by asking on this link who has their address.
        _adjust(ipr, name, mtu, netlink.IFF_UP | netlink.IFF_NOARP)
    host, net = netlink.find_link(ipr, DEVICE_HOST), netlink.find_link(ipr, DEVICE_NET)
    if host is None or net is None:
        raise OSError(errno.ENODEV, f"{DEVICE_HOST} or {DEVICE_NET} vanished while it was set up")
    return host, net


def _ensure_vxlan(ipr: netlink.Handle, mtu: int) -> netlink.Message:
    link = _own(ipr, DEVICE_VXLAN, "vxlan")
    if link is not None and not _is_metadata_vxlan(link):
        with netlink.doing(f"delete device {DEVICE_VXLAN} of another make"):
            ipr.link("del", index=link["index"])
        link = None
    if link is None:
        try:
            with netlink.doing(f"create device {DEVICE_VXLAN} on UDP port {VXLAN_PORT}"):
                ipr.link(
                    "add",
                    ifname=DEVICE_VXLAN,
                    kind="vxlan",
                    vxlan_collect_metadata=True,
                    vxlan_learning=False,
                    vxlan_port=VXLAN_PORT,
                )
        except OSError as error:
            if error.errno == errno.EEXIST:
                raise OSError(
                    errno.EEXIST,
                    f"another VXLAN device uses UDP port {VXLAN_PORT}: remove it from this node",
                ) from error
            raise
    sysctl.write(f"net.ipv4.conf.{DEVICE_VXLAN}.rp_filter", "0")
    _adjust(ipr, DEVICE_VXLAN, mtu, netlink.IFF_UP)
    found = netlink.find_link(ipr, DEVICE_VXLAN)
    if found is None:
        raise OSError(errno.ENODEV, f"{DEVICE_VXLAN} vanished while it was set up")
    return found


def _is_metadata_vxlan(link: netlink.Message) -> bool:
    data = link.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
    return bool(
        data.get_attr("IFLA_VXLAN_COLLECT_METADATA")
        and data.get_attr("IFLA_VXLAN_PORT") == VXLAN_PORT
        and not data.get_attr("IFLA_VXLAN_LEARNING")
    )


def _adjust(ipr: netlink.Handle, name: str, mtu: int, flags: int) -> None:
    """MTU, alias and flags; says nothing to the kernel when all is as it should be."""
    link = netlink.find_link(ipr, name)
    if link is None:
        raise OSError(errno.ENODEV, f"device {name} vanished while it was set up")
    # No IPv6 of the device's own: it would only send solicitations into the tunnel.
    sysctl.write_if_present(f"net.ipv6.conf.{name}.addr_gen_mode", "1")
    if (
        link.get_attr("IFLA_MTU") == mtu
        and link.get_attr("IFLA_IFALIAS") == LINK_ALIAS
        and link["flags"] & flags == flags
    ):
        return
    with netlink.doing(f"set MTU {mtu} and flags of device {name}"):
        ipr.link("set", index=link["index"], mtu=mtu, ifalias=LINK_ALIAS, flags=flags, change=flags)


def _ensure_router_addresses(ipr: netlink.Handle, index: int, routers: Sequence[Address]) -> None:
    """Exactly these addresses on `ist_host`, besides a link-local one."""
    wanted = {(str(r), r.max_prefixlen): r for r in routers}
    with netlink.doing(f"list addresses of {DEVICE_HOST}"):
        rows = [a for a in ipr.addr("dump") if a["index"] == index]
    for row in rows:
        text = row.get_attr("IFA_ADDRESS")
        known = wanted.pop((text, row["prefixlen"]), None)
        is_ip4 = row["family"] == socket.AF_INET
        if known is None and (is_ip4 or row["scope"] != netlink.SCOPE_LINK):
            with netlink.doing(f"remove address {text} from {DEVICE_HOST}"):
                ipr.addr("del", index=index, address=text, prefixlen=row["prefixlen"])
    for (text, length), router in wanted.items():
        with netlink.doing(f"add router address {text} to {DEVICE_HOST}"):
            ipr.addr("add", index=index, address=text, prefixlen=length, **_reserve(router))


def _reserve(router: Address) -> dict[str, int]:
    """The host must not choose the address as its source for the rest of the world.

    Of IPv4 by its scope; of IPv6 by its being deprecated: routes that name it as source keep it.
    """
    if router.version == 4:
        return {"scope": netlink.SCOPE_LINK}
    return {"flags": netlink.IFA_F_NODAD, "preferred_lft": 0, "valid_lft": _FOR_EVER}

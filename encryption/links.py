"""Devices of encryption as links: made, adjusted, removed. Adapter; blocking.

``datapath`` has its own; the two rooms do not import one another. The library is loaded when there
is something to ask: it costs 10 MB, and most nodes have no such device.
"""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from model.address import Address
from model.kernel_numbers import LINK_ALIAS

_IFF_UP = 0x1


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Turn errors of the library into ``OSError`` that says what was tried."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        code = error.code or errno.EIO
        raise OSError(code, f"{what}: {os.strerror(code)}") from error


def _routing() -> Any:
    from pyroute2 import IPRoute

    return IPRoute()


def find(name: str) -> Any | None:
    """The link of a name, or ``None``."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return None
    from pyroute2.netlink.exceptions import NetlinkError

    with _routing() as ipr:
        try:
            return next(iter(ipr.link("get", ifname=name)), None)
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return None
            raise OSError(error.code or errno.EIO, f"look-up of device {name}: {error}") from error


def kind(link: Any) -> str:
    """``wireguard``, ``tun``, …"""
    info = link.get_attr("IFLA_LINKINFO")
    return str(info.get_attr("IFLA_INFO_KIND") or "") if info is not None else ""


def is_ours(link: Any) -> bool:
    """By the mark of everything that we make."""
    return bool(link.get_attr("IFLA_IFALIAS") == LINK_ALIAS)


def create(name: str, kind: str) -> None:
    """Raises ``OSError``; EOPNOTSUPP where the kernel has no such devices."""
    with _routing() as ipr, doing(f"create device {name} of kind {kind}"):
        ipr.link("add", ifname=name, kind=kind)


def adjust(name: str, mtu: int) -> int:
    """MTU, name of ownership, up; our programs judge sources. Returns the ifindex."""
    for setting in ("rp_filter", "send_redirects"):
        _sysctl(f"net/ipv4/conf/{name}/{setting}", "0")
    _sysctl(f"net/ipv6/conf/{name}/addr_gen_mode", "1")
    with _routing() as ipr, doing(f"set MTU {mtu} and flags of device {name}"):
        link = next(iter(ipr.link("get", ifname=name)))
        if (
            link.get_attr("IFLA_MTU") != mtu
            or link.get_attr("IFLA_IFALIAS") != LINK_ALIAS
            or not link["flags"] & _IFF_UP
        ):
            ipr.link("set", index=link["index"], mtu=mtu, ifalias=LINK_ALIAS, state="up")
        return int(link["index"])


def mtu_of(address: Address, device: str | None) -> int:
    """The MTU of a device, or of the one that holds an address. Raises ``OSError``."""
    with _routing() as ipr, doing(f"look for the device of {address}"):
        if device is not None:
            return int(next(iter(ipr.link("get", ifname=device))).get_attr("IFLA_MTU"))
        for found in ipr.addr("dump"):
            if str(address) in (found.get_attr("IFA_LOCAL"), found.get_attr("IFA_ADDRESS")):
                link = next(iter(ipr.link("get", index=found["index"])))
                return int(link.get_attr("IFLA_MTU"))
    raise OSError(errno.EADDRNOTAVAIL, f"no device holds the node's address {address}")


def delete(name: str) -> None:
    """No error when it is gone."""
    from pyroute2.netlink.exceptions import NetlinkError

    with _routing() as ipr, doing(f"delete device {name}"):
        try:
            link = next(iter(ipr.link("get", ifname=name)))
            ipr.link("del", index=link["index"])
        except NetlinkError as error:
            if error.code != errno.ENODEV:
                raise


def _sysctl(name: str, value: str) -> None:
    with suppress(FileNotFoundError):  # a kernel without that family
        Path("/proc/sys", name).write_text(value)

"""Routes of ours in the main table, as a table of rows. Adapter.

Ours is what carries our protocol number. A stranger's route to the same prefix is never replaced:
the row fails with a message and the loop tries it again. Pod CIDRs, local and remote, lead to
`ist_host`.
"""

import errno
import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from datapath import netlink
from datapath.tables import ThreadedTarget
from model.address import Address, Prefix, parse_address, parse_prefix
from model.kernel_numbers import DEVICE_HOST, ROUTE_PROTOCOL


@dataclass(frozen=True, slots=True)
class Route:
    """Where packets to a prefix go."""

    device: str = DEVICE_HOST
    source: Address | None = None  # preferred source of the host's own packets
    mtu: int | None = None  # None: that of the device
    gateway: Address | None = None  # None: on the link


class RouteTable(ThreadedTarget[Prefix, Route]):
    """The routes of one network namespace that carry our protocol.

    A stranger's route to a prefix is ``FileExistsError`` for that row.
    """

    def read_now(self) -> dict[Prefix, Route]:
        return _read()

    def upsert_now(self, rows: Sequence[tuple[Prefix, Route]]) -> dict[Prefix, OSError]:
        return _each(rows, lambda ipr, row: _write(ipr, *row), _prefix_of)

    def delete_now(self, keys: Collection[Prefix]) -> dict[Prefix, OSError]:
        return _each(list(keys), _remove, lambda prefix: prefix)


def _prefix_of(row: tuple[Prefix, Route]) -> Prefix:
    return row[0]


def _each(
    rows: Sequence[object], work: Callable[..., None], key_of: Callable[..., Prefix]
) -> dict[Prefix, OSError]:
    errors: dict[Prefix, OSError] = {}
    with netlink.handle() as ipr:
        for row in rows:
            try:
                work(ipr, row)
            except OSError as error:
                errors[key_of(row)] = error
    return errors


def _family(prefix: Prefix) -> int:
    return int(socket.AF_INET if prefix.version == 4 else socket.AF_INET6)


def _device_name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""


def _read() -> dict[Prefix, Route]:
    found: dict[Prefix, Route] = {}
    with netlink.handle() as ipr, netlink.doing("list routes"):
        for family in (socket.AF_INET, socket.AF_INET6):
            for message in ipr.route("dump", family=int(family), table=netlink.TABLE_MAIN):
                if message["proto"] == ROUTE_PROTOCOL:
                    prefix, route = _decode(message, family)
                    found[prefix] = route
    return found


def _decode(message: netlink.Message, family: int) -> tuple[Prefix, Route]:
    base = message.get_attr("RTA_DST") or ("0.0.0.0" if family == socket.AF_INET else "::")
    prefix: Prefix = parse_prefix(f"{base}/{message['dst_len']}")
    metrics = message.get_attr("RTA_METRICS")
    source, gateway = message.get_attr("RTA_PREFSRC"), message.get_attr("RTA_GATEWAY")
    return prefix, Route(
        device=_device_name(message.get_attr("RTA_OIF") or 0),
        source=parse_address(source) if source else None,
        mtu=metrics.get_attr("RTAX_MTU") if metrics is not None else None,
        gateway=parse_address(gateway) if gateway else None,
    )


def _arguments(prefix: Prefix, route: Route) -> dict[str, object]:
    index = socket.if_nametoindex(route.device)
    arguments: dict[str, object] = {
        "dst": str(prefix),
        "oif": index,
        "proto": ROUTE_PROTOCOL,
        "table": netlink.TABLE_MAIN,
        "family": _family(prefix),
    }
    if route.gateway is not None:
        arguments["gateway"] = str(route.gateway)
    elif prefix.version == 4:
        arguments["scope"] = netlink.SCOPE_LINK
    if route.source is not None:
        arguments["prefsrc"] = str(route.source)
    if route.mtu is not None:
        arguments["metrics"] = {"mtu": route.mtu}
    return arguments


def _write(ipr: netlink.Handle, prefix: Prefix, route: Route) -> None:
    try:
        arguments = _arguments(prefix, route)
    except OSError as error:
        raise OSError(error.errno, f"route to {prefix}: no device {route.device}") from error
    try:
        with netlink.doing(f"add route to {prefix} by {route.device}"):
            ipr.route("add", **arguments)
    except FileExistsError:
        if not _is_ours(ipr, prefix):
            raise FileExistsError(
                errno.EEXIST,
                f"a route to {prefix} exists that is not ours: remove it, or take another pod CIDR",
            ) from None
        with netlink.doing(f"replace route to {prefix} by {route.device}"):
            ipr.route("replace", **arguments)


def _is_ours(ipr: netlink.Handle, prefix: Prefix) -> bool:
    with netlink.doing(f"look up routes to {prefix}"):
        rows = [
            m
            for m in ipr.route("dump", family=_family(prefix), table=netlink.TABLE_MAIN)
            if m["dst_len"] == prefix.prefixlen
            and m.get_attr("RTA_DST") == str(prefix.network_address)
        ]
    return bool(rows) and all(m["proto"] == ROUTE_PROTOCOL for m in rows)


def _remove(ipr: netlink.Handle, prefix: Prefix) -> None:
    try:
        with netlink.doing(f"delete route to {prefix}"):
            ipr.route(
                "del",
                dst=str(prefix),
                proto=ROUTE_PROTOCOL,
                table=netlink.TABLE_MAIN,
                family=_family(prefix),
                scope=netlink.SCOPE_NOWHERE,  # of any scope
            )
    except OSError as error:
        if error.errno != errno.ESRCH:
            raise

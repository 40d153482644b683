"""Routes as messages of the kernel's routing socket, many in one send. Pure.

A mesh has a route for each node's pod prefix. A general library takes 150 microseconds of Python
for one message; these take less than ten, with the kernel's part (docs/adr/0109).
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple

from datapath.netlink_messages import (
    ACK,
    AF_INET,
    AF_INET6,
    ATTRIBUTE,
    CREATE,
    DUMP,
    EXCLUSIVE,
    REPLACE,
    U32,
    attribute,
    message,
)
from model.address import Address, Prefix, make_address, make_prefix

NEW, DELETE, GET = 24, 25, 26  # RTM_*ROUTE
TABLE_MAIN = 254
_UNIVERSE, _LINK, _NOWHERE = 0, 253, 255  # scopes
_UNICAST = 1
_DST, _OIF, _GATEWAY, _PREFSRC, _METRICS, _TABLE = 1, 4, 5, 7, 8, 15
_MTU = 2  # of the metrics

_ROUTE = struct.Struct("=BBBBBBBBI")  # family, lengths, tos, table, protocol, scope, type, flags


class Route(NamedTuple):
    """Where packets to a prefix go."""

    device: int  # its index
    source: Address | None = None  # preferred source of the host's own packets
    mtu: int | None = None  # None: that of the device
    gateway: Address | None = None  # None: on the link


@dataclass(frozen=True, slots=True)
class Found:
    """A route of the main table."""

    prefix: Prefix
    protocol: int
    route: Route


def _family(prefix: Prefix) -> int:
    return AF_INET if prefix.version == 4 else AF_INET6


def write(
    prefix: Prefix,
    route: Route,
    protocol: int,
    sequence: int,
    *,
    replace: bool = False,
    silent: bool = False,
) -> bytes:
    """Add a route; ``replace``: also over one that is there; ``silent``: success is no answer."""
    on_link = route.gateway is None and prefix.version == 4
    body = _ROUTE.pack(
        *(_family(prefix), prefix.prefixlen, 0, 0, TABLE_MAIN, protocol),
        *(_LINK if on_link else _UNIVERSE, _UNICAST, 0),
    )
    body += attribute(_DST, prefix.network_address.packed)
    body += attribute(_OIF, U32.pack(route.device))
    if route.gateway is not None:
        body += attribute(_GATEWAY, route.gateway.packed)
    if route.source is not None:
        body += attribute(_PREFSRC, route.source.packed)
    if route.mtu is not None:
        body += attribute(_METRICS, attribute(_MTU, U32.pack(route.mtu)))
    flags = (0 if silent else ACK) | CREATE | (REPLACE if replace else EXCLUSIVE)
    return message(NEW, flags, sequence, body)


def delete(prefix: Prefix, protocol: int, sequence: int, *, silent: bool = False) -> bytes:
    """Remove the route of a protocol to a prefix, of any scope; ``silent`` as above."""
    body = _ROUTE.pack(
        *(_family(prefix), prefix.prefixlen, 0, 0, TABLE_MAIN, protocol, _NOWHERE, 0, 0)
    )
    body += attribute(_DST, prefix.network_address.packed)
    return message(DELETE, 0 if silent else ACK, sequence, body)


def dump(family: int, protocol: int, sequence: int) -> bytes:
    """Ask for all routes of the main table; 0: of any protocol."""
    body = _ROUTE.pack(family, 0, 0, 0, TABLE_MAIN, protocol, 0, 0, 0)
    return message(GET, DUMP, sequence, body + attribute(_TABLE, U32.pack(TABLE_MAIN)))


def read(body: memoryview) -> Found | None:
    """A route of the main table; ``None`` for one of another table or kind."""
    family, length, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(body)
    base, device = bytes(4 if family == AF_INET else 16), 0
    source = gateway = mtu = None
    at = _ROUTE.size
    while at + ATTRIBUTE.size <= len(body):
        size, name = ATTRIBUTE.unpack_from(body, at)
        if size < ATTRIBUTE.size:
            break
        data = body[at + ATTRIBUTE.size : at + size]
        match name & 0x3FFF:
            case 1:  # RTA_DST
                base = bytes(data)
            case 4:  # RTA_OIF
                device = U32.unpack(data)[0]
            case 5:  # RTA_GATEWAY
                gateway = make_address(bytes(data))
            case 7:  # RTA_PREFSRC
                source = make_address(bytes(data))
            case 8:  # RTA_METRICS
                mtu = _mtu(data)
            case 15:  # RTA_TABLE
                table = U32.unpack(data)[0]
        at += size + -size % 4
    if table != TABLE_MAIN or kind != _UNICAST:
        return None
    prefix = make_prefix(make_address(base), length)
    return Found(prefix, protocol, Route(device, source, mtu, gateway))


def _mtu(data: memoryview) -> int | None:
    at = 0
    while at + ATTRIBUTE.size <= len(data):
        size, name = ATTRIBUTE.unpack_from(data, at)
        if name == _MTU:
            return int(U32.unpack_from(data, at + ATTRIBUTE.size)[0])
        at += max(size, ATTRIBUTE.size) + -size % 4
    return None

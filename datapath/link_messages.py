"""Devices and their addresses as messages of the kernel's routing socket. Pure.

A library that knows all of netlink costs an agent 10 MB and a tenth of a second before it is asked
for anything (docs/adr/0239). Layouts: ``include/uapi/linux/if_link.h`` and ``if_addr.h``.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from datapath.netlink_messages import (
    ACK,
    AF_INET,
    AF_INET6,
    CREATE,
    DUMP,
    EXCLUSIVE,
    U32,
    attribute,
    attributes,
    message,
    number,
    text,
    text_of,
)
from model.address import Address, make_address

NEW_LINK, DELETE_LINK, GET_LINK = 16, 17, 18
NEW_ADDRESS, DELETE_ADDRESS, GET_ADDRESS = 20, 21, 22
VXLAN_LEARNING, VXLAN_PORT, VXLAN_COLLECT_METADATA = 7, 15, 25  # of a device's own data

_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, which of them
_ADDRESS = struct.Struct("=BBBBI")  # family, length, flags, scope, device
_LIFETIMES = struct.Struct("=4I")  # preferred, valid, made, changed
_HARDWARE, _NAME, _MTU, _QUEUE, _INFO, _ALIAS, _NETNS_FD = 1, 3, 4, 13, 18, 20, 28
_KIND, _DATA = 1, 2  # of the info
_PEER = 1  # of the data of a pair
_IFA_ADDRESS, _IFA_LOCAL, _IFA_LIFETIMES, _IFA_FLAGS = 1, 2, 6, 8
_FOR_EVER = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Link:
    """A device as the kernel has it."""

    index: int
    name: str
    flags: int
    mtu: int
    mac: bytes  # empty: it has none
    alias: str | None
    kind: str | None  # `veth`, `vxlan`, ...; None: a device without a kind
    data: Mapping[int, bytes] = field(default_factory=dict)  # what belongs to its kind


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """An address of a device."""

    device: int  # its index
    address: Address  # of a link between two: the other end's
    local: Address
    length: int
    scope: int


@dataclass(frozen=True, slots=True)
class NewLink:
    """A device to be made; 0 and ``None``: as the kernel likes."""

    name: str
    mac: bytes | None = None
    mtu: int = 0
    queue: int = 0  # packets
    netns_fd: int | None = None

    def attributes(self) -> bytes:
        """All that is said of it."""
        found = text(_NAME, self.name)
        if self.mac is not None:
            found += attribute(_HARDWARE, self.mac)
        if self.mtu:
            found += number(_MTU, self.mtu)
        if self.queue:
            found += number(_QUEUE, self.queue)
        if self.netns_fd is not None:
            found += number(_NETNS_FD, self.netns_fd)
        return found


def pair(link: NewLink, peer: NewLink, sequence: int) -> bytes:
    """Make a veth and its peer."""
    other = attribute(_PEER, _LINK.pack(0, 0, 0, 0, 0) + peer.attributes())
    return _make(link, "veth", other, sequence)


def metadata_vxlan(link: NewLink, port: int, sequence: int) -> bytes:
    """Make a vxlan that is told by each packet where to send it, and learns nothing."""
    data = attribute(VXLAN_COLLECT_METADATA, b"\1") + attribute(VXLAN_LEARNING, b"\0")
    return _make(link, "vxlan", data + attribute(VXLAN_PORT, port.to_bytes(2)), sequence)


def _make(link: NewLink, kind: str, data: bytes, sequence: int) -> bytes:
    info = attribute(_KIND, kind.encode()) + attribute(_DATA, data)
    body = _LINK.pack(0, 0, 0, 0, 0) + link.attributes() + attribute(_INFO, info)
    return message(NEW_LINK, ACK | CREATE | EXCLUSIVE, sequence, body)


def change(index: int, flags: int, mtu: int, alias: str, sequence: int) -> bytes:
    """Set ``flags``; MTU and alias unless they are 0 and empty."""
    body = _LINK.pack(0, 0, index, flags, flags)
    if mtu:
        body += number(_MTU, mtu)
    if alias:
        body += attribute(_ALIAS, alias.encode())
    return message(NEW_LINK, ACK, sequence, body)


def delete_link(index: int, sequence: int) -> bytes:
    """With its peer, if it has one."""
    return message(DELETE_LINK, ACK, sequence, _LINK.pack(0, 0, index, 0, 0))


def get_link(sequence: int, *, name: str = "", index: int = 0) -> bytes:
    """Ask for one device."""
    body = _LINK.pack(0, 0, index, 0, 0) + (text(_NAME, name) if name else b"")
    return message(GET_LINK, 0, sequence, body)


def dump_links(sequence: int) -> bytes:
    """Ask for all devices."""
    return message(GET_LINK, DUMP, sequence, _LINK.pack(0, 0, 0, 0, 0))


def read_link(body: memoryview) -> Link:
    """What a ``NEW_LINK`` says."""
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = attributes(body, _LINK.size)
    info = attributes(found[_INFO]) if _INFO in found else {}
    data = attributes(info[_DATA]) if _DATA in info else {}
    return Link(
        index,
        text_of(found.get(_NAME)) or "",
        flags,
        U32.unpack(found[_MTU])[0] if _MTU in found else 0,
        bytes(found.get(_HARDWARE, b"")),
        text_of(found.get(_ALIAS)),
        text_of(info.get(_KIND)),
        {kind: bytes(value) for kind, value in data.items()},
    )


def add_address(
    device: int, address: Address, scope: int, flags: int, deprecated: bool, sequence: int
) -> bytes:
    """One address without a network; ``deprecated``: nobody chooses it as a source."""
    body = _address(device, address, scope) + number(_IFA_FLAGS, flags)
    if deprecated:
        body += attribute(_IFA_LIFETIMES, _LIFETIMES.pack(0, _FOR_EVER, 0, 0))
    return message(NEW_ADDRESS, ACK | CREATE | EXCLUSIVE, sequence, body)


def delete_address(row: LinkAddress, sequence: int) -> bytes:
    """Take one from its device."""
    body = _address(row.device, row.local, 0, row.length)
    return message(DELETE_ADDRESS, ACK, sequence, body)


def _address(device: int, address: Address, scope: int, length: int | None = None) -> bytes:
    family = AF_INET if address.version == 4 else AF_INET6
    length = address.max_prefixlen if length is None else length
    body = _ADDRESS.pack(family, length, 0, scope, device)
    body += attribute(_IFA_LOCAL, address.packed)
    return body + attribute(_IFA_ADDRESS, address.packed)


def dump_addresses(sequence: int) -> bytes:
    """Ask for all addresses of all devices."""
    return message(GET_ADDRESS, DUMP, sequence, _ADDRESS.pack(0, 0, 0, 0, 0))


def read_address(body: memoryview) -> LinkAddress | None:
    """What a ``NEW_ADDRESS`` says; ``None``: of another family."""
    family, length, _, scope, device = _ADDRESS.unpack_from(body)
    found = attributes(body, _ADDRESS.size)
    if family not in (AF_INET, AF_INET6) or _IFA_ADDRESS not in found:
        return None
    address = make_address(bytes(found[_IFA_ADDRESS]))
    local = make_address(bytes(found[_IFA_LOCAL])) if _IFA_LOCAL in found else address
    return LinkAddress(device, address, local, length, scope)

"""Programs in filters at a device's `clsact`, as messages of the kernel's routing socket. Pure.

Layouts: ``include/uapi/linux/rtnetlink.h`` (tcmsg) and ``pkt_cls.h``.
"""

import socket
import struct
from dataclasses import dataclass

from datapath.netlink_messages import (
    ACK,
    CREATE,
    DUMP,
    EXCLUSIVE,
    REPLACE,
    attribute,
    attributes,
    message,
    number,
    text,
    text_of,
)

NEW_FILTER = 44
_NEW_DISCIPLINE, _DELETE_FILTER, _GET_FILTER = 36, 45, 46
_CLSACT, _CLSACT_HANDLE = 0xFFFFFFF1, 0xFFFF0000
_TC = struct.Struct("=BxxxiIII")  # family, device, handle, parent, info
_KIND, _OPTIONS = 1, 2
_BPF_CLASS, _BPF_FD, _BPF_NAME, _BPF_FLAGS = 3, 6, 7, 8
_DIRECT_ACTION = 1
_ALL_PROTOCOLS = 0x0003


@dataclass(frozen=True, slots=True)
class Filter:
    """One of a device."""

    handle: int  # 0: it stands for all of its priority
    priority: int
    protocol: int  # in network order, as the kernel tells it
    name: str | None  # of its program, as whoever added it calls it


def add_clsact(device: int, sequence: int) -> bytes:
    """Give a device the place where filters are."""
    body = _TC.pack(0, device, _CLSACT_HANDLE, _CLSACT, 0) + text(_KIND, "clsact")
    return message(_NEW_DISCIPLINE, ACK | CREATE | EXCLUSIVE, sequence, body)


def replace(
    device: int, parent: int, priority: int, program: int, name: str, sequence: int
) -> bytes:
    """Put a program there, with handle 1, in place of what is there."""
    info = priority << 16 | socket.htons(_ALL_PROTOCOLS)
    options = number(_BPF_FD, program) + text(_BPF_NAME, name)
    options += number(_BPF_FLAGS, _DIRECT_ACTION) + number(_BPF_CLASS, 1)
    body = _TC.pack(0, device, 1, parent, info)
    body += text(_KIND, "bpf") + attribute(_OPTIONS, options)
    return message(NEW_FILTER, ACK | CREATE | REPLACE, sequence, body)


def delete(device: int, parent: int, found: Filter, sequence: int) -> bytes:
    """Take all of its priority away."""
    info = found.priority << 16 | found.protocol
    body = _TC.pack(0, device, 0, parent, info) + text(_KIND, "bpf")
    return message(_DELETE_FILTER, ACK, sequence, body)


def dump(device: int, parent: int, sequence: int) -> bytes:
    """Ask for all filters of one direction."""
    return message(_GET_FILTER, DUMP, sequence, _TC.pack(0, device, 0, parent, 0))


def read(body: memoryview) -> Filter:
    """What a ``NEW_FILTER`` says."""
    _, _, handle, _, info = _TC.unpack_from(body)
    found = attributes(body, _TC.size)
    options = attributes(found[_OPTIONS]) if _OPTIONS in found else {}
    is_bpf = text_of(found.get(_KIND)) == "bpf"
    name = text_of(options.get(_BPF_NAME)) if is_bpf else None
    return Filter(handle, info >> 16, info & 0xFFFF, name)

"""What all messages of the kernel's routing socket have in common. Pure.

Native byte order. A message is a header and a body; a body has a fixed part and attributes, some of
which consist of attributes again.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

ERROR, DONE = 2, 3
REQUEST, ACK, DUMP, REPLACE, EXCLUSIVE, CREATE = 0x1, 0x4, 0x300, 0x100, 0x200, 0x400
INTERRUPTED = 0x10  # of an answer: what is listed has changed meanwhile
AF_INET, AF_INET6 = 2, 10

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
ATTRIBUTE = struct.Struct("=HH")  # length, type
_TYPE = 0x3FFF  # without the flags for nesting and byte order
U32, _I32 = struct.Struct("=I"), struct.Struct("=i")


class Answer(NamedTuple):
    """One message from the kernel."""

    kind: int
    sequence: int
    body: memoryview
    flags: int = 0


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """A request."""
    return _HEADER.pack(_HEADER.size + len(body), kind, REQUEST | flags, sequence, 0) + body


def attribute(kind: int, data: bytes) -> bytes:
    """With what fills it up to four bytes."""
    length = ATTRIBUTE.size + len(data)
    return ATTRIBUTE.pack(length, kind) + data + bytes(-length % 4)


def text(kind: int, value: str) -> bytes:
    """An attribute that is a text."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """An attribute that is a number of 32 bits."""
    return attribute(kind, U32.pack(value))


def answers(data: bytes) -> Iterator[Answer]:
    """The messages of one datagram."""
    at, view = 0, memoryview(data)
    while at + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield Answer(kind, sequence, view[at + _HEADER.size : at + length], flags)
        at += length + -length % 4


def attributes(body: memoryview, at: int = 0) -> dict[int, memoryview]:
    """What stands from ``at`` on, by type; of several of a type the last."""
    found: dict[int, memoryview] = {}
    while at + ATTRIBUTE.size <= len(body):
        size, kind = ATTRIBUTE.unpack_from(body, at)
        if size < ATTRIBUTE.size:
            break
        found[kind & _TYPE] = body[at + ATTRIBUTE.size : at + size]
        at += size + -size % 4
    return found


def text_of(data: memoryview | None) -> str | None:
    """The text of an attribute, if it is there."""
    return None if data is None else bytes(data).rstrip(b"\0").decode(errors="replace")


def error_of(body: memoryview) -> int:
    """The error number of an ``ERROR`` or ``DONE`` message; 0: it worked."""
    return -int(_I32.unpack_from(body)[0]) if len(body) >= _I32.size else 0

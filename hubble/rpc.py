"""gRPC over HTTP/2 without the HTTP/2: messages in frames, status codes, timeouts. Pure.

From the protocol's description (grpc/doc/PROTOCOL-HTTP2.md). Why we speak it ourselves: ADR 0177.
"""

import enum
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, unquote

MESSAGE_MAX_BYTES: Final = 512 << 10  # of a request; the largest sensible one is far below
ANSWER_MAX_BYTES: Final = 4 << 20  # of a response: what other clients of gRPC accept
_PREFIX_BYTES: Final = 5  # compressed or not, then the length
_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class Code(enum.IntEnum):
    """Status codes of gRPC."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class RpcError(Exception):
    """A call that ended with a code other than OK."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message


def join(messages: Iterable[bytes]) -> bytes:
    """Messages, each with its prefix."""
    parts: list[bytes] = []
    for message in messages:
        parts.append(b"\0" + len(message).to_bytes(4, "big"))
        parts.append(message)
    return b"".join(parts)


class Splitter:
    """Bytes as they come, cut into messages of at most ``max_bytes``; ``RpcError``."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rest = b""

    @property
    def is_between(self) -> bool:
        """Nothing of a message is left over."""
        return not self._rest

    def split(self, data: bytes) -> list[bytes]:
        """The messages that are complete with ``data``."""
        buffer = self._rest + data if self._rest else data
        messages, place, size = [], 0, len(buffer)
        while size - place >= _PREFIX_BYTES:
            length = int.from_bytes(buffer[place + 1 : place + _PREFIX_BYTES], "big")
            if buffer[place]:
                raise RpcError(Code.UNIMPLEMENTED, "compressed messages are not understood here")
            if length > self._max_bytes:
                raise RpcError(
                    Code.RESOURCE_EXHAUSTED,
                    f"a message of {length} bytes; at most {self._max_bytes} are taken",
                )
            end = place + _PREFIX_BYTES + length
            if end > size:
                break
            messages.append(buffer[place + _PREFIX_BYTES : end])
            place = end
        self._rest = buffer[place:] if place else buffer
        return messages


def quoted(message: str) -> str:
    """A status message as a header's value."""
    return quote(message[:4096], safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")


def unquoted(value: str) -> str:
    """The reverse of ``quoted``, of any text."""
    return unquote(value, errors="replace")


def timeout_s(value: str) -> float | None:
    """The header ``grpc-timeout`` in seconds; ``None`` when it cannot be read."""
    number, unit = value[:-1], value[-1:]
    if unit not in _UNITS or not (number.isascii() and number.isdigit() and len(number) <= 8):
        return None
    return int(number) * _UNITS[unit]


def code_of(value: str) -> Code:
    """The header ``grpc-status``."""
    try:
        return Code(int(value))
    except ValueError:
        return Code.UNKNOWN

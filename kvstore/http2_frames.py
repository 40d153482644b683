"""Frames of HTTP/2, as far as one call needs them. Pure."""

from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME_BYTES: Final = 16_384  # unless agreed otherwise
HEAD_BYTES: Final = 9
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8


class FrameType(IntEnum):
    """What a frame is."""

    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Setting(IntEnum):
    """What is agreed."""

    ENABLE_PUSH = 2
    INITIAL_WINDOW_SIZE = 4


class ProtocolError(Exception):
    """What came is not what was agreed."""


class Reader:
    """Bytes as they come → whole frames."""

    def __init__(self) -> None:
        self._rest = b""

    def frames(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """Type, flags, stream and payload of each. Raises ``ProtocolError``."""
        data = self._rest + data if self._rest else data
        at, end = 0, len(data)
        self._rest = b""
        while end - at >= HEAD_BYTES:
            size = int.from_bytes(data[at : at + 3])
            if size > MAX_FRAME_BYTES:
                raise ProtocolError(f"a frame of {size} bytes")
            after = at + HEAD_BYTES + size
            if after > end:
                break
            stream = int.from_bytes(data[at + 5 : at + 9]) & 0x7FFF_FFFF
            yield data[at + 3], data[at + 4], stream, data[at + HEAD_BYTES : after]
            at = after
        self._rest = data[at:]


def frame(kind: FrameType, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame; at most ``MAX_FRAME_BYTES`` of payload."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def settings(values: Mapping[Setting, int]) -> bytes:
    """What we want of the other side."""
    payload = b"".join(k.to_bytes(2) + v.to_bytes(4) for k, v in values.items())
    return frame(FrameType.SETTINGS, 0, 0, payload)


def without_padding(payload: bytes, flags: int) -> bytes:
    """The data of a frame. Raises ``ProtocolError``."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ProtocolError("more padding than data")
    return payload[1 : len(payload) - payload[0]]


def encode_headers(stream: int, headers: Mapping[str, str]) -> bytes:
    """A request's headers in their plainest form: nothing is to be remembered by either side."""
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in headers.items())
    return frame(FrameType.HEADERS, END_HEADERS, stream, block)


def _text(text: str) -> bytes:
    data = text.encode()
    size = len(data)
    if size < 127:
        return bytes((size,)) + data
    rest, more = size - 127, b""
    while rest >= 128:
        more += bytes((rest & 127 | 128,))
        rest >>= 7
    return b"\x7f" + more + bytes((rest,)) + data

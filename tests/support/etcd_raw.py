"""etcd's whole API by hand: messages are encoded here, so that a test can send what we never do."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from kvstore.config import StoreConfig

TIMEOUT_S = 30.0
Fields = Sequence[tuple[int, "int | bytes | Fields"]]


def message(fields: Fields) -> bytes:
    """Protocol buffers: numbers as varints, texts and nested messages with their length."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += _varint(number << 3) + _varint(value)
        else:
            data = value if isinstance(value, bytes) else message(value)
            out += _varint(number << 3 | 2) + _varint(len(data)) + data
    return out


def _varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


class RawEtcd:
    """A connection that sends any bytes to any method."""

    def __init__(self, config: StoreConfig, server_name: str = "") -> None:
        (target,) = config.targets()
        files = (config.ca_file, config.key_file, config.cert_file)
        credentials = grpc.ssl_channel_credentials(*(Path(f).read_bytes() for f in files))
        options = [("grpc.ssl_target_name_override", server_name)] if server_name else []
        self._channel = grpc.aio.secure_channel(target.authority, credentials, options)

    async def call(self, method: str, request: bytes) -> bytes:
        """The first answer, be it to a call or on a stream; bytes as they came."""
        path = method if method.startswith("/") else f"/etcdserverpb.{method}"
        stream: Any = self._channel.stream_stream(path)(timeout=TIMEOUT_S)
        try:
            await stream.write(request)
            if "Watch" not in path:  # a watch ends with what its client says
                await stream.done_writing()
            answer = await stream.read()
            if answer is grpc.aio.EOF:
                raise AssertionError(f"{method}: {await stream.code()} {await stream.details()}")
            return bytes(answer)
        finally:
            stream.cancel()

    async def close(self) -> None:
        await self._channel.close()


async def outcome(raw: RawEtcd, method: str, fields: Fields, patience_s: float) -> str:
    """``allowed``, or why not; a watch that is never answered is refused, too."""
    try:
        async with asyncio.timeout(patience_s):
            answer = await raw.call(method, message(fields))
    except grpc.aio.AioRpcError as error:
        return f"refused: {error.code().name}"
    except TimeoutError:
        return "refused: no answer"
    finally:
        await raw.close()
    denied = b"PermissionDenied" in answer or b"permission denied" in answer
    return "refused: by the store" if denied else "allowed"

"""Running a command in a container over a WebSocket. Adapter.

Every message begins with one byte, its channel. Version 5 of the protocol adds the closing of a
channel (255), without which a command that reads its input to the end never ends; version 4 is
what older servers speak.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec

from kube.port import ApiError, ExecResult
from wire.k8s.meta import Status

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR = range(4)
CLOSE = 255


def path(namespace: str, pod: str, container: str, argv: Sequence[str], stdin: bytes | None) -> str:
    """The request's path with its query; the words of the command are repeated keys."""
    query = [("command", word) for word in argv]
    query += [("stdout", "true"), ("stderr", "true")]
    if stdin is not None:
        query.append(("stdin", "true"))
    if container:
        query.append(("container", container))
    return f"/api/v1/namespaces/{namespace}/pods/{pod}/exec?{urlencode(query)}"


def exit_code(status: Status) -> int | None:
    """The command's exit code in the server's last word; ``None``: it was never run."""
    if status.status == "Success":
        return 0
    for cause in (status.details.causes if status.details else None) or ():
        if cause.reason == "ExitCode" and cause.message.isdigit():
            return int(cause.message)
    return None


async def run(
    session: aiohttp.ClientSession,
    url: str,
    options: dict[str, Any],
    subject: str,
    stdin: bytes | None,
) -> ExecResult:
    """One command to its end. Raises ``ApiError`` when it could not be run."""
    output: dict[int, bytearray] = {i: bytearray() for i in (STDOUT, STDERR, ERROR)}
    async with session.ws_connect(url, protocols=PROTOCOLS, max_msg_size=0, **options) as socket:
        if stdin is not None:
            await socket.send_bytes(bytes((STDIN,)) + stdin)
            if socket.protocol == PROTOCOLS[0]:
                await socket.send_bytes(bytes((CLOSE, STDIN)))
        async for message in socket:
            data = message.data if isinstance(message.data, bytes) else message.data.encode()
            if data and data[0] in output:
                output[data[0]] += data[1:]
    try:
        status = msgspec.json.decode(bytes(output[ERROR]), type=Status)
    except msgspec.MsgspecError as error:
        raise ApiError(
            "exec in", subject, 500, "NoStatus", "the connection ended before the command did"
        ) from error
    code = exit_code(status)
    if code is None:
        raise ApiError("exec in", subject, status.code or 500, status.reason, status.message)
    return ExecResult(bytes(output[STDOUT]), bytes(output[STDERR]), code)

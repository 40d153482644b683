"""Streams that end at a node's kubelet: logs, and exec/attach/port-forward by upgrade. Adapter.

After the kubelet's answer to an upgrade the server only moves bytes, so whatever protocol the
client negotiated (``v5.channel.k8s.io`` over WebSocket, ...) is spoken between client and kubelet.
"""

import asyncio
import contextlib
import logging
import ssl
from typing import Any
from urllib.parse import urlencode

import aiohttp
from aiohttp import web

from kind.apiserver import errors
from kind.apiserver.api import Api
from kind.apiserver.objects import Obj, dicts, dig, name_of
from kind.apiserver.resources import Resource
from reconcile.tasks import TaskGroup

log = logging.getLogger(__name__)
KUBELET_PORT = 10250
_CONNECT_S = 5.0
_HEAD_BYTES = 64 * 1024
_CHUNK_BYTES = 64 * 1024
_PATHS = {"log": "containerLogs", "exec": "exec", "attach": "attach"}
_NOT_FORWARDED = frozenset(
    {"host", "authorization", "connection", "upgrade", "content-length", "transfer-encoding"}
)


class KubeletProxy:
    """Connects to kubelets with the certificates given at start."""

    def __init__(self, api: Api, nodes: Resource, tls: ssl.SSLContext) -> None:
        self._api, self._nodes, self._tls = api, nodes, tls

    def _kubelet(self, pod: Obj) -> tuple[str, int]:
        node_name = str(dig(pod, "spec", "nodeName") or "")
        if not node_name:
            raise errors.bad_request(f"pod {name_of(pod)} does not have a host assigned")
        node = self._api.read(self._nodes, "", node_name).obj
        found = dicts(dig(node, "status", "addresses"))
        address = next((a.get("address") for a in found if a.get("type") == "InternalIP"), None)
        if not address:
            raise errors.unavailable(f"node {node_name} has no InternalIP")
        port = dig(node, "status", "daemonEndpoints", "kubeletEndpoint", "Port") or KUBELET_PORT
        return str(address), int(port)

    def _path(self, pod: Obj, sub: str, http: web.Request) -> str:
        if sub == "portforward":
            namespace, name = pod["metadata"]["namespace"], name_of(pod)
            return f"/portForward/{namespace}/{name}?{urlencode(list(http.query.items()))}"
        names = [str(c.get("name")) for c in dicts(dig(pod, "spec", "containers"))]
        inits = [str(c.get("name")) for c in dicts(dig(pod, "spec", "initContainers"))]
        namespace, name = pod["metadata"]["namespace"], name_of(pod)
        container = http.query.get("container", "")
        if not container:
            if len(names) > 1:
                listed = " ".join(names)
                raise errors.bad_request(
                    f"a container name must be specified for pod {name}, choose one of: [{listed}]"
                )
            container = names[0]
        elif container not in names + inits:
            raise errors.bad_request(f"container {container} is not valid for pod {name}")
        pairs = [(k, v) for k, v in http.query.items() if k != "container"]
        if sub in ("exec", "attach"):  # a kubelet has its own names for the same switches
            for own, short in (("stdin", "input"), ("stdout", "output"), ("stderr", "error")):
                if http.query.get(own) in ("1", "true"):
                    pairs.append((short, "1"))
        path = f"/{_PATHS[sub]}/{namespace}/{name}/{container}"
        return path + (f"?{urlencode(pairs)}" if pairs else "")

    async def logs(self, pod: Obj, http: web.Request) -> web.StreamResponse:
        """Stream what the kubelet answers."""
        host, port = self._kubelet(pod)
        url = f"https://{host}:{port}{self._path(pod, 'log', http)}"
        timeout = aiohttp.ClientTimeout(total=None, connect=_CONNECT_S)
        stream = web.StreamResponse(headers={"Content-Type": "text/plain"})
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(url, ssl=self._tls) as answer,
            ):
                if answer.status != 200:
                    text = (await answer.text()).strip()
                    reason = "NotFound" if answer.status == 404 else "BadRequest"
                    raise errors.ApiError(answer.status, reason, text)
                await stream.prepare(http)
                async for chunk in answer.content.iter_any():
                    await stream.write(chunk)
        except aiohttp.ClientConnectionError as e:
            raise errors.unavailable(f"cannot reach the kubelet at {host}:{port}: {e}") from e
        await stream.write_eof()
        return stream

    async def upgrade(self, pod: Obj, sub: str, http: web.Request) -> web.StreamResponse:
        """Hand the connection through to the kubelet."""
        host, port = self._kubelet(pod)
        path = self._path(pod, sub, http)
        try:
            async with asyncio.timeout(_CONNECT_S):
                reader, writer = await asyncio.open_connection(
                    host, port, ssl=self._tls, limit=_HEAD_BYTES
                )
        except (OSError, TimeoutError) as e:
            raise errors.unavailable(f"cannot reach the kubelet at {host}:{port}: {e}") from e
        try:
            head = [f"{http.method} {path} HTTP/1.1", f"Host: {host}:{port}"]
            head += [
                f"{k}: {v}" for k, v in http.headers.items() if k.lower() not in _NOT_FORWARDED
            ]
            head += ["Connection: Upgrade", f"Upgrade: {http.headers.get('Upgrade', '')}"]
            writer.write(("\r\n".join(head) + "\r\n\r\n").encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            status = int(answer.split(b" ", 2)[1])
            if status != 101:
                text = (await reader.read(_HEAD_BYTES)).decode(errors="replace").strip()
                raise errors.ApiError(status, "BadRequest", text or f"the kubelet said {status}")
            await _pump(http, answer, reader, writer)
        finally:
            writer.close()
        return _Finished()


class _Finished(web.StreamResponse):
    """A response whose bytes have been written already."""

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class _FromClient:
    """Takes the raw bytes that the HTTP connection receives after the upgrade."""

    def __init__(self, writer: asyncio.StreamWriter, client: asyncio.Transport) -> None:
        self._writer, self._client = writer, client
        self._full = asyncio.Event()
        self.closed = asyncio.Event()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._writer.write(data)
        if self._writer.transport.get_write_buffer_size() > _CHUNK_BYTES:
            self._client.pause_reading()
            self._full.set()
        return False, b""

    def feed_eof(self) -> None:
        self.closed.set()

    def set_exception(self, *_: object) -> None:
        self.closed.set()

    async def drain(self) -> None:
        """Let the client go on whenever the kubelet has taken what there was."""
        while True:
            await self._full.wait()
            self._full.clear()
            await self._writer.drain()
            self._client.resume_reading()


async def _pump(
    http: web.Request, answer: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Bytes both ways until either side ends."""
    transport = http.transport
    protocol: Any = http.protocol
    assert transport is not None
    transport.write(answer)
    source = _FromClient(writer, transport)
    protocol.set_parser(source)
    protocol.keep_alive(False)
    try:
        async with TaskGroup() as group:
            tasks = {
                group.create_task(_copy(reader, transport, protocol)),
                group.create_task(_until_closed(source)),
                group.create_task(_drain(source)),
            }
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
    finally:
        transport.close()


async def _until_closed(source: _FromClient) -> None:
    await source.closed.wait()


async def _drain(source: _FromClient) -> None:
    with contextlib.suppress(ConnectionError):
        await source.drain()


async def _copy(reader: asyncio.StreamReader, transport: asyncio.Transport, protocol: Any) -> None:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(_CHUNK_BYTES):
            if transport.is_closing():
                return
            transport.write(data)
            # aiohttp owns the protocol of this connection, and with it the flow control.
            await protocol._drain_helper()

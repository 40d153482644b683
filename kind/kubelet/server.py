"""The kubelet's own HTTPS API: logs and exec, for the API server and ``kubectl``. Adapter.

``exec`` speaks the WebSocket subprotocols ``v4.channel.k8s.io`` and ``v5.channel.k8s.io``: the
first byte of a message names its channel, the exit status comes on channel 3 as a ``Status``.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import ssl
import struct
import termios
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from kind.kubelet import launch as launching
from kind.kubelet import status
from kind.kubelet.config import Config
from kind.kubelet.link import Link, Running
from kind.kubelet.manager import Manager
from kind.kubelet.pod import PodWorker
from reconcile.tasks import TaskGroup

Json = dict[str, Any]

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io")
LOG_CHUNK = 64 * 1024
FOLLOW_LOOK_S = 0.1  # how often a followed log is looked at


@contextlib.asynccontextmanager
async def serving(config: Config, manager: Manager, runtime: Link) -> AsyncIterator[None]:
    """Serve on the node's address while the context lasts."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(config.serving_cert, config.serving_key)
    # Whoever may execute in a pod owns the node: only the API server's certificate opens this.
    tls.load_verify_locations(config.client_ca)
    tls.verify_mode = ssl.CERT_REQUIRED
    app = web.Application()
    handlers = Handlers(config, manager, runtime)
    app.router.add_get("/healthz", handlers.healthz)
    app.router.add_get("/pods", handlers.pods)
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", handlers.logs)
    app.router.add_get("/exec/{namespace}/{pod}/{container}", handlers.execute)
    app.router.add_get("/portForward/{namespace}/{pod}", handlers.forward)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, config.node_ip, config.port, ssl_context=tls, shutdown_timeout=1)
        await site.start()
        yield
    finally:
        await runner.cleanup()


def tail(text: bytes, lines: int) -> bytes:
    """The last lines of a text."""
    if lines <= 0:
        return b""
    parts = text.splitlines(keepends=True)
    return b"".join(parts[-lines:])


class Handlers:
    """One method per path."""

    def __init__(self, config: Config, manager: Manager, runtime: Link) -> None:
        self._config = config
        self._manager = manager
        self._runtime = runtime

    async def healthz(self, _: web.Request) -> web.Response:
        """Always fine when it answers."""
        return web.Response(text="ok")

    async def pods(self, _: web.Request) -> web.Response:
        """The pods of the node as this kubelet knows them."""
        items = [worker.pod for worker in self._manager.workers()]
        return web.json_response({"kind": "PodList", "apiVersion": "v1", "items": items})

    def _worker(self, request: web.Request) -> PodWorker:
        namespace, name = request.match_info["namespace"], request.match_info["pod"]
        worker = self._manager.find(namespace, name)
        if worker is None:
            raise web.HTTPNotFound(
                text=f"pod {namespace}/{name} is not on node {self._config.node}"
            )
        return worker

    async def logs(self, request: web.Request) -> web.StreamResponse:
        """The output of a container: ``tailLines``, ``limitBytes``, ``previous``, ``follow``."""
        worker = self._worker(request)
        container = request.match_info["container"]
        state = worker.containers.state(container)
        if state is None:
            raise web.HTTPNotFound(text=f"no container {container!r} in the pod")
        previous = request.query.get("previous") in ("true", "1")
        # From the id and not from the count of restarts: that is ahead while one is being started.
        attempt = int(state.container_id.rpartition(".")[2] or -1) - (1 if previous else 0)
        path = launching.log_path(self._config, worker.pod, state.name, attempt)
        if attempt < 0 or not path.exists():
            what = "previous terminated container" if previous else "container"
            raise web.HTTPBadRequest(
                text=f'{what} "{state.name}" in pod "{worker.pod["metadata"]["name"]}" '
                f"is waiting to start: {state.reason or 'not found'}"
            )
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        await self._send_log(request, response, path, worker, state)
        return response

    async def _send_log(
        self,
        request: web.Request,
        response: web.StreamResponse,
        path: Path,
        worker: PodWorker,
        state: status.ContainerState,
    ) -> None:
        run = state.container_id
        with path.open("rb") as file:
            if "tailLines" in request.query:
                await response.write(tail(file.read(), int(request.query["tailLines"])))
            left = int(request.query.get("limitBytes") or 1 << 40)
            follow = request.query.get("follow") in ("true", "1")
            while left > 0:
                data = file.read(min(LOG_CHUNK, left))
                if data:
                    left -= len(data)
                    await response.write(data)
                    continue
                ended = state.state != status.RUNNING or state.container_id != run
                if not follow or (ended and not file.read(1)):
                    return
                if request.transport is None or request.transport.is_closing():
                    return
                await asyncio.sleep(FOLLOW_LOOK_S)

    async def execute(self, request: web.Request) -> web.StreamResponse:
        """Run a command in a container over a WebSocket."""
        worker = self._worker(request)
        found = worker.containers.running(request.match_info["container"])
        if found is None:
            raise web.HTTPBadRequest(
                text=f"container {request.match_info['container']!r} is not running"
            )
        container, state, _ = found
        argv = request.query.getall("command", [])
        if not argv:
            raise web.HTTPBadRequest(text="exec needs at least one command argument")
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise web.HTTPBadRequest(
                text="exec needs WebSocket (kubectl 1.30 or newer); "
                "with an older kubectl use: isthmus lab exec POD -- COMMAND"
            )
        wanted = _Wanted(request)
        socket = web.WebSocketResponse(protocols=PROTOCOLS, heartbeat=None)
        await socket.prepare(request)
        launch = worker.containers.exec_launch(container, state, argv)
        files = _Files(wanted.tty)
        try:
            running = await self._runtime.execute(
                launch, state.container_id, files.theirs, wanted.tty
            )
        except OSError as error:
            files.close()
            await _send(socket, ERROR, json.dumps(_failure(str(error))).encode())
        else:
            files.close_theirs()
            await _Session(socket, files, running, wanted).run()
        await socket.close()
        return socket

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Carry a connection to a port of a pod over a WebSocket: channel 0 data, 1 errors."""
        worker = self._worker(request)
        ports = request.query.getall("ports", [])
        sandbox = worker.containers.sandbox
        if len(ports) != 1 or not ports[0].isdigit() or not 0 < int(ports[0]) < 1 << 16:
            raise web.HTTPBadRequest(text="ports must be one port")
        if sandbox is None or not sandbox.pod_ip:
            raise web.HTTPBadRequest(text="the pod has no address yet")
        port = int(ports[0])
        socket = web.WebSocketResponse(protocols=PROTOCOLS[1:], heartbeat=None)
        await socket.prepare(request)
        for channel in (STDIN, STDOUT):
            await _send(socket, channel, port.to_bytes(2, "little"))
        try:
            reader, writer = await asyncio.open_connection(sandbox.pod_ip, port)
        except OSError as error:
            await _send(socket, STDOUT, str(error).encode())
        else:
            await _carry(socket, reader, writer)
        await socket.close()
        return socket


async def _carry(
    socket: web.WebSocketResponse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Until either side ends."""

    async def back() -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(LOG_CHUNK):
                await _send(socket, STDIN, data)
        await socket.close()

    async with TaskGroup() as tasks:
        task = tasks.create_task(back())
        with contextlib.suppress(ConnectionError):
            async for message in socket:
                if message.type is WSMsgType.BINARY and message.data[:1] == bytes((STDIN,)):
                    writer.write(message.data[1:])
                    await writer.drain()
        task.cancel()
    writer.close()


class _Wanted:
    """Which streams the client asked for."""

    def __init__(self, request: web.Request) -> None:
        def flag(*names: str) -> bool:
            return any(request.query.get(name) in ("true", "1") for name in names)

        self.stdin = flag("stdin", "input")
        self.tty = flag("tty")


class _Files:
    """The three files of a command, and our ends of them."""

    def __init__(self, tty: bool) -> None:
        if tty:
            master, slave = os.openpty()
            self.stdin = self.stdout = master
            self.stderr = -1
            self.theirs = (slave, slave, slave)
        else:
            in_read, self.stdin = os.pipe()
            self.stdout, out_write = os.pipe()
            self.stderr, err_write = os.pipe()
            self.theirs = (in_read, out_write, err_write)

    def close_theirs(self) -> None:
        """Once the command has them."""
        for fd in set(self.theirs):
            os.close(fd)

    def close_stdin(self) -> None:
        """The client has no more to say."""
        if self.stdin not in (-1, self.stdout):
            os.close(self.stdin)
            self.stdin = -1

    def close_ours(self) -> None:
        """At the end."""
        for fd in {self.stdin, self.stdout, self.stderr} - {-1}:
            os.close(fd)

    def close(self) -> None:
        """When no command came of it."""
        self.close_theirs()
        self.close_ours()


class _Session:
    """One command: what the client sends goes in, what it writes goes out, then its exit code."""

    def __init__(
        self, socket: web.WebSocketResponse, files: _Files, running: Running, wanted: _Wanted
    ) -> None:
        self._socket = socket
        self._files = files
        self._running = running
        self._wanted = wanted

    async def run(self) -> None:
        """Until the command ends or the client goes."""
        try:
            async with TaskGroup() as tasks:
                outputs = [tasks.create_task(self._output(STDOUT, self._files.stdout))]
                if self._files.stderr >= 0:
                    outputs.append(tasks.create_task(self._output(STDERR, self._files.stderr)))
                reader = tasks.create_task(self._input())
                waiter = tasks.create_task(self._running.wait())
                await asyncio.wait({reader, waiter}, return_when=asyncio.FIRST_COMPLETED)
                if waiter.done():
                    # What it wrote is in the pipes; a process it left behind may hold them open.
                    await asyncio.wait(outputs, timeout=1.0)
                    text = json.dumps(_status(waiter.result())).encode()
                    await _send(self._socket, ERROR, text)
                for task in (*outputs, reader, waiter):
                    task.cancel()
        finally:
            self._running.close()
            self._files.close_ours()

    async def _output(self, channel: int, fd: int) -> None:
        while True:
            await _readable(fd)
            try:
                data = os.read(fd, LOG_CHUNK)
            except OSError:  # a terminal whose other end is closed
                return
            if not data:
                return
            await _send(self._socket, channel, data)

    async def _input(self) -> None:
        async for message in self._socket:
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                continue
            raw = message.data.encode() if message.type == WSMsgType.TEXT else message.data
            if not raw:
                continue
            channel, data = raw[0], raw[1:]
            if channel == STDIN and self._files.stdin >= 0:
                await _write(self._files.stdin, data)
            elif channel == RESIZE and self._wanted.tty:
                _resize(self._files.stdin, data)
            elif channel == CLOSE and data[:1] == bytes([STDIN]):
                self._files.close_stdin()


async def _send(socket: web.WebSocketResponse, channel: int, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        await socket.send_bytes(bytes([channel]) + data)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(fd)


async def _write(fd: int, data: bytes) -> None:
    # A command that does not read must not block the kubelet.
    with contextlib.suppress(BrokenPipeError, OSError):
        await asyncio.to_thread(os.write, fd, data)


def _resize(fd: int, data: bytes) -> None:
    with contextlib.suppress(ValueError, KeyError, OSError):
        size = json.loads(data)
        packed = struct.pack("HHHH", size["Height"], size["Width"], 0, 0)
        fcntl.ioctl(fd, termios.TIOCSWINSZ, packed)


def _status(exit_code: int) -> Json:
    if exit_code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {exit_code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(exit_code)}]},
    }


def _failure(message: str) -> Json:
    return {
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "InternalError",
        "code": 500,
    }

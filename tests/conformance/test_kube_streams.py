"""Logs and exec through the API server to a node, with the real kubectl and a small kubelet."""

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator

import pytest
from aiohttp import WSMsgType, web

from tests.support import kubectl
from tests.support.kind_apiserver import Cluster, cluster, pod
from tests.support.lab_api import free_port

_STDIN, _STDOUT, _STDERR, _ERROR = range(4)


class SmallKubelet:
    """Answers what kubectl asks of a kubelet: logs, and an exec that repeats its input."""

    def __init__(self, api: Cluster) -> None:
        self.port = free_port()
        self.asked: list[str] = []
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(api.certificate, api.key)
        self._loop = asyncio.new_event_loop()
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    def __enter__(self) -> "SmallKubelet":
        self._thread.start()
        assert self._ready.wait(40)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(40)
        self._loop.close()

    async def _run(self) -> None:
        app = web.Application()
        app.router.add_get("/containerLogs/{path:.*}", self._logs)
        app.router.add_get("/exec/{path:.*}", self._exec)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=self._tls).start()
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        if request.query.get("previous") == "true":
            return web.Response(status=400, text="there is no previous container")
        stream = web.StreamResponse()
        await stream.prepare(request)
        for number in range(3):
            await stream.write(f"line {number}\n".encode())
        await stream.write_eof()
        return stream

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        if "Authorization" in request.headers:
            return web.Response(status=403, text="the client's token came along")
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io", "v4.channel.k8s.io"))
        await socket.prepare(request)
        argv = request.query.getall("command")
        await socket.send_bytes(bytes([_STDERR]) + " ".join(argv).encode() + b"\n")
        # v5 ends the input with a close message: 255 and the channel.
        async for message in socket:
            if message.type is not WSMsgType.BINARY or message.data[0] == 255:
                break
            if message.data[0] == _STDIN:
                await socket.send_bytes(bytes([_STDOUT]) + message.data[1:])
        status = {"metadata": {}, "status": "Success"}
        if argv[0] == "fail":
            cause = {"reason": "ExitCode", "message": "7"}
            status = {
                "metadata": {},
                "status": "Failure",
                "reason": "NonZeroExitCode",
                "message": "it failed",
                "details": {"causes": [cause]},
            }
        await socket.send_bytes(bytes([_ERROR]) + json.dumps(status).encode())
        await socket.close()
        return socket


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, SmallKubelet]]:
    with cluster(tmp_path_factory.mktemp("streams")) as api, SmallKubelet(api) as kubelet:
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "n1"},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.port}},
            },
        }
        api.request("POST", "/api/v1/nodes", node)
        for name, where in (("p", "n1"), ("far", "n2"), ("waits", "")):
            body = pod(name, "default")
            if where:
                body["spec"]["nodeName"] = where
            api.apply(body)
        yield api, kubelet


def test_logs(world: tuple[Cluster, SmallKubelet]) -> None:
    """kubectl logs prints what the kubelet has, with its options passed on."""
    api, kubelet = world
    assert api.kubectl("logs", "p", "--tail=3") == "line 0\nline 1\nline 2\n"
    assert kubelet.asked[-1] == "/containerLogs/default/p/main?tailLines=3"
    assert api.kubectl("logs", "-f", "p", "-c", "main").endswith("line 2\n")
    refused = api.run("logs", "p", "--previous")
    assert "there is no previous container" in refused.stderr


def test_exec(world: tuple[Cluster, SmallKubelet]) -> None:
    """kubectl exec carries input, output, both streams and the exit code."""
    api, kubelet = world
    done = api.run("exec", "-i", "p", "--", "cat", "a b", stdin="some text\n")
    if kubectl.minor() < kubectl.WEBSOCKETS:
        assert done.returncode == 1
        assert "isthmus lab exec" in done.stderr  # the refusal names what works instead
        return
    assert (done.returncode, done.stdout) == (0, "some text\n")
    assert "cat a b" in done.stderr
    assert kubelet.asked[-1].startswith("/exec/default/p/main?")
    big = "0123456789abcdef\n" * 20_000
    assert api.kubectl("exec", "-i", "p", "--", "cat", stdin=big) == big
    assert api.run("exec", "-i", "p", "--", "fail").returncode == 7


def test_streams_that_cannot_be(world: tuple[Cluster, SmallKubelet]) -> None:
    """No node, an unknown node, an unknown container, an unreachable kubelet: each is said."""
    api, kubelet = world
    assert "does not have a host assigned" in api.run("logs", "waits").stderr
    assert 'nodes "n2" not found' in api.run("logs", "far").stderr
    assert "container x is not valid for pod p" in api.run("logs", "p", "-c", "x").stderr
    path = "/api/v1/namespaces/default/pods/p"
    assert api.get(f"{path}/exec?command=a").code == 400
    status = {"daemonEndpoints": {"kubeletEndpoint": {"Port": free_port()}}}
    merge = "application/merge-patch+json"
    api.request("PATCH", "/api/v1/nodes/n1/status", {"status": status}, content_type=merge)
    try:
        answer = api.get(f"{path}/log")
        assert answer.code == 503
        assert "cannot reach the kubelet" in answer.body["message"]
    finally:
        status["daemonEndpoints"]["kubeletEndpoint"]["Port"] = kubelet.port
        api.request("PATCH", "/api/v1/nodes/n1/status", {"status": status}, content_type=merge)

"""kind.images: the workloads of the lab as processes, over loopback."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.etcd import free_port

IMAGES = Path(__file__).resolve().parents[2] / "kind/images"
START_LIMIT_S = 30.0  # the aim is 0.15 s; a test must not fail on a busy machine


@contextmanager
def serving(script: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-I", "-S", str(IMAGES / script), str(port)])
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "the server does not start"
        yield port, process
    finally:
        process.kill()
        process.wait()


def send_for_ever(sock: socket.socket) -> None:
    for _ in range(1000):
        sock.sendall(b"x" * 65536)
    raise AssertionError("64 MB of header were taken")


def get(port: int, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/", "GET", 200),
        ("/nothing", "GET", 404),
        ("/../../etc/passwd", "GET", 404),
        ("/%2e%2e/%2e%2e/etc/passwd", "GET", 404),
        ("/", "HEAD", 200),
        ("/", "POST", 405),
    ],
)
def test_static_server(path: str, method: str, status: int) -> None:
    """Files below its root and nothing else; only reading."""
    with serving("static.py") as (port, _):
        code, body = get(port, path, method)
        assert code == status
        assert b"root:" not in body


def test_echo_tells_who_and_whom() -> None:
    """The answer names both ends of the connection."""
    with serving("echo.py") as (port, _):
        code, body = get(port, "/x?y=1")
        said = json.loads(body)
        assert code == 200
        assert (said["path"], said["server"]) == ("/x?y=1", f"127.0.0.1:{port}")
        assert said["client"].startswith("127.0.0.1:")


def test_many_requests_on_one_connection_and_in_pieces() -> None:
    """Keep-alive, pipelined requests, and a request that arrives byte by byte."""
    with serving("echo.py") as (port, _), socket.create_connection(("127.0.0.1", port), 30) as sock:
        request = b"GET /p HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
        sock.sendall(request * 3)
        received = b""
        while received.count(b"HTTP/1.1 200 OK") < 3 or not received.endswith(b"}\n"):
            data = sock.recv(65536)
            assert data, "the connection must stay open"
            received += data
        for byte in request:
            sock.sendall(bytes([byte]))
        assert b"200 OK" in sock.recv(65536)


def test_junk_closes_only_its_own_connection() -> None:
    """What is not HTTP is refused; a client that sends an endless header is dropped."""
    with serving("echo.py") as (port, _):
        with socket.create_connection(("127.0.0.1", port), 30) as sock:
            sock.sendall(b"junk\r\n\r\n")
            assert b"400" in sock.recv(1000)
        with (
            socket.create_connection(("127.0.0.1", port), 30) as sock,
            pytest.raises(ConnectionError),
        ):
            send_for_ever(sock)
        assert get(port, "/")[0] == 200


def test_ends_on_sigterm() -> None:
    """SIGTERM ends it at once with exit code 0: a pod's deletion must not wait for its grace."""
    with serving("static.py") as (_, process):
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0  # of 30 s of grace

"""How the lab and the kubelet speak to a node's runtime. Adapter (blocking, short calls)."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kind.runtime import records
from kind.runtime.records import Launch, Record

# The runtime answers in milliseconds; a start waits for the mounts of a container.
TIMEOUT_S = 20.0


class RuntimeGone(OSError):
    """Nobody answers on the socket of the node's runtime."""


class RuntimeRefused(OSError):
    """The runtime answered that it cannot."""


class Client:
    """Requests to one runtime; each on a connection of its own, so that none waits for another."""

    def __init__(self, node_directory: str) -> None:
        self._path = f"{node_directory}/runtime.sock"

    @property
    def path(self) -> str:
        """The socket, for a caller that watches."""
        return self._path

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(TIMEOUT_S)
        try:
            sock.connect(self._path)
        except OSError as error:
            sock.close()
            raise RuntimeGone(f"no runtime answers at {self._path}: {error}") from error
        return sock

    def _call(self, **request: Any) -> dict[str, Any]:
        with self._connect() as sock:
            sock.sendall(json.dumps(request).encode() + b"\n")
            return _line(sock, bytearray())

    def run(self, launch: Launch) -> Record:
        """Start a process, or return the record of the running one of that id."""
        return records.record_from(self._call(op="run", launch=asdict(launch))["record"])

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a container's process; none is no error."""
        self._call(op="signal", id=name, number=number)

    def kill(self, name: str) -> None:
        """End all processes of a container at once."""
        self._call(op="kill", id=name)

    def remove(self, name: str) -> None:
        """Forget a container that ended."""
        self._call(op="remove", id=name)

    def list(self) -> list[Record]:
        """All containers and services of the node."""
        return [records.record_from(item) for item in self._call(op="list")["records"]]

    def execute(
        self, launch: Launch, inside: str, fds: Sequence[int], terminal: bool = False
    ) -> "Execution":
        """Run a command inside a container (``inside``: its id) or in the view of ``launch``."""
        request = {"op": "exec", "launch": asdict(launch), "inside": inside, "tty": terminal}
        data = json.dumps(request).encode() + b"\n"
        buffer = bytearray()
        with contextlib.ExitStack() as stack:
            sock = stack.enter_context(self._connect())
            sent = socket.send_fds(sock, [data], list(fds))
            sock.sendall(data[sent:])
            _line(sock, buffer)
            stack.pop_all()  # it worked: the connection is the execution's from here on
        return Execution(sock, buffer)


class Execution:
    """A command that runs; closing it kills the command."""

    def __init__(self, sock: socket.socket, buffer: bytearray) -> None:
        self._sock = sock
        self._buffer = buffer

    def wait(self, timeout_s: float | None = None) -> int:
        """The exit code. Raises TimeoutError."""
        self._sock.settimeout(timeout_s)
        return int(_line(self._sock, self._buffer)["exit"])

    def detach(self) -> tuple[socket.socket, bytearray]:
        """The connection and what was read of it, for a caller that waits in its own way."""
        return self._sock, self._buffer

    def close(self) -> None:
        """Stop waiting; a command that still runs is killed."""
        self._sock.close()

    def __enter__(self) -> "Execution":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _line(sock: socket.socket, buffer: bytearray) -> dict[str, Any]:
    while b"\n" not in buffer:
        data = sock.recv(65536)
        if not data:
            raise RuntimeGone("the runtime closed the connection")
        buffer += data
    line, _, rest = bytes(buffer).partition(b"\n")
    buffer[:] = rest
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise RuntimeRefused(answer["error"])
    return answer


def capture(client: Client, launch: Launch, inside: str, stdin: bytes = b"") -> tuple[int, bytes]:
    """Run a short command and return its exit code and both outputs.

    Files carry the data rather than pipes, so that neither side can block on the other.
    """
    given, got = _memory_file(stdin), _memory_file(b"")
    try:
        with client.execute(launch, inside, (given, got, got)) as execution:
            code = execution.wait(TIMEOUT_S)
        os.lseek(got, 0, os.SEEK_SET)
        with os.fdopen(os.dup(got), "rb") as file:
            return code, file.read()
    finally:
        os.close(given)
        os.close(got)


def _memory_file(content: bytes) -> int:
    fd = os.memfd_create("lab")
    with contextlib.suppress(BlockingIOError):
        os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def ensure(node_directory: str) -> None:
    """Start the node's runtime when nobody answers on its socket."""
    client = Client(node_directory)
    with contextlib.suppress(OSError):
        client.list()
        return
    entry = Path(__file__).with_name("__main__.py")
    with open(f"{node_directory}/runtime.log", "ab") as log:
        subprocess.Popen(
            [sys.executable, "-I", "-S", str(entry), node_directory],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            client.list()
        except RuntimeGone:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return

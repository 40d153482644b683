"""A small HTTP/1.1 server for the lab's workloads: one thread, keep-alive. Adapter.

It exists because a workload must start in milliseconds and answer as fast as a client can ask:
benches and fail-over measurements must see the network and not the server.
"""

import contextlib
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

MAX_HEADER_BYTES = 64 * 1024  # larger is not a client of ours
RECEIVE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked for."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    peer: tuple[str, int]
    local: tuple[str, int]


@dataclass(frozen=True, slots=True)
class Answer:
    """What it gets."""

    status: int
    content_type: str
    body: bytes


REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Busy"}


def _plain(address: str) -> str:
    return address.removeprefix("::ffff:")


class Server:
    """Accepts on all addresses of both families and answers with ``handler``."""

    def __init__(self, port: int, handler: Callable[[Request], Answer]) -> None:
        self._handler = handler
        self._selector = selectors.EpollSelector()
        self._stop = False
        # Before anybody can connect: whoever is answered is also heard.
        self._wake, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno())
        signal.signal(signal.SIGTERM, self._on_term)
        self._listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("::", port))
        self._listener.listen(1024)
        self._listener.setblocking(False)

    def serve(self) -> None:
        """Answer until SIGTERM, then finish: open connections are closed after their answer."""
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wake, selectors.EVENT_READ, lambda: None)
        while not self._stop:
            for key, _ in self._selector.select():
                key.data()

    def _on_term(self, *_: object) -> None:
        self._stop = True

    def _accept(self) -> None:
        for _ in range(64):  # bounded, so that open connections get their turn
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client = _Client(sock, self._handler, self._drop)
            self._selector.register(sock, selectors.EVENT_READ, client.read)

    def _drop(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)
        sock.close()


class _Client:
    """One connection."""

    def __init__(
        self,
        sock: socket.socket,
        handler: Callable[[Request], Answer],
        drop: Callable[[socket.socket], None],
    ) -> None:
        self._sock = sock
        self._handler = handler
        self._drop = drop
        self._buffer = b""

    def read(self) -> None:
        """Take what arrived and answer each complete request."""
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(self._sock)
            return
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            if not self._one():
                return
        if len(self._buffer) > MAX_HEADER_BYTES:
            self._drop(self._sock)

    def _one(self) -> bool:
        """Answer one request; false when the connection ended or more must arrive first."""
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split()
        if len(words) != 3:
            self._send(Answer(400, "text/plain", b"not HTTP\n"), keep=False)
            return False
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length") or 0)
        if len(rest) < length:
            return False
        self._buffer = rest[length:]
        local, peer = self._sock.getsockname(), self._sock.getpeername()
        request = Request(
            words[0],
            words[1],
            headers,
            rest[:length],
            (_plain(peer[0]), peer[1]),
            (_plain(local[0]), local[1]),
        )
        connection = headers.get("connection", "").lower()
        keep = connection != "close" and (words[2] != "HTTP/1.0" or connection == "keep-alive")
        return self._send(self._handler(request), keep, head_only=words[0] == "HEAD")

    def _send(self, answer: Answer, keep: bool, head_only: bool = False) -> bool:
        head = (
            f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Status')}\r\n"
            f"Server: isthmus-lab\r\nContent-Type: {answer.content_type}\r\n"
            f"Content-Length: {len(answer.body)}\r\n"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
        )
        try:
            # A short answer fits the socket's buffer; a slow reader of a long one may hold the
            # server for this long and no longer.
            self._sock.settimeout(5)
            self._sock.sendall(head.encode() + (b"" if head_only else answer.body))
            self._sock.setblocking(False)
        except OSError:
            keep = False
        if not keep:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
            self._drop(self._sock)
        return keep


def port_argument(default: int) -> int:
    """The port to listen on: the first argument."""
    return int(sys.argv[1]) if len(sys.argv) > 1 else default

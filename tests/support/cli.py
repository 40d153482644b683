"""The command as a person runs it, and an agent's socket that answers what a test says."""

import contextlib
import io
import json
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

from cli.main import main


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def isthmus(*arguments: object) -> Result:
    """Run the entry point with these arguments."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    before, code = sys.argv, 0
    sys.argv = ["isthmus", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as left:
        code = int(left.code or 0)
    finally:
        sys.argv = before
    out.flush()
    return Result(code, out.buffer.getvalue().decode(), err.getvalue())


@dataclass
class AgentSocket:
    """Answers ``GET`` by path. Answers are taken from lists: the last one stays."""

    path: Path
    answers: Mapping[str, Any] = field(default_factory=dict)
    raw: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for path, value in self.answers.items():
            self.raw[f"/v1/{path}"] = [(200, json.dumps(value).encode())]

    def say(self, path: str, *answers: tuple[int, bytes]) -> None:
        self.raw[f"/v1/{path}"] = list(answers)

    def answer(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        known = self.raw.get(path)
        if known is None:
            return 404, json.dumps(f"{path} not found").encode()
        return known.pop(0) if len(known) > 1 else known[0]


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


@contextlib.contextmanager
def agent_socket(path: Path, answers: Mapping[str, Any] | None = None) -> Iterator[AgentSocket]:
    """A listening socket while the context lasts."""
    agent = AgentSocket(path, answers or {})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = agent.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a test's output is the command's."""

    server = _Server(str(path), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield agent
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
        path.unlink(missing_ok=True)

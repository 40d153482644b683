"""The plugin as a program, against an agent that is not there or that answers one thing."""

import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PLUGIN = Path(__file__).parents[3] / "cni" / "build" / "cilium-cni"


def run(
    directory: Path, command: str, config: str | None = None, **environment: str
) -> tuple[int, Any]:
    """Exit code and what was printed."""
    text = config
    if text is None:
        text = json.dumps(
            {
                "cniVersion": "1.0.0",
                "name": "cilium",
                "type": "cilium-cni",
                "agent-socket": str(directory / "sock"),
                "state-dir": str(directory / "run"),
            }
        )
    done = subprocess.run(
        [PLUGIN],
        input=text.encode(),
        capture_output=True,
        timeout=30,
        env={
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "abc",
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": "/run/netns/x",
            **environment,
        },
    )
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else None


@contextmanager
def agent(directory: Path, status: int, body: bytes) -> Iterator[list[bytes]]:
    """Answers every request alike and keeps what it was sent."""
    seen: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / "sock"))
    listener.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += connection.recv(65536)
                head, _, rest = data.partition(b"\r\n\r\n")
                size = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
                while len(rest) < size:
                    rest += connection.recv(65536)
                seen.append(rest)
                connection.sendall(b"HTTP/1.0 %d X\r\nA: b\r\n\r\n" % status + body)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield seen
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_version_needs_nothing(tmp_path: Path) -> None:
    """VERSION is answered without an agent."""
    code, body = run(tmp_path, "VERSION", '{"cniVersion":"0.4.0"}')
    assert code == 0
    assert body["cniVersion"] == "0.4.0"
    assert "1.0.0" in body["supportedVersions"]


def test_a_request_is_handed_over_whole(tmp_path: Path) -> None:
    """Environment and configuration arrive; the answer is printed; its status is the exit code."""
    with agent(tmp_path, 200, b'{"ips":[]}') as seen:
        arguments = 'K8S_POD_NAME=a"b\\c\n;X=1'
        assert run(tmp_path, "ADD", CNI_ARGS=arguments) == (0, {"ips": []})
        request = json.loads(seen[0])
        assert request["command"] == "ADD"
        assert request["container_id"] == "abc"
        assert request["args"] == arguments
        assert request["config"]["name"] == "cilium"
    os.unlink(tmp_path / "sock")
    with agent(tmp_path, 500, b'{"code":7,"msg":"no"}'):
        assert run(tmp_path, "ADD") == (1, {"code": 7, "msg": "no"})


def test_a_successful_del_prints_nothing(tmp_path: Path) -> None:
    """As the specification has it."""
    with agent(tmp_path, 200, b"{}"):
        assert run(tmp_path, "DEL") == (0, None)
        assert run(tmp_path, "CHECK") == (0, None)


@pytest.mark.parametrize(("command", "code"), [("ADD", 11), ("CHECK", 11), ("STATUS", 50)])
def test_no_agent(tmp_path: Path, command: str, code: int) -> None:
    """Each says so with the code the runtime understands, and names the socket."""
    status, body = run(tmp_path, command)
    assert (status, body["code"], body["cniVersion"]) == (1, code, "1.0.0")
    assert str(tmp_path / "sock") in body["msg"]


def test_a_dead_socket_is_no_agent(tmp_path: Path) -> None:
    """The file of a killed agent's socket is still there: DEL goes into the queue."""
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "sock"))
    dead.close()
    assert run(tmp_path, "DEL") == (0, None)
    (queued,) = (tmp_path / "run" / "deleteQueue").glob("*.delete")
    assert json.loads(queued.read_text()) == {"container-id": "abc", "ifname": "eth0"}
    assert run(tmp_path, "DEL") == (0, None)
    assert len(list((tmp_path / "run" / "deleteQueue").glob("*.delete"))) == 1, "same attachment"


def test_an_agent_that_dies_while_it_answers(tmp_path: Path) -> None:
    """DEL goes into the queue; ADD is to be tried again."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "sock"))
    listener.listen()

    def serve() -> None:
        for _ in range(3):
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    code, body = run(tmp_path, "ADD")
    assert (code, body["code"]) == (1, 11)
    assert run(tmp_path, "DEL") == (0, None)
    thread.join()
    listener.close()
    assert len(list((tmp_path / "run" / "deleteQueue").glob("*.delete"))) == 1


@pytest.mark.parametrize(
    "config", ["", "{", "[]", '"x"', '{"cniVersion":', '{"a":[1,{"b":2}', "\x00"]
)
def test_a_configuration_that_is_none(tmp_path: Path, config: str) -> None:
    """One error object, whatever comes on stdin."""
    code, body = run(tmp_path, "ADD", config)
    assert code == 1
    assert body["code"] in (6, 11)


def test_no_command(tmp_path: Path) -> None:
    """Called by hand it says what it is."""
    code, body = run(tmp_path, "")
    assert (code, body["code"]) == (1, 4)
    assert "CNI plugin" in body["msg"]

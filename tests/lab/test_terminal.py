"""Terminals: ``isthmus lab exec`` and ``kubectl exec -it`` as a person uses them."""

import os
import pty
import select
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from kind.lab import host
from tests.support import lab as labs
from tests.support.lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.lab]


@pytest.fixture
def pod(bare_lab: Lab) -> str:
    """A pod that waits."""
    name = f"tty{uuid.uuid4().hex[:8]}"
    bare_lab.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "nodeName": "cluster1-worker",
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "c", "image": "busybox"}],
            },
        }
    )
    bare_lab.wait_ready(name)
    return name


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
            cwd=labs.CHECKOUT,
            start_new_session=True,
        )
        os.close(slave)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def expect(self, text: str, timeout_s: float = 60.0) -> None:
        """Read until a text is seen."""
        deadline = time.monotonic() + timeout_s
        while text not in self.seen:
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"no {text!r} in {self.seen!r}"
            ready, _, _ = select.select([self._master], [], [], left_s)
            if ready:
                try:
                    self.seen += os.read(self._master, 4096).decode()
                except OSError:
                    raise AssertionError(f"ended without {text!r}: {self.seen!r}") from None

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self._master)


@pytest.fixture(params=["isthmus", "kubectl"])
def shell(request: pytest.FixtureRequest, bare_lab: Lab, pod: str) -> Iterator[Terminal]:
    """A shell in a pod, by either command."""
    script = "tty; echo ready; exec sh -i"
    if request.param == "isthmus":
        argv = [*labs.CLI, "exec", "--lab", bare_lab.name, pod, "--", "sh", "-c", script]
    else:
        help_text = subprocess.run(
            ["kubectl", "version", "--client"], capture_output=True, text=True, check=True
        ).stdout
        argv = ["kubectl", "--context", "cluster1", "exec", "-it", pod, "--", "sh", "-c", script]
        if "v1.2" in help_text:
            argv = [*labs.CLI, "exec", "--lab", bare_lab.name, pod, "--", "sh", "-c", script]
    terminal = Terminal(argv, bare_lab.env | {"TERM": "xterm"})
    yield terminal
    terminal.close()


def sleeps_in(lab: Lab, pod: str, seconds: str) -> bool:
    """True while the pod's cgroup has such a command."""
    uid = lab.get("pod", pod)["metadata"]["uid"]
    for path in (host.cgroup_of(lab.name) / "cluster1-worker/pods" / uid).rglob("cgroup.procs"):
        for pid in path.read_text().split():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[:2] == [b"sleep", seconds.encode()]:
                return True
    return False


def test_a_shell_is_interactive(shell: Terminal) -> None:
    """It has a terminal, echoes and answers, and its exit code is the command's."""
    shell.expect("/dev/pts/")
    shell.expect("ready")
    shell.type("echo $((6*7))\n")
    shell.expect("42\r\n")  # not in what was typed
    shell.type("exit 5\n")
    assert shell.process.wait(60) == 5


def test_control_c_reaches_the_command(shell: Terminal, bare_lab: Lab, pod: str) -> None:
    """^C interrupts what runs in the shell and not the session."""
    shell.expect("ready")
    shell.type("sleep 100; echo interrupted=$?\n")
    labs.wait_until("it runs", lambda: sleeps_in(bare_lab, pod, "100"))
    shell.type("\x03")
    shell.type("echo still-$((1+1))\n")
    shell.expect("still-2")
    shell.type("exit 0\n")
    assert shell.process.wait(60) == 0


def test_a_lost_client_takes_its_command_along(bare_lab: Lab, pod: str) -> None:
    """When ``isthmus lab exec`` is killed, the command it ran is ended as well."""
    marker = f"1000{int(uuid.uuid4().hex[:6], 16)}"
    process = subprocess.Popen(
        [*labs.CLI, "exec", "--lab", bare_lab.name, pod, "--", "sleep", marker],
        cwd=labs.CHECKOUT,
        stdin=subprocess.DEVNULL,
    )

    labs.wait_until("it runs", lambda: sleeps_in(bare_lab, pod, marker))
    process.kill()
    process.wait()
    labs.wait_until("it is ended", lambda: not sleeps_in(bare_lab, pod, marker))

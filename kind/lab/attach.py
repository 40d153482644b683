"""``isthmus lab exec``: a command with this terminal, on a node or in a pod. Adapter."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import sys
import termios
import tty
from collections.abc import Sequence

from kind.kubelet.launch import SEARCH_PATH
from kind.lab import host
from kind.lab.find import Found
from kind.lab.topology import Node
from kind.runtime.client import Client
from kind.runtime.records import NODE, Launch


def on_node(node: Node, argv: Sequence[str]) -> Launch:
    """A command in a node's network namespace and root file system."""
    return Launch(
        id=f"exec-{os.getpid()}",
        argv=list(argv),
        env={"PATH": SEARCH_PATH, "HOME": "/root", "TERM": os.environ.get("TERM", "dumb")},
        cgroup=str(host.cgroup_of(node.lab) / node.name / "system" / "exec"),
        log="",
        view=NODE,
        netns=node.netns_path,
    )


def in_pod(found: Found, argv: Sequence[str]) -> Launch:
    """A command in a running container, with its environment."""
    launch = found.record.launch
    env = launch.env | {"TERM": os.environ.get("TERM", "dumb")}
    return Launch(
        id=f"exec-{os.getpid()}",
        argv=list(argv),
        env=env,
        cgroup=launch.cgroup,
        log="",
        cwd=launch.cwd,
    )


def run(node: Node, launch: Launch, inside: str) -> int:
    """Run a command on our own input and output; returns its exit code.

    With a terminal on both it gets a terminal of its own, because ours already controls a session.
    """
    client = Client(str(node.directory))
    if sys.stdin.isatty() and sys.stdout.isatty():
        return _on_terminal(client, launch, inside)
    with client.execute(launch, inside, (0, 1, 2)) as execution:
        return execution.wait()


def _on_terminal(client: Client, launch: Launch, inside: str) -> int:
    master, slave = pty.openpty()
    _copy_size(master)
    signal.signal(signal.SIGWINCH, lambda *_: _copy_size(master))
    before = termios.tcgetattr(0)
    with client.execute(launch, inside, (slave, slave, slave), terminal=True) as execution:
        os.close(slave)
        tty.setraw(0)
        try:
            _pump(master)
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, before)
            os.close(master)
        return execution.wait()


def _copy_size(master: int) -> None:
    with contextlib.suppress(OSError):
        size = fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)


def _pump(master: int) -> None:
    sources = [0, master]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if master in ready:
            try:
                data = os.read(master, 65536)
            except OSError:  # the other end is closed: the command ended
                return
            if not data:
                return
            os.write(1, data)
        if 0 in ready:
            data = os.read(0, 65536)
            if data:
                os.write(master, data)
            else:
                sources = [master]

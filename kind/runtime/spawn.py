"""Start a process in its namespaces: fork, enter, exec. Adapter.

The parent learns of a failure before ``exec`` through a pipe that ``exec`` closes, so that a
missing binary or a refused mount comes back as a text and not as a mute exit code.
"""

import fcntl
import os
import signal
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass

from kind.runtime import namespaces as ns
from kind.runtime.records import CONTAINER, NODE, Launch


@dataclass(frozen=True, slots=True)
class Node:
    """What all processes of one node share."""

    root: str  # the node's root file system, a mount point
    scratch: str  # empty directory, mount point of each container's own memory file system
    keep: list[str]  # directories of the host that containers must see
    cgroup_mount: str  # where cgroup v2 is mounted


def reset_signals() -> None:
    """In a forked child: back to what a new process expects."""
    for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def _forked(child: Callable[[], None]) -> int:
    """Run ``child`` in a fork; it must not return. Raises OSError when it failed before exec."""
    sys.stdout.flush()
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            reset_signals()
            child()
        except Exception as error:
            os.write(write_end, f"{type(error).__name__}: {error}".encode()[:4000])
        os._exit(127)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        failure = pipe.read()
    if failure:
        os.waitpid(pid, 0)
        raise OSError(failure.decode(errors="replace"))
    return pid


def join_cgroup(path: str) -> None:
    """Move the calling process into a cgroup, made when missing."""
    os.makedirs(path, exist_ok=True)
    with open(f"{path}/cgroup.procs", "w") as file:
        file.write("0")


def _exec(argv: list[str], env: dict[str, str], cwd: str) -> None:
    os.chdir(cwd)
    try:
        os.execvpe(argv[0], argv, env)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"executable {argv[0]!r} not found (PATH={env.get('PATH', '')})"
        ) from None


def _write_files(root: str, files: dict[str, str]) -> None:
    for path, content in files.items():
        place = f"{root}{path}"
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if os.path.islink(place):
            os.unlink(place)
        with open(place, "w") as file:
            file.write(content)


def _build_container(node: Node, launch: Launch) -> None:
    ns.unshare(ns.CLONE_NEWNS | ns.CLONE_NEWUTS)
    ns.mount("", "/", flags=ns.MS_REC | ns.MS_SLAVE)
    if launch.hostname:
        ns.sethostname(launch.hostname)
    # The sources are opened by path in the host's view, so they are bound before the pivot.
    root = ns.overlay(node.scratch)
    ns.furnish(root, node.scratch, node.keep, node.cgroup_mount)
    _write_files(root, launch.files)
    # A mount hides what lies below it: parents first.
    for item in sorted(launch.binds, key=lambda spec: spec.target.count("/")):
        ns.bind(root, item)
    ns.pivot(root)


def start(node: Node, launch: Launch) -> int:
    """Start a process of the node; returns its pid. Raises OSError with the reason."""

    def child() -> None:
        os.setsid()
        join_cgroup(launch.cgroup)
        log = os.open(launch.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        if launch.netns:
            ns.enter(launch.netns, ns.CLONE_NEWNET)
        if launch.view == CONTAINER:
            _build_container(node, launch)
        elif launch.view == NODE:
            os.chroot(node.root)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        _exec(launch.argv, launch.env, launch.cwd)

    os.makedirs(os.path.dirname(launch.log), exist_ok=True)
    return _forked(child)


def execute(
    node: Node,
    launch: Launch,
    inside: int | None,
    fds: tuple[int, int, int],
    terminal: bool,
) -> int:
    """Start a further process on open files, inside a running container or on the node.

    ``inside`` is the pid of the container's process, whose namespaces are entered; None: the view
    of ``launch``. With ``terminal`` the first file becomes the controlling terminal.
    """

    def child() -> None:
        os.setsid()
        join_cgroup(launch.cgroup)
        if inside is not None:
            pidfd = os.pidfd_open(inside)
            ns.setns(pidfd, ns.CLONE_NEWNS | ns.CLONE_NEWNET | ns.CLONE_NEWUTS)
        else:
            if launch.netns:
                ns.enter(launch.netns, ns.CLONE_NEWNET)
            if launch.view == NODE:
                os.chroot(node.root)
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
        if terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        _exec(launch.argv, launch.env, launch.cwd)

    return _forked(child)

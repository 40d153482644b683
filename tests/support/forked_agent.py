"""Agents and what stands beside them as real processes that begin with everything imported: where a
processor is emulated, imports take longer than all that an agent does afterwards.
"""

import asyncio
import ctypes
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from clustermesh_apiserver.config import Settings
from datapath import namespaces
from encryption import keeper
from encryption.wireguard_userspace import SOCKETS
from tests.support.agent import AgentNode
from tests.support.nodes import netns_path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        *("pytest", "tests.support.forked_agent", "agent.daemon", "agent.settings_watch"),
        *("clustermesh_apiserver.service", "kube.plain_kubeconfig"),
        *("pyroute2", "pyroute2.netlink.generic.wireguard"),  # not before it is needed, elsewhere
    ]
)
_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_SLAVE = 0x20000, 1 << 12, 1 << 14, 1 << 19


def _say_to(log: Path) -> None:
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    logging.basicConfig(level=logging.INFO)


def _enter(namespace: str, sockets: Path) -> None:
    """The network of a node; and a directory of its own where wireguard-go puts its sockets, which
    are named by device alone.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    SOCKETS.mkdir(exist_ok=True)
    sockets.mkdir(exist_ok=True)
    for done in (
        lambda: libc.unshare(_CLONE_NEWNS),
        lambda: libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None),
        lambda: libc.mount(bytes(sockets), bytes(SOCKETS), None, _MS_BIND, None),
    ):
        if done():
            code = ctypes.get_errno()
            raise OSError(code, f"a directory of sockets for {namespace}: {os.strerror(code)}")
    descriptor = os.open(netns_path(namespace), os.O_RDONLY)
    namespaces.enter(descriptor, namespace)
    os.close(descriptor)


def publish(settings: Settings, log: Path) -> None:
    """``clustermesh-apiserver clustermesh``."""
    from clustermesh_apiserver import service

    _say_to(log)
    asyncio.run(service.run(settings))


def _run(namespace: str, sockets: Path, arguments: list[str], log: Path) -> None:
    from agent.__main__ import _until_signal
    from agent.config import load

    _say_to(log)

    sys.argv = ["isthmus-agent", *arguments]  # which are read again while it runs
    _enter(namespace, sockets)
    asyncio.run(_until_signal(load(arguments, {})))


def _keep(namespace: str, sockets: Path, wanted: Path, log: Path) -> None:
    _say_to(log)
    _enter(namespace, sockets)
    sys.argv = ["isthmus-wireguard", f"--wanted={wanted}"]
    keeper.main()


class Process:
    """What an ``AgentNode`` asks of its process."""

    def __init__(self, made: BaseProcess) -> None:
        self._made = made

    def poll(self) -> int | None:
        return self._made.exitcode

    def send_signal(self, number: int) -> None:
        assert self._made.pid is not None
        os.kill(self._made.pid, number)

    def kill(self) -> None:
        self._made.kill()

    def end(self) -> None:
        """Ask it to, and wait until it has ended."""
        self._made.terminate()
        self._made.join(20)

    def wait(self, timeout: float | None = None) -> int:
        self._made.join(timeout)
        assert self._made.exitcode is not None, "the agent does not end"
        return self._made.exitcode


def forked(work: Callable[..., None], *arguments: Any) -> Process:
    """A process that does this."""
    made = _context.Process(target=work, args=arguments)
    made.start()
    return Process(made)


class ForkedNode(AgentNode):
    """A node whose agent is forked off a process that has all modules."""

    @property
    def _sockets(self) -> Path:
        return self.directory / "sockets"

    def start(self) -> None:
        arguments = [f"--{key}={value}" for key, value in self._arguments().items()]
        self.process = forked(_run, self.namespace, self._sockets, arguments, self.log)  # type: ignore[assignment]

    def keep(self) -> Process:
        """``isthmus-wireguard``, for kernels without WireGuard; whoever starts it ends it."""
        log = self.directory / "keeper.log"
        return forked(_keep, self.namespace, self._sockets, self.state / "wireguard", log)

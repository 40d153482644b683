"""Agents and publishers as real processes that begin with everything imported: in a slow virtual
machine imports take longer than all that an agent does afterwards.
"""

import asyncio
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from clustermesh_apiserver.config import Settings
from tests.support.agent import AgentNode
from tests.support.nodes import netns_path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["pytest", "tests.support.forked_agent", "agent.daemon", "clustermesh_apiserver.service"]
)


def _say_to(log: Path) -> None:
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    logging.basicConfig(level=logging.INFO)


def publish(settings: Settings, log: Path) -> None:
    """``clustermesh-apiserver clustermesh``."""
    from clustermesh_apiserver import service

    _say_to(log)
    asyncio.run(service.run(settings))


def _run(namespace: str, arguments: list[str], log: Path) -> None:
    from agent.__main__ import _until_signal
    from agent.config import load
    from datapath import namespaces

    _say_to(log)
    sys.argv = ["isthmus-agent", *arguments]  # which are read again while it runs
    descriptor = os.open(netns_path(namespace), os.O_RDONLY)
    namespaces.enter(descriptor, namespace)
    os.close(descriptor)
    asyncio.run(_until_signal(load(arguments, {})))


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

    def start(self) -> None:
        arguments = [f"--{key}={value}" for key, value in self._arguments().items()]
        self.process = forked(_run, self.namespace, arguments, self.log)  # type: ignore[assignment]

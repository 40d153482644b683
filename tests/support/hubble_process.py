"""A node's Hubble beside a real agent: as a process, and as what is in it."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from hubble.config import HubbleConfig
from hubble.node import NodeSource
from reconcile.tasks import TaskGroup
from tests.support.agent import ROOT, AgentNode
from tests.support.nodes import netns_path


@contextmanager
def hubble_process(node: AgentNode, **settings: str) -> Iterator[Path]:
    """Runs while the context lasts; gives its socket."""
    path = node.state / "hubble.sock"
    values = {
        "cluster_name": "alpha",
        "k8s_node_name": "n1",
        "bpf_root": str(node.bpf_root),
        "socket_path": str(node.socket),
        "hubble_socket_path": str(path),
        **settings,
    }
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in values.items()]
    command = ["nsenter", f"--net={netns_path(node.namespace)}", sys.executable, "-m", "hubble"]
    with (node.directory / "hubble.log").open("ab") as log:
        process = subprocess.Popen([*command, *flags], cwd=ROOT, stdout=log, stderr=log)
        try:
            yield path
        finally:
            process.terminate()
            process.wait(timeout=40)


@asynccontextmanager
async def hubble(node: AgentNode, capacity: int = 4095) -> AsyncIterator[NodeSource]:
    """The process's inside, in this one."""
    source = NodeSource(
        HubbleConfig(
            cluster_name="alpha",
            k8s_node_name="n1",
            bpf_root=node.bpf_root,
            socket_path=node.socket,
            hubble_event_buffer_capacity=capacity,
        )
    )
    async with TaskGroup() as tasks:
        task = tasks.create_task(source.run())
        yield source
        task.cancel()

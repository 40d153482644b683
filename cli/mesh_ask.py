"""What the processes of a cluster say of their connections: asked where they run. Adapter."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cli import mesh_facts, mesh_status
from cli.mesh_facts import KVSTOREMESH
from kube import resources
from kube.port import Client
from reconcile.tasks import TaskGroup

EXEC_TIMEOUT_S = 20.0
AGENT = "k8s-app=cilium"


async def pause(looked_s: float, at_least_s: float) -> None:
    """Between looks at a mesh, as long as the last one took, at least: it began at ``looked_s`` of
    the monotonic clock, and each starts a process on every node.
    """
    await asyncio.sleep(max(at_least_s, time.monotonic() - looked_s))


async def ask_agents(
    api: Client, namespace: str, expected: Sequence[str]
) -> mesh_status.MeshStatus:
    """Ask every agent of a cluster, all at once."""
    argv = ["cilium-dbg", "status", "-o", "json"]
    return await _ask(
        api, namespace, (AGENT, "cilium-agent", argv), expected, mesh_status.add_agent
    )


async def ask_kvstoremesh(
    api: Client, namespace: str, expected: Sequence[str]
) -> mesh_status.MeshStatus:
    """Ask every copying process how it is connected, and how old its copies are."""
    argv = ["clustermesh-apiserver", "kvstoremesh-dbg", "status", "-o", "json"]
    where = (f"k8s-app={mesh_facts.APISERVER}", KVSTOREMESH, argv)
    return await _ask(api, namespace, where, expected, mesh_status.add_kvstoremesh)


async def run_json(api: Client, namespace: str, pod: str, argv: Sequence[str]) -> Any:
    """What a command in an agent's container prints. Raises ``OSError`` and ``ValueError``."""
    result = await api.exec(namespace, pod, "cilium-agent", argv, EXEC_TIMEOUT_S)
    if not result.stdout.strip():
        said = result.stderr.decode(errors="replace").strip()
        raise OSError(said or f"exit status {result.exit_code}")
    return json.loads(result.stdout)


async def ask_copies(api: Client, namespace: str) -> tuple[Mapping[str, Any], ...]:
    """What KVStoreMesh says of each cluster, from the first of its processes that answers."""
    label = f"k8s-app={mesh_facts.APISERVER}"
    argv = ["clustermesh-apiserver", "kvstoremesh-dbg", "status", "-o", "json"]
    for pod in await api.list(resources.untyped(resources.PODS), namespace, label_selector=label):
        try:
            name = pod["metadata"]["name"]
            result = await api.exec(namespace, name, KVSTOREMESH, argv, EXEC_TIMEOUT_S)
            return tuple(json.loads(result.stdout))
        except (OSError, ValueError):
            continue
    return ()


async def _ask(
    api: Client,
    namespace: str,
    where: tuple[str, str, Sequence[str]],
    expected: Sequence[str],
    add: Callable[[mesh_status.MeshStatus, str, Any], None],
) -> mesh_status.MeshStatus:
    """Run a command in a container of every pod with a label, all at once."""
    found = mesh_status.MeshStatus(expected=tuple(expected))
    label, container, argv = where
    pods = await api.list(resources.untyped(resources.PODS), namespace, label_selector=label)

    async def ask(name: str) -> None:
        try:
            result = await api.exec(namespace, name, container, argv, EXEC_TIMEOUT_S)
            said = result.stderr.decode(errors="replace").strip()
            if not result.stdout.strip():
                raise OSError(said or f"exit status {result.exit_code}")
            add(found, name, json.loads(result.stdout))
        except (OSError, ValueError) as error:
            found.unreachable[name] = f"does not answer: {error}"

    async with TaskGroup() as tasks:
        for pod in pods:
            tasks.create_task(ask(pod["metadata"]["name"]))
    return found


async def store_ready(api: Client, namespace: str) -> bool:
    found = await api.get(resources.untyped(resources.DEPLOYMENTS), mesh_facts.APISERVER, namespace)
    status_ = found.get("status") or {}
    current = status_.get("observedGeneration", 0) >= found["metadata"].get("generation", 0)
    return bool(current and status_.get("readyReplicas"))

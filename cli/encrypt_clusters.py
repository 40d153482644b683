"""Clusters of a mesh and their agents, asked about encryption. Adapter."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Final

import click

from cli import cluster, mesh_ask
from cli.encrypt_mesh import KEEPER, SECRET, Member
from kube import resources
from kube.port import Client
from reconcile.tasks import TaskGroup

CONFIG: Final = "cilium-config"
_ASK: Final = ("cilium-dbg", "encrypt", "status", "-o", "json")


async def clients(
    stack: AsyncExitStack, kubeconfig: str, contexts: tuple[str, ...]
) -> dict[str, Client]:
    """By context, each once, until the stack is closed."""
    return {
        name: await stack.enter_async_context(cluster.client(kubeconfig, name))
        for name in dict.fromkeys(contexts)
    }


async def look(apis: Mapping[str, Client], namespace: str) -> list[Member]:
    """What all of them are set to, and what their agents say. Raises ``ClickException``."""
    async with TaskGroup() as tasks:
        found = [tasks.create_task(_member(n, api, namespace)) for n, api in apis.items()]
    return [task.result() for task in found]


async def _member(context: str, api: Client, namespace: str) -> Member:
    config = await cluster.read(api, "ConfigMap", CONFIG, namespace)
    if config is None:
        raise click.ClickException(f"context {context} has no {CONFIG}: isthmus install")
    secret = await cluster.read(api, "Secret", SECRET, namespace)
    nodes = await api.list(resources.untyped(resources.NODES))
    member = Member(
        context,
        config["data"].get("cluster-name", ""),
        config["data"],
        config["metadata"].get("annotations") or {},
        config["metadata"]["resourceVersion"],
        tuple(sorted(node["metadata"]["name"] for node in nodes)),
        secret=cluster.secret_data(secret).get("keys"),
        secret_version=secret["metadata"]["resourceVersion"] if secret else "",
    )
    pods = await api.list(
        resources.untyped(resources.PODS), namespace, label_selector=mesh_ask.AGENT
    )
    live = {
        pod["spec"].get("nodeName", ""): pod
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"]
    }
    member.silent = {node: "it has no agent" for node in member.nodes if node not in live}
    member.unkept = tuple(
        node
        for node, pod in sorted(live.items())
        if not any(c["name"] == KEEPER for c in pod["spec"]["containers"])
    )

    async def ask(node: str, pod: str) -> None:
        try:
            member.answers[node] = await mesh_ask.run_json(api, namespace, pod, _ASK)
        except (OSError, ValueError) as error:
            member.silent[node] = str(error)

    async with TaskGroup() as tasks:
        for node, pod in live.items():
            tasks.create_task(ask(node, pod["metadata"]["name"]))
    return member

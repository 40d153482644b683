"""What all agents of a cluster say of encryption: asked where they run. Adapter.

Apart from the commands: on a node, where each of them is executed by everybody who looks, they need
nothing of this.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import click

from cli import cluster, encrypt_text, mesh_ask
from kube import resources
from kube.port import Client
from reconcile.tasks import TaskGroup

LOOK_S = 1.0
Answers = dict[str, Mapping[str, Any]]


def answers(
    kubeconfig: str, context: str, namespace: str, words: tuple[str, ...]
) -> tuple[Answers, dict[str, str]]:
    """What every agent of a cluster answers, by node, and who does not."""
    return asyncio.run(_asked(kubeconfig, context, namespace, words))


async def _asked(
    kubeconfig: str, context: str, namespace: str, words: tuple[str, ...]
) -> tuple[Answers, dict[str, str]]:
    found: Answers = {}
    failed: dict[str, str] = {}
    async with cluster.client(kubeconfig, context) as api:

        async def ask(pod: str, node: str) -> None:
            name = f"{context}/{node}" if context else node
            argv = ("cilium-dbg", "encrypt", *words)
            try:
                found[name] = await mesh_ask.run_json(api, namespace, pod, argv)
            except (OSError, ValueError) as error:
                failed[name] = f"does not answer: {error}"

        async with TaskGroup() as tasks:
            for pod, node in await _agents(api, namespace):
                tasks.create_task(ask(pod, node))
    return dict(sorted(found.items())), failed


async def _agents(api: Client, namespace: str) -> list[tuple[str, str]]:
    pods = await api.list(
        resources.untyped(resources.PODS), namespace, label_selector=mesh_ask.AGENT
    )
    return [
        (p["metadata"]["name"], p["spec"].get("nodeName", ""))
        for p in pods
        if "deletionTimestamp" not in p["metadata"]
    ]


def first_answer(kubeconfig: str, context: str, namespace: str, words: tuple[str, ...]) -> str:
    """What the first agent answered that did it."""

    async def work() -> str:
        argv = ("cilium-dbg", "encrypt", *words)
        async with cluster.client(kubeconfig, context) as api:
            errors = []
            for pod, node in sorted(await _agents(api, namespace), key=lambda row: row[1]):
                try:
                    result = await api.exec(
                        namespace, pod, "cilium-agent", argv, mesh_ask.EXEC_TIMEOUT_S
                    )
                except OSError as error:
                    errors.append(f"{node}: {error}")
                    continue
                if result.exit_code == 0:
                    return f"{result.stdout.decode().strip()} on node {node}"
                errors.append(f"{node}: {result.stderr.decode(errors='replace').strip()}")
            raise click.ClickException("; ".join(errors) or "the cluster has no agents")

    return asyncio.run(work())


def until_steady(kubeconfig: str, context: str, namespace: str, limit_s: int) -> None:
    """Tells how a rotation goes on until it is done. Exit 1 when that is not within ``limit_s``."""
    cluster.run(_until_steady(kubeconfig, context, namespace, limit_s))


async def _until_steady(kubeconfig: str, context: str, namespace: str, limit_s: int) -> int:
    said = ""
    try:
        async with asyncio.timeout(limit_s):
            while True:
                looked_s = time.monotonic()
                answered, failed = await _asked(
                    kubeconfig, context, namespace, ("status", "-o", "json")
                )
                line = encrypt_text.progress(answered, failed)
                if line != said:
                    click.echo(line)
                    said = line
                if encrypt_text.is_steady(answered) and not failed:
                    return 0
                await mesh_ask.pause(looked_s, LOOK_S)
    except TimeoutError:
        click.echo(f"not done within {limit_s} s; it goes on by itself: isthmus encrypt status")
        return 1

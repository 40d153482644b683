"""``isthmus encrypt``: encryption between nodes, on this node or in the whole mesh. Adapter."""

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any

import click

from cli import cluster, encrypt_far, encrypt_text, mesh_ask, options, output, rest
from cli.encrypt_migrate import migrate
from kube import resources
from kube.port import Client
from reconcile.tasks import TaskGroup

Answers = dict[str, Mapping[str, Any]]


@click.group()
def encrypt() -> None:
    """Encryption between nodes, and its keys."""


_contexts = click.option(
    "--also", "contexts", multiple=True, metavar="CONTEXT", help="A further cluster."
)


def _is_node(host: str, context: str) -> bool:
    return not context and os.path.exists(host.removeprefix("unix://"))


@encrypt.command()
@rest.option
@options.command
@output.option
@_contexts
def status(
    host: str, context: str, kubeconfig: str, namespace: str, how: str, contexts: tuple[str, ...]
) -> None:
    """This node's peers; away from a node, every node of the cluster, or of several.

    Nodes of clusters that are not asked are shown as the others see them. Exit 1 when a node does
    not answer, or says that something is wrong.
    """
    if _is_node(host, context):
        found = rest.get(host, "encryption")
        if how == "json":
            click.echo(output.as_json(found))
        else:
            click.echo(encrypt_text.node(found))
            click.echo(_far(encrypt_far.seen({"this node": found})))
        if encrypt_text.faults({"this node": found}):
            raise click.exceptions.Exit(1)
        return
    every: Answers = {}
    silent: dict[str, str] = {}
    for name in (context, *contexts):
        answered, failed = _ask_cluster(kubeconfig, name, namespace, ("status", "-o", "json"))
        every |= answered
        silent |= failed
    faults = [*(f"{n}: {why}" for n, why in silent.items()), *encrypt_text.faults(every)]
    if how == "json":
        seen = {far.name: far.shape() for far in encrypt_far.seen(every)}
        click.echo(output.as_json({"nodes": every, "seen": seen, "faults": faults}))
    else:
        click.echo(output.table(encrypt_text.mesh(every)))
        click.echo(_far(encrypt_far.seen(every)))
        for fault in faults:
            click.echo(f"fault: {fault}")
    if faults or not every:
        raise click.exceptions.Exit(1)


def _far(seen: list[encrypt_far.Far]) -> str:
    """A table of nodes that were not asked; empty when all were."""
    if not seen:
        return ""
    rows = [encrypt_far.HEADER, *(far.row() for far in seen)]
    return f"\nSeen from here:\n{output.table(rows)}\n{encrypt_far.ONLY_THEY}"


@encrypt.command()
@rest.option
@options.command
@click.option("--abort", is_flag=True, help="Go back to the old keys, while that is possible.")
@click.option("--wait/--no-wait", default=True, help="Until every node has its new key.")
@click.option("--wait-duration", default=300, show_default=True, help="Seconds.")
def rotate(
    host: str,
    context: str,
    kubeconfig: str,
    namespace: str,
    abort: bool,
    wait: bool,
    wait_duration: int,
) -> None:
    """New WireGuard keys on every node of the mesh, without a lost packet.

    Begun on one node, followed by all of them, in every cluster. A rotation that waits for a node
    goes on when that node does: nothing needs to be begun again.
    """
    action = "abort" if abort else "rotate"
    if _is_node(host, context):
        answer = json.loads(rest.change(host, f"encryption/{action}"))
        click.echo(f"rotation {answer['number']}: {'aborting' if abort else 'begun'}")
        return
    words = ("rotate", "--abort") if abort else ("rotate",)
    said = _ask_in_turn(kubeconfig, context, namespace, words)
    click.echo(said)
    if wait and not abort:
        cluster.run(_until_steady(kubeconfig, context, namespace, wait_duration))


async def _until_steady(kubeconfig: str, context: str, namespace: str, limit_s: int) -> int:
    said = ""
    try:
        async with asyncio.timeout(limit_s):
            while True:
                answered, failed = await _asked(
                    kubeconfig, context, namespace, ("status", "-o", "json")
                )
                line = encrypt_text.progress(answered, failed)
                if line != said:
                    click.echo(line)
                    said = line
                if encrypt_text.is_steady(answered) and not failed:
                    return 0
                await asyncio.sleep(1)
    except TimeoutError:
        click.echo(f"not done within {limit_s} s; it goes on by itself: isthmus encrypt status")
        return 1


def _ask_cluster(
    kubeconfig: str, context: str, namespace: str, words: tuple[str, ...]
) -> tuple[Answers, dict[str, str]]:
    return asyncio.run(_asked(kubeconfig, context, namespace, words))


async def _asked(
    kubeconfig: str, context: str, namespace: str, words: tuple[str, ...]
) -> tuple[Answers, dict[str, str]]:
    """What every agent of a cluster answers, by node, and who does not."""
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


def _ask_in_turn(kubeconfig: str, context: str, namespace: str, words: tuple[str, ...]) -> str:
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


encrypt.add_command(migrate)

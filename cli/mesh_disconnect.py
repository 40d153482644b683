"""``isthmus clustermesh disconnect``, also from a cluster that is gone. Adapter."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import click

from cli import cluster, mesh_losses, mesh_secrets, options
from cli.mesh_ask import AGENT, run_json
from cli.mesh_facts import ClusterFacts, gather
from cli.mesh_pairs import MODES, done, named, pairs
from kube import resources
from kube.port import ApiError, Client

ANSWER_S = 10.0  # for the API server of a cluster that may be gone


@dataclass(frozen=True, slots=True)
class Parting:
    """A cluster to be forgotten, and the context by which it was named, if it was."""

    name: str
    context: str = ""
    answers: bool = False


@click.command()
@options.command
@click.option(
    "--destination-context",
    "destinations",
    multiple=True,
    help="A connected cluster; repeatable, or separated by commas.",
)
@click.option(
    "--destination-cluster",
    "names",
    multiple=True,
    help="With --force: a connected cluster by its name, for one that has no context any more.",
)
@click.option(
    "--connection-mode",
    type=click.Choice(MODES),
    default="bidirectional",
    show_default=True,
)
@click.option("--force", is_flag=True, help="Change only this cluster; the others may be gone.")
@click.option("--yes", is_flag=True, help="With --force: do not ask.")
def disconnect(
    context: str,
    kubeconfig: str,
    namespace: str,
    destinations: tuple[str, ...],
    names: tuple[str, ...],
    connection_mode: str,
    force: bool,
    yes: bool,
) -> None:
    """Stop clusters from reading each other; what they learnt is taken away."""
    if not destinations and not names:
        raise click.UsageError("Missing option '--destination-context'.")
    if names and not force:
        raise click.UsageError("--destination-cluster goes with --force.")
    if force and connection_mode == "mesh":
        raise click.UsageError("--force changes one cluster: leave --connection-mode mesh out.")
    contexts = named(destinations) if destinations else []
    if force:
        cluster.run(_forced(context, kubeconfig, namespace, contexts, names, yes))
    else:
        cluster.run(_parted(kubeconfig, namespace, [context, *contexts], connection_mode))


async def _parted(kubeconfig: str, namespace: str, contexts: Sequence[str], mode: str) -> None:
    async with AsyncExitStack() as stack:
        apis, found = [], []
        for context in contexts:
            try:
                api = await stack.enter_async_context(cluster.client(kubeconfig, context))
                found.append(await gather(api, context, namespace))
            except ApiError:
                raise
            except OSError as error:
                raise click.ClickException(
                    f"{error}: if that cluster is gone, add --force to change only this one"
                ) from error
            apis.append(api)
        for a, b in pairs(len(found), mode):
            mesh_secrets.refuse_declared(found[a], [found[b].name])
            if mode != "unicast":
                mesh_secrets.refuse_declared(found[b], [found[a].name])
        for a, b in pairs(len(found), mode):
            await mesh_secrets.drop(apis[a], found[a], found[b].name)
            if mode != "unicast":
                await mesh_secrets.drop(apis[b], found[b], found[a].name)
        for line in done("Disconnected", [f.name for f in found], mode, "<x>", "x>"):
            click.echo(line)


async def _forced(
    context: str,
    kubeconfig: str,
    namespace: str,
    contexts: Sequence[str],
    names: Sequence[str],
    yes: bool,
) -> None:
    async with cluster.client(kubeconfig, context) as api:
        own = await gather(api, context, namespace)
        partings = [_connected(own, name) for text in names for name in text.split(",") if name]
        partings += [await _named_by(kubeconfig, other, own) for other in contexts]
        mesh_secrets.refuse_declared(own, [p.name for p in partings])
        statuses, services = await _ask_agents(api, namespace)
        for parting in partings:
            for line in mesh_losses.lines(
                own.name, mesh_losses.losses(parting.name, statuses, services)
            ):
                click.echo(line)
        _confirm(yes)
        for parting in partings:
            await mesh_secrets.drop(api, own, parting.name)
        for parting in partings:
            _report(own, context, parting)


def _connected(own: ClusterFacts, name: str, why: str = "") -> Parting:
    """Raises ``ClickException`` for what is not connected."""
    if name in own.connected:
        return Parting(name)
    known = ", ".join(own.connected) or "none"
    lead = f"{why}: " if why else ""
    raise click.ClickException(
        f"{lead}cluster {own.name} is connected to no cluster {name}: name one with "
        f"--destination-cluster (connected: {known})"
    )


async def _named_by(kubeconfig: str, context: str, own: ClusterFacts) -> Parting:
    """Which cluster a context means: it says so itself, or it is named like the context."""
    try:
        async with asyncio.timeout(ANSWER_S), cluster.client(kubeconfig, context) as api:
            facts = await gather(api, context, own.namespace)
    except (OSError, ValueError) as error:
        why = str(error) or f"context {context} did not answer within {ANSWER_S:g} s"
        return Parting(_connected(own, context, why).name, context)
    return Parting(_connected(own, facts.name).name, context, answers=True)


async def _ask_agents(
    api: Client, namespace: str
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The states of all agents that answer, and the services of one of them."""
    pods = await api.list(resources.untyped(resources.PODS), namespace, label_selector=AGENT)
    statuses: list[Mapping[str, Any]] = []
    services: list[Mapping[str, Any]] = []

    async def one(pod: str) -> None:
        try:
            found = await run_json(api, namespace, pod, ["cilium-dbg", "status", "-o", "json"])
            if not statuses:
                argv = ["cilium-dbg", "service", "list", "-o", "json"]
                services[:] = await run_json(api, namespace, pod, argv)
            statuses.append(found)
        except (OSError, ValueError):
            return  # another one may answer; the preview says when none does

    for pod in pods[:3]:
        await one(pod["metadata"]["name"])
    return statuses, services


def _confirm(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.ClickException(
            "nothing was changed: there is no terminal to ask at, so confirm with --yes"
        )
    click.confirm("Disconnect?", abort=True)


def _report(own: ClusterFacts, context: str, parting: Parting) -> None:
    click.echo(f"✅ Disconnected cluster {own.name} x> {parting.name}!")
    there = f"--context {parting.context or f'CONTEXT_OF_{parting.name}'}"
    if parting.answers:
        click.echo(
            f"ℹ️  Cluster {parting.name} answers and was not changed: to disconnect it too, run "
            f"`isthmus clustermesh disconnect {there} --destination-cluster {own.name} --force`"
        )
        return
    click.echo(
        f"ℹ️  Cluster {parting.name} was not asked. When it comes back it still reads {own.name}: "
        f"run `isthmus clustermesh disconnect {there} --destination-cluster {own.name} --force` "
        "there, or connect the two again"
    )

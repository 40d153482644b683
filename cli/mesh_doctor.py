"""``isthmus clustermesh doctor``. Adapter."""

import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import click

from cli import cluster, mesh_examine, mesh_faults, mesh_findings, options, output
from cli.mesh_examined import Examined
from cli.mesh_findings import Finding
from kube.port import Client
from reconcile.tasks import TaskGroup

_COLOURS = {"warning": "yellow", "failed": "bold red"}


@click.command()
@options.command
@click.option(
    "--contexts",
    multiple=True,
    metavar="CONTEXT,…",
    help="Clusters that are, or are to be, joined. Default: the one of --context.",
)
@output.option
def doctor(
    context: str, kubeconfig: str, namespace: str, contexts: tuple[str, ...], how: str
) -> None:
    """What keeps clusters from being joined, or from working. Exit 1 when something does."""
    named = [name for text in contexts for name in text.split(",") if name]
    wanted = list(dict.fromkeys([*([context] if context or not named else []), *named]))

    async def work() -> int:
        async with AsyncExitStack() as stack:
            sides, findings = await _look(stack, kubeconfig, wanted, namespace)
        names = [side.name for side in sides]
        findings = mesh_findings.ordered([*findings, *mesh_faults.faults(sides, datetime.now(UTC))])
        if how == "json":
            click.echo(output.as_json(mesh_findings.as_json(findings, names)))
        else:
            show(findings, sys.stdout.isatty())
            click.echo(mesh_findings.summary(findings, names))
        return 1 if mesh_findings.blocked(findings) else 0

    cluster.run(work())


async def _look(
    stack: AsyncExitStack, kubeconfig: str, contexts: Sequence[str], namespace: str
) -> tuple[list[Examined], list[Finding]]:
    """All clusters at once; one that cannot be looked at is a finding itself."""
    seen: dict[str, tuple[Client, Examined]] = {}
    findings: list[Finding] = []

    async def one(context: str) -> None:
        try:
            api = await stack.enter_async_context(cluster.client(kubeconfig, context))
            seen[context] = api, await mesh_examine.examine(api, context, namespace)
        except (OSError, ValueError) as error:
            remedy = "look at its API server, the kubeconfig and `isthmus install`"
            text = f"context {context or 'current'}: {error}"
            findings.append(Finding("api-server", (context,), text, remedy))

    async with TaskGroup() as tasks:
        for context in contexts:
            tasks.create_task(one(context))
    every = [side.facts for _, side in seen.values()]
    async with TaskGroup() as tasks:
        looks = [
            tasks.create_task(
                mesh_examine.with_agents(api, side, [f for f in every if f is not side.facts])
            )
            for api, side in (seen[context] for context in contexts if context in seen)
        ]
    return [look.result() for look in looks], findings


def show(findings: Sequence[Finding], terminal: bool) -> None:
    """A table: drawn on a terminal, plain columns elsewhere; nothing for no finding."""
    rows = mesh_findings.rows(findings)
    if not rows:
        return
    if not terminal:
        click.echo(output.table([mesh_findings.HEADER, *rows]))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title="isthmus clustermesh doctor")
    for name in mesh_findings.HEADER:
        table.add_column(name, overflow="fold")
    for name, result, found, remedy in rows:
        table.add_row(name, Text(result, style=_COLOURS[result]), Text(found), Text(remedy))
    Console().print(table)

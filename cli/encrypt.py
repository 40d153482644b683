"""``isthmus encrypt``: encryption between nodes, on this node or in the whole mesh. Adapter."""

import json
import os

import click

from cli import encrypt_far, encrypt_text, options, output, rest
from cli.lazy import Lazy, LazyGroup


@click.group(
    cls=LazyGroup,
    lazy={
        "migrate": Lazy(
            "cli.encrypt_migrate",
            "migrate",
            "Encrypt by another kind, in the whole mesh, while it is used.",
        )
    },
)
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
    from cli import encrypt_ask  # not above: an agent's container need not load it

    every: encrypt_ask.Answers = {}
    silent: dict[str, str] = {}
    for name in (context, *contexts):
        answered, failed = encrypt_ask.answers(
            kubeconfig, name, namespace, ("status", "-o", "json")
        )
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
@_contexts
@click.option("--abort", is_flag=True, help="Go back to the old keys, while that is possible.")
@click.option("--wait/--no-wait", default=True, help="Until every node has its new key.")
@click.option("--wait-duration", default=300, show_default=True, help="Seconds.")
def rotate(
    host: str,
    context: str,
    kubeconfig: str,
    namespace: str,
    contexts: tuple[str, ...],
    abort: bool,
    wait: bool,
    wait_duration: int,
) -> None:
    """New keys on every node of the mesh, without a lost packet.

    WireGuard: begun on one node, followed by all of them, in every cluster. A rotation that waits
    for a node goes on when that node does: nothing needs to be begun again. IPsec: the next key is
    written into the secret of every cluster, so every cluster must be named; a call that was killed
    before it had written all of them is gone on with by the next.
    """
    action = "abort" if abort else "rotate"
    if _is_node(host, context):
        answer = json.loads(rest.change(host, f"encryption/{action}"))
        click.echo(f"rotation {answer['number']}: {'aborting' if abort else 'begun'}")
        return
    from cli import encrypt_ask, encrypt_rotate

    limit_s = wait_duration if wait else 0
    if not abort and encrypt_rotate.rotate(kubeconfig, (context, *contexts), namespace, limit_s):
        return
    words = ("rotate", "--abort") if abort else ("rotate",)
    said = encrypt_ask.first_answer(kubeconfig, context, namespace, words)
    click.echo(said)
    if wait and not abort:
        encrypt_ask.until_steady(kubeconfig, context, namespace, wait_duration)

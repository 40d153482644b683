"""``isthmus clustermesh connect`` and ``disconnect``. Adapter."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from hashlib import sha256
from itertools import combinations

import click

from certs import check
from certs.profiles import REMOTE_SECRET, SERVER_SECRET
from cli import cluster, mesh_checks, mesh_facts, mesh_secrets, options
from cli.mesh_facts import ClusterFacts, gather
from kube import resources
from kube.port import Client


@click.command()
@options.command
@click.option("--destination-context", "destinations", multiple=True, required=True)
@click.option(
    "--connection-mode",
    type=click.Choice(["unicast", "bidirectional", "mesh"]),
    default="bidirectional",
    show_default=True,
)
@click.option("--source-endpoint", default="", metavar="IP:PORT")
@click.option("--destination-endpoint", default="", metavar="IP:PORT")
@click.option("--parallel", default=1, hidden=True)
@click.option("--allow-mismatching-ca", is_flag=True, hidden=True)
def connect(
    context: str,
    kubeconfig: str,
    namespace: str,
    destinations: tuple[str, ...],
    connection_mode: str,
    source_endpoint: str,
    destination_endpoint: str,
    parallel: int,
    allow_mismatching_ca: bool,
) -> None:
    """Let clusters read each other. Nothing is written unless every check holds."""
    del parallel, allow_mismatching_ca  # clusters with different authorities trust each other's

    async def work() -> None:
        async with AsyncExitStack() as stack:
            contexts = [context, *_named(destinations)]
            if destination_endpoint and len(contexts) > 2:
                raise click.ClickException(
                    "--destination-endpoint names one place and there are several destinations: "
                    "connect them one by one"
                )
            apis = [
                await stack.enter_async_context(cluster.client(kubeconfig, c)) for c in contexts
            ]
            found = [await gather(api, c, namespace) for api, c in zip(apis, contexts, strict=True)]
            found[0] = mesh_facts.at(found[0], source_endpoint, "--source-endpoint")
            if destination_endpoint:
                found[1] = mesh_facts.at(found[1], destination_endpoint, "--destination-endpoint")
            problems = mesh_checks.together(found, datetime.now(UTC))
            if problems:
                raise click.ClickException(mesh_checks.refusal(problems))
            for a, b in _pairs(len(found), connection_mode):
                await _trust(apis[a], found[a], found[b])
                await _trust(apis[b], found[b], found[a])
                await mesh_secrets.add(apis[a], found[a], found[b])
                if connection_mode != "unicast":
                    await mesh_secrets.add(apis[b], found[b], found[a])
            for line in done("Connected", [f.name for f in found], connection_mode, "<=>", "=>"):
                click.echo(line)

    cluster.run(work())


@click.command()
@options.command
@click.option("--destination-context", "destinations", multiple=True, required=True)
@click.option(
    "--connection-mode",
    type=click.Choice(["unicast", "bidirectional", "mesh"]),
    default="bidirectional",
    show_default=True,
)
def disconnect(
    context: str,
    kubeconfig: str,
    namespace: str,
    destinations: tuple[str, ...],
    connection_mode: str,
) -> None:
    """Stop clusters from reading each other; what they learnt is taken away."""

    async def work() -> None:
        async with AsyncExitStack() as stack:
            contexts = [context, *_named(destinations)]
            apis = [
                await stack.enter_async_context(cluster.client(kubeconfig, c)) for c in contexts
            ]
            found = [await gather(api, c, namespace) for api, c in zip(apis, contexts, strict=True)]
            for a, b in _pairs(len(found), connection_mode):
                await mesh_secrets.drop(apis[a], found[a], found[b].name)
                if connection_mode != "unicast":
                    await mesh_secrets.drop(apis[b], found[b], found[a].name)
            names = [f.name for f in found]
            for line in done("Disconnected", names, connection_mode, "<x>", "x>"):
                click.echo(line)

    cluster.run(work())


def done(verb: str, names: Sequence[str], mode: str, both: str, one: str) -> list[str]:
    """The last lines of connect and disconnect."""
    first, *others = names
    if mode == "mesh":
        return [f"✅ {verb} clusters {', '.join(others)}, and {first}!"]
    arrow = both if mode == "bidirectional" else one
    return [f"✅ {verb} cluster {first} {arrow} {other}!" for other in others]


def _named(destinations: Sequence[str]) -> list[str]:
    """The contexts of repeated and comma-separated options."""
    found = [name for text in destinations for name in text.split(",") if name]
    if not found:
        raise click.ClickException("--destination-context is empty: name a kubeconfig context")
    return found


def _pairs(count: int, mode: str) -> list[tuple[int, int]]:
    """Which clusters are joined; the first is the local one."""
    if mode == "mesh":
        return list(combinations(range(count), 2))
    return [(0, other) for other in range(1, count)]


async def _trust(api: Client, own: ClusterFacts, other: ClusterFacts) -> None:
    """Make ``own`` accept certificates of the other's authority, as server and as client.

    etcd reads the authorities it trusts when it starts: the store is started anew when they change.
    """
    for name in (SERVER_SECRET, REMOTE_SECRET):
        data = cluster.secret_data(await cluster.read(api, "Secret", name, own.namespace))
        trust = check.bundle(data["ca.crt"], other.ca)
        if trust == data["ca.crt"]:
            continue
        await api.patch(
            resources.untyped(resources.SECRETS),
            name,
            {"data": mesh_facts.encode({"ca.crt": trust})},
            own.namespace,
        )
        if name == SERVER_SECRET:
            annotation = {"isthmus.io/trust": sha256(trust).hexdigest()[:16]}
            await api.patch(
                resources.untyped(resources.DEPLOYMENTS),
                mesh_facts.APISERVER,
                {"spec": {"template": {"metadata": {"annotations": annotation}}}},
                own.namespace,
            )

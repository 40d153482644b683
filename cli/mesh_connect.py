"""``isthmus clustermesh connect``. Adapter."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import TypeVar

import click

from certs import check
from certs.profiles import REMOTE_SECRET, SERVER_SECRET
from cli import cluster, mesh_checks, mesh_facts, mesh_secrets, options
from cli.mesh_facts import ClusterFacts, gather
from cli.mesh_pairs import MODES, done, named, pairs
from kube import resources
from kube.port import Client
from model.duration import parse_duration_s
from reconcile.tasks import TaskGroup

T = TypeVar("T")


@click.command()
@options.command
@click.option(
    "--destination-context",
    "destinations",
    multiple=True,
    required=True,
    help="A cluster to connect to; repeatable, or separated by commas.",
)
@click.option(
    "--connection-mode",
    type=click.Choice(MODES),
    default="bidirectional",
    show_default=True,
    help="Only this cluster reads; both do; or all clusters read all.",
)
@click.option("--source-endpoint", "here", multiple=True, metavar="IP:PORT")
@click.option(
    "--destination-endpoint",
    "there",
    multiple=True,
    metavar="[CONTEXT=]IP:PORT",
    help="With several destinations name the context.",
)
@click.option(
    "--parallel", type=click.IntRange(1), default=4, show_default=True, help="Clusters at once."
)
@click.option(
    "--cache-ttl",
    default="",
    metavar="DURATION",
    help="Take the others' backends back when they have been away so long; 0s: never. Left out: "
    "as it is, or as clustermesh-cache-ttl says.",
)
@click.option(
    "--allow-mismatching-ca",
    is_flag=True,
    help="Needs no saying: clusters accept each other's authorities.",
)
def connect(
    context: str,
    kubeconfig: str,
    namespace: str,
    destinations: tuple[str, ...],
    connection_mode: str,
    here: tuple[str, ...],
    there: tuple[str, ...],
    parallel: int,
    cache_ttl: str,
    allow_mismatching_ca: bool,
) -> None:
    """Let clusters read each other. Nothing is written unless every check holds."""
    del allow_mismatching_ca
    try:
        parse_duration_s(cache_ttl or "0")
    except ValueError as error:
        raise click.UsageError(f"--cache-ttl: {error}") from error

    async def work() -> None:
        async with AsyncExitStack() as stack:
            contexts = [context, *named(destinations)]
            places = _endpoints(contexts, here, there)

            async def look(i: int) -> tuple[Client, ClusterFacts]:
                api = await stack.enter_async_context(cluster.client(kubeconfig, contexts[i]))
                return api, _at(await gather(api, contexts[i], namespace), *places[i])

            sides = await _each(range(len(contexts)), look, parallel)
            found = [facts for _, facts in sides]
            problems = mesh_checks.together(found, datetime.now(UTC))
            if problems:
                raise click.ClickException(mesh_checks.refusal(problems))
            joined = pairs(len(found), connection_mode)
            for a, b in joined:
                mesh_secrets.refuse_declared(found[a], [found[b].name])
                if connection_mode != "unicast":
                    mesh_secrets.refuse_declared(found[b], [found[a].name])

            async def trust(i: int) -> None:
                """All authorities at once: etcd is started anew for each change of them."""
                partners = [found[b if a == i else a] for a, b in joined if i in (a, b)]
                await _trust(sides[i][0], found[i], partners)

            async def write(i: int) -> None:
                """One after the other: they share a Secret."""
                for a, b in joined:
                    if a == i:
                        await mesh_secrets.add(sides[i][0], found[i], found[b], cache_ttl)
                    elif b == i and connection_mode != "unicast":
                        await mesh_secrets.add(sides[i][0], found[i], found[a], cache_ttl)

            await _each(range(len(sides)), trust, parallel)
            await _each(range(len(sides)), write, parallel)
            for line in done("Connected", [f.name for f in found], connection_mode, "<=>", "=>"):
                click.echo(line)

    cluster.run(work())


async def _each(items: Sequence[int], what: Callable[[int], Awaitable[T]], at_once: int) -> list[T]:
    """So many at a time; results in order."""
    gate = asyncio.Semaphore(at_once)

    async def one(item: int) -> T:
        async with gate:
            return await what(item)

    async with TaskGroup() as tasks:
        running = [tasks.create_task(one(item)) for item in items]
    return [task.result() for task in running]


def _endpoints(
    contexts: Sequence[str], here: Sequence[str], there: Sequence[str]
) -> list[tuple[list[str], str]]:
    """For each context the places named for it, and by which option."""
    places: list[tuple[list[str], str]] = [([], "--destination-endpoint") for _ in contexts]
    places[0] = [p for text in here for p in text.split(",") if p], "--source-endpoint"
    for place in (p for text in there for p in text.split(",") if p):
        name, separator, endpoint = place.rpartition("=")
        if not separator and len(contexts) > 2:
            raise click.ClickException(
                f'--destination-endpoint "{place}" names one place and there are several '
                f"destinations: write {contexts[1]}={place}"
            )
        if separator and name not in contexts[1:]:
            raise click.ClickException(
                f'--destination-endpoint "{place}": no --destination-context {name}'
            )
        places[contexts.index(name, 1) if separator else 1][0].append(endpoint)
    return places


def _at(facts: ClusterFacts, endpoints: Sequence[str], option: str) -> ClusterFacts:
    """The same cluster with its mesh store at all of these places. Raises ``ValueError``."""
    found = [mesh_facts.at(facts, endpoint, option) for endpoint in endpoints]
    if not found:
        return facts
    if len({f.port for f in found}) > 1:
        raise ValueError(f"{option} {', '.join(endpoints)}: use one port for all")
    return replace(found[0], addresses=tuple(a for f in found for a in f.addresses))


async def _trust(api: Client, own: ClusterFacts, others: Sequence[ClusterFacts]) -> None:
    """Make ``own`` accept certificates of the others' authorities, as server and as client.

    etcd reads the authorities it trusts when it starts: the store is started anew when they change.
    """
    for name in (SERVER_SECRET, REMOTE_SECRET):
        data = cluster.secret_data(await cluster.read(api, "Secret", name, own.namespace))
        trust = check.bundle(data["ca.crt"], *(other.ca for other in others))
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

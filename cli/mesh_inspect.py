"""``isthmus clustermesh inspect``: all that one cluster knows of its connections. Adapter."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from certs.profiles import CA_SECRET, mesh_profiles
from cli import cluster, mesh_inspect_text, options, output
from cli.certs import describe
from cli.mesh_ask import AGENT, ask_copies, run_json, store_ready
from cli.mesh_facts import (
    CLUSTERS_SECRET,
    KVSTOREMESH_SECRET,
    ClusterFacts,
    gather,
)
from kube import resources
from kube.port import ApiError, Client
from kvstore.config import StoreConfigError, parse_store_config
from reconcile.tasks import TaskGroup

AT_ONCE = 8


@click.command()
@options.command
@click.argument("clusters", nargs=-1)
@click.option("-o", "--output", "how", type=click.Choice(["summary", "json"]), default="summary")
def inspect(
    context: str, kubeconfig: str, namespace: str, clusters: tuple[str, ...], how: str
) -> None:
    """This cluster's part of the mesh, and each connected cluster (or CLUSTERS) in detail."""

    async def work() -> None:
        async with cluster.client(kubeconfig, context) as api:
            facts = await gather(api, context, namespace)
            wanted = clusters or tuple(facts.connected)
            unknown = [name for name in wanted if name not in facts.connected]
            if unknown:
                known = ", ".join(facts.connected) or "none"
                raise click.ClickException(
                    f"cluster {facts.name} is not connected to {unknown[0]} (connected: {known})"
                )
            body = {
                "cluster": await _own(api, facts),
                "certificates": await _certificates(api, facts),
                "remotes": await _remotes(api, facts, wanted),
            }
        if how == "json":
            click.echo(output.as_json(body))
        else:
            click.echo("\n".join(mesh_inspect_text.lines(body)))

    cluster.run(work())


async def _own(api: Client, facts: ClusterFacts) -> dict[str, Any]:
    return {
        "name": facts.name,
        "id": facts.id,
        "max-connected-clusters": facts.max_connected,
        "tunnel-protocol": facts.tunnel,
        "pod-cidrs": [str(prefix) for prefix in facts.pod_cidrs],
        "store": {
            "enabled": facts.enabled,
            "ready": await _ready(api, facts),
            "service-type": facts.service_type,
            "endpoints": [f"{address}:{facts.port}" for address in facts.addresses],
            "kvstoremesh": facts.kvstoremesh,
        },
    }


async def _ready(api: Client, facts: ClusterFacts) -> bool:
    try:
        return await store_ready(api, facts.namespace)
    except ApiError as error:
        if not error.not_found:
            raise
        return False


async def _certificates(api: Client, facts: ClusterFacts) -> list[dict[str, str]]:
    now = datetime.now(UTC)
    rows = []
    for name in (CA_SECRET, *mesh_profiles(facts.name, facts.namespace)):
        data = cluster.secret_data(await cluster.read(api, "Secret", name, facts.namespace))
        rows.append(describe(name, data, now))
    return rows


async def _remotes(api: Client, facts: ClusterFacts, wanted: Sequence[str]) -> list[dict[str, Any]]:
    source = KVSTOREMESH_SECRET if facts.kvstoremesh else CLUSTERS_SECRET
    entries = cluster.secret_data(await cluster.read(api, "Secret", source, facts.namespace))
    agents = await _agents(api, facts.namespace)
    copies = await ask_copies(api, facts.namespace) if facts.kvstoremesh else ()
    return [
        mesh_inspect_text.remote(
            name,
            facts.connected[name],
            {
                **_entry(source, name, entries.get(name, b"")),
                "declared-by": facts.declared.get(name),
            },
            agents,
            next((c for c in copies if c.get("name") == name), None),
        )
        for name in wanted
    ]


def _entry(secret: str, name: str, data: bytes) -> dict[str, Any]:
    """How the store of a cluster is reached, as it is written down."""
    where = f"Secret {secret}, key {name}"
    try:
        config = parse_store_config(data, where)
    except StoreConfigError as error:
        return {"secret": secret, "problem": str(error)}
    return {
        "secret": secret,
        "endpoints": list(config.endpoints),
        "reached-at": [target.authority for target in config.targets()],
        "ca-file": config.ca_file,
        "cert-file": config.cert_file,
    }


async def _agents(api: Client, namespace: str) -> dict[str, Mapping[str, Any]]:
    """Node → what its agent says; an ``error`` for one that does not answer."""
    pods = await api.list(resources.untyped(resources.PODS), namespace, label_selector=AGENT)
    found: dict[str, Mapping[str, Any]] = {}
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(pod: Mapping[str, Any]) -> None:
        name = pod["metadata"]["name"]
        node = str((pod.get("spec") or {}).get("nodeName") or name)
        async with gate:
            try:
                argv = ["cilium-dbg", "status", "-o", "json"]
                found[node] = await run_json(api, namespace, name, argv)
            except (OSError, ValueError) as error:
                found[node] = {"error": str(error)}

    async with TaskGroup() as tasks:
        for pod in pods:
            tasks.create_task(one(pod))
    return found

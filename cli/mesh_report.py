"""``isthmus clustermesh status``. Adapter."""

import json
import time
from datetime import UTC, datetime

import click

from certs import check
from certs.profiles import REMOTE_SECRET, SERVER_SECRET
from cli import cluster, mesh_facts, mesh_status, options
from cli.mesh_ask import ask_agents, ask_kvstoremesh, pause, store_ready
from cli.mesh_facts import ClusterFacts, gather

STEP_S = 0.5


@click.command()
@options.command
@click.option("--wait", is_flag=True, help="Until every agent is connected to every cluster.")
@click.option("--wait-duration", "--timeout", "wait_duration", default="15m", show_default=True)
@click.option("-o", "--output", type=click.Choice(["summary", "json"]), default="summary")
def status(
    context: str, kubeconfig: str, namespace: str, wait: bool, wait_duration: str, output: str
) -> None:
    """How the agents of a cluster are connected to the others. Exit 1 when one is not."""
    from model.duration import parse_duration_s

    seconds = parse_duration_s(wait_duration)

    async def work() -> int:
        async with cluster.client(kubeconfig, context) as api:
            began = time.monotonic()
            deadline = began + (seconds if wait else 0)
            told = ""
            while True:
                looked_s = time.monotonic()
                facts = await gather(api, context, namespace)
                if not facts.enabled:
                    raise click.ClickException(
                        f"cluster {facts.name}: no Service {namespace}/clustermesh-apiserver: "
                        "run `isthmus clustermesh enable`"
                    )
                store = await store_ready(api, namespace)
                mesh = await ask_agents(api, namespace, tuple(facts.connected))
                mesh.declared = facts.declared
                copies = None
                if facts.kvstoremesh:
                    copies = await ask_kvstoremesh(api, namespace, tuple(facts.connected))
                good = mesh.ready and store and (copies is None or copies.ready)
                if good or time.monotonic() > deadline:
                    break
                said = mesh_status.waiting(mesh, copies, store)
                if said != told:
                    click.echo(f"⌛ Waiting ({time.monotonic() - began:.0f}s) for {said}", err=True)
                    told = said
                await pause(looked_s, STEP_S)
            _print(facts, mesh, copies, store, output)
            return 0 if good else 1

    cluster.run(work())


def _print(
    facts: ClusterFacts,
    mesh: mesh_status.MeshStatus,
    copies: mesh_status.MeshStatus | None,
    store: bool,
    output: str,
) -> None:
    if output == "json":
        access = {
            "service_type": facts.service_type,
            "service_ips": list(facts.addresses),
            "service_port": facts.port,
            "cluster_id": facts.id,
            "cluster_name": facts.name,
            "ca": mesh_facts.encode({"ca": facts.ca})["ca"],
            "tunnel": facts.tunnel,
            "max_connected_clusters": facts.max_connected,
        }
        expires = {
            name: check.expires_at(data["tls.crt"]).isoformat()
            for name, data in ((SERVER_SECRET, facts.server), (REMOTE_SECRET, facts.client))
            if data.get("tls.crt")
        }
        body = {**mesh_status.as_json(mesh, access, copies), "certificates": expires}
        click.echo(json.dumps(body, indent=2))
        return
    now = datetime.now(UTC)
    expiry = []
    for name, data in ((SERVER_SECRET, facts.server), (REMOTE_SECRET, facts.client)):
        if data.get("tls.crt"):
            ends = check.expires_at(data["tls.crt"])
            expiry.append(mesh_status.expiry_line(name, ends, now))
    text = mesh_status.lines(mesh, facts.service_type, facts.addresses, facts.port, expiry, copies)
    if not store:
        text = [
            "❌ Deployment clustermesh-apiserver is not ready" if "is ready" in line else line
            for line in text
        ]
    click.echo("\n".join(text))

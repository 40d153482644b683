"""``isthmus clustermesh enable`` and ``disable``: the mesh store of a cluster. Adapter."""

from contextlib import AsyncExitStack
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import click

from certs import check
from certs.issue import KeyPair, issue
from certs.profiles import SERVER_SECRET, mesh_profiles
from cli import cluster, hubble_certs, mesh_checks, mesh_secrets, options
from cli.install import default_image
from cli.mesh_facts import (
    CLUSTERS_SECRET,
    ETCD_PORT,
    JOIN_PORT,
    KVSTOREMESH,
    KVSTOREMESH_SECRET,
    LOCAL_PORT,
    MESH_PORT,
    ClusterFacts,
    gather,
)
from clustermesh_apiserver.grants import GRANTS_SECRET
from kube import resources
from kube.port import Client

PEER_PORT = 32380


@click.command()
@options.command
@click.option(
    "--service-type",
    type=click.Choice(["NodePort", "LoadBalancer"]),
    default="NodePort",
    show_default=True,
)
@click.option("--enable-external-workloads", "outside", is_flag=True, hidden=True)
@click.option("--ca-from", default="", metavar="CONTEXT", help="Share that cluster's authority.")
@click.option(
    "--enable-kvstoremesh",
    type=bool,
    is_flag=False,
    flag_value=True,
    default=None,
    help="Agents read copies in their own cluster's store. Left out: as it is.",
)
def enable(
    context: str,
    kubeconfig: str,
    namespace: str,
    service_type: str,
    ca_from: str,
    enable_kvstoremesh: bool | None,
    outside: bool,
) -> None:
    """Run the mesh store of a cluster: certificates, etcd, its front, the publisher."""
    if outside:
        raise click.UsageError(
            "--enable-external-workloads is not supported: machines outside of clusters cannot "
            "take part; run a node on them."
        )

    async def work() -> None:
        async with AsyncExitStack() as stack:
            api = await stack.enter_async_context(cluster.client(kubeconfig, context))
            facts = await gather(api, context, namespace)
            problems = mesh_checks.member(facts)
            if problems:
                raise click.ClickException(mesh_checks.refusal(problems))
            copied = facts.kvstoremesh if enable_kvstoremesh is None else enable_kvstoremesh
            if copied and facts.connected and not facts.hosts:
                raise click.ClickException(
                    f"cluster {facts.name}: clustermesh-apiserver has no address yet, which its "
                    "agents would need: wait until it runs"
                )
            shared = None
            if ca_from:
                other = await stack.enter_async_context(cluster.client(kubeconfig, ca_from))
                shared = await hubble_certs.authority(other, namespace)
            authority = await hubble_certs.authority(api, namespace, shared)
            trust = await _certificates(api, facts, authority)
            await hubble_certs.renew(api, namespace, facts.name, authority)
            await mesh_secrets.change_over(api, facts, copied)
            await cluster.apply(api, _store(facts, service_type, trust, copied))
            click.echo(
                f"✅ Mesh store of cluster {facts.name} (ID {facts.id}) is enabled "
                f"({service_type}, port {MESH_PORT})"
            )
            if copied:
                click.echo("ℹ️  KVStoreMesh is enabled")

    cluster.run(work())


@click.command()
@options.command
def disable(context: str, kubeconfig: str, namespace: str) -> None:
    """Stop the mesh store and forget the connected clusters."""

    async def work() -> None:
        async with cluster.client(kubeconfig, context) as api:
            facts = await gather(api, context, namespace)
            await cluster.remove(api, _store(facts, "NodePort", b"", True))
            for name in (
                *mesh_profiles(facts.name),
                CLUSTERS_SECRET,
                KVSTOREMESH_SECRET,
                GRANTS_SECRET,
            ):
                await api.delete(resources.SECRETS, name, namespace)
            click.echo(f"✅ Mesh store of cluster {facts.name} is disabled")
            if facts.connected:
                click.echo(
                    f"ℹ️  {', '.join(facts.connected)} may still read it: run `isthmus clustermesh "
                    f"disconnect --destination-cluster {facts.name} --force` in their contexts"
                )

    cluster.run(work())


async def _certificates(api: Client, facts: ClusterFacts, authority: KeyPair) -> bytes:
    """Issue what is absent, expired or of another CA; keep what is good, its trust included.

    Returns the authorities that the store trusts.
    """
    now = datetime.now(UTC)
    server_trust = authority.certificate
    for name, profile in mesh_profiles(facts.name, facts.namespace).items():
        data = cluster.secret_data(await cluster.read(api, "Secret", name, facts.namespace))
        trust = check.bundle(
            authority.certificate, data.get("ca.crt", b"") or authority.certificate
        )
        if name == SERVER_SECRET:
            server_trust = trust
        current = data.get("ca.crt") == trust
        good = not check.problem(name, data.get("tls.crt", b""), authority.certificate, now)
        if current and good and data.get("tls.key"):
            continue
        pair = issue(authority, profile, now)
        content = pair.secret_data(trust)
        item = cluster.secret(name, facts.namespace, content, "kubernetes.io/tls")
        await cluster.apply(api, [item])
    return server_trust


def _store(
    facts: ClusterFacts, service_type: str, trust: bytes, kvstoremesh: bool
) -> list[dict[str, Any]]:
    found = cluster.manifest(
        "clustermesh",
        namespace=facts.namespace,
        image=default_image(),
        cluster_name=facts.name,
        cluster_id=facts.id,
        max_connected=facts.max_connected,
        service_type=service_type,
        port=MESH_PORT,
        etcd_port=ETCD_PORT,
        local_port=LOCAL_PORT,
        peer_port=PEER_PORT,
        join_port=JOIN_PORT,
        trust=sha256(trust).hexdigest()[:16],
    )
    if not kvstoremesh:
        for item in found:
            if item["kind"] == "Deployment":
                spec = item["spec"]["template"]["spec"]
                for what in ("containers", "volumes"):
                    spec[what] = [i for i in spec[what] if i["name"] != KVSTOREMESH]
    return found

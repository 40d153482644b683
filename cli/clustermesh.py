"""``isthmus clustermesh``: enable, connect, disconnect, disable, status. Adapter."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from hashlib import sha256
from itertools import combinations
from typing import Any

import click

from certs import check
from certs.issue import KeyPair, create_ca, issue
from certs.profiles import CA_SECRET, REMOTE_SECRET, SERVER_SECRET, mesh_profiles
from cli import cluster, mesh_checks, mesh_facts, mesh_secrets, mesh_status, options
from cli.install import default_image
from cli.mesh_facts import (
    CLUSTERS_SECRET,
    KVSTOREMESH,
    KVSTOREMESH_SECRET,
    MESH_PORT,
    ClusterFacts,
    gather,
)
from kube import resources
from kube.port import Client

PEER_PORT = 32380
STEP_S = 0.5
EXEC_TIMEOUT_S = 20.0
AGENT = "k8s-app=cilium"


@click.group()
@options.group
def clustermesh() -> None:
    """Join clusters, and see how they are joined."""


@clustermesh.command()
@options.command
@click.option(
    "--service-type",
    type=click.Choice(["NodePort", "LoadBalancer"]),
    default="NodePort",
    show_default=True,
)
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
) -> None:
    """Run the mesh store of a cluster: certificates, etcd, the publisher."""

    async def work() -> None:
        async with AsyncExitStack() as stack:
            api = await stack.enter_async_context(cluster.client(kubeconfig, context))
            facts = await gather(api, context, namespace)
            problems = mesh_checks.member(facts)
            if problems:
                raise click.ClickException("\n       ".join(problems))
            copied = facts.kvstoremesh if enable_kvstoremesh is None else enable_kvstoremesh
            if copied and facts.connected and not facts.addresses:
                raise click.ClickException(
                    f"cluster {facts.name}: clustermesh-apiserver has no address yet, which its "
                    "agents would need: wait until it runs"
                )
            shared = None
            if ca_from:
                other = await stack.enter_async_context(cluster.client(kubeconfig, ca_from))
                shared = await _authority(other, namespace)
            authority = await _authority(api, namespace, shared)
            trust = await _certificates(api, facts, authority)
            await mesh_secrets.change_over(api, facts, copied)
            await cluster.apply(api, _store(facts, service_type, trust, copied))
            click.echo(
                f"✅ Mesh store of cluster {facts.name} (ID {facts.id}) is enabled "
                f"({service_type}, port {MESH_PORT})"
            )
            if copied:
                click.echo("ℹ️  KVStoreMesh is enabled")

    cluster.run(work())


@clustermesh.command()
@options.command
def disable(context: str, kubeconfig: str, namespace: str) -> None:
    """Stop the mesh store and forget the connected clusters."""

    async def work() -> None:
        async with cluster.client(kubeconfig, context) as api:
            facts = await gather(api, context, namespace)
            await cluster.remove(api, _store(facts, "NodePort", b"", True))
            for name in (*mesh_profiles(facts.name), CLUSTERS_SECRET, KVSTOREMESH_SECRET):
                await api.delete(resources.SECRETS, name, namespace)
            click.echo(f"✅ Mesh store of cluster {facts.name} is disabled")

    cluster.run(work())


@clustermesh.command()
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
                raise click.ClickException("\n       ".join(problems))
            for a, b in _pairs(len(found), connection_mode):
                await _trust(apis[a], found[a], found[b])
                await _trust(apis[b], found[b], found[a])
                await mesh_secrets.add(apis[a], found[a], found[b])
                if connection_mode != "unicast":
                    await mesh_secrets.add(apis[b], found[b], found[a])
            for line in done("Connected", [f.name for f in found], connection_mode, "<=>", "=>"):
                click.echo(line)

    cluster.run(work())


@clustermesh.command()
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


@clustermesh.command()
@options.command
@click.option("--wait", is_flag=True, help="Until every agent is connected to every cluster.")
@click.option("--wait-duration", default="15m", show_default=True)
@click.option("-o", "--output", type=click.Choice(["summary", "json"]), default="summary")
def status(
    context: str, kubeconfig: str, namespace: str, wait: bool, wait_duration: str, output: str
) -> None:
    """How the agents of a cluster are connected to the others. Exit 1 when one is not."""
    from model.duration import parse_duration_s

    seconds = parse_duration_s(wait_duration)

    async def work() -> int:
        async with cluster.client(kubeconfig, context) as api:
            deadline = time.monotonic() + (seconds if wait else 0)
            while True:
                facts = await gather(api, context, namespace)
                if not facts.enabled:
                    raise click.ClickException(
                        f"cluster {facts.name}: no Service {namespace}/clustermesh-apiserver: "
                        "run `isthmus clustermesh enable`"
                    )
                store = await _store_ready(api, namespace)
                mesh = await ask_agents(api, namespace, tuple(facts.connected))
                copies = None
                if facts.kvstoremesh:
                    copies = await ask_kvstoremesh(api, namespace, tuple(facts.connected))
                good = mesh.ready and store and (copies is None or copies.ready)
                if good or time.monotonic() > deadline:
                    break
                await asyncio.sleep(STEP_S)
            _print(facts, mesh, copies, store, output)
            return 0 if good else 1

    cluster.run(work())


async def ask_agents(
    api: Client, namespace: str, expected: Sequence[str]
) -> mesh_status.MeshStatus:
    """Ask every agent of a cluster, all at once."""
    argv = ["cilium-dbg", "status", "-o", "json"]
    return await _ask(
        api, namespace, (AGENT, "cilium-agent", argv), expected, mesh_status.add_agent
    )


async def ask_kvstoremesh(
    api: Client, namespace: str, expected: Sequence[str]
) -> mesh_status.MeshStatus:
    """Ask every copying process how it is connected, and how old its copies are."""
    argv = ["clustermesh-apiserver", "kvstoremesh-dbg", "status", "-o", "json"]
    where = (f"k8s-app={mesh_facts.APISERVER}", KVSTOREMESH, argv)
    return await _ask(api, namespace, where, expected, mesh_status.add_kvstoremesh)


async def _ask(
    api: Client,
    namespace: str,
    where: tuple[str, str, Sequence[str]],
    expected: Sequence[str],
    add: Callable[[mesh_status.MeshStatus, str, Any], None],
) -> mesh_status.MeshStatus:
    """Run a command in a container of every pod with a label, all at once."""
    found = mesh_status.MeshStatus(expected=tuple(expected))
    label, container, argv = where
    pods = await api.list(resources.untyped(resources.PODS), namespace, label_selector=label)

    async def ask(name: str) -> None:
        try:
            result = await api.exec(namespace, name, container, argv, EXEC_TIMEOUT_S)
            said = result.stderr.decode(errors="replace").strip()
            if not result.stdout.strip():
                raise OSError(said or f"exit status {result.exit_code}")
            add(found, name, json.loads(result.stdout))
        except (OSError, ValueError) as error:
            found.unreachable[name] = f"does not answer: {error}"

    async with asyncio.TaskGroup() as tasks:
        for pod in pods:
            tasks.create_task(ask(pod["metadata"]["name"]))
    return found


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


async def _authority(api: Client, namespace: str, shared: KeyPair | None = None) -> KeyPair:
    """The cluster's CA from its Secret, made (or copied) when absent."""
    data = cluster.secret_data(await cluster.read(api, "Secret", CA_SECRET, namespace))
    if data.get("ca.crt") and data.get("ca.key"):
        return KeyPair(data["ca.crt"], data["ca.key"])
    made = shared or create_ca(datetime.now(UTC))
    content = {"ca.crt": made.certificate, "ca.key": made.key}
    await cluster.apply(api, [cluster.secret(CA_SECRET, namespace, content)])
    return made


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
        peer_port=PEER_PORT,
        trust=sha256(trust).hexdigest()[:16],
    )
    if not kvstoremesh:
        for item in found:
            if item["kind"] == "Deployment":
                spec = item["spec"]["template"]["spec"]
                for what in ("containers", "volumes"):
                    spec[what] = [i for i in spec[what] if i["name"] != KVSTOREMESH]
    return found


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


async def _store_ready(api: Client, namespace: str) -> bool:
    found = await api.get(resources.untyped(resources.DEPLOYMENTS), mesh_facts.APISERVER, namespace)
    status_ = found.get("status") or {}
    current = status_.get("observedGeneration", 0) >= found["metadata"].get("generation", 0)
    return bool(current and status_.get("readyReplicas"))


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
        if data and (left := check.expires_at(data["tls.crt"]) - now) < check.SOON:
            expiry.append(f"Certificate in Secret {name} expires in {left.days} days")
    text = mesh_status.lines(mesh, facts.service_type, facts.addresses, facts.port, expiry, copies)
    if not store:
        text = [
            "❌ Deployment clustermesh-apiserver is not ready" if "is ready" in line else line
            for line in text
        ]
    click.echo("\n".join(text))

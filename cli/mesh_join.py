"""``isthmus clustermesh grant`` and ``join``: clusters of people who share no kubeconfig. Adapter.

``grant`` writes what a token will open and prints the token; the cluster's join service does the
rest. ``join`` brings the token to that service. What they say to each other is docs/join.md.
"""

import secrets
import string
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

import click

from certs import check, exchange, signing
from certs.profiles import REMOTE_SECRET, SERVER_SECRET, mesh_profiles, server_host
from cli import (
    cluster,
    mesh_checks,
    mesh_facts,
    mesh_grants,
    mesh_secrets,
    options,
    output,
)
from cli.mesh_facts import JOIN_PORT, ClusterFacts, gather
from clustermesh_apiserver import grants
from clustermesh_apiserver.grants import GRANTS_SECRET, Grant
from kube import connections, resources
from kube.connections import CLUSTERS_SECRET, KVSTOREMESH_SECRET, Connection
from kube.port import Client
from mesh import joining
from model.duration import parse_duration_s
from wire.join import (
    SECRET_BYTES,
    Introduction,
    Token,
    decode_token,
    encode_secret,
    encode_token,
    format_place,
    parse_place,
    secret_digest,
)

JOIN = "join"  # the container
LIVE_LIMIT = 16  # tokens at a time; all lie in one Secret
ID_LENGTH = 10


@click.group(invoke_without_command=True)
@options.command
@click.option("--ttl", default="15m", show_default=True, help="How long the token is good.")
@click.option("--name", "peer", default="", metavar="PEER", help="Only that cluster may use it.")
@click.option(
    "--source-endpoint", default="", metavar="IP:PORT", help="Of the mesh store, for the other."
)
@click.option(
    "--join-endpoint",
    "places",
    multiple=True,
    metavar="HOST:PORT",
    help=f"Of the join service (port {JOIN_PORT}), as the other side reaches it.",
)
@click.pass_context
def grant(
    ctx: click.Context,
    context: str,
    kubeconfig: str,
    namespace: str,
    ttl: str,
    peer: str,
    source_endpoint: str,
    places: tuple[str, ...],
) -> None:
    """Print a token with which one other cluster may join this one, once."""
    if ctx.invoked_subcommand is not None:
        return
    seconds = parse_duration_s(ttl)
    if not 1 <= seconds <= grants.TTL_LIMIT_S:
        raise click.ClickException(f'--ttl "{ttl}" is not usable: use 1s to 24h')

    async def work() -> None:
        async with cluster.client(kubeconfig, context) as api:
            facts = await gather(api, context, namespace)
            facts = mesh_facts.at(facts, source_endpoint, "--source-endpoint")
            await _may_grant(api, facts)
            where = places or tuple(format_place(a, JOIN_PORT) for a in facts.addresses)
            for place in where:
                parse_place(place)
            token = await _grant(api, facts, peer, seconds, where)
            click.echo(
                f"Cluster {facts.name} (ID {facts.id}) waits for "
                f"{f'cluster {peer}' if peer else 'one cluster'} for {ttl} at {', '.join(where)}.\n"
                f"Authority: SHA-256 {token.fingerprint}\n"
                "On the other side, where this is a secret until it is used:\n\n"
                "  isthmus clustermesh join TOKEN\n",
                err=True,
            )
            click.echo(encode_token(token))

    cluster.run(work())


@grant.command("list")
@options.command
@output.option
def list_command(context: str, kubeconfig: str, namespace: str, how: str) -> None:
    """The tokens of a cluster, and what became of them."""

    async def work() -> None:
        async with cluster.client(kubeconfig, context) as api:
            found = await mesh_grants.read(api, namespace)
        now = time.time()
        rows = [
            {
                "id": g.id,
                "state": g.state(now),
                "for": g.peer,
                "expires": _moment(g.expires),
                "redeemed-by": g.redeemed_by,
                "redeemed": _moment(g.redeemed) if g.redeemed else "",
            }
            for g in sorted(found.by_id.values(), key=lambda g: g.created)
        ]
        if how == "json":
            click.echo(output.as_json(rows))
            return
        titles = ["ID", "STATE", "FOR", "EXPIRES", "REDEEMED BY", "REDEEMED"]
        click.echo(output.table([titles, *([str(v) for v in r.values()] for r in rows)]))
        for problem in found.problems:
            click.echo(problem, err=True)

    cluster.run(work())


@grant.command()
@options.command
@click.argument("identifier", metavar="ID|all")
def revoke(context: str, kubeconfig: str, namespace: str, identifier: str) -> None:
    """Make a token useless. A cluster that has used it stays connected."""

    async def work() -> None:
        async with cluster.client(kubeconfig, context) as api:
            secret = await cluster.read(api, "Secret", GRANTS_SECRET, namespace)
            names = [n for n in cluster.secret_data(secret) if not n.startswith(grants.TOLD)]
            chosen = names if identifier == "all" else [identifier]
            if identifier != "all" and identifier not in names:
                raise click.ClickException(
                    f"there is no grant {identifier}: see `isthmus clustermesh grant list`"
                )
            if chosen:
                await mesh_grants.patch(api, namespace, dict.fromkeys(chosen))
            click.echo(f"✅ Revoked {len(chosen)} of {len(names)} grants")

    cluster.run(work())


@click.command()
@options.command
@click.argument("text", metavar="TOKEN")
@click.option(
    "--source-endpoint", default="", metavar="IP:PORT", help="Of the mesh store, for the other."
)
@click.option("--replace", is_flag=True, help="Even if a cluster of that name is connected.")
def join(
    context: str,
    kubeconfig: str,
    namespace: str,
    text: str,
    source_endpoint: str,
    replace: bool,
) -> None:
    """Join the cluster that gave out TOKEN (- reads it from standard input)."""
    token = decode_token(sys.stdin.read() if text == "-" else text)

    async def work() -> None:
        async with cluster.client(kubeconfig, context) as api:
            facts = await gather(api, context, namespace)
            facts = mesh_facts.at(facts, source_endpoint, "--source-endpoint")
            problems = [str(f) for f in mesh_checks.alone(facts, datetime.now(UTC)) if f.blocking]
            mesh_secrets.refuse_declared(facts, [token.cluster])
            if token.cluster in facts.connected and not replace:
                problems.append(
                    f"cluster {facts.name} is already connected to a cluster {token.cluster}: "
                    "use --replace to exchange certificates anew, or disconnect it first"
                )
            _stop_at(problems)
            signs = await mesh_grants.signing(api, facts)
            own = introduce(facts, signs.following)
            kept = _Kept(api, namespace, f"clustermesh-join-{token.id}")

            async def unfit(other: Introduction) -> Sequence[str]:
                return [str(p) for p in joining.problems(own.peer(), other.peer(), facts.connected)]

            now = datetime.now(UTC)
            try:
                outcome = await exchange.redeem(token, own, signs.ca, kept, unfit, now)
            except ValueError:  # refused for good; what could be repeated is an OSError
                await kept.forget()
                raise
            await connections.put(api, namespace, _connection(facts, outcome))
            told = grants.told(own, outcome.cluster.name, time.time())
            await mesh_grants.patch(api, namespace, told)
            await kept.forget()
            click.echo(f"✅ Joined cluster {facts.name} <=> {outcome.cluster.name}!")

    cluster.run(work())


def introduce(facts: ClusterFacts, following: str = "") -> Introduction:
    """What the other side is told of a cluster; neighbouring prefixes as one.

    ``following``: PEM of the authority that is about to sign.
    """
    (own, *_) = check.authorities(facts.ca).values()
    prefixes = [ip_network(str(prefix)) for prefix in facts.pod_cidrs]
    four = collapse_addresses(p for p in prefixes if isinstance(p, IPv4Network))
    six = collapse_addresses(p for p in prefixes if isinstance(p, IPv6Network))
    return Introduction(
        facts.name,
        facts.id,
        facts.max_connected,
        facts.tunnel,
        [str(prefix) for prefix in (*four, *six)],
        list(facts.addresses),
        facts.port,
        own.decode(),
        following,
    )


@dataclass(frozen=True, slots=True)
class _Kept:
    """``certs.exchange.Kept`` as a Secret, until the connection stands."""

    api: Client
    namespace: str
    name: str

    async def load(self) -> Mapping[str, bytes]:
        return cluster.secret_data(
            await cluster.read(self.api, "Secret", self.name, self.namespace)
        )

    async def save(self, data: Mapping[str, bytes]) -> None:
        await cluster.apply(self.api, [cluster.secret(self.name, self.namespace, data)])

    async def forget(self) -> None:
        await self.api.delete(resources.SECRETS, self.name, self.namespace)


def _connection(facts: ClusterFacts, outcome: exchange.Outcome) -> Connection:
    other = outcome.cluster
    files = connections.credential_base(other.name)
    config = connections.store_config(
        server_host(other.name), other.port, tuple(other.addresses), files
    )
    here = mesh_facts.local_config(facts) if facts.kvstoremesh else b""
    return Connection(other.name, other.id, config, outcome.credentials, here)


async def _may_grant(api: Client, facts: ClusterFacts) -> None:
    now = datetime.now(UTC)
    problems = [str(f) for f in mesh_checks.alone(facts, now) if f.blocking]
    _stop_at(problems)
    why = check.problem(SERVER_SECRET, facts.server["tls.crt"], facts.ca, now)
    if why:
        problems.append(
            f"cluster {facts.name}: Secret {facts.namespace}/{why}: finish `isthmus certs rotate`, "
            "or run `isthmus clustermesh enable`"
        )
    deployment = await api.get(
        resources.untyped(resources.DEPLOYMENTS), mesh_facts.APISERVER, facts.namespace
    )
    containers = deployment["spec"]["template"]["spec"]["containers"]
    if all(c["name"] != JOIN for c in containers):
        problems.append(
            f"cluster {facts.name}: Deployment {facts.namespace}/{mesh_facts.APISERVER} has no "
            f"container {JOIN}: run `isthmus clustermesh enable` there"
        )
    _stop_at(problems)


async def _grant(
    api: Client, facts: ClusterFacts, peer: str, seconds: float, places: Sequence[str]
) -> Token:
    now = time.time()
    present = await mesh_grants.read(api, facts.namespace)
    if sum(g.state(now) == "open" for g in present.by_id.values()) >= LIVE_LIMIT:
        raise click.ClickException(
            f"cluster {facts.name} has {LIVE_LIMIT} open grants: "
            "revoke some (`isthmus clustermesh grant list`)"
        )
    secret = encode_secret(secrets.token_bytes(SECRET_BYTES))
    identifier = "".join(
        secrets.choice(string.ascii_lowercase + string.digits) for _ in range(ID_LENGTH)
    )
    own = introduce(facts, (await mesh_grants.signing(api, facts)).following)
    request = signing.make_request(mesh_profiles(facts.name)[REMOTE_SECRET].common_name)
    made = Grant(
        identifier,
        now,
        now + seconds,
        secret_digest(secret),
        own,
        request.certificate.decode(),
        request.key.decode(),
        peer,
        mesh_facts.local_config(facts).decode() if facts.kvstoremesh else "",
    )
    # The join service may change these Secrets and not make any.
    for name in (CLUSTERS_SECRET, KVSTOREMESH_SECRET) if facts.kvstoremesh else (CLUSTERS_SECRET,):
        if await cluster.read(api, "Secret", name, facts.namespace) is None:
            await cluster.apply(api, [cluster.secret(name, facts.namespace, {})])
    change: dict[str, bytes | None] = dict.fromkeys(grants.outdated(present, now))
    await mesh_grants.patch(api, facts.namespace, {**change, identifier: grants.encode(made)})
    fingerprint = signing.fingerprint(own.authority.encode())
    return Token(identifier, facts.name, facts.id, list(places), fingerprint, secret)


def _stop_at(problems: Sequence[str]) -> None:
    if problems:
        raise click.ClickException("\n       ".join(problems))


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

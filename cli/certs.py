"""``isthmus certs``: what there is, and new certificates while everything runs. Adapter."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import click

from certs import check, rotation
from certs.profiles import CA_SECRET, REMOTE_SECRET, SERVER_SECRET, mesh_profiles
from certs.rotation import Loaded, Member
from certs.store import CertificateStore, Place
from cli import cluster, mesh_facts, options, output
from cli.mesh_facts import ClusterFacts, gather
from kube import resources
from kube.port import ApiError, Client

STEP_S = 0.5
EXEC_TIMEOUT_S = 20.0
AGENT = "k8s-app=cilium"
TRUST, ISSUER = "isthmus.io/trust", "isthmus.io/issuer"  # of the pod: what it was started with
SHOWN = 12  # digits of an authority's ID


@dataclass(frozen=True, slots=True)
class ClusterSecrets:
    """``certs.store.Secrets`` of one cluster."""

    api: Client
    namespace: str

    async def read(self, name: str) -> Mapping[str, bytes]:
        return cluster.secret_data(await cluster.read(self.api, "Secret", name, self.namespace))

    async def write(self, name: str, data: Mapping[str, bytes | None]) -> None:
        if await cluster.read(self.api, "Secret", name, self.namespace) is None:
            present = {k: v for k, v in data.items() if v is not None}
            item = cluster.secret(name, self.namespace, present, "kubernetes.io/tls")
            await cluster.apply(self.api, [item])
            return
        change: dict[str, str | None] = {key: None for key, v in data.items() if v is None}
        change |= mesh_facts.encode({k: v for k, v in data.items() if v is not None})
        await self.api.patch(
            resources.untyped(resources.SECRETS), name, {"data": change}, self.namespace
        )


@dataclass(frozen=True, slots=True)
class Side:
    """A cluster that takes part."""

    api: Client
    facts: ClusterFacts

    def place(self) -> Place:
        """Where its certificates are."""
        facts = self.facts
        secrets = ClusterSecrets(self.api, facts.namespace)
        return Place(secrets, mesh_profiles(facts.name, facts.namespace))


@click.group()
@options.group
def certs() -> None:
    """Certificates of the mesh: what there is, and new ones."""


@certs.command("list")
@options.command
@output.option
def list_command(context: str, kubeconfig: str, namespace: str, how: str) -> None:
    """The certificates of a cluster, and until when they are good. Exit 1 when one is not."""

    async def work() -> int:
        async with cluster.client(kubeconfig, context) as api:
            facts = await gather(api, context, namespace)
            names = (CA_SECRET, *mesh_profiles(facts.name, namespace))
            secrets = ClusterSecrets(api, namespace)
            found = {name: await secrets.read(name) for name in names}
        if not any(found.values()):
            raise click.ClickException(
                f"cluster {facts.name}: there are no certificates: run `isthmus clustermesh enable`"
            )
        rows = [describe(name, data, datetime.now(UTC)) for name, data in found.items()]
        if how == "json":
            click.echo(output.as_json(rows))
        else:
            titles = ["SECRET", "SUBJECT", "AUTHORITY", "EXPIRES", "STATE"]
            cells = [
                [r["secret"], r["subject"], r["authority"][:SHOWN], r["expires"][:10], r["state"]]
                for r in rows
            ]
            click.echo(output.table([titles, *cells]))
        return 1 if any(r["state"] not in ("good", "expires soon") for r in rows) else 0

    cluster.run(work())


@certs.command()
@options.command
@click.option("--ca", is_flag=True, help="Also replace the authority that signs them.")
@click.option(
    "--destination-context",
    "destinations",
    multiple=True,
    help="A connected cluster; with --ca each must be named.",
)
@click.option(
    "--ignore-authority",
    "ignored",
    multiple=True,
    metavar="ID",
    help="An authority of a cluster that is gone.",
)
@click.option("--wait-duration", default="10m", show_default=True)
@click.option("-o", "--output", "how", type=click.Choice(["text", "json"]), default="text")
def rotate(
    context: str,
    kubeconfig: str,
    namespace: str,
    ca: bool,
    destinations: tuple[str, ...],
    ignored: tuple[str, ...],
    wait_duration: str,
    how: str,
) -> None:
    """Renew all certificates of a cluster while the mesh runs; begun again, it goes on."""
    from model.duration import parse_duration_s

    seconds = parse_duration_s(wait_duration)

    async def work() -> None:
        async with AsyncExitStack() as stack:
            sides: dict[str, Side] = {}
            for name in (context, *(n for text in destinations for n in text.split(",") if n)):
                api = await stack.enter_async_context(cluster.client(kubeconfig, name))
                side = Side(api, await gather(api, name, namespace))
                sides[side.facts.name] = side
            own = next(iter(sides))
            store = CertificateStore({name: side.place() for name, side in sides.items()})
            members = await store.read()
            now = datetime.now(UTC).replace(microsecond=0)
            renew = {} if ca else {own: now}
            if ca:
                _refuse(sides, store.strangers(members), ignored)
                await store.prepare(members[0], now)
            said = _Told(how)
            await _converge(sides, store, renew, time.monotonic() + seconds, said)
            said.end(own, ca)

    cluster.run(work())


def describe(secret: str, data: Mapping[str, bytes], now: datetime) -> dict[str, str]:
    """One Secret, for people and scripts."""
    authority = secret == CA_SECRET
    pem, trust = data.get("ca.crt" if authority else "tls.crt", b""), data.get("ca.crt", b"")
    row = {"secret": secret, "subject": "", "authority": "", "issued": "", "expires": ""}
    state = check.problem(secret, pem, trust, now)
    try:
        issued, expires = check.validity(pem)
        row |= {
            "subject": check.subject(pem)[0],
            "authority": check.issuer(pem, check.authorities(trust)),
            "issued": issued.isoformat(),
            "expires": expires.isoformat(),
        }
        state = state or ("expires soon" if expires - now < check.SOON else "good")
    except ValueError:
        state = "absent" if not pem else state
    return {**row, "state": state.removeprefix(f"{secret}: ")}


class _Told:
    """What happened, as lines at once or as one JSON document at the end."""

    def __init__(self, how: str) -> None:
        self._json = how == "json"
        self._steps: list[dict[str, str]] = []

    def step(self, step: rotation.Step) -> None:
        what = type(step).__name__.lower()
        secret = getattr(step, "secret", "")
        self._steps.append({"cluster": step.member, "step": what, "secret": secret})
        if not self._json:
            words = {
                "trust": f"Secret {secret} trusts {len(getattr(step, 'authorities', ()))}",
                "issue": f"certificate in Secret {secret} is new",
                "restart": "the mesh store starts anew with other authorities",
                "promote": "the new authority signs; the old one's key is destroyed",
                "forget": "the old authority is forgotten",
            }
            click.echo(f"{step.member}: {words[what]}")

    def end(self, name: str, ca: bool) -> None:
        if self._json:
            click.echo(output.as_json({"cluster": name, "steps": self._steps}))
            return
        click.echo(f"✅ {'Authority and certificates' if ca else 'Certificates'} of {name} are new")


async def _converge(
    sides: Mapping[str, Side],
    store: CertificateStore,
    renew: Mapping[str, datetime],
    deadline: float,
    told: _Told,
) -> None:
    while True:
        now = datetime.now(UTC).replace(microsecond=0)
        members = [await _observed(sides[m.name], m) for m in await store.read()]
        plan = rotation.plan(members, now, renew)
        if plan.done:
            return
        for step in plan.steps:
            if isinstance(step, rotation.Restart):
                await _restart(sides[step.member])
            else:
                await store.carry_out(step, now)
            told.step(step)
        if time.monotonic() > deadline:
            raise click.ClickException(
                "not finished in time, and nothing is lost: run it again and it goes on. "
                + "; ".join(plan.waiting)
            )
        if not plan.steps:
            await asyncio.sleep(STEP_S)


def _refuse(
    sides: Mapping[str, Side], strangers: Mapping[str, set[str]], ignored: Sequence[str]
) -> None:
    """A cluster that does not learn of the new authority would be cut off."""
    own = next(iter(sides.values())).facts
    if own.joined:
        raise click.ClickException(
            f"cluster {own.name} is joined by certificates of its own authority to "
            f"{', '.join(sorted(own.joined))}, which pin that authority: `isthmus clustermesh "
            "connect` them first, or disconnect them, rotate, and join them again"
        )
    missing = sorted(set(own.connected) - sides.keys())
    if missing:
        raise click.ClickException(
            f"cluster {own.name} is connected to {', '.join(missing)}: they must learn the new "
            "authority: name their contexts with --destination-context"
        )
    left = {a for a in strangers.get(own.name, set()) if not a.startswith(tuple(ignored) or "-")}
    if left:
        raise click.ClickException(
            f"cluster {own.name} trusts authorities of clusters that are not named here: "
            f"{', '.join(sorted(left))}: name their contexts with --destination-context, or, if "
            "they are gone, the authority with --ignore-authority"
        )


async def _observed(side: Side, member: Member) -> Member:
    """With what running processes use."""
    data = await ClusterSecrets(side.api, side.facts.namespace).read(SERVER_SECRET)
    return replace(
        member,
        store=await _store(side, member, data.get("ca.crt", b"")),
        clients=await _agents(side, member),
    )


async def _store(side: Side, member: Member, trust: bytes) -> Loaded | None:
    try:
        found = await side.api.get(
            resources.untyped(resources.DEPLOYMENTS), mesh_facts.APISERVER, side.facts.namespace
        )
    except ApiError as error:
        if not error.not_found:
            raise
        raise click.ClickException(
            f"cluster {member.name}: there is no mesh store: run `isthmus clustermesh enable`"
        ) from error
    status = found.get("status") or {}
    current = status.get("observedGeneration", 0) >= found["metadata"].get("generation", 0)
    ready, every = status.get("readyReplicas", 0), status.get("replicas", 0)
    if not (current and ready and ready == every == status.get("updatedReplicas", 0)):
        return None
    said = found["spec"]["template"]["metadata"].get("annotations") or {}
    stored = member.secrets[SERVER_SECRET]
    fresh = said.get(TRUST) == _digest(trust)
    issuers = {stored.issuer, said.get(ISSUER, "")} - {""}
    return Loaded(stored.trust if fresh else frozenset(), frozenset(issuers))


def _digest(trust: bytes) -> str:
    return sha256(trust).hexdigest()[:16]


async def _restart(side: Side) -> None:
    """The pod is replaced; agents keep what they know meanwhile."""
    data = await ClusterSecrets(side.api, side.facts.namespace).read(SERVER_SECRET)
    issuer = check.issuer(data["tls.crt"], check.authorities(data["ca.crt"]))
    annotations = {TRUST: _digest(data["ca.crt"]), ISSUER: issuer}
    await side.api.patch(
        resources.untyped(resources.DEPLOYMENTS),
        mesh_facts.APISERVER,
        {"spec": {"template": {"metadata": {"annotations": annotations}}}},
        side.facts.namespace,
    )


async def _agents(side: Side, member: Member) -> Loaded | None:
    """What the agents of a cluster present and accept; ``None`` when one does not say."""
    stored = member.secrets[REMOTE_SECRET]
    pods = await side.api.list(
        resources.untyped(resources.PODS), side.facts.namespace, label_selector=AGENT
    )
    if not side.facts.connected.keys() - side.facts.joined or not pods:
        return Loaded(stored.trust, frozenset())
    answers: list[Mapping[str, Any]] = []
    silent = False

    async def ask(name: str) -> None:
        argv = ["cilium-dbg", "status", "-o", "json"]
        result = await side.api.exec(
            side.facts.namespace, name, "cilium-agent", argv, EXEC_TIMEOUT_S
        )
        answers.append(json.loads(result.stdout))

    try:
        async with asyncio.TaskGroup() as tasks:
            for pod in pods:
                tasks.create_task(ask(pod["metadata"]["name"]))
    except* (OSError, ValueError):
        silent = True
    if silent:
        return None
    trust, issuers = stored.trust, frozenset[str]()
    for answer in answers:
        remotes = (answer.get("cluster-mesh") or {}).get("clusters") or []
        said = {r["name"]: r.get("certificate") for r in remotes}
        for name in side.facts.connected.keys() - side.facts.joined:
            certificate = said.get(name)
            ready = any(r["name"] == name and r.get("ready") for r in remotes)
            if certificate is None or not ready:
                return None
            trust &= frozenset(certificate["authorities"])
            issuers |= {certificate["issuer"]}
    return Loaded(trust, issuers)

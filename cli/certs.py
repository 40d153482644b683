"""``isthmus certs``: what there is, and new certificates while everything runs. Adapter."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import click

from certs import check, rotation
from certs.profiles import CA_SECRET, SERVER_SECRET, mesh_profiles
from certs.store import CertificateStore
from cli import cluster, mesh_facts, options, output
from cli.certs_loaded import ISSUER, TRUST, ClusterSecrets, Side, digest, observed
from cli.mesh_facts import CLUSTERS_SECRET, KVSTOREMESH_SECRET, gather
from kube import resources

STEP_S = 0.5
SHOWN = 12  # digits of an authority's ID


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
        for name, held in facts.own.items():
            secret = KVSTOREMESH_SECRET if facts.kvstoremesh else CLUSTERS_SECRET
            where = f"{secret} ({name})"  # one Secret has those of many clusters
            found[where] = {"tls.crt": held["crt"], "ca.crt": held["ca"]}
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
@click.option(
    "--peer-delay",
    default="2m",
    show_default=True,
    help="How long agents of a cluster joined by a token may take to read new files.",
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
    peer_delay: str,
    wait_duration: str,
    how: str,
) -> None:
    """Renew all certificates of a cluster while the mesh runs; begun again, it goes on."""
    from model.duration import parse_duration_s

    seconds = parse_duration_s(wait_duration)
    delay = timedelta(seconds=parse_duration_s(peer_delay))

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
            await _converge(sides, store, renew, delay, time.monotonic() + seconds, said)
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
        self._waits: set[str] = set()

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

    def waits(self, reasons: Sequence[str]) -> None:
        """Each once, for people who have to do something meanwhile."""
        for reason in reasons:
            if reason not in self._waits and not self._json:
                click.echo(f"⌛ {reason}", err=True)
        self._waits |= set(reasons)

    def end(self, name: str, ca: bool) -> None:
        if self._json:
            click.echo(output.as_json({"cluster": name, "steps": self._steps}))
            return
        click.echo(f"✅ {'Authority and certificates' if ca else 'Certificates'} of {name} are new")


async def _converge(
    sides: Mapping[str, Side],
    store: CertificateStore,
    renew: Mapping[str, datetime],
    delay: timedelta,
    deadline: float,
    told: _Told,
) -> None:
    while True:
        now = datetime.now(UTC).replace(microsecond=0)
        members = [await observed(sides[m.name], m) for m in await store.read()]
        plan = rotation.plan(members, now, renew, delay)
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
            told.waits(plan.waiting)
            await asyncio.sleep(STEP_S)


def _refuse(
    sides: Mapping[str, Side], strangers: Mapping[str, set[str]], ignored: Sequence[str]
) -> None:
    """A cluster that does not learn of the new authority would be cut off."""
    own = next(iter(sides.values())).facts
    by_object = sorted(own.joined & own.declared.keys())
    if by_object:
        raise click.ClickException(
            f"cluster {own.name} is connected by objects (ClusterMeshPeer) with certificates of "
            f"their own to {', '.join(by_object)}, which pin its authority: delete these objects, "
            "rotate, and declare them with new certificates"
        )
    missing = sorted(set(own.connected) - own.joined - sides.keys())
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


async def _restart(side: Side) -> None:
    """The pod is replaced; agents keep what they know meanwhile."""
    data = await ClusterSecrets(side.api, side.facts.namespace).read(SERVER_SECRET)
    issuer = check.issuer(data["tls.crt"], check.authorities(data["ca.crt"]))
    annotations = {TRUST: digest(data["ca.crt"]), ISSUER: issuer}
    await side.api.patch(
        resources.untyped(resources.DEPLOYMENTS),
        mesh_facts.APISERVER,
        {"spec": {"template": {"metadata": {"annotations": annotations}}}},
        side.facts.namespace,
    )

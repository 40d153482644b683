"""The Secret of join tokens, and which authority signs for others at this moment. Adapter."""

from collections.abc import Mapping
from dataclasses import dataclass

import click

from certs.issue import KeyPair
from certs.profiles import CA_SECRET
from certs.store import NEXT, CertificateStore, signer
from cli import certs_loaded, cluster, mesh_facts
from cli.certs_loaded import Side
from cli.mesh_facts import ClusterFacts
from clustermesh_apiserver import grants
from clustermesh_apiserver.grants import GRANTS_SECRET
from kube import resources
from kube.port import Client


@dataclass(frozen=True, slots=True)
class Signing:
    """What signs for other clusters; ``following`` (PEM) while an authority is being replaced."""

    ca: KeyPair
    following: str = ""


async def read(api: Client, namespace: str) -> grants.Grants:
    """Every token, and what joined clusters were told."""
    secret = await cluster.read(api, "Secret", GRANTS_SECRET, namespace)
    return grants.parse(cluster.secret_data(secret))


async def patch(api: Client, namespace: str, data: Mapping[str, bytes | None]) -> None:
    """Set keys; ``None`` removes one."""
    if await cluster.read(api, "Secret", GRANTS_SECRET, namespace) is None:
        await cluster.apply(api, [cluster.secret(GRANTS_SECRET, namespace, {})])
    kind = resources.untyped(resources.SECRETS)
    await api.patch(kind, GRANTS_SECRET, {"data": mesh_facts.encode(data)}, namespace)


async def signing(api: Client, facts: ClusterFacts) -> Signing:
    """The next authority as soon as there is one: what it signs need not be exchanged again.

    Raises ``click.ClickException`` when there is no key, or when the mesh store would refuse what
    the next authority signs.
    """
    data = cluster.secret_data(await cluster.read(api, "Secret", CA_SECRET, facts.namespace))
    chosen = data.get(NEXT) or data.get("ca.crt", b"")
    ca = signer(chosen, data)
    if ca is None:
        raise click.ClickException(
            f"Secret {facts.namespace}/{CA_SECRET} has no ca.key, which must sign for the other "
            "cluster: run `isthmus clustermesh enable`"
        )
    if NEXT not in data:
        return Signing(ca)
    side = Side(api, facts)
    (member,) = await CertificateStore({facts.name: side.place()}).read()
    store = await certs_loaded.of_store(side, member)
    if store is None or member.next not in store.trust:
        raise click.ClickException(
            f"cluster {facts.name} is replacing its authority, and its mesh store does not accept "
            "the next one yet: run `isthmus certs rotate --ca` until it says that it waits for "
            "clusters joined by a token"
        )
    return Signing(ca, chosen.decode())

"""Which certificates the processes of a cluster have loaded: asked where they run. Adapter."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import click

from certs.profiles import LOCAL_SECRET, REMOTE_SECRET, SERVER_SECRET, mesh_profiles
from certs.rotation import Authority, Loaded, Member, Stored, Told
from certs.store import Place
from cli import cluster, mesh_facts
from cli.mesh_facts import ClusterFacts
from clustermesh_apiserver import grants
from clustermesh_apiserver.grants import GRANTS_SECRET
from kube import resources
from kube.port import ApiError, Client
from reconcile.tasks import TaskGroup

EXEC_TIMEOUT_S = 20.0
AGENT = "k8s-app=cilium"
TRUST, ISSUER = "isthmus.io/trust", "isthmus.io/issuer"  # of the pod: what it was started with
Answer = Mapping[str, Mapping[str, Any]]  # a process's remote clusters by name


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


async def observed(side: Side, member: Member) -> Member:
    """With what running processes use, and what clusters joined by a token were told."""
    return replace(
        member,
        store=await of_store(side, member),
        clients=await _clients(side, member),
        joined=await _joined(side),
    )


async def _joined(side: Side) -> dict[str, Told]:
    if not side.facts.joined:
        return {}
    secrets = ClusterSecrets(side.api, side.facts.namespace)
    known = grants.parse(await secrets.read(GRANTS_SECRET)).told
    return {
        name: Told(frozenset(known[name].authorities), datetime.fromtimestamp(known[name].at, UTC))
        if name in known
        else Told()
        for name in side.facts.joined
    }


async def of_store(side: Side, member: Member) -> Loaded | None:
    """What the mesh store uses; ``None`` while it starts."""
    data = await ClusterSecrets(side.api, side.facts.namespace).read(SERVER_SECRET)
    trust = data.get("ca.crt", b"")
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
    fresh = said.get(TRUST) == digest(trust)
    issuers = {stored.issuer, said.get(ISSUER, "")} - {""}
    return Loaded(stored.trust if fresh else frozenset(), frozenset(issuers))


def digest(trust: bytes) -> str:
    """Of a bundle, for the annotation."""
    return sha256(trust).hexdigest()[:16]


async def _clients(side: Side, member: Member) -> Loaded | None:
    """What those present and accept who read other stores; ``None`` when one does not say."""
    stored = member.secrets[REMOTE_SECRET]
    names = side.facts.connected.keys() - side.facts.joined
    if not names:
        return Loaded(stored.trust, frozenset())
    agents = combined(await _agents(side), names, member.secrets, not side.facts.kvstoremesh)
    if agents is None or not side.facts.kvstoremesh:
        return agents
    mirrors = combined(await _mirrors(side), names, member.secrets, True)
    return None if mirrors is None else through_copies(mirrors, agents, member.authorities)


def combined(
    answers: Sequence[Answer] | None,
    names: Collection[str],
    secrets: Mapping[str, Stored],
    remote: bool,
) -> Loaded | None:
    """What all of them accept, and whatever one presents; ``None`` when one is not ready.

    ``remote``: they read other clusters' stores, and their own cluster's otherwise.
    """
    trust, issuers = secrets[REMOTE_SECRET if remote else LOCAL_SECRET].trust, frozenset[str]()
    if answers is None:
        return None
    for answer in answers:
        for name in names:
            said = answer.get(name) or {}
            certificate = said.get("certificate")
            if certificate is None or not said.get("ready"):
                return None
            trust &= frozenset(certificate["authorities"])
            issuers |= {certificate["issuer"]}
    return Loaded(trust, issuers)


def through_copies(mirrors: Loaded, agents: Loaded, own: frozenset[Authority]) -> Loaded:
    """With KVStoreMesh two kinds of clients: the mirror meets others' stores and agents their own,
    so that an authority of their own counts as known when both know it."""
    return Loaded(mirrors.trust - (own - agents.trust), mirrors.issuers | agents.issuers)


async def _agents(side: Side) -> list[Answer] | None:
    said = await _ask(side, AGENT, "cilium-agent", ["cilium-dbg", "status", "-o", "json"])
    if said is None:
        return None
    return [_by_name((answer.get("cluster-mesh") or {}).get("clusters") or []) for answer in said]


async def _mirrors(side: Side) -> list[Answer] | None:
    """None of them at all is no answer: one has to be there."""
    argv = ["clustermesh-apiserver", "kvstoremesh-dbg", "status", "-o", "json"]
    said = await _ask(side, f"k8s-app={mesh_facts.APISERVER}", mesh_facts.KVSTOREMESH, argv)
    return [_by_name(answer) for answer in said] if said else None


def _by_name(clusters: Sequence[Mapping[str, Any]]) -> Answer:
    return {found["name"]: found for found in clusters}


async def _ask(side: Side, label: str, container: str, argv: Sequence[str]) -> list[Any] | None:
    """What every pod with a label answers; ``None`` when one does not."""
    pods = await side.api.list(
        resources.untyped(resources.PODS), side.facts.namespace, label_selector=label
    )
    answers: list[Any] = []
    silent = False

    async def ask(name: str) -> None:
        result = await side.api.exec(side.facts.namespace, name, container, argv, EXEC_TIMEOUT_S)
        answers.append(json.loads(result.stdout))

    try:
        async with TaskGroup() as tasks:
            for pod in pods:
                tasks.create_task(ask(pod["metadata"]["name"]))
    except* (OSError, ValueError):
        silent = True
    return None if silent else answers

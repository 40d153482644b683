"""Declared peers → the connections to be made, and what is said of each object. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mesh import joining
from model.cluster import ClusterId, ClusterName, parse_cluster_id, parse_cluster_name
from model.duration import parse_duration_s
from wire.join import check_places, parse_place
from wire.k8s.cluster_mesh_peer import KIND, ClusterMeshPeerObject, spec_of
from wire.k8s.meta import Condition

READY = "Ready"


@dataclass(frozen=True, slots=True)
class Own:
    """The cluster in which peers are declared."""

    name: str
    id: int
    max_connected: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """A connection as an object declares it."""

    name: ClusterName
    id: ClusterId
    hosts: tuple[str, ...]
    port: int
    secret: str  # empty: the certificate that this cluster has for all
    cache_ttl: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an object has no effect: the reason of its condition, and a sentence with the remedy."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done; objects by name."""

    wanted: Mapping[str, Wanted]
    problems: Mapping[str, Problem]
    gone: tuple[str, ...]  # connections whose object is no more


def parse(peer: ClusterMeshPeerObject, own: Own) -> Wanted:
    """One object by itself. Raises ``ValueError`` naming the field and the remedy."""
    spec = spec_of(peer)
    where = "spec.clusterName" if spec.cluster_name else "metadata.name"
    try:
        name = parse_cluster_name(spec.cluster_name or peer.metadata.name)
        if name in ("default", own.name):
            whose = "no name for a mesh" if name == "default" else "this cluster's own name"
            raise ValueError(f'"{name}" is {whose}: name the other cluster')
        where = "spec.clusterID"
        number = parse_cluster_id(spec.cluster_id, own.max_connected)
        if number == own.id:
            raise ValueError(f"{number} is this cluster's own ID: give the other one its own")
        where = "spec.endpoints"
        places = [parse_place(text) for text in spec.endpoints]
        hosts, ports = tuple(host for host, _ in places), {port for _, port in places}
        if len(ports) > 1:
            raise ValueError(f"ports {', '.join(map(str, sorted(ports)))}: use one port for all")
        check_places(list(hosts), *(ports or {1}))
        where = "spec.cacheTTL"
        if spec.cache_ttl:
            parse_duration_s(spec.cache_ttl)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    secret = spec.secret_ref.name if spec.secret_ref else ""
    return Wanted(name, number, hosts, ports.pop(), secret, spec.cache_ttl)


def plan(
    peers: Iterable[ClusterMeshPeerObject],
    own: Own,
    connected: Mapping[str, int],
    declared: Mapping[str, str],
) -> Plan:
    """All objects together; of two that mean one cluster, the older one has it.

    ``connected`` are the connections that there are with their IDs, ``declared`` those of them that
    an object has made. What an object made stays while the object is there but cannot be used.
    """
    wanted: dict[str, Wanted] = {}
    problems: dict[str, Problem] = {}
    present = [p for p in peers if not p.metadata.deletion_timestamp]
    taken = {name: number for name, number in connected.items() if name not in declared}
    for peer in sorted(present, key=_seniority):
        name = peer.metadata.name
        try:
            found = parse(peer, own)
        except ValueError as error:
            problems[name] = Problem("Invalid", str(error))
            continue
        clash = _clash(found, own, taken, wanted)
        if clash:
            problems[name] = Problem("Conflict", clash)
            continue
        wanted[name] = found
        taken[found.name] = found.id
    names = {p.metadata.name for p in present}
    held = {found.name for found in wanted.values()}
    gone = tuple(
        sorted(
            cluster
            for cluster, name in declared.items()
            if cluster not in held and (name not in names or name in wanted)
        )
    )
    return Plan(wanted, problems, gone)


def _clash(found: Wanted, own: Own, taken: Mapping[str, int], wanted: Mapping[str, Wanted]) -> str:
    older = next((name for name, other in wanted.items() if other.name == found.name), "")
    if older:
        return (
            f"spec.clusterName: cluster {found.name} is declared by the older {KIND} {older}: "
            "delete one of the two"
        )
    if found.name in taken:
        return (
            f"spec.clusterName: cluster {found.name} was connected by a command, which this object "
            f"does not touch: run `isthmus clustermesh disconnect --destination-cluster "
            f"{found.name} --force`, or delete this object"
        )
    clashes = joining.clashes(own.name, found.name, found.id, taken)
    return f"spec.clusterID: {clashes[0]}" if clashes else ""


def _seniority(peer: ClusterMeshPeerObject) -> tuple[str, str]:
    return peer.metadata.creation_timestamp or "", peer.metadata.name


def conditions(
    before: Sequence[Condition], problem: Problem | None, generation: int, now: str
) -> list[dict[str, Any]]:
    """The condition ``Ready``; its time changes with its status only."""
    status = "False" if problem else "True"
    old = next((c for c in before if c.type == READY and c.status == status), None)
    return [
        {
            "type": READY,
            "status": status,
            "reason": problem.reason if problem else "Connected",
            "message": problem.message if problem else "the other cluster's store is read",
            "observedGeneration": generation,
            "lastTransitionTime": (old.last_transition_time if old else "") or now,
        }
    ]


def unchanged(before: Sequence[Condition], after: Sequence[Mapping[str, Any]]) -> bool:
    """Whether nothing is to be written."""
    return [
        {
            "type": c.type,
            "status": c.status,
            "reason": c.reason,
            "message": c.message,
            "observedGeneration": c.observed_generation,
            "lastTransitionTime": c.last_transition_time,
        }
        for c in before
    ] == list(after)


def format_age(seconds: float) -> str:
    """As people read it: ``0s``, ``45s``, ``12m``, ``3h``."""
    if seconds < 60:
        return f"{seconds:.0f}s"
    return f"{seconds // 60:.0f}m" if seconds < 3600 else f"{seconds // 3600:.0f}h"

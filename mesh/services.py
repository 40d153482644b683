"""One service's claims → its frontends with their backends. Pure.

The consumer's own Service says which frontends there are and whether others take part; a peer gives
backends only. Rules and their origin: docs/modules/mesh.md.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from mesh.guard import LocalPrefixes
from model.address import Address
from model.cluster import ClusterId
from model.local_service import LocalBackend, LocalService
from model.service import (
    L4,
    Affinity,
    Backend,
    BackendState,
    Frontend,
    LoadBalancer,
    Selection,
    SharedService,
)

_SELECTIONS = {"random": Selection.RANDOM, "maglev": Selection.MAGLEV}


@dataclass(frozen=True, slots=True)
class ServiceClaims:
    """Everything that is said about one service name."""

    service: LocalService | None = None
    backends: Mapping[Address, LocalBackend] | None = None  # from this cluster's endpoints
    shared: tuple[SharedService, ...] = ()  # one per cluster that publishes it


def merge(
    claims: ServiceClaims, local: LocalPrefixes, default: Selection
) -> tuple[dict[Frontend, LoadBalancer], tuple[str, ...]]:
    """Frontends of a service, and sentences about claims that were not heard."""
    service = claims.service
    if service is None or service.headless:
        return {}, ()
    own = claims.backends or {}
    peers, sentences = _peers(service, own, claims.shared, local)
    table: dict[Frontend, LoadBalancer] = {}
    for address, ports in service.frontends.items():
        for name, l4 in ports.items():
            frontend = Frontend(address, l4.port, l4.protocol)
            found = [
                *_own_backends(own.values(), name, l4, address.version),
                *_peer_backends(peers, name, l4, address.version),
            ]
            table[frontend] = balancer(service, frontend, found, default)
    return table, sentences


def _peers(
    service: LocalService,
    own: Mapping[Address, LocalBackend],
    shared: Iterable[SharedService],
    local: LocalPrefixes,
) -> tuple[dict[Address, SharedService], tuple[str, ...]]:
    """Which cluster's word counts for each address outside this cluster."""
    if not service.mesh.is_global:
        return {}, ()
    heard: dict[Address, SharedService] = {}
    sentences: list[str] = []
    for peer in sorted(shared, key=lambda s: s.cluster):
        if not (peer.shared and peer.include_external):
            continue
        for address in peer.backends:
            winner = ""
            if address in own or local.contains(address):
                winner = "this cluster"
            elif address in heard:
                winner = f"cluster {heard[address].cluster}"
            if winner:
                sentences.append(
                    f"Service {service.name}: backend {address} of cluster {peer.cluster} is not "
                    f"used because {winner} has that address: give the clusters pod CIDRs that "
                    "do not overlap"
                )
            else:
                heard[address] = peer
    return heard, tuple(sentences)


def _own_backends(
    backends: Iterable[LocalBackend], port_name: str, frontend: L4, version: int
) -> Iterable[Backend]:
    for backend in backends:
        target = backend.ports.get(port_name)
        if _matches(target, frontend, backend.address, version) and target is not None:
            yield Backend(
                backend.address,
                target.port,
                target.protocol,
                state=_state(backend),
                node=backend.node,
            )


def _state(backend: LocalBackend) -> BackendState:
    """An endpoint that is not ready keeps its connections, so it stays in the table."""
    if backend.terminating:
        return BackendState.TERMINATING if backend.serving else BackendState.QUARANTINED
    return BackendState.ACTIVE if backend.ready else BackendState.QUARANTINED


def _peer_backends(
    peers: Mapping[Address, SharedService], port_name: str, frontend: L4, version: int
) -> Iterable[Backend]:
    for address, peer in peers.items():
        target = peer.backends[address].get(port_name)
        if _matches(target, frontend, address, version) and target is not None:
            yield Backend(
                address,
                target.port,
                target.protocol,
                cluster=peer.cluster,
                cluster_id=peer.cluster_id,
            )


def _matches(target: L4 | None, frontend: L4, address: Address, version: int) -> bool:
    """Same port name, same protocol, same family."""
    return (
        target is not None and target.protocol is frontend.protocol and address.version == version
    )


def balancer(
    service: LocalService, frontend: Frontend, found: Iterable[Backend], default: Selection
) -> LoadBalancer:
    """Backends in order, those first that new connections may take.

    Only preferred ones while one of them is active; else all active ones; else those that are
    terminating but still answer.
    """
    backends = sorted(
        (replace(b, preferred=True) if _is_preferred(service, b.cluster_id) else b for b in found),
        key=lambda b: (b.cluster, b.address.version, int(b.address), b.port),
    )
    active = [b for b in backends if b.state is BackendState.ACTIVE]
    chosen = [b for b in active if b.preferred] or active
    chosen = chosen or [b for b in backends if b.state is BackendState.TERMINATING]
    taken = {id(b) for b in chosen}
    return LoadBalancer(
        frontend=frontend,
        name=service.name,
        backends=(*chosen, *(b for b in backends if id(b) not in taken)),
        selectable=len(chosen),
        selection=_SELECTIONS.get(service.selection, default),
        affinity_timeout_s=service.session_affinity_s,
    )


def _is_preferred(service: LocalService, cluster_id: ClusterId) -> bool:
    """By the affinity of a global service; cluster 0 is this one."""
    if not service.mesh.is_global:
        return False
    match service.mesh.affinity:
        case Affinity.LOCAL:
            return cluster_id == 0
        case Affinity.REMOTE:
            return cluster_id != 0
        case Affinity.NONE:
            return False

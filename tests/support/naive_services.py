"""A service from all claims at once, the plain way: what the joined one is held against.

``merge`` asks the product the same question: it tells a fresh table the same claims.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from mesh.draining import Drained
from mesh.guard import LocalPrefixes
from mesh.offers import offered
from mesh.pools import Owner
from mesh.problems import Violation
from mesh.selection import is_preferred
from mesh.service_table import NAMELESS, Services
from mesh.territory import WAITING
from model.address import Address
from model.cluster import ClusterName
from model.local_service import LocalBackend, LocalService
from model.service import (
    L4,
    Affinity,
    Backend,
    BackendState,
    Frontend,
    LoadBalancer,
    Protocol,
    Selection,
    ServiceName,
    SharedService,
)
from tests.support.naive_choice import choose

_SELECTIONS = {"random": Selection.RANDOM, "maglev": Selection.MAGLEV}


@dataclass(frozen=True, slots=True)
class ServiceClaims:
    """Everything that is said about one service name."""

    service: LocalService | None = None
    backends: Mapping[Address, LocalBackend] | None = None  # from this cluster's endpoints
    shared: tuple[SharedService, ...] = ()  # one per cluster that publishes it
    drained: tuple[Drained, ...] = ()  # what clusters published until a short while ago


def merge(
    claims: ServiceClaims, local: LocalPrefixes, default: Selection, own_name: ClusterName
) -> tuple[dict[Frontend, LoadBalancer], tuple[str, ...]]:
    """What the product makes of claims; nothing is drained."""
    assert not claims.drained
    name = claims.service.name if claims.service else ServiceName("", "")
    table = Services(local, default, lambda frontend: None, own_name)
    for shared in claims.shared:
        table.set_shared(shared.cluster, name, shared)
    table.set_service(name, claims.service)
    table.set_backends(name, claims.backends)
    return dict(table.items()), table.problems.current.get(name, ())


def naive(
    claims: ServiceClaims, local: LocalPrefixes, default: Selection, own_name: ClusterName
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
            if service.mesh.is_global:
                found += _drained_backends(claims.drained, own, peers, local, name, l4, address)
            expected = 0
            if service.mesh.threshold_pct:
                expected = sum(_is_expected(b, name, l4, address.version) for b in own.values())
            table[frontend] = _balancer(service, frontend, found, default, own_name, expected)
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
        for address in offered(peer):
            refused = local.refuses_backend(peer.cluster, address)
            if address in own or local.contains(address):
                kind, why = "own-backend", "this cluster has that address"
            elif refused is not None:
                kind, why = refused.kind, str(refused)
            elif address in heard:
                kind, why = "other-cluster", f"cluster {heard[address].cluster} has that address"
            else:
                heard[address] = peer
                continue
            if kind != WAITING:
                sentence = (
                    f"Service {service.name}: backend {address} of cluster {peer.cluster} is not "
                    f"used because {why}: give the clusters pod CIDRs that do not overlap"
                )
                sentences.append(Violation(kind, peer.cluster, sentence))
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
                frontend.protocol,
                state=_state(backend),
                node=backend.node,
            )


def _is_expected(backend: LocalBackend, port_name: str, frontend: L4, version: int) -> bool:
    """Whether it counts when we ask what share of ours is ready."""
    target = backend.ports.get(port_name)
    return not backend.terminating and _matches(target, frontend, backend.address, version)


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
                frontend.protocol,
                state=peer.states.get(address, BackendState.ACTIVE),
                cluster=peer.cluster,
                cluster_id=peer.cluster_id,
            )


def _drained_backends(
    drained: Iterable[Drained],
    own: Mapping[Address, LocalBackend],
    peers: Mapping[Address, SharedService],
    local: LocalPrefixes,
    port_name: str,
    frontend: L4,
    vip: Address,
) -> Iterable[Backend]:
    """Those whose address nobody has taken since, and that their cluster may speak for."""
    for one in drained:
        target = one.ports.get(port_name)
        if target is None or not _matches(target, frontend, one.address, vip.version):
            continue
        taken = one.address in own or one.address in peers or local.contains(one.address)
        if not taken and local.refuses_backend(one.cluster, one.address) is None:
            yield Backend(
                one.address,
                target.port,
                frontend.protocol,
                state=BackendState.TERMINATING,
                cluster=one.cluster,
                cluster_id=one.cluster_id,
            )


def _matches(target: L4 | None, frontend: L4, address: Address, version: int) -> bool:
    """Same port name, same protocol (or one that the record leaves open), same family."""
    return (
        target is not None
        and target.protocol in (frontend.protocol, Protocol.ANY)
        and address.version == version
    )


def _balancer(
    service: LocalService,
    frontend: Frontend,
    found: Iterable[Backend],
    default: Selection,
    own: ClusterName,
    expected: int,
) -> LoadBalancer:
    """Backends in order, those first that new connections may take."""
    mesh = service.mesh
    backends = sorted(found, key=lambda b: (b.cluster, b.address.version, int(b.address), b.port))
    if mesh.is_global and (mesh.order or mesh.affinity is not Affinity.NONE):
        one_each = {b.cluster: b for b in backends}
        preferred = {
            c
            for c, b in one_each.items()
            if is_preferred(mesh, own, Owner(b.cluster, b.cluster_id))
        }
        backends = [replace(b, preferred=True) if b.cluster in preferred else b for b in backends]
    chosen, weights = choose(mesh, own, backends, expected)
    taken = {id(b) for b in chosen}
    others = [b for b in backends if id(b) not in taken]
    # Cluster by cluster; those that could be chosen first.
    others.sort(key=lambda b: (b.cluster, b.state is not BackendState.ACTIVE, b.address))
    return LoadBalancer(
        frontend=frontend,
        name=service.name,
        backends=(*chosen, *others),
        selectable=len(chosen),
        selection=_SELECTIONS.get(service.selection, default),
        affinity_timeout_s=service.session_affinity_s,
        weights=weights,
    )


def naive_table(
    claims: Mapping[ServiceName, ServiceClaims],
    local: LocalPrefixes,
    default: Selection,
    own: ClusterName = NAMELESS,
) -> dict[Frontend, LoadBalancer]:
    """The table of all services, from all claims at once."""
    table: dict[Frontend, LoadBalancer] = {}
    for name in sorted(claims, reverse=True):
        table |= naive(claims[name], local, default, own)[0]
    return table

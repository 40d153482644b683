"""One Service of ours with everything that is said about it, joined address by address. Pure.

Our own Service says which frontends there are and whether others take part; a peer gives backends
only. Who is heard about an address depends on the claims about that address alone, so what changes
costs what it concerns. Rules and their origin: docs/modules/mesh.md.

A backend takes about 170 bytes of memory here and 120 in ``mesh.pools``, beside its place in the
record of its cluster.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import chain, repeat
from typing import NamedTuple

from mesh.draining import Drained
from mesh.guard import LocalPrefixes
from mesh.offers import offered
from mesh.pools import OURS, Owner, Pool, PoolKey, Run
from mesh.problems import Violation
from mesh.selection import choose, is_preferred, takes_all
from mesh.territory import WAITING
from mesh.topology import Place, narrowed, on
from model.address import Address
from model.cluster import ClusterName
from model.local_service import LocalBackend, LocalService, Proximity
from model.service import (
    L4,
    Affinity,
    Backend,
    BackendState,
    Frontend,
    LoadBalancer,
    Protocol,
    Selection,
    SharedService,
    Zone,
)

_NOWHERE = Zone()
_SELECTIONS = {"random": Selection.RANDOM, "maglev": Selection.MAGLEV}


class _Voice(NamedTuple):
    """One who is heard about an address."""

    owner: Owner
    ports: Mapping[str, L4]
    state: BackendState
    node: str = ""


class Joined:
    """A Service with its frontends, and the backends behind each of its ports."""

    def __init__(
        self,
        service: LocalService,
        own: Mapping[Address, LocalBackend],
        shared: Mapping[ClusterName, SharedService],
        drained: Callable[[Address], Iterable[Drained]],
        local: LocalPrefixes,
        default: Selection,
        own_name: ClusterName,
        shares: Mapping[ClusterName, int],
        here: Place,
    ) -> None:
        """``own`` (put anew when it changes), ``shared`` (kept up to date) and ``drained`` are the

        claims. None is looked at before ``offer`` and ``refresh`` name its address. ``shares``

        (kept up to date): percent of its usual part that a cluster gets, where not all. ``here``:
        where our clients are.
        """
        self.service, self.own = service, own
        self._shared, self._drained, self._local = shared, drained, local
        self._default, self._own_name, self._shares, self._here = default, own_name, shares, here
        self.frontends: dict[Frontend, PoolKey] = {}
        for address, ports in service.frontends.items():
            for name, l4 in ports.items():
                frontend = Frontend(address, l4.port, l4.protocol)
                self.frontends[frontend] = PoolKey(name, l4.protocol, address.version)
        self._pools = {key: Pool() for key in self.frontends.values()}
        self._offers: dict[Address, tuple[ClusterName, ...]] = {}  # by order of names
        self._placed: dict[Address, tuple[Owner, ...]] = {}
        # One of each of their values, since thousands are equal.
        self._clusters: dict[tuple[ClusterName, ...], tuple[ClusterName, ...]] = {}
        self._owners: dict[tuple[Owner, ...], tuple[Owner, ...]] = {}
        self._preferred: dict[Owner, bool] = {}
        self._refused: dict[Address, tuple[Violation, ...]] = {}
        self._rows: dict[Frontend, LoadBalancer] = {}

    def offer(self, cluster: ClusterName, addresses: Iterable[Address]) -> None:
        """What a cluster says of these addresses may have changed."""
        backends = offered(self._shared.get(cluster))
        for address in addresses:
            known = self._offers.get(address, ())
            if (address in backends) == (cluster in known):
                continue
            rest = [c for c in known if c != cluster]
            made = tuple(sorted((*rest, cluster)) if address in backends else rest)
            if made:
                self._offers[address] = self._clusters.setdefault(made, made)
            else:
                del self._offers[address]

    def is_claimed(self, address: Address) -> bool:
        """Whether a peer says something of it, heard or not."""
        if address in self._offers:
            return True
        return self.service.mesh.is_global and any(True for _ in self._drained(address))

    def unheard(self, cluster: ClusterName) -> list[Address]:
        """What a cluster offers and is not used."""
        return [
            address
            for address in offered(self._shared.get(cluster))
            if all(owner.cluster != cluster for owner in self._placed.get(address, ()))
        ]

    def refresh(self, addresses: Iterable[Address]) -> tuple[list[Frontend], bool]:
        """Join addresses anew. Frontends that changed; whether ``sentences`` did."""
        changed: set[PoolKey] = set()
        news = False
        for address in addresses:
            voices, why = self._hear(address)
            if why != self._refused.get(address, ()):
                news = True
                if why:
                    self._refused[address] = why
                else:
                    del self._refused[address]
            self._place(address, voices, changed)
            if self.service.proximity is not Proximity.ANYWHERE:
                # Where a backend is does not show in it.
                changed.update(key for key in self._pools if key.version == address.version)
        found = [f for f, key in self.frontends.items() if key in changed] if changed else []
        for frontend in found:
            self._rows.pop(frontend, None)
        return found, news

    def sentences(self) -> tuple[Violation, ...]:
        """Claims that are not heard."""
        found = chain.from_iterable(self._refused.values())
        return tuple(sorted(found, key=lambda v: (v.cluster, v)))

    def _hear(self, address: Address) -> tuple[list[_Voice], tuple[Violation, ...]]:
        """Who counts for an address; who does not, and why."""
        own = self.own.get(address)
        voices = [_Voice(OURS, own.ports, _state(own), own.node)] if own else []
        if not self.service.mesh.is_global:
            return voices, ()
        is_ours = own is not None or self._local.contains(address)
        heard: SharedService | None = None
        why: list[Violation] = []
        for cluster in self._offers.get(address, ()):
            refused = self._refusal(cluster, address, is_ours, heard)
            if refused is None:
                heard = self._shared[cluster]
            elif refused.kind != WAITING:
                why.append(refused)
        if heard is not None:
            owner = Owner(heard.cluster, heard.cluster_id)
            state = heard.states.get(address, BackendState.ACTIVE)
            voices.append(_Voice(owner, heard.backends[address], state))
        elif not is_ours:
            for one in self._drained(address):
                if self._local.refuses_backend(one.cluster, address) is None:
                    owner = Owner(one.cluster, one.cluster_id)
                    voices.append(_Voice(owner, one.ports, BackendState.TERMINATING))
        return voices, tuple(why)

    def _refusal(
        self, cluster: ClusterName, address: Address, is_ours: bool, heard: SharedService | None
    ) -> Violation | None:
        if is_ours:
            kind, why = "own-backend", "this cluster has that address"
        elif (refused := self._local.refuses_backend(cluster, address)) is not None:
            kind, why = refused.kind, str(refused)
        elif heard is not None:
            kind, why = "other-cluster", f"cluster {heard.cluster} has that address"
        else:
            return None
        return Violation(
            kind,
            cluster,
            f"Service {self.service.name}: backend {address} of cluster {cluster} is not used "
            f"because {why}: give the clusters pod CIDRs that do not overlap",
        )

    def _place(self, address: Address, voices: Sequence[_Voice], changed: set[PoolKey]) -> None:
        before = self._placed.get(address, ())
        owners = tuple(voice.owner for voice in voices)
        if owners != before:
            if owners:
                self._placed[address] = self._owners.setdefault(owners, owners)
            else:
                del self._placed[address]
        gone = [owner for owner in before if owner not in owners]
        version = address.version
        for key, pool in self._pools.items():
            if key.version != version:
                continue
            for owner in gone:
                if pool.put(owner, address, None):
                    changed.add(key)
            for voice in voices:
                if pool.put(voice.owner, address, self._backend(key, address, voice)):
                    changed.add(key)

    def _backend(self, key: PoolKey, address: Address, voice: _Voice) -> Backend | None:
        target = voice.ports.get(key.port_name)
        if not _matches(target, key) or target is None:
            return None
        return Backend(
            address,
            target.port,
            key.protocol,
            voice.state,
            *voice.owner,
            self._is_preferred(voice.owner),
            voice.node,
        )

    def _is_preferred(self, owner: Owner) -> bool:
        found = self._preferred.get(owner)
        if found is None:
            mesh = self.service.mesh
            found = mesh.is_global and is_preferred(mesh, self._own_name, owner)
            self._preferred[owner] = found
        return found

    def row(self, frontend: Frontend, last_words: Iterable[Backend] = ()) -> LoadBalancer:
        """One of ``frontends``. ``last_words``: backends of clusters not heard since our start."""
        found = self._rows.get(frontend)
        if found is None:
            found = self._rows[frontend] = self._balancer(frontend, last_words)
        return found

    def forget_row(self, frontend: Frontend) -> None:
        """Its last words, or who can be reached, have changed."""
        self._rows.pop(frontend, None)

    def _balancer(self, frontend: Frontend, last_words: Iterable[Backend]) -> LoadBalancer:
        service, key = self.service, self.frontends[frontend]
        pool = self._pools[key]
        if pool.active and not last_words and self._takes_all():
            return self._row(frontend, pool.active, pool.rest, ())
        runs = pool.runs()
        if last_words and service.mesh.is_global:
            runs = pool.with_more(
                replace(b, preferred=self._is_preferred(Owner(b.cluster, b.cluster_id)))
                for b in last_words
            )
        near = runs
        if service.proximity is not Proximity.ANYWHERE:
            near = narrowed(runs, service.proximity, self._here, self._zone_of, self._group_of)
        taken, each = choose(
            service.mesh, self._own_name, near, self._expected(key, runs, near), self._shares
        )
        weights = chain.from_iterable(
            repeat(weight, len(run.active)) for run, weight in zip(taken, each, strict=bool(each))
        )
        return self._row(frontend, *self._in_order(runs, taken), tuple(weights))

    def _takes_all(self) -> bool:
        """Whether every active backend is as good as the next, wherever it is."""
        return (
            self.service.proximity is Proximity.ANYWHERE
            and not self._shares
            and takes_all(self.service.mesh)
        )

    def _row(
        self,
        frontend: Frontend,
        chosen: Sequence[Backend],
        others: Sequence[Backend],
        weights: tuple[int, ...],
    ) -> LoadBalancer:
        return LoadBalancer(
            frontend=frontend,
            name=self.service.name,
            backends=(*chosen, *others),
            selectable=len(chosen),
            selection=_SELECTIONS.get(self.service.selection, self._default),
            affinity_timeout_s=self.service.session_affinity_s,
            weights=weights,
        )

    def _expected(self, key: PoolKey, runs: Sequence[Run], near: Sequence[Run]) -> int | Fraction:
        """Backends of ours that should be ready, counted so that the share of the ready ones is

        the same when only near ones are to be chosen from.
        """
        if not self.service.mesh.threshold_pct:
            return 0
        expected = sum(_is_expected(b, key) for b in self.own.values())
        if near is runs:
            return expected
        ready, left = (sum(len(r.active) for r in some if r.owner == OURS) for some in (runs, near))
        return Fraction(expected * left, ready) if ready else expected

    def _zone_of(self, backend: Backend) -> Zone:
        if not backend.cluster_id:
            own = self.own.get(backend.address)
            return own.zone if own is not None else _NOWHERE
        shared = self._shared.get(backend.cluster)
        return shared.zones.get(backend.address, _NOWHERE) if shared is not None else _NOWHERE

    def _group_of(self, owner: Owner) -> str:
        """All are one, unless somebody has ordered clusters, or one is not there as usual."""
        mesh = self.service.mesh
        ranked = mesh.affinity is not Affinity.NONE or mesh.order or mesh.weights
        return owner.cluster if ranked or owner.cluster in self._shares else ""

    def _in_order(
        self, runs: Sequence[Run], taken: Sequence[Run]
    ) -> tuple[list[Backend], list[Backend]]:
        """Backends new connections may take, and the others.

        When none may be taken, those of ours that terminate but still answer are the last resort.
        """
        chosen: list[Backend] = []
        others: list[Backend] = []
        for run in taken:
            chosen += run.active
        by_owner = {run.owner: run for run in taken}
        only_node = self.service.proximity is Proximity.ONLY_NODE
        for run in runs:
            mine = by_owner.get(run.owner)
            if mine is None:
                others += run.active
            elif mine is not run:
                near = set(mine.active)
                others += [b for b in run.active if b not in near]
            if chosen or run.owner.cluster_id:
                others += run.rest
                continue
            for backend in run.rest:
                ending = backend.state is BackendState.TERMINATING
                usable = ending and (not only_node or on(backend, self._here))
                (chosen if usable else others).append(backend)
        return chosen, others


def _state(backend: LocalBackend) -> BackendState:
    """An endpoint that is not ready keeps its connections, so it stays in the table."""
    if backend.terminating:
        return BackendState.TERMINATING if backend.serving else BackendState.QUARANTINED
    return BackendState.ACTIVE if backend.ready else BackendState.QUARANTINED


def _is_expected(backend: LocalBackend, key: PoolKey) -> bool:
    """Whether it counts when we ask what share of ours is ready."""
    if backend.terminating or backend.address.version != key.version:
        return False
    return _matches(backend.ports.get(key.port_name), key)


def _matches(target: L4 | None, key: PoolKey) -> bool:
    """Same protocol, or one that the record leaves open."""
    return target is not None and target.protocol in (key.protocol, Protocol.ANY)

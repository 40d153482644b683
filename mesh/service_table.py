"""All services → the table of frontends, kept service by service. Pure.

A remote cluster that has not been heard since our start is represented by the backends its last
words left in the kernel (``restore``), until it is heard, or is no member any more (``forget``).
What vanishes from a remote cluster's word keeps its connections for a while (``mesh.draining``).
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from mesh.blocks import Block, block_of, blocks_of
from mesh.claims import Claims
from mesh.draining import Draining
from mesh.guard import SERVICE_ADDRESS, LocalPrefixes
from mesh.problems import Problems
from mesh.services import ServiceClaims, merge
from model.address import Address, Prefix, host_prefix
from model.cluster import ClusterId, ClusterName
from model.local_service import LocalBackend, LocalService
from model.service import (
    Backend,
    BackendState,
    Frontend,
    LoadBalancer,
    Selection,
    ServiceName,
    SharedService,
)

NAMELESS = ClusterName("")  # a cluster in no mesh


@dataclass(slots=True)
class _Record:
    service: LocalService | None = None
    backends: Mapping[Address, LocalBackend] | None = None
    shared: dict[ClusterName, SharedService] = field(default_factory=dict)
    table: dict[Frontend, LoadBalancer] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return self.service is None and self.backends is None and not self.shared


class Services:
    """The table; ``on_change`` is told every frontend whose row may differ."""

    def __init__(
        self,
        local: LocalPrefixes,
        default: Selection,
        on_change: Callable[[Frontend], None],
        own: ClusterName = NAMELESS,
        clock: Callable[[], float] = float,
        drain_s: float = 0.0,
    ) -> None:
        """``own``: our name in orders and weights. ``drain_s``: how long vanished backends keep
        their connections."""
        self._own, self._clock = own, clock
        self._draining = Draining(clock, drain_s)
        self._local, self._default, self._on_change = local, default, on_change
        self._records: dict[ServiceName, _Record] = {}
        # Two services have one frontend only while an address moves between them.
        self._frontends: Claims[Frontend, ServiceName, None] = Claims()
        self._restored: dict[Frontend, tuple[Backend, ...]] = {}
        self._fading: dict[Frontend, tuple[Backend, ...]] = {}  # restored, but not heard again
        self._fading_ends: deque[tuple[float, Frontend, tuple[Backend, ...]]] = deque()
        self.problems: Problems[ServiceName] = Problems()
        # Services with backends of peers, by block of addresses.
        self._blocks: dict[Block, dict[ServiceName, int]] = {}

    def set_service(self, name: ServiceName, service: LocalService | None) -> None:
        """This cluster's Service object; ``None``: there is none."""
        record = self._record(name)
        before = set(record.service.frontends) if record.service else set()
        record.service = service
        after = set(service.frontends) if service else set()
        for address in after - before:
            self._local.add(host_prefix(address), SERVICE_ADDRESS)
        for address in before - after:
            self._local.remove(host_prefix(address), SERVICE_ADDRESS)
        self._recompute(name)

    def set_backends(
        self, name: ServiceName, backends: Mapping[Address, LocalBackend] | None
    ) -> None:
        """This cluster's endpoints of a service; ``None``: it has no slice."""
        self._record(name).backends = backends
        self._recompute(name)

    def set_shared(
        self, cluster: ClusterName, name: ServiceName, shared: SharedService | None
    ) -> None:
        """What a remote cluster publishes under a name; ``None``: nothing any more."""
        record = self._record(name)
        known = record.shared.get(cluster)
        self._draining.replaced(name, known, shared)
        if shared is None:
            record.shared.pop(cluster, None)
        else:
            record.shared[cluster] = shared
        self._index(name, known, shared)
        self._recompute(name)

    def drop_cluster(self, cluster: ClusterName) -> None:
        """A remote cluster leaves; nothing will lead to its backends, so none is kept."""
        changed = self._draining.drop_cluster(cluster)
        for name, record in list(self._records.items()):
            known = record.shared.pop(cluster, None)
            self._index(name, known, None)
            if known is not None or name in changed:
                self._recompute(name)

    def expire(self) -> None:
        """End what has drained long enough."""
        for name in self._draining.expire():
            if name in self._records:
                self._recompute(name)
        now_s = self._clock()
        while self._fading_ends and self._fading_ends[0][0] <= now_s:
            _, frontend, ended = self._fading_ends.popleft()
            rest = tuple(b for b in self._fading.get(frontend, ()) if b not in ended)
            self._set_last_words(self._fading, frontend, rest)

    def restore(self, rows: Iterable[tuple[Frontend, LoadBalancer]]) -> None:
        """Take remote backends from the rows a former life left in the kernel."""
        for frontend, row in rows:
            remote = tuple(b for b in row.backends if b.cluster_id)
            if remote:
                self._restored[frontend] = remote
                for name, _ in self._frontends.of(frontend):
                    self._recompute(name)

    def forget(self, cluster_id: ClusterId, *, drain: bool = False) -> None:
        """A cluster speaks for itself now (``drain``), or is no member any more."""
        for frontend, backends in list(self._restored.items()):
            gone = tuple(b for b in backends if b.cluster_id == cluster_id)
            if not gone:
                continue
            rest = tuple(b for b in backends if b.cluster_id != cluster_id)
            if drain and self._draining.keep_s:
                ending = tuple(replace(b, state=BackendState.TERMINATING) for b in gone)
                self._fading[frontend] = self._fading.get(frontend, ()) + ending
                until_s = self._clock() + self._draining.keep_s
                self._fading_ends.append((until_s, frontend, ending))
            self._set_last_words(self._restored, frontend, rest)
        if not drain:
            for frontend, backends in list(self._fading.items()):
                rest = tuple(b for b in backends if b.cluster_id != cluster_id)
                if len(rest) < len(backends):
                    self._set_last_words(self._fading, frontend, rest)

    def _set_last_words(
        self,
        words: dict[Frontend, tuple[Backend, ...]],
        frontend: Frontend,
        backends: tuple[Backend, ...],
    ) -> None:
        if backends:
            words[frontend] = backends
        else:
            words.pop(frontend, None)
        for name, _ in self._frontends.of(frontend):
            self._recompute(name)

    def restored_clusters(self) -> set[ClusterId]:
        """Clusters known by what they left in the kernel only."""
        return {b.cluster_id for backends in self._restored.values() for b in backends}

    def recheck_peers(self) -> None:
        """Our own prefixes have changed: every peer's backends are judged again."""
        for name, record in list(self._records.items()):
            if record.shared:
                self._recompute(name)

    def recheck(self, prefix: Prefix) -> None:
        """Who may speak for a prefix has changed: services with backends there are judged again."""
        if not self._blocks:
            return
        found: dict[ServiceName, int] = {}
        for block in blocks_of(prefix, self._blocks, len(self._blocks)):
            found |= self._blocks.get(block, {})
        for name in found:
            self._recompute(name)

    def recheck_cluster(self, cluster: ClusterName) -> None:
        """A peer's nodes are listed: its backends are judged again."""
        for name, record in list(self._records.items()):
            if cluster in record.shared:
                self._recompute(name)

    def get(self, frontend: Frontend, /) -> LoadBalancer | None:
        """The wanted row."""
        names = self._frontends.of(frontend)
        if not names:
            return None
        name = names[0][0] if len(names) == 1 else min(n for n, _ in names)
        return self._records[name].table[frontend]

    def items(self) -> Iterator[tuple[Frontend, LoadBalancer]]:
        """All wanted rows."""
        for frontend in self._frontends:
            row = self.get(frontend)
            if row is not None:
                yield frontend, row

    def service(self, name: ServiceName) -> LocalService | None:
        """This cluster's Service of a name."""
        record = self._records.get(name)
        return record.service if record else None

    def count_global(self) -> int:
        """How many services of this cluster take part in the mesh."""
        return sum(1 for r in self._records.values() if r.service and r.service.mesh.is_global)

    def count_shared(self, cluster: ClusterName) -> int:
        """How many services a remote cluster publishes."""
        return sum(1 for r in self._records.values() if cluster in r.shared)

    def _index(
        self, name: ServiceName, known: SharedService | None, shared: SharedService | None
    ) -> None:
        before, after = _blocks(known), _blocks(shared)
        for block in after - before:
            names = self._blocks.setdefault(block, {})
            names[name] = names.get(name, 0) + 1
        for block in before - after:
            names = self._blocks[block]
            names[name] -= 1
            if not names[name]:
                del names[name]
                if not names:
                    del self._blocks[block]

    def _record(self, name: ServiceName) -> _Record:
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = _Record()
        return record

    def _recompute(self, name: ServiceName) -> None:
        record = self._records[name]
        claims = ServiceClaims(
            record.service,
            record.backends,
            tuple(record.shared.values()),
            self._draining.of(name),
            self._last_words(record.service) if self._restored or self._fading else {},
        )
        table, sentences = merge(claims, self._local, self._default, self._own)
        self.problems.set(name, sentences)
        before, record.table = record.table, table
        for frontend, row in table.items():
            if frontend not in before:
                self._frontends.put(frontend, name, None)
            if before.get(frontend) != row:
                self._on_change(frontend)
        for frontend in before.keys() - table.keys():
            self._frontends.drop(frontend, name)
            self._on_change(frontend)
        if record.empty:
            del self._records[name]

    def _last_words(self, service: LocalService | None) -> dict[Frontend, tuple[Backend, ...]]:
        if service is None:
            return {}
        frontends = [
            Frontend(address, l4.port, l4.protocol)
            for address, ports in service.frontends.items()
            for l4 in ports.values()
        ]
        return {
            f: self._restored.get(f, ()) + self._fading.get(f, ())
            for f in frontends
            if f in self._restored or f in self._fading
        }


def _blocks(shared: SharedService | None) -> set[Block]:
    return set(map(block_of, shared.backends)) if shared else set()


def desired_services(
    claims: Mapping[ServiceName, ServiceClaims],
    local: LocalPrefixes,
    default: Selection,
    own: ClusterName = NAMELESS,
) -> dict[Frontend, LoadBalancer]:
    """The same table from all claims at once: what tests hold the incremental one against."""
    table: dict[Frontend, LoadBalancer] = {}
    for name in sorted(claims, reverse=True):
        table |= merge(claims[name], local, default, own)[0]
    return table

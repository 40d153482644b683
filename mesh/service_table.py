"""All services → the table of frontends, kept service by service. Pure.

A remote cluster that has not been heard since our start is represented by the backends its last
words left in the kernel (``restore``), until it is heard, or is no member any more (``forget``).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from mesh.claims import Claims
from mesh.guard import LocalPrefixes
from mesh.problems import Problems
from mesh.services import ServiceClaims, balancer, merge
from model.address import Address
from model.cluster import ClusterId, ClusterName
from model.local_service import LocalBackend, LocalService
from model.service import Backend, Frontend, LoadBalancer, Selection, ServiceName, SharedService


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
    ) -> None:
        self._local, self._default, self._on_change = local, default, on_change
        self._records: dict[ServiceName, _Record] = {}
        # Two services have one frontend only while an address moves between them.
        self._frontends: Claims[Frontend, ServiceName, None] = Claims()
        self._restored: dict[Frontend, tuple[Backend, ...]] = {}
        self.problems: Problems[ServiceName] = Problems()

    def set_service(self, name: ServiceName, service: LocalService | None) -> None:
        """This cluster's Service object; ``None``: there is none."""
        self._record(name).service = service
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
        if shared is None:
            record.shared.pop(cluster, None)
        else:
            record.shared[cluster] = shared
        self._recompute(name)

    def drop_cluster(self, cluster: ClusterName) -> None:
        """A remote cluster leaves."""
        for name, record in list(self._records.items()):
            if cluster in record.shared:
                self.set_shared(cluster, name, None)

    def restore(self, rows: Iterable[tuple[Frontend, LoadBalancer]]) -> None:
        """Take remote backends from the rows a former life left in the kernel."""
        for frontend, row in rows:
            remote = tuple(b for b in row.backends if b.cluster_id)
            if remote:
                self._restored[frontend] = remote
                for name, _ in self._frontends.of(frontend):
                    self._recompute(name)

    def forget(self, cluster_id: ClusterId) -> None:
        """A cluster speaks for itself now, or is no member any more."""
        for frontend, backends in list(self._restored.items()):
            rest = tuple(b for b in backends if b.cluster_id != cluster_id)
            if len(rest) == len(backends):
                continue
            if rest:
                self._restored[frontend] = rest
            else:
                del self._restored[frontend]
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

    def _record(self, name: ServiceName) -> _Record:
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = _Record()
        return record

    def _recompute(self, name: ServiceName) -> None:
        record = self._records[name]
        claims = ServiceClaims(record.service, record.backends, tuple(record.shared.values()))
        table, sentences = merge(claims, self._local, self._default)
        if self._restored and record.service is not None:
            table = {f: self._with_restored(record.service, f, b) for f, b in table.items()}
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

    def _with_restored(
        self, service: LocalService, frontend: Frontend, row: LoadBalancer
    ) -> LoadBalancer:
        known = {b.address for b in row.backends}
        extra = [b for b in self._restored.get(frontend, ()) if b.address not in known]
        if not extra or not service.mesh.is_global:
            return row
        return balancer(service, frontend, (*row.backends, *extra), self._default)


def desired_services(
    claims: Mapping[ServiceName, ServiceClaims], local: LocalPrefixes, default: Selection
) -> dict[Frontend, LoadBalancer]:
    """The same table from all claims at once: what tests hold the incremental one against."""
    table: dict[Frontend, LoadBalancer] = {}
    for name in sorted(claims, reverse=True):
        table |= merge(claims[name], local, default)[0]
    return table

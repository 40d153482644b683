"""All services → the table of frontends, kept service by service. Pure.

A remote cluster that has not been heard since our start is represented by the backends its last
words left in the kernel (``restore``), until it is heard, or is no member any more (``forget``).
What vanishes from a remote cluster's word keeps its connections for a while (``mesh.draining``).

What clusters say of a name is kept as it is; only under a Service of ours is it joined
(``mesh.services``), so that a name we do not have costs no more than its records.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from mesh.address_index import AddressIndex
from mesh.claims import Claims
from mesh.draining import Draining
from mesh.guard import SERVICE_ADDRESS, LocalPrefixes
from mesh.offers import changed, differing, offered
from mesh.problems import Problems
from mesh.services import Joined
from mesh.topology import Place
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

ANY_PLACE = Place()
NAMELESS = ClusterName("")  # a cluster in no mesh


@dataclass(slots=True)
class _Record:
    service: LocalService | None = None
    backends: Mapping[Address, LocalBackend] | None = None
    shared: dict[ClusterName, SharedService] = field(default_factory=dict)
    joined: Joined | None = None

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
        here: Place = ANY_PLACE,
    ) -> None:
        """``own``: our name in orders and weights. ``drain_s``: how long vanished backends keep
        their connections. ``here``: this node and its zone."""
        self._here = here
        self._own, self._clock = own, clock
        self._draining = Draining(clock, drain_s)
        self._local, self._default, self._on_change = local, default, on_change
        self._records: dict[ServiceName, _Record] = {}
        # Two services have one frontend only while an address moves between them.
        self._frontends: Claims[Frontend, ServiceName, None] = Claims()
        self._restored: dict[Frontend, tuple[Backend, ...]] = {}
        self._fading: dict[Frontend, tuple[Backend, ...]] = {}  # restored, but not heard again
        self._shares: dict[ClusterName, int] = {}  # percent, of those that do not get all
        self._fading_ends: deque[tuple[float, Frontend, tuple[Backend, ...]]] = deque()
        self.problems: Problems[ServiceName] = Problems()
        self._claimed: AddressIndex[Joined] = AddressIndex()  # what peers say something of

    def set_service(self, name: ServiceName, service: LocalService | None) -> None:
        """This cluster's Service object; ``None``: there is none."""
        record = self._record(name)
        before = set(record.service.frontends) if record.service else set()
        known, record.service = record.service, service
        after = set(service.frontends) if service else set()
        for address in after - before:
            self._local.add(host_prefix(address), SERVICE_ADDRESS)
        for address in before - after:
            self._local.remove(host_prefix(address), SERVICE_ADDRESS)
        if known != service:
            self._join(name, record)
        self._forget_empty(name, record)

    def set_backends(
        self, name: ServiceName, backends: Mapping[Address, LocalBackend] | None
    ) -> None:
        """This cluster's endpoints of a service; ``None``: it has no slice."""
        record = self._record(name)
        known, record.backends = record.backends or {}, backends
        if record.joined is not None:
            record.joined.own = backends or {}
            self._refresh(record.joined, differing(known, backends or {}))
        self._forget_empty(name, record)

    def set_shared(
        self, cluster: ClusterName, name: ServiceName, shared: SharedService | None
    ) -> None:
        """What a remote cluster publishes under a name; ``None``: nothing any more."""
        record = self._record(name)
        known = record.shared.get(cluster)
        news = changed(known, shared)
        ended = self._draining.replaced(name, known, shared, news)
        if shared is None:
            record.shared.pop(cluster, None)
        else:
            record.shared[cluster] = shared
        self._offer(record, cluster, [*news, *ended])
        self._forget_empty(name, record)

    def drop_cluster(self, cluster: ClusterName) -> None:
        """A remote cluster leaves; nothing will lead to its backends, so none is kept."""
        gone = self._draining.drop_cluster(cluster)
        for name, record in list(self._records.items()):
            known = record.shared.pop(cluster, None)
            self._offer(record, cluster, [*offered(known), *gone.get(name, ())])
            self._forget_empty(name, record)

    def set_share(self, cluster: ClusterName, share_pct: int) -> None:
        """How much of its usual part of new connections a remote cluster gets; 100: all."""
        if self._shares.get(cluster, 100) == share_pct:
            return
        self._shares.pop(cluster, None)
        if share_pct < 100:
            self._shares[cluster] = share_pct
        has_last_words = bool(self._restored or self._fading)
        for record in self._records.values():
            joined = record.joined
            if joined is None or not joined.service.mesh.is_global:
                continue
            if has_last_words or cluster in record.shared:
                for frontend in joined.frontends:
                    joined.forget_row(frontend)
                    self._on_change(frontend)

    def expire(self) -> None:
        """End what has drained long enough."""
        for name, addresses in self._draining.expire().items():
            record = self._records.get(name)
            if record is not None and record.joined is not None:
                self._refresh(record.joined, addresses)
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
                self._set_last_words(self._restored, frontend, remote)

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
        for said in self._frontends.of(frontend):
            joined = self._records[said.owner].joined
            if joined is not None:
                joined.forget_row(frontend)
                self._on_change(frontend)

    def restored_clusters(self) -> set[ClusterId]:
        """Clusters known by what they left in the kernel only."""
        return {b.cluster_id for backends in self._restored.values() for b in backends}

    def recheck(self, prefix: Prefix) -> None:
        """Who may speak for a prefix has changed: backends there are judged again."""
        if not self._claimed:
            return
        for joined, addresses in list(self._claimed.inside(prefix)):
            self._refresh(joined, addresses)

    def recheck_cluster(self, cluster: ClusterName) -> None:
        """A peer's nodes are listed: what is not used of its backends is judged again."""
        for record in list(self._records.values()):
            if cluster in record.shared and record.joined is not None:
                self._refresh(record.joined, record.joined.unheard(cluster))

    def get(self, frontend: Frontend, /) -> LoadBalancer | None:
        """The wanted row."""
        said = self._frontends.of(frontend)
        if not said:
            return None
        name = min(s.owner for s in said)
        joined = self._records[name].joined
        assert joined is not None  # as long as it has frontends
        words: tuple[Backend, ...] = ()
        if self._restored or self._fading:
            words = self._restored.get(frontend, ()) + self._fading.get(frontend, ())
        return joined.row(frontend, words)

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

    def _forget_empty(self, name: ServiceName, record: _Record) -> None:
        if record.empty:
            del self._records[name]

    def _join(self, name: ServiceName, record: _Record) -> None:
        """Our Service is another one now: everything is joined anew."""
        before, after = record.joined, None
        service = record.service
        if before is not None:
            self._claimed.drop(before, self._claims_of(name, record))
        if service is not None and not service.headless:
            after = Joined(
                service,
                record.backends or {},
                record.shared,
                partial(self._draining.at, name),
                self._local,
                self._default,
                self._own,
                self._shares,
                self._here,
            )
        record.joined = after
        frontends = after.frontends if after else {}
        for frontend in before.frontends if before else ():
            if frontend not in frontends:
                self._frontends.drop(frontend, name)
                self._on_change(frontend)
        if after is None:
            self.problems.set(name, ())
            return
        for cluster, shared in record.shared.items():
            after.offer(cluster, offered(shared))
        claimed = self._claims_of(name, record) if after.service.mesh.is_global else set()
        self._refresh(after, sorted({*after.own, *claimed}))
        self.problems.set(name, after.sentences())
        for frontend in frontends:
            self._frontends.put(frontend, name, None)
            self._on_change(frontend)

    def _claims_of(self, name: ServiceName, record: _Record) -> set[Address]:
        """Addresses that peers say something of."""
        found = set(self._draining.of(name))
        for shared in record.shared.values():
            found.update(offered(shared))
        return found

    def _offer(self, record: _Record, cluster: ClusterName, addresses: Collection[Address]) -> None:
        """What a cluster offers, or what is kept of it, has changed here."""
        joined = record.joined
        if joined is not None and addresses and joined.service.mesh.is_global:
            joined.offer(cluster, addresses)
            self._refresh(joined, addresses)

    def _refresh(self, joined: Joined, addresses: Iterable[Address]) -> None:
        addresses = list(addresses)
        if joined.service.mesh.is_global:
            for address in addresses:
                self._claimed.set(joined, address, joined.is_claimed(address))
        changed, news = joined.refresh(addresses)
        if news:
            self.problems.set(joined.service.name, joined.sentences())
        for frontend in changed:
            self._on_change(frontend)

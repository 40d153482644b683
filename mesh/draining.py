"""Backends that a remote cluster does not name any more, kept while their connections end. Pure.

A record of a shared service names ready backends only, so one that drains, one that has become
unready and one that is gone all vanish from it in the same way. Connections to it live on for a
bounded time, and no new ones are made.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from mesh.offers import offered
from model.address import Address
from model.cluster import ClusterId, ClusterName
from model.service import L4, ServiceName, SharedService

LIMIT = 10_000  # of a service: what a peer can cost us by changing its mind; 500 bytes each


@dataclass(frozen=True, slots=True)
class Drained:
    """A backend as its cluster named it last."""

    address: Address
    ports: dict[str, L4]
    cluster: ClusterName
    cluster_id: ClusterId


@dataclass(frozen=True, slots=True)
class _Entry:
    backend: Drained
    until_s: float


_Key = tuple[ClusterName, Address]


@dataclass(slots=True)
class _Kept:
    """Of one service, in the order in which they came and, kept equally long, will go."""

    entries: dict[_Key, _Entry] = field(default_factory=dict)
    clusters: dict[Address, tuple[ClusterName, ...]] = field(default_factory=dict)

    def put(self, entry: _Entry) -> None:
        backend = entry.backend
        self.drop((backend.cluster, backend.address))
        self.entries[backend.cluster, backend.address] = entry
        known = self.clusters.get(backend.address, ())
        self.clusters[backend.address] = (*known, backend.cluster)

    def drop(self, key: _Key) -> None:
        if self.entries.pop(key, None) is not None:
            cluster, address = key
            rest = tuple(c for c in self.clusters[address] if c != cluster)
            if rest:
                self.clusters[address] = rest
            else:
                del self.clusters[address]


class Draining:
    """By service. What changes is told as addresses of services."""

    def __init__(self, clock: Callable[[], float], keep_s: float) -> None:
        """``keep_s`` 0: nothing is kept."""
        self._clock, self.keep_s = clock, keep_s
        self._kept: dict[ServiceName, _Kept] = {}

    def of(self, name: ServiceName) -> Iterable[Address]:
        """Addresses that are kept of a service."""
        kept = self._kept.get(name)
        return list(kept.clusters) if kept else ()

    def at(self, name: ServiceName, address: Address) -> Iterator[Drained]:
        """What is kept of one address of a service."""
        kept = self._kept.get(name)
        if kept is not None:
            for cluster in kept.clusters.get(address, ()):
                yield kept.entries[cluster, address].backend

    def replaced(
        self,
        name: ServiceName,
        before: SharedService | None,
        after: SharedService | None,
        changed: Collection[Address],
    ) -> list[Address]:
        """A cluster's record has changed, at these addresses. Those that had to go for others."""
        some = before or after
        kept = self._kept.get(name)
        if not self.keep_s or some is None or (before is None and kept is None):
            return []
        kept = kept or _Kept()
        old, new = offered(before), offered(after)
        until_s = self._clock() + self.keep_s
        for address in changed:
            if address in new:
                kept.drop((some.cluster, address))
            elif address in old:
                backend = Drained(address, old[address], some.cluster, some.cluster_id)
                kept.put(_Entry(backend, until_s))
        ended = []
        while len(kept.entries) > LIMIT:
            key = next(iter(kept.entries))
            kept.drop(key)
            ended.append(key[1])
        self._keep(name, kept)
        return ended

    def _keep(self, name: ServiceName, kept: _Kept) -> None:
        if kept.entries:
            self._kept[name] = kept
        else:
            self._kept.pop(name, None)

    def drop_cluster(self, cluster: ClusterName) -> dict[ServiceName, list[Address]]:
        """Nothing leads to this cluster any more. What has gone."""
        gone = {}
        for name, kept in list(self._kept.items()):
            keys = [key for key in kept.entries if key[0] == cluster]
            for key in keys:
                kept.drop(key)
            if keys:
                gone[name] = [address for _, address in keys]
                self._keep(name, kept)
        return gone

    def expire(self) -> dict[ServiceName, list[Address]]:
        """Forget what has had its time. What has gone."""
        gone = {}
        now_s = self._clock()
        for name, kept in list(self._kept.items()):
            keys = []
            for key, entry in kept.entries.items():
                if entry.until_s > now_s:
                    break
                keys.append(key)
            for key in keys:
                kept.drop(key)
            if keys:
                gone[name] = [address for _, address in keys]
                self._keep(name, kept)
        return gone

"""The backends behind one port of a service, cluster by cluster, each cluster's in order. Pure.

A backend that changes costs a search in its cluster's list and nothing else. A backend takes about
120 bytes of memory: itself, and its place in a list and in the rows made of it.
"""

from bisect import bisect_left
from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

from model.address import Address
from model.cluster import ClusterId, ClusterName
from model.service import Backend, BackendState, Protocol

_place = attrgetter("address")
_whole_place = attrgetter("cluster", "cluster_id", "address")


class Owner(NamedTuple):
    """Whose a backend is; ours has no name and the number 0."""

    cluster: ClusterName
    cluster_id: ClusterId


OURS = Owner(ClusterName(""), ClusterId(0))


class PoolKey(NamedTuple):
    """What a backend has to have to be behind a frontend."""

    port_name: str
    protocol: Protocol
    version: int


class Run:
    """One cluster's backends, by address; those new connections may take for themselves."""

    __slots__ = ("active", "owner", "rest")

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.active: list[Backend] = []
        self.rest: list[Backend] = []

    def put(self, address: Address, backend: Backend | None) -> bool:
        """Have this backend, or none, at an address. False when it is so already."""
        known = self._take(address)
        if backend is not None:
            backends = self.active if backend.state is BackendState.ACTIVE else self.rest
            if not backends or backends[-1].address < address:
                backends.append(known if known == backend else backend)
            else:
                at = bisect_left(backends, address, key=_place)
                backends.insert(at, known if known == backend else backend)
        return known != backend

    def _take(self, address: Address) -> Backend | None:
        for backends in (self.active, self.rest):
            if backends and backends[-1].address >= address:
                at = bisect_left(backends, address, key=_place)
                if backends[at].address == address:
                    return backends.pop(at)
        return None

    def with_more(self, backends: Iterable[Backend]) -> "Run":
        """A copy with others beside them."""
        made = Run(self.owner)
        made.active, made.rest = list(self.active), list(self.rest)
        for backend in backends:
            made.put(backend.address, backend)
        return made


class Pool:
    """The runs of all clusters."""

    def __init__(self) -> None:
        self._runs: dict[Owner, Run] = {}
        self._ordered: list[Run] = []
        # The same backends in one row: to walk hundreds of runs for each change costs more.
        self.active: list[Backend] = []
        self.rest: list[Backend] = []

    def put(self, owner: Owner, address: Address, backend: Backend | None) -> bool:
        """Have this backend, or none, of a cluster at an address. False when it is so already."""
        run = self._runs.get(owner)
        if run is None:
            if backend is None:
                return False
            run = self._runs[owner] = Run(owner)
            self._ordered = []
        changed = run.put(address, backend)
        if changed:
            self._put_in_row((*owner, address), backend)
        if not run.active and not run.rest:
            del self._runs[owner]
            self._ordered = []
        return changed

    def _put_in_row(self, place: tuple[object, ...], backend: Backend | None) -> None:
        for row in (self.active, self.rest):
            at = bisect_left(row, place, key=_whole_place)
            if at < len(row) and _whole_place(row[at]) == place:
                del row[at]
        if backend is not None:
            row = self.active if backend.state is BackendState.ACTIVE else self.rest
            row.insert(bisect_left(row, place, key=_whole_place), backend)

    def runs(self) -> list[Run]:
        """In order of the clusters' names, ours first; none is empty."""
        if len(self._ordered) != len(self._runs):
            self._ordered = [self._runs[owner] for owner in sorted(self._runs)]
        return self._ordered

    def with_more(self, backends: Iterable[Backend]) -> list[Run]:
        """The runs with backends beside them whose addresses nobody else has."""
        runs = dict(self._runs)
        taken = {b.address for r in runs.values() for some in (r.active, r.rest) for b in some}
        more: dict[Owner, list[Backend]] = {}
        for backend in backends:
            if backend.address not in taken:
                more.setdefault(Owner(backend.cluster, backend.cluster_id), []).append(backend)
        for owner, found in more.items():
            runs[owner] = runs.get(owner, Run(owner)).with_more(found)
        return [runs[owner] for owner in sorted(runs)]

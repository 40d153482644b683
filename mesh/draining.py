"""Backends that a remote cluster does not name any more, kept while their connections end. Pure.

A record of a shared service names ready backends only, so one that drains, one that has become
unready and one that is gone all vanish from it in the same way. Connections to it live on for a
bounded time, and no new ones are made.
"""

from collections.abc import Callable
from dataclasses import dataclass

from model.address import Address
from model.cluster import ClusterId, ClusterName
from model.service import L4, ServiceName, SharedService

LIMIT = 10_000  # of a service: what a peer can cost us by changing its mind


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


class Draining:
    """By service, in the order in which they came and, kept equally long, will go."""

    def __init__(self, clock: Callable[[], float], keep_s: float) -> None:
        """``keep_s`` 0: nothing is kept."""
        self._clock, self.keep_s = clock, keep_s
        self._entries: dict[ServiceName, dict[tuple[ClusterName, Address], _Entry]] = {}

    def of(self, name: ServiceName) -> tuple[Drained, ...]:
        """What is kept of a service."""
        entries = self._entries.get(name)
        return tuple(e.backend for e in entries.values()) if entries else ()

    def replaced(
        self, name: ServiceName, before: SharedService | None, after: SharedService | None
    ) -> None:
        """A cluster's record of a service has changed."""
        some = before or after
        if not self.keep_s or some is None:
            return
        old, new = offered(before), offered(after)
        entries = self._entries.get(name, {})
        back = [k for k in entries if k[0] == some.cluster and k[1] in new]
        for key in back:
            del entries[key]
        # From a dict to a set and against a dict: no hash is computed anew.
        gone = set(old).difference(new)
        if gone:
            entries = self._entries.setdefault(name, entries)
        until_s = self._clock() + self.keep_s
        for address in gone:
            backend = Drained(address, old[address], some.cluster, some.cluster_id)
            entries[some.cluster, address] = _Entry(backend, until_s)
        while len(entries) > LIMIT:
            del entries[next(iter(entries))]
        if not entries:
            self._entries.pop(name, None)

    def drop_cluster(self, cluster: ClusterName) -> set[ServiceName]:
        """Nothing leads to this cluster any more. The services that changed."""
        changed = set()
        for name, entries in list(self._entries.items()):
            for key in [k for k in entries if k[0] == cluster]:
                del entries[key]
                changed.add(name)
            if not entries:
                del self._entries[name]
        return changed

    def expire(self) -> set[ServiceName]:
        """Forget what has had its time. The services that changed."""
        changed = set()
        now_s = self._clock()
        for name, entries in list(self._entries.items()):
            ended = []
            for key, entry in entries.items():
                if entry.until_s > now_s:
                    break
                ended.append(key)
            for key in ended:
                del entries[key]
                changed.add(name)
            if not entries:
                del self._entries[name]
        return changed


def offered(shared: SharedService | None) -> dict[Address, dict[str, L4]]:
    """The backends a record lets others use."""
    if shared is None or not (shared.shared and shared.include_external):
        return {}
    return shared.backends

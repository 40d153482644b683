"""A remote cluster's service records and endpoint slices → one account per service. Pure.

Slices say more (state of each backend) and cost less than a record of the same service. Where a
cluster publishes both, its slices count for every service that has any, the record for the rest.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum

from model.address import Address
from model.cluster import Capabilities, ClusterName, SliceExport
from model.service import BackendState, ServiceName, SharedService
from model.shared_slice import SharedSlice, SliceName


class Preference(Enum):
    """What is read of a cluster that publishes records and slices; Cluster Mesh's words."""

    RECORDS = "prefer-legacy"
    SLICES = "prefer-endpointslice"
    ONLY_SLICES = "only-endpointslice"

    def reads(self, said: Capabilities) -> tuple[bool, bool]:
        """Whether records are read, and whether slices are."""
        if said.slices is SliceExport.NONE:
            return self is not Preference.ONLY_SLICES, False
        if said.slices is SliceExport.ONLY:
            return False, True
        return self is not Preference.ONLY_SLICES, self is not Preference.RECORDS


@dataclass(slots=True)
class _Account:
    record: SharedService | None = None
    slices: dict[SliceName, SharedSlice] = field(default_factory=dict)

    def joined(self) -> SharedService | None:
        return join(self.record, (self.slices[n] for n in sorted(self.slices)))


class RemoteServices:
    """What each cluster said, so that a change of one row costs one service."""

    def __init__(self) -> None:
        self._accounts: dict[tuple[ClusterName, ServiceName], _Account] = {}
        self._owners: dict[tuple[ClusterName, SliceName], ServiceName] = {}

    def record(
        self, cluster: ClusterName, name: ServiceName, value: SharedService | None
    ) -> SharedService | None:
        """Take a service record; the account of the service after it."""
        account = self._accounts.setdefault((cluster, name), _Account())
        account.record = value
        return self._settled(cluster, name, account)

    def slice(
        self, cluster: ClusterName, name: SliceName, value: SharedSlice | None
    ) -> Iterator[tuple[ServiceName, SharedService | None]]:
        """Take a slice; the accounts of the services it concerns: its owner before, and now."""
        before = self._owners.pop((cluster, name), None)
        after = value.service if value else None
        if before is not None and before != after:
            account = self._accounts[cluster, before]
            del account.slices[name]
            yield before, self._settled(cluster, before, account)
        if value is not None and after is not None:
            self._owners[cluster, name] = after
            account = self._accounts.setdefault((cluster, after), _Account())
            account.slices[name] = value
            yield after, self._settled(cluster, after, account)

    def drop_cluster(self, cluster: ClusterName) -> None:
        """Forget what a cluster said."""
        self._accounts = {k: v for k, v in self._accounts.items() if k[0] != cluster}
        self._owners = {k: v for k, v in self._owners.items() if k[0] != cluster}

    def _settled(
        self, cluster: ClusterName, name: ServiceName, account: _Account
    ) -> SharedService | None:
        if account.record is None and not account.slices:
            del self._accounts[cluster, name]
            return None
        return account.joined()


def join(record: SharedService | None, slices: Iterable[SharedSlice]) -> SharedService | None:
    """One account. An address in several slices has the ports of all and the best state."""
    found = list(slices)
    if not found:
        return record
    first = found[0]
    if first.service is None:
        return record
    base = record or SharedService(first.cluster, first.cluster_id, first.service)
    states: dict[Address, BackendState] = {}
    joined = replace(base, backends={}, hostnames={}, zones={}, states={})
    for one in found:
        for endpoint in one.endpoints:
            address = endpoint.address
            known = joined.backends.get(address)
            joined.backends[address] = one.ports if known is None else {**known, **one.ports}
            # The stale copy is the one that has not seen it become ready: the least state counts.
            states[address] = min(endpoint.state, states.get(address, endpoint.state))
            if endpoint.hostname:
                joined.hostnames[address] = endpoint.hostname
            if endpoint.zone.name or endpoint.zone.hints:
                joined.zones[address] = endpoint.zone
    joined.states.update((a, s) for a, s in states.items() if s is not BackendState.ACTIVE)
    return joined

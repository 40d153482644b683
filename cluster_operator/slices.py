"""Keeps EndpointSlices of other clusters' backends for global services that want them. Adapter.

What a slice holds is decided in ``cluster_operator.slice_copies``. Those of a cluster that has not
been heard since we started stay as they are; those of one that is no remote cluster any more go.
"""

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from cluster_operator import slice_copies, slice_counts
from cluster_operator.applier import Applier
from cluster_operator.config import Settings
from cluster_operator.marked import Marked
from cluster_operator.slice_counts import SliceCounts
from kube.informer import Informer
from kube.port import Client
from kube.resources import ENDPOINT_SLICES, SERVICES
from kvstore.config_directory import ConfigDirectory
from kvstore.decoding import Change
from kvstore.remotes import Remotes
from mesh.remote_slices import Preference, RemoteServices
from model.cluster import Capabilities, ClusterName, parse_cluster_id, parse_cluster_name
from model.service import ServiceName, SharedService
from model.shared_slice import SliceName
from reconcile.tasks import TaskGroup
from wire.etcd import keys
from wire.k8s.endpointslice import EndpointSlice
from wire.k8s.service import Service, service_name

log = logging.getLogger("operator.slices")

FLAG = "clustermesh-enable-endpoint-sync"


class Controller:
    """All such slices of this cluster, and the ``kvstore.remote.Sink`` for them."""

    def __init__(self, client: Client, settings: Settings) -> None:
        """Raises ``ValueError`` for a cluster without name or number in the mesh."""
        try:
            own = parse_cluster_name(settings.cluster_name)
            number = parse_cluster_id(settings.cluster_id, settings.max_connected_clusters)
        except ValueError as error:
            raise ValueError(f"{FLAG} needs cluster-name and cluster-id: {error}") from error
        self._size = settings.clustermesh_endpoints_per_slice
        self.counts = SliceCounts()
        self.remotes = Remotes(
            ConfigDirectory(Path(settings.clustermesh_config), own),
            self,
            own,
            number,
            settings.max_connected_clusters,
            wanted=_wanted,
        )
        self._services = Informer(client, SERVICES, self._on_service)
        self._slices = Informer(client, ENDPOINT_SLICES, self._on_slice)
        self._applier = Applier(client)
        self._marked = Marked(
            self._bring_up,
            settings.clustermesh_concurrent_service_endpoint_syncs,
            settings.clustermesh_endpoint_updates_batch_period_s,
        )
        self._remote = RemoteServices()
        self._accounts: dict[ServiceName, dict[ClusterName, SharedService]] = {}
        self._copies: dict[ServiceName, dict[str, EndpointSlice]] = {}
        self._heard: set[ClusterName] = set()

    async def run(self) -> None:
        """Until cancelled."""
        async with TaskGroup() as tasks:
            for informer in (self._services, self._slices):
                tasks.create_task(informer.run())
            tasks.create_task(self.remotes.run())
            await self._services.synced.wait()
            await self._slices.synced.wait()
            await self.remotes.configured.wait()
            log.info("event=ready slices=%d", self.standing)
            await self._marked.run()

    @property
    def standing(self) -> int:
        """How many slices there are."""
        return sum(map(len, self._copies.values()))

    @property
    def known(self) -> Mapping[ServiceName, Collection[ClusterName]]:
        """Services of other clusters, and which of these have them."""
        return self._accounts

    # What others tell.

    def on_changes(self, cluster: ClusterName, resource: str, changes: Sequence[Change]) -> None:
        """``kvstore.remote.Sink``."""
        for key, value in changes:
            if isinstance(key, ServiceName):
                self._account(cluster, key, self._remote.record(cluster, key, value))
            elif isinstance(key, SliceName):
                for name, account in self._remote.slice(cluster, key, value):
                    self._account(cluster, name, account)

    def _account(
        self, cluster: ClusterName, name: ServiceName, account: SharedService | None
    ) -> None:
        known = self._accounts.setdefault(name, {})
        if account is None:
            known.pop(cluster, None)
        else:
            known[cluster] = account
        if not known:
            del self._accounts[name]
        self._marked.mark(name)

    def on_synced(self, cluster: ClusterName, resource: str) -> None:
        """``kvstore.remote.Sink``."""
        status = self.remotes.status(cluster)
        if status is not None and status.ready and cluster not in self._heard:
            self._heard.add(cluster)
            self._mark_copies()

    def on_removed(self, cluster: ClusterName) -> None:
        """``kvstore.remote.Sink``."""
        self._heard.discard(cluster)
        self._remote.drop_cluster(cluster)
        for name in [n for n, known in self._accounts.items() if cluster in known]:
            self._account(cluster, name, None)
        self._mark_copies()

    def on_revoked(self, cluster: ClusterName) -> None:
        """``kvstore.remote.Sink``: what a former life left of it goes as well."""
        self._heard.add(cluster)
        self._mark_copies()

    async def _on_service(self, old: Service | None, new: Service | None) -> None:
        some = new or old
        assert some is not None, "a change has an old or a new side"
        self._marked.mark(service_name(some.metadata))

    async def _on_slice(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for slice_, stands in ((old, False), (new, True)):
            name = slice_copies.service_of(slice_) if slice_ else None
            if slice_ is None or name is None:
                continue
            known = self._copies.setdefault(name, {})
            known.pop(slice_.metadata.name, None)
            if stands:
                known[slice_.metadata.name] = slice_
            if not known:
                del self._copies[name]
            self._marked.mark(name)

    def _mark_copies(self) -> None:
        for name in self._copies:
            self._marked.mark(name)

    # What is done.

    async def _bring_up(self, name: ServiceName) -> None:
        try:
            await self._carry_out(name)
        except (OSError, ValueError):
            self.counts.syncs.add("error")
            raise

    async def _carry_out(self, name: ServiceName) -> None:
        service = self._services.store.get((name.namespace, name.name))
        known = self._copies.get(name, {})
        wanted: dict[str, dict[str, object]] = {}
        stays: set[str] = set()
        if service is not None and slice_copies.is_synced(service):
            for account in self._accounts.get(name, {}).values():
                of_cluster = {
                    n: s for n, s in known.items() if slice_copies.source_of(s) == account.cluster
                }
                wanted |= slice_copies.copies(service, account, of_cluster, self._size)
            silent = self.remotes.statuses.keys() - self._heard
            stays = {n for n, s in known.items() if slice_copies.source_of(s) in silent}
        if not wanted and not known:
            self.counts.wants(name, (), self._size)
            return  # a Service like most
        standing = slice_counts.addresses(s for n, s in known.items() if n not in stays)
        self.counts.wants(name, wanted.values(), self._size)
        changes: Counter[str] = Counter()
        for slice_name, body in wanted.items():
            before = known.get(slice_name)
            made = await self._applier.apply(ENDPOINT_SLICES, body, before)
            if before is None:
                changes["create"] += 1
            elif made and made["metadata"]["resourceVersion"] != before.metadata.resource_version:
                changes["update"] += 1
        for slice_name in sorted(known.keys() - wanted.keys() - stays):
            await self._applier.delete(ENDPOINT_SLICES, known[slice_name])
            changes["delete"] += 1
        self.counts.synced(standing, slice_counts.wanted_addresses(wanted.values()), changes)


def _wanted(said: Capabilities) -> tuple[str, ...]:
    records, slices = Preference.SLICES.reads(said)
    return ((keys.SERVICES,) if records else ()) + ((keys.ENDPOINT_SLICES,) if slices else ())

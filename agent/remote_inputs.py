"""What remote clusters say → claims. Adapter: keeps a small file of their IDs.

Which ID a configured cluster had when it last spoke is kept on disk: after a restart of ours, while
that cluster is silent, it says whose the rows in the kernel are.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec

from agent.endpoint_store import write_atomically
from agent.mesh_state import MeshState
from agent.remote_labels import RemoteLabels
from kvstore.decoding import Change
from kvstore.status import RemoteStatus
from mesh.ipcache import Claimant, IpClaim
from mesh.remote_slices import Preference, RemoteServices
from model.address import Prefix
from model.cluster import Capabilities, ClusterId, ClusterName
from model.ipcache import IpcacheEntry, Source
from model.service import Frontend, LoadBalancer
from wire.etcd import keys

log = logging.getLogger("isthmus.agent.remote")


class RemoteInputs:
    """The ``kvstore.remote.Sink`` of an agent."""

    def __init__(
        self,
        mesh: MeshState,
        ids_file: Path,
        preference: Preference = Preference.SLICES,
    ) -> None:
        self._mesh = mesh
        self._preference = preference
        self._services = RemoteServices()
        self._ids_file = ids_file
        self._ids = _read_ids(ids_file)
        self.labels = RemoteLabels(mesh.identities, ids_file.with_suffix(""))
        self._restored: dict[ClusterId, list[Prefix]] = {}  # last words that still count
        self.status: Callable[[ClusterName], RemoteStatus | None] = lambda cluster: None
        self._told = asyncio.Event()
        self._claimants: dict[ClusterName, Claimant] = {}
        self._takes = {
            keys.NODES: self._node,
            keys.IDENTITIES: self._identity,
            keys.SERVICES: self._service,
            keys.ENDPOINT_SLICES: self._slice,
        }

    async def heard(self) -> None:
        """Wait until some cluster has told all of one type, or has left the mesh."""
        await self._told.wait()

    def _tell(self) -> None:
        told, self._told = self._told, asyncio.Event()
        told.set()

    def types(self, said: Capabilities) -> tuple[str, ...]:
        """What is read of a cluster of these capabilities."""
        records, slices = self._preference.reads(said)
        unread = set() if records else {keys.SERVICES}
        return (
            *(r for r in keys.REQUIRED if r not in unread),
            *((keys.ENDPOINT_SLICES,) if slices else ()),
        )

    def restore(
        self,
        ipcache: Iterable[tuple[Prefix, IpcacheEntry]],
        services: Iterable[tuple[Frontend, LoadBalancer]],
    ) -> None:
        """Take what a former life left in the kernel as the last words of remote clusters."""
        for prefix, row in ipcache:
            if row.cluster_id:
                cluster_id = ClusterId(row.cluster_id)
                self._restored.setdefault(cluster_id, []).append(prefix)
                self._mesh.ipcache.put(prefix, _restored(cluster_id), IpClaim(row))
        self.labels.restore()
        names = {number: name for name, number in self._ids.items()}
        for frontend, balancer in services:
            backends = tuple(
                replace(b, cluster=names.get(b.cluster_id, b.cluster)) for b in balancer.backends
            )
            self._mesh.services.restore([(frontend, replace(balancer, backends=backends))])

    def configured(self, names: Collection[ClusterName]) -> None:
        """Which clusters are members now; what others left behind goes."""
        members = {self._ids[name] for name in names if name in self._ids}
        left = set(self._restored) | self._mesh.services.restored_clusters()
        self.labels.configured(names)
        for cluster_id in left - members:
            log.info("event=forgotten cluster_id=%d: no configured cluster has it", cluster_id)
            self._forget_addresses(cluster_id)
            self._mesh.services.forget(cluster_id)

    def on_changes(self, cluster: ClusterName, resource: str, changes: Sequence[Change]) -> None:
        """``kvstore.remote.Sink``."""
        if resource == keys.IP:
            self._addresses(cluster, changes)
            return
        take = self._takes.get(resource)
        if take is not None:
            for key, value in changes:
                take(cluster, key, value)

    def on_synced(self, cluster: ClusterName, resource: str) -> None:
        """``kvstore.remote.Sink``."""
        self._tell()
        cluster_id = self._learn(cluster)
        status = self.status(cluster)
        heard = status.synced if status else set()
        log.debug("event=synced cluster=%s resource=%s", cluster, resource)
        if resource == keys.NODES:
            self._mesh.nodes_listed(cluster)
        if resource == keys.IDENTITIES:
            self.labels.heard(cluster)
        if cluster_id is None:
            return
        if {keys.IP, keys.NODES} <= heard:
            self._forget_addresses(cluster_id)
        backends = {keys.SERVICES, keys.ENDPOINT_SLICES}
        if status and status.config:
            backends &= set(self.types(status.config.capabilities))
        if resource in backends <= heard:
            self._mesh.services.forget(cluster_id, drain=True)

    def on_removed(self, cluster: ClusterName) -> None:
        """``kvstore.remote.Sink``."""
        self._tell()
        self._services.drop_cluster(cluster)
        self._mesh.services.drop_cluster(cluster)
        self._mesh.nodes.drop_cluster(cluster)
        self._mesh.ipcache.drop_all(
            lambda c: c.source is Source.CLUSTERMESH and c.cluster == cluster
        )
        self._mesh.identities.drop_cluster(cluster)
        self.labels.removed(cluster)
        self._mesh.forget(cluster)
        self._claimants.pop(cluster, None)
        cluster_id = self._ids.pop(cluster, None)
        if cluster_id is not None:
            self._forget_addresses(cluster_id)
            self._mesh.services.forget(cluster_id)
            self._write_ids()
        log.info("event=forgotten cluster=%s", cluster)

    def on_revoked(self, cluster: ClusterName) -> None:
        """``kvstore.remote.Sink``. What was read is taken back; what was restored goes now."""
        cluster_id = self._ids.get(cluster)
        if cluster_id is not None:
            self._mesh.services.forget(cluster_id, drain=True)
        log.info("event=revoked cluster=%s", cluster)

    def _forget_addresses(self, cluster_id: ClusterId) -> None:
        for prefix in self._restored.pop(cluster_id, ()):
            self._mesh.ipcache.drop(prefix, _restored(cluster_id))

    def _node(self, cluster: ClusterName, key: Any, value: Any) -> None:
        if value is None:
            self._mesh.nodes.drop(cluster, key)
        else:
            self._mesh.nodes.put(value)

    def _identity(self, cluster: ClusterName, key: Any, value: Any) -> None:
        if value is None:
            self._mesh.identities.drop(key, cluster)
        else:
            self._mesh.identities.put(key, cluster, value.labels)
        self.labels.changed(cluster, key, value.labels if value is not None else None)

    def _addresses(self, cluster: ClusterName, changes: Sequence[Change]) -> None:
        claimant = self._claimants.get(cluster)
        if claimant is None:
            claimant = self._claimants[cluster] = Claimant(Source.CLUSTERMESH, cluster)
        cluster_id, ipcache = self._id_of(cluster), self._mesh.ipcache
        claims: dict[Prefix, IpClaim] = {}
        # Pods of one workload on one node have the same row: one object of it.
        rows: dict[tuple[int, bytes | None, int], IpcacheEntry] = {}
        for key, value in changes:
            prefix = cast("Prefix", key)
            if claims and (value is None or prefix in claims):
                # In the order in which it was said: each lie counts, also one soon taken back.
                ipcache.put_all(claimant, claims.items())
                claims = {}
            if value is None:
                ipcache.drop(prefix, claimant)
                continue
            said = value.identity, value.host_ip, value.key
            row = rows.get(said)
            if row is None:
                row = rows[said] = IpcacheEntry(*said, cluster_id)
            claims[prefix] = IpClaim(row, value.namespace, value.pod)
        if claims:
            ipcache.put_all(claimant, claims.items())

    def _service(self, cluster: ClusterName, key: Any, value: Any) -> None:
        self._mesh.services.set_shared(cluster, key, self._services.record(cluster, key, value))

    def _slice(self, cluster: ClusterName, key: Any, value: Any) -> None:
        for name, account in self._services.slice(cluster, key, value):
            self._mesh.services.set_shared(cluster, name, account)

    def _id_of(self, cluster: ClusterName) -> ClusterId:
        """A record is handed over only after its cluster's announcement was accepted."""
        found = self._learn(cluster)
        assert found is not None
        return found

    def _learn(self, cluster: ClusterName) -> ClusterId | None:
        status = self.status(cluster)
        found = status.config.id if status and status.config else None
        known = self._ids.get(cluster)
        if found is None or found == known:
            return known
        self._ids[cluster] = found
        self._append_id(cluster, found)
        if known is not None and known not in self._ids.values():
            # It has another ID than before our restart: nobody speaks for the old one any more.
            self._forget_addresses(known)
            self._mesh.services.forget(known)
        return found

    def _write_ids(self) -> None:
        write_atomically(self._ids_file, msgspec.json.encode(self._ids))

    def _append_id(self, cluster: ClusterName, number: ClusterId) -> None:
        """Before anything of the cluster is used; hundreds of clusters may speak at once."""
        try:
            file = self._ids_file.open("ab", buffering=0)
        except FileNotFoundError:
            self._ids_file.parent.mkdir(parents=True, exist_ok=True)
            file = self._ids_file.open("ab", buffering=0)
        with file:
            # A line that a kill has cut off ends where the next one begins.
            file.write(b"\n" + msgspec.json.encode({cluster: number}))


def _restored(cluster_id: ClusterId) -> Claimant:
    return Claimant(Source.RESTORED, origin=str(cluster_id))


def _read_ids(path: Path) -> dict[ClusterName, ClusterId]:
    """Line by line: what was written as a whole, then what has been learnt since."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        log.warning('event=file-ignored path=%s error="%s"', path, error)
        return {}
    found: dict[str, int] = {}
    for line in filter(None, lines):
        try:
            found |= msgspec.json.decode(line, type=dict[str, int])
        except msgspec.MsgspecError as error:
            log.warning('event=line-ignored path=%s error="%s"', path, error)
    return {ClusterName(name): ClusterId(number) for name, number in found.items()}

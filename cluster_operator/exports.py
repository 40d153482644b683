"""Makes ServiceImports, and the Services behind them, of all clusters' exports. Adapter.

What is to be is decided in ``mesh.exports`` and ``cluster_operator.multicluster``. Services are
looked after one by one: whatever changes of one marks its name, and a marked name is brought up to
date from all that is known then. An import in which a cluster takes part that has not been heard
since we started stays as it is: silence is no word that an export is gone.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cluster_operator import multicluster, slice_mirrors
from cluster_operator.applier import Applier
from cluster_operator.config import Settings
from cluster_operator.marked import Marked
from cluster_operator.mirrors import Mirrors
from kube.informer import Informer
from kube.port import ApiError, Client
from kube.resources import ENDPOINT_SLICES, NAMESPACES, SERVICE_EXPORTS, SERVICE_IMPORTS, SERVICES
from kvstore.config_directory import ConfigDirectory
from kvstore.decoding import Change
from kvstore.remotes import Remotes
from mesh.exports import Import, merge
from model.cluster import Capabilities, ClusterName, parse_cluster_id, parse_cluster_name
from model.service import ServiceName
from model.service_export import ServiceExport
from reconcile.tasks import TaskGroup
from wire.etcd import keys
from wire.k8s.meta import K8sObject, annotations_of, labels_of
from wire.k8s.multicluster import (
    DERIVED_ANNOTATION,
    SERVICE_LABEL,
    NotExportableError,
    ServiceImportObject,
    decode_export,
)
from wire.k8s.service import Service, service_name

log = logging.getLogger("operator.exports")


class Controller:
    """All exported services of this cluster's view, and the ``kvstore.remote.Sink`` for them."""

    def __init__(self, client: Client, settings: Settings) -> None:
        """Raises ``ValueError`` for a cluster without name or number in the mesh."""
        self._client = client
        try:
            self._cluster = parse_cluster_name(settings.cluster_name)
            number = parse_cluster_id(settings.cluster_id, settings.max_connected_clusters)
        except ValueError as error:
            raise ValueError(
                f"clustermesh-enable-mcs-api needs cluster-name and cluster-id: {error}"
            ) from error
        self.remotes = Remotes(
            ConfigDirectory(Path(settings.clustermesh_config), self._cluster),
            self,
            self._cluster,
            number,
            settings.max_connected_clusters,
            wanted=_wanted,
        )
        self._exports = Informer(client, SERVICE_EXPORTS, self._on_object)
        self._imports = Informer(client, SERVICE_IMPORTS, self._on_object)
        self._services = Informer(client, SERVICES, self._on_service)
        self._namespaces = Informer(client, NAMESPACES, self._on_namespace)
        self._remote: dict[ServiceName, dict[ClusterName, ServiceExport]] = {}
        self._heard: set[ClusterName] = set()
        self._marked = Marked(self._bring_up)
        self._applier = Applier(client)
        self._mirrors = Mirrors(client, self._applier, self._mark)

    async def run(self) -> None:
        """Until cancelled."""
        informers: tuple[Informer[Any], ...] = (
            self._exports,
            self._imports,
            self._services,
            self._namespaces,
            self._mirrors.informer,
        )
        async with TaskGroup() as tasks:
            for informer in informers:
                tasks.create_task(informer.run())
            tasks.create_task(self.remotes.run())
            for informer in informers:
                await informer.synced.wait()
            await self.remotes.configured.wait()
            log.info("event=ready exports=%d", len(self._exports.store))
            await self._marked.run()

    @property
    def known(self) -> Mapping[ServiceName, Collection[ClusterName]]:
        """Services that other clusters export, and which of these do."""
        return self._remote

    # What others tell.

    def on_changes(self, cluster: ClusterName, resource: str, changes: Sequence[Change]) -> None:
        """``kvstore.remote.Sink``."""
        for key, export in changes:
            assert isinstance(key, ServiceName)
            known = self._remote.setdefault(key, {})
            if export is None:
                known.pop(cluster, None)
            else:
                known[cluster] = export
            if not known:
                del self._remote[key]
            self._mark(key)

    def on_synced(self, cluster: ClusterName, resource: str) -> None:
        """``kvstore.remote.Sink``."""
        if cluster not in self._heard:
            self._heard.add(cluster)
            self._mark_all()

    def on_removed(self, cluster: ClusterName) -> None:
        """``kvstore.remote.Sink``."""
        self._heard.discard(cluster)
        for name in [n for n, known in self._remote.items() if cluster in known]:
            self.on_changes(cluster, keys.SERVICE_EXPORTS, [(name, None)])
        self._mark_all()

    def on_revoked(self, cluster: ClusterName) -> None:
        """``kvstore.remote.Sink``: of its services; an export names no backend and stays."""

    async def _on_object(self, old: K8sObject | None, new: K8sObject | None) -> None:
        self._mark(service_name(_either(old, new).metadata))

    async def _on_service(self, old: Service | None, new: Service | None) -> None:
        meta = _either(old, new).metadata
        self._mark(ServiceName(meta.namespace, labels_of(meta).get(SERVICE_LABEL) or meta.name))
        self._mark(service_name(meta))

    async def _on_namespace(self, old: K8sObject | None, new: K8sObject | None) -> None:
        if old is None or new is None or new.metadata.deletion_timestamp:
            namespace = _either(old, new).metadata.name
            for name in [n for n in self._remote if n.namespace == namespace]:
                self._mark(name)

    def _mark(self, name: ServiceName) -> None:
        self._marked.mark(name)

    def _mark_all(self) -> None:
        for namespace, name in (*self._imports.store, *self._exports.store):
            self._mark(ServiceName(namespace, name))

    # What is done.

    async def _bring_up(self, name: ServiceName) -> None:
        key = (name.namespace, name.name)
        export = self._exports.store.get(key)
        local = self._services.store.get(key)
        known = self._imports.store.get(key)
        if export is None and known is None and name not in self._remote:
            return  # a Service like most
        exports = dict(self._remote.get(name, {}))
        problem: NotExportableError | None = None
        if export is not None:
            try:
                exports[self._cluster] = decode_export(export, local, self._cluster)
            except NotExportableError as error:
                problem = error
        merged = merge(exports.values())
        failure: BaseException | None = None
        try:
            await self._realize(name, merged, local if self._cluster in exports else None)
        except (OSError, ValueError) as error:
            failure = error
        if export is not None and not export.metadata.deletion_timestamp:
            said = multicluster.statements(
                problem, merged.conflict if merged else None, str(failure or "")
            )
            await self._say(name, said)
        if failure is not None:
            raise failure

    async def _realize(
        self, name: ServiceName, merged: Import | None, local: Service | None
    ) -> None:
        known = self._imports.store.get((name.namespace, name.name))
        if known is not None and _clusters(known) & self._unheard():
            return
        namespace = self._namespaces.store.get(("", name.namespace))
        if namespace is None or namespace.metadata.deletion_timestamp:
            return  # what was in it goes with it
        if merged is None:
            await self._remove(name, known)
            return
        service = self._derived(name)
        if service is not None and service.headless != (merged.type.value == "Headless"):
            # An address is for life: only a new object can have another, or none.
            await self._delete(service)
            service = None
        ips = _addresses(service)
        made = await self._apply(multicluster.import_body(merged, ips), known)
        body = multicluster.service_body(merged, local, self._cluster, made["metadata"]["uid"])
        derived = await self._apply(body, service)
        if "selector" not in body["spec"]:
            await self._clear(name)
        await self._mirror(merged, local, derived["metadata"]["uid"])
        given = derived.get("spec", {}).get("clusterIPs") or []
        if [ip for ip in given if ip != "None"] != ips:
            await self._apply(multicluster.import_body(merged, _texts(given)), None)
        clusters = [{"cluster": c} for c in merged.clusters]
        if known is None or sorted(_clusters(known)) != list(merged.clusters):
            await self._client.patch_status(
                SERVICE_IMPORTS, name.name, {"clusters": clusters}, name.namespace
            )

    def _unheard(self) -> set[ClusterName]:
        """Remote clusters that may still have exports we do not know."""
        silent = set()
        for cluster, status in self.remotes.statuses.items():
            capable = status.config is None or _wanted(status.config.capabilities)
            if cluster not in self._heard and capable:
                silent.add(cluster)
        return silent

    def _derived(self, name: ServiceName) -> Service | None:
        """The Service behind an import. Raises ``ValueError`` when its name is taken."""
        key = (name.namespace, multicluster.derived_name(name))
        found = self._services.store.get(key)
        if found is None or labels_of(found.metadata).get(SERVICE_LABEL) == name.name:
            return found
        raise ValueError(
            f"Service {key[0]}/{key[1]} is not ours and stands where the Service of the import "
            f"{name} belongs: delete it or give it another name"
        )

    async def _clear(self, name: ServiceName) -> None:
        """Of a Service that has lost its selector, Kubernetes leaves the slices as they were."""
        for slice_ in list(self._mirrors.of(_behind(name))):
            await self._applier.delete(ENDPOINT_SLICES, slice_)

    async def _mirror(self, merged: Import, local: Service | None, uid: str) -> None:
        derived, wanted = _behind(merged.name), {}
        if local is not None and slice_mirrors.is_mirrored(merged, local):
            slices = self._mirrors.of(merged.name)
            behind = (derived.name, uid)
            wanted = slice_mirrors.mirrors(merged, local, behind, self._cluster, slices)
        await self._mirrors.bring_up(derived, wanted)

    async def _remove(self, name: ServiceName, known: ServiceImportObject | None) -> None:
        await self._mirrors.bring_up(_behind(name), {})
        service = self._derived(name)
        if service is not None:
            await self._delete(service)
        if known is not None and DERIVED_ANNOTATION in annotations_of(known.metadata):
            await self._client.delete(
                SERVICE_IMPORTS, name.name, name.namespace, uid=known.metadata.uid
            )
            log.info("event=removed service=%s", name)

    async def _delete(self, service: Service) -> None:
        await self._applier.delete(SERVICES, service)

    async def _apply(self, body: dict[str, Any], known: K8sObject | None) -> dict[str, Any]:
        """Bring an object to this body, unless it is as we left it; the object."""
        resource = SERVICES if body["kind"] == "Service" else SERVICE_IMPORTS
        made = await self._applier.apply(resource, body, known)
        if made is not None:
            return made
        assert known is not None, "an object that stands is known"
        return _as_known(known)

    async def _say(self, name: ServiceName, said: Sequence[multicluster.Statement]) -> None:
        export = self._exports.store.get((name.namespace, name.name))
        if export is None:
            return
        before = (export.status.conditions if export.status else None) or []
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        after = multicluster.conditions(before, said, export.metadata.generation, now)
        if multicluster.unchanged(before, after):
            return
        try:
            await self._client.patch_status(
                SERVICE_EXPORTS, name.name, {"conditions": after}, name.namespace
            )
        except ApiError as error:
            if not error.not_found:  # deleted just now
                raise


def _wanted(said: Capabilities) -> tuple[str, ...]:
    """A cluster too old to know of exports has none."""
    return () if said.service_exports is None else (keys.SERVICE_EXPORTS,)


def _behind(name: ServiceName) -> ServiceName:
    """The Service behind an import."""
    return ServiceName(name.namespace, multicluster.derived_name(name))


def _either(old: K8sObject | None, new: K8sObject | None) -> K8sObject:
    found = new or old
    assert found is not None, "a change has an old or a new side"
    return found


def _clusters(known: ServiceImportObject) -> set[ClusterName]:
    listed = (known.status.clusters if known.status else None) or []
    return {ClusterName(c.cluster) for c in listed}


def _texts(addresses: Sequence[str]) -> list[str]:
    return [a for a in addresses if a not in ("", "None")]


def _addresses(service: Service | None) -> list[str]:
    if service is None:
        return []
    return _texts(service.spec.cluster_ips or [service.spec.cluster_ip])


def _as_known(known: K8sObject) -> dict[str, Any]:
    """The few fields that are read of what was applied."""
    found: dict[str, Any] = {"metadata": {"uid": known.metadata.uid}}
    if isinstance(known, Service):
        found["spec"] = {"clusterIPs": _addresses(known)}
    return found

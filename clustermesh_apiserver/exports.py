"""ServiceExports and the Services they name → rows for etcd. Pure."""

from dataclasses import dataclass, field

from clustermesh_apiserver.publish import Rows
from model.cluster import ClusterName
from model.service import ServiceName
from wire.etcd import keys, service_export_v1
from wire.k8s.meta import K8sObject
from wire.k8s.multicluster import NotExportableError, ServiceExportObject, decode_export
from wire.k8s.service import Service, service_name


@dataclass(slots=True)
class ExportPublication:
    """The exports of one cluster. Not for use from several threads."""

    cluster: ClusterName
    _exports: dict[ServiceName, ServiceExportObject] = field(default_factory=dict)
    _services: dict[ServiceName, Service] = field(default_factory=dict)
    _complete: bool = False

    def export(self, old: ServiceExportObject | None, new: ServiceExportObject | None) -> Rows:
        """Take a change of a ServiceExport. No row before ``complete``."""
        name = _name(old, new)
        if new is None:
            self._exports.pop(name, None)
        else:
            self._exports[name] = new
        return self._rows(name)

    def service(self, old: Service | None, new: Service | None) -> Rows:
        """Take a change of a Service. No row before ``complete``."""
        name = _name(old, new)
        if new is None:
            self._services.pop(name, None)
        else:
            self._services[name] = new
        return self._rows(name) if name in self._exports else {}

    def complete(self) -> Rows:
        """Both have been listed: all rows. Sooner an export would seem to have no Service."""
        self._complete = True
        rows: Rows = {}
        for name in self._exports:
            rows |= self._rows(name)
        return rows

    def _rows(self, name: ServiceName) -> Rows:
        if not self._complete:
            return {}
        key = keys.service_export(self.cluster, name)
        export = self._exports.get(name)
        if export is None:
            return {key: None}
        try:
            found = decode_export(export, self._services.get(name), self.cluster)
        except NotExportableError:  # the operator says it in the object's conditions
            return {key: None}
        return {key: service_export_v1.encode(found)}


def _name(old: K8sObject | None, new: K8sObject | None) -> ServiceName:
    found = new or old
    assert found is not None, "a change has an old or a new side"
    return service_name(found.metadata)

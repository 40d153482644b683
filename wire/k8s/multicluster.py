"""ServiceExport and ServiceImport of ``multicluster.x-k8s.io/v1alpha1``. Pure."""

from datetime import datetime

from model.cluster import ClusterName
from model.service_export import (
    ExportedPort,
    ExportType,
    ServiceExport,
    SessionAffinity,
    check_metadata,
)
from wire.k8s.meta import Condition, K8sObject, K8sStruct
from wire.k8s.service import Service, protocol_of, service_name

GROUP, VERSION = "multicluster.x-k8s.io", "v1alpha1"
SERVICE_LABEL = "multicluster.kubernetes.io/service-name"
CLUSTER_LABEL = "multicluster.kubernetes.io/source-cluster"
DERIVED_ANNOTATION = "multicluster.kubernetes.io/derived-service"


class ServiceExportSpec(K8sStruct, frozen=True):
    """What is to be told beside the Service itself."""

    exported_labels: dict[str, str] | None = None
    exported_annotations: dict[str, str] | None = None


class ServiceExportStatus(K8sStruct, frozen=True):
    """What became of it."""

    conditions: list[Condition] | None = None


class ServiceExportObject(K8sObject, frozen=True):
    """The wish that the Service of the same name be known to all clusters."""

    spec: ServiceExportSpec | None = None
    status: ServiceExportStatus | None = None


class ImportingCluster(K8sStruct, frozen=True):
    """A cluster that exports."""

    cluster: str = ""


class ServiceImportStatus(K8sStruct, frozen=True):
    """Whose backends there are."""

    clusters: list[ImportingCluster] | None = None


class ServiceImportObject(K8sObject, frozen=True):
    """A service of the set of clusters. What it is to be is made as a dictionary."""

    status: ServiceImportStatus | None = None


class NotExportableError(ValueError):
    """Why a ServiceExport has no effect: the reason of its condition, and a sentence."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def decode_export(
    export: ServiceExportObject, service: Service | None, cluster: ClusterName
) -> ServiceExport:
    """What others learn of an export. Raises ``NotExportableError``."""
    meta = export.metadata
    if service is None:
        raise NotExportableError(
            "NoService",
            f"Service {meta.namespace}/{meta.name} doesn't exist: create it, or delete the "
            "ServiceExport",
        )
    spec = service.spec
    if spec.type == "ExternalName":
        raise NotExportableError(
            "InvalidServiceType",
            "Service type ExternalName is not supported: export a service with backends",
        )
    config = spec.session_affinity_config
    wanted = export.spec or ServiceExportSpec()
    try:
        ports = tuple(
            ExportedPort(p.port, protocol_of(p.protocol), p.name, p.app_protocol)
            for p in spec.ports or ()
        )
        created = datetime.fromisoformat(meta.creation_timestamp or "")
        affinity = SessionAffinity(spec.session_affinity)
        check_metadata(wanted.exported_annotations or {}, wanted.exported_labels or {})
    except ValueError as error:
        raise NotExportableError("Invalid", str(error)) from error
    return ServiceExport(
        cluster=cluster,
        name=service_name(meta),
        created=created,
        ports=ports,
        type=ExportType.HEADLESS if service.headless else ExportType.CLUSTER_SET_IP,
        affinity=affinity,
        affinity_timeout_s=config.client_ip.timeout_seconds
        if config and config.client_ip and affinity is SessionAffinity.CLIENT_IP
        else None,
        annotations=dict(wanted.exported_annotations or {}),
        labels=dict(wanted.exported_labels or {}),
    )

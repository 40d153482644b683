"""A merged import → the objects that make it real, and what is said about an export. Pure."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cluster_operator.slice_mirrors import is_mirrored
from mesh.exports import Conflict, Import
from model.cluster import ClusterName
from model.service import ServiceName
from model.service_export import ExportType, SessionAffinity
from wire.k8s.meta import Condition
from wire.k8s.multicluster import (
    CLUSTER_LABEL,
    DERIVED_ANNOTATION,
    GROUP,
    SERVICE_LABEL,
    VERSION,
    NotExportableError,
)
from wire.k8s.service import GLOBAL, Service

Body = dict[str, Any]
# A named port that no pod has: the local backends do not serve what only other clusters export.
NOT_EXPORTED = "not-exported"
CONDITIONS = ("Valid", "Ready", "Conflict")


def derived_name(name: ServiceName) -> str:
    """The Service behind an import, named as other implementations of Cluster Mesh name it."""
    digest = base64.b32hexencode(hashlib.sha256(str(name).encode()).digest())
    return "derived-" + digest.decode().lower()[:10]


def import_body(wanted: Import, ips: Sequence[str]) -> Body:
    """The ServiceImport, for server-side apply."""
    spec: Body = {
        "type": wanted.type.value,
        "ports": [_port(p.name, p.protocol.name, p.app_protocol, p.port) for p in wanted.ports],
        "sessionAffinity": wanted.affinity.value,
    }
    if wanted.type is ExportType.CLUSTER_SET_IP and ips:
        spec["ips"] = list(ips)
    _add_affinity(spec, wanted)
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "ServiceImport",
        "metadata": {
            "name": wanted.name.name,
            "namespace": wanted.name.namespace,
            "annotations": {**wanted.annotations, DERIVED_ANNOTATION: derived_name(wanted.name)},
            "labels": dict(wanted.labels),
        },
        "spec": spec,
    }


def service_body(wanted: Import, local: Service | None, cluster: ClusterName, uid: str) -> Body:
    """The derived Service, for server-side apply: a global service like any other.

    ``local`` is the Service that this cluster exports, whose pods are behind it; ``uid`` is the
    ServiceImport's.
    """
    spec: Body = {
        "type": "ClusterIP",
        "ports": [
            _port(p.name, p.protocol.name, p.app_protocol, p.port)
            | _target(local, p.port, p.protocol.name)
            for p in wanted.ports
        ],
        "sessionAffinity": wanted.affinity.value,
    }
    if wanted.type is ExportType.HEADLESS:
        spec["clusterIP"] = "None"
    if local is not None and not is_mirrored(wanted, local):
        spec["selector"] = dict(local.spec.selector or {})
    _add_affinity(spec, wanted)
    owner = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "ServiceImport",
        "name": wanted.name.name,
        "uid": uid,
        "controller": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": derived_name(wanted.name),
            "namespace": wanted.name.namespace,
            "annotations": {**wanted.annotations, GLOBAL[0]: "true"},
            "labels": {
                **wanted.labels,
                SERVICE_LABEL: wanted.name.name,
                CLUSTER_LABEL: cluster,
            },
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


def _port(name: str, protocol: str, app_protocol: str, port: int) -> Body:
    found: Body = {"port": port, "protocol": protocol}
    if name:
        found["name"] = name
    if app_protocol:
        found["appProtocol"] = app_protocol
    return found


def _target(local: Service | None, port: int, protocol: str) -> Body:
    if local is None:
        return {}
    for own in local.spec.ports or ():
        if (own.port, own.protocol or "TCP") == (port, protocol):
            return {"targetPort": own.target_port or port}
    return {"targetPort": NOT_EXPORTED}


def _add_affinity(spec: Body, wanted: Import) -> None:
    if wanted.affinity is SessionAffinity.CLIENT_IP and wanted.affinity_timeout_s is not None:
        spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": wanted.affinity_timeout_s}}


class Statement(NamedTuple):
    """What a condition is to say."""

    type: str
    status: bool
    reason: str
    message: str


def statements(
    problem: NotExportableError | None, conflict: Conflict | None, failure: str
) -> tuple[Statement, ...]:
    """The conditions of an export. A conflict leaves it ready: the oldest export is in force."""
    if problem is not None:
        return (
            Statement("Valid", False, problem.reason, str(problem)),
            Statement("Ready", False, "Pending", "The export is not valid"),
        )
    said = [Statement("Valid", True, "Valid", "The service is exportable")]
    if failure:
        said.append(Statement("Ready", False, "Failed", failure))
    else:
        said.append(Statement("Ready", True, "Exported", "The service is exported"))
    if conflict is not None:
        said.append(Statement("Conflict", True, conflict.reason, conflict.message))
    return tuple(said)


def conditions(
    before: Sequence[Condition], said: Sequence[Statement], generation: int, now: str
) -> list[Body]:
    """The whole list: others' conditions stay, and a time changes with its status only."""
    known = {c.type: c for c in before}
    kept = [_condition(c) for c in before if c.type not in CONDITIONS]
    for statement in said:
        status = "True" if statement.status else "False"
        old = known.get(statement.type)
        since = old.last_transition_time if old and old.status == status else ""
        kept.append(
            {
                "type": statement.type,
                "status": status,
                "reason": statement.reason,
                "message": statement.message,
                "observedGeneration": generation,
                "lastTransitionTime": since or now,
            }
        )
    return kept


def unchanged(before: Sequence[Condition], after: Sequence[Mapping[str, Any]]) -> bool:
    """Whether nothing is to be written."""
    return [_condition(c) for c in before] == list(after)


def _condition(known: Condition) -> Body:
    return {
        "type": known.type,
        "status": known.status,
        "reason": known.reason,
        "message": known.message,
        "observedGeneration": known.observed_generation,
        "lastTransitionTime": known.last_transition_time,
    }

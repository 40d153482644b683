"""The slices of an exported Service → slices of the Service behind its import. Pure.

Where the Service behind an import cannot select the pods itself, it has the exported Service's
slices instead: of a headless one, because only these know the pods' host names; and of one without
selector, because somebody writes them by hand. To agents and the publisher they are our own.
"""

import base64
import hashlib
from collections.abc import Iterable
from typing import Any

from mesh.exports import Import
from model.cluster import ClusterName
from model.service_export import ExportType
from wire.k8s.endpointslice import (
    HEADLESS_LABEL,
    MANAGED_BY_LABEL,
    SERVICE_NAME_LABEL,
    Endpoint,
    EndpointSlice,
)
from wire.k8s.meta import labels_of
from wire.k8s.multicluster import CLUSTER_LABEL, SERVICE_LABEL
from wire.k8s.service import Service

Body = dict[str, Any]
# The name that other implementations of Cluster Mesh know.
MIRROR_CONTROLLER = "endpointslice-local-mcsapi-controller.cilium.io"


def is_mirrored(wanted: Import, local: Service | None) -> bool:
    """Whether the Service behind an import has slices of the exported one, and no selector."""
    if local is None:
        return False
    return wanted.type is ExportType.HEADLESS or not local.spec.selector


def is_mirror(slice_: EndpointSlice) -> bool:
    """One of these."""
    return labels_of(slice_.metadata).get(MANAGED_BY_LABEL) == MIRROR_CONTROLLER


def mirrors(
    wanted: Import,
    local: Service,
    derived: tuple[str, str],
    cluster: ClusterName,
    slices: Iterable[EndpointSlice],
) -> dict[str, Body]:
    """For server-side apply, by name; ``derived`` is name and uid of the Service behind it."""
    found = {}
    names = _port_names(wanted, local)
    for slice_ in slices:
        if slice_.address_type != "FQDN":
            body = _body(wanted, derived, cluster, slice_, names)
            found[body["metadata"]["name"]] = body
    return found


def _port_names(wanted: Import, local: Service) -> dict[str, str]:
    """Port of the exported Service → the import's, which may have had to give it a name."""
    given = {(p.port, p.protocol.name): p.name for p in wanted.ports}
    own = [(p.name, (p.port, p.protocol or "TCP")) for p in local.spec.ports or ()]
    return {name: given[port] for name, port in own if port in given}


def _body(
    wanted: Import,
    derived: tuple[str, str],
    cluster: ClusterName,
    slice_: EndpointSlice,
    names: dict[str, str],
) -> Body:
    name, uid = derived
    labels = {
        **wanted.labels,
        SERVICE_NAME_LABEL: name,
        MANAGED_BY_LABEL: MIRROR_CONTROLLER,
        SERVICE_LABEL: wanted.name.name,
        CLUSTER_LABEL: str(cluster),
    }
    if wanted.type is ExportType.HEADLESS:
        labels[HEADLESS_LABEL] = ""
    owner = {"apiVersion": "v1", "kind": "Service", "name": name, "uid": uid, "controller": True}
    digest = hashlib.sha256(f"{slice_.metadata.name} {slice_.address_type}".encode()).digest()
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-{base64.b32hexencode(digest)[:8].decode().lower()}",
            "namespace": wanted.name.namespace,
            "labels": labels,
            "ownerReferences": [owner],
        },
        "addressType": slice_.address_type,
        "endpoints": [_endpoint(e) for e in slice_.endpoints or () if e.addresses],
        "ports": [
            {"name": names[p.name or ""], "port": p.port, "protocol": p.protocol or "TCP"}
            for p in slice_.ports or ()
            if (p.name or "") in names and p.port is not None
        ],
    }


def _endpoint(endpoint: Endpoint) -> Body:
    state = endpoint.conditions
    conditions = {
        "ready": state.ready,
        "serving": state.serving,
        "terminating": state.terminating,
    }
    found: Body = {
        "addresses": list(endpoint.addresses or ()),
        "conditions": {key: value for key, value in conditions.items() if value is not None},
    }
    for key, text in (
        ("hostname", endpoint.hostname),
        ("nodeName", endpoint.node_name),
        ("zone", endpoint.zone),
    ):
        if text:
            found[key] = text
    if endpoint.hints and endpoint.hints.for_zones:
        found["hints"] = {"forZones": [{"name": zone.name} for zone in endpoint.hints.for_zones]}
    return found

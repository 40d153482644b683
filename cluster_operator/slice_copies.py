"""What another cluster says of a service → EndpointSlices of this cluster. Pure.

Readers that know no mesh, the cluster's DNS first of all, find remote backends in them. They belong
to the Service, tell their cluster, and say who manages them, so that agents and the publisher of
this cluster do not take them for its own.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mesh.placing import place
from model.address import Address, parse_address
from model.cluster import ClusterName
from model.service import BackendState, Protocol, ServiceName, SharedService, Zone
from wire.k8s.endpointslice import (
    HEADLESS_LABEL,
    MANAGED_BY_LABEL,
    MESH_CONTROLLER,
    SERVICE_NAME_LABEL,
    EndpointSlice,
)
from wire.k8s.meta import annotations_of, labels_of
from wire.k8s.multicluster import CLUSTER_LABEL
from wire.k8s.service import Service, mesh_settings

Body = dict[str, Any]
SYNC = "service.cilium.io/global-sync-endpoint-slices"
MAX_ENDPOINTS = 1000  # the API server takes no more in one slice
_FAMILY = {4: "IPv4", 6: "IPv6"}


class Port(NamedTuple):
    """A port of a slice."""

    name: str
    number: int
    protocol: Protocol


class Group(NamedTuple):
    """What the endpoints of one slice have in common."""

    version: int
    ports: tuple[Port, ...]


def is_synced(service: Service) -> bool:
    """Whether a Service gets such slices: global, and headless unless it is told otherwise."""
    settings, _ = mesh_settings(service.metadata)
    told = annotations_of(service.metadata).get(SYNC, "").lower()
    wants = told == "true" if told in ("true", "false") else service.headless
    return settings.is_global and wants and service.spec.type != "ExternalName"


def source_of(slice_: EndpointSlice) -> ClusterName:
    """The cluster a copy came from; empty when it does not say."""
    return ClusterName(labels_of(slice_.metadata).get(CLUSTER_LABEL, ""))


def copies(
    service: Service, account: SharedService, known: Mapping[str, EndpointSlice], size: int
) -> dict[str, Body]:
    """The slices of one cluster's backends, for server-side apply, by name.

    ``known`` are those that stand: endpoints stay where they are. ``size``: of a slice, at most.
    """
    found: dict[str, Body] = {}
    for group, addresses in sorted(_groups(service, account).items()):
        names, parts = [], []
        for number in range(len(known) + len(addresses)):
            name = _name(service, account.cluster, group, number)
            if name not in known:
                break
            names.append(name)
            parts.append(_addresses(known[name]))
        for number, part in enumerate(place(sorted(addresses), parts, size)):
            if part:
                name = _name(service, account.cluster, group, number)
                found[name] = _body(name, service, account, group, part)
    return found


def _groups(service: Service, account: SharedService) -> dict[Group, list[Address]]:
    groups: dict[Group, list[Address]] = {}
    wanted = [(p.name, Protocol[p.protocol or "TCP"]) for p in service.spec.ports or ()]
    for address, targets in account.backends.items():
        ports = []
        for name, protocol in wanted:
            target = targets.get(name)
            if target is not None and target.protocol in (protocol, Protocol.ANY):
                ports.append(Port(name, target.port, protocol))
        if ports or not wanted:
            groups.setdefault(Group(address.version, tuple(sorted(ports))), []).append(address)
    return groups


def _name(service: Service, cluster: ClusterName, group: Group, number: int) -> str:
    text = f"{cluster} {group.version} {group.ports} {number}"
    digest = base64.b32hexencode(hashlib.sha256(text.encode()).digest())[:8].decode().lower()
    return f"{service.metadata.name}-{cluster}-{digest}"


def _addresses(slice_: EndpointSlice) -> list[Address]:
    texts = (t for e in slice_.endpoints or () for t in e.addresses or ())
    return [parse_address(text) for text in texts]


def _body(
    name: str, service: Service, account: SharedService, group: Group, part: Iterable[Address]
) -> Body:
    meta = service.metadata
    labels = {
        **labels_of(meta),
        SERVICE_NAME_LABEL: meta.name,
        MANAGED_BY_LABEL: MESH_CONTROLLER,
        CLUSTER_LABEL: str(account.cluster),
    }
    if service.headless:
        labels[HEADLESS_LABEL] = ""
    owner = {
        "apiVersion": "v1",
        "kind": "Service",
        "name": meta.name,
        "uid": meta.uid,
        "controller": True,
    }
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": meta.namespace,
            "labels": labels,
            "ownerReferences": [owner],
        },
        "addressType": _FAMILY[group.version],
        "endpoints": [_endpoint(address, account) for address in part],
        "ports": [
            {"name": p.name, "port": p.number, "protocol": p.protocol.name} for p in group.ports
        ],
    }


def _endpoint(address: Address, account: SharedService) -> Body:
    state = account.states.get(address, BackendState.ACTIVE)
    active, ending = state is BackendState.ACTIVE, state is BackendState.TERMINATING
    found: Body = {
        "addresses": [str(address)],
        "conditions": {"ready": active, "serving": active or ending, "terminating": ending},
    }
    if hostname := account.hostnames.get(address):
        found["hostname"] = hostname
    zone = account.zones.get(address, Zone())
    if zone.name:
        found["zone"] = zone.name
    return found


def service_of(slice_: EndpointSlice) -> ServiceName | None:
    """The service a copy of ours belongs to; ``None``: it is not one of ours."""
    labels = labels_of(slice_.metadata)
    if labels.get(MANAGED_BY_LABEL) != MESH_CONTROLLER or SERVICE_NAME_LABEL not in labels:
        return None
    return ServiceName(slice_.metadata.namespace, labels[SERVICE_NAME_LABEL])

"""EndpointSlices (and old Endpoints) → backends. Pure.

A service has any number of slices, and while the controller moves an endpoint between two of
them, it stands in both.
"""

from collections.abc import Iterable

from model.address import Address, parse_address
from model.local_service import LocalBackend
from model.service import L4, ServiceName, Zone
from wire.k8s.errors import ObjectError
from wire.k8s.meta import K8sObject, K8sStruct, labels_of
from wire.k8s.service import protocol_of

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
MANAGED_BY_LABEL = "endpointslice.kubernetes.io/managed-by"
HEADLESS_LABEL = "service.kubernetes.io/headless"
# Who copies remote backends into slices of this cluster, for readers that know no mesh.
MESH_CONTROLLER = "endpointslice-mesh-controller.cilium.io"


class EndpointConditions(K8sStruct, frozen=True):
    """State of an endpoint; ``None`` is unknown and reads as ready, serving, not terminating."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ForZone(K8sStruct, frozen=True):
    """A zone whose clients an endpoint is meant for."""

    name: str = ""


class EndpointHints(K8sStruct, frozen=True):
    """Who an endpoint is meant for."""

    for_zones: list[ForZone] | None = None


class Endpoint(K8sStruct, frozen=True):
    """Addresses of one endpoint. The API promises that all of them are fungible."""

    addresses: list[str] | None = None
    conditions: EndpointConditions = EndpointConditions()
    hostname: str | None = None
    node_name: str | None = None
    zone: str | None = None
    hints: EndpointHints | None = None


class EndpointPort(K8sStruct, frozen=True):
    """A target port; without a number it means all ports, which we do not use."""

    name: str | None = None
    port: int | None = None
    protocol: str | None = None


class EndpointSlice(K8sObject, frozen=True):
    """Some of a service's endpoints."""

    address_type: str = "IPv4"
    # A slice without endpoints comes with null here.
    endpoints: list[Endpoint] | None = None
    ports: list[EndpointPort] | None = None


def owner_of(slice_: EndpointSlice) -> ServiceName | None:
    """The service a slice belongs to; ``None``: somebody's own slice, no service's."""
    name = labels_of(slice_.metadata).get(SERVICE_NAME_LABEL)
    return ServiceName(slice_.metadata.namespace, name) if name else None


def is_copied(slice_: EndpointSlice) -> bool:
    """True for a copy of another cluster's backends: never to be published as ours."""
    return labels_of(slice_.metadata).get(MANAGED_BY_LABEL) == MESH_CONTROLLER


def decode_backends(slice_: EndpointSlice) -> tuple[LocalBackend, ...]:
    """The backends a slice names. Raises ``ObjectError``. Slices of host names have none."""
    if slice_.address_type == "FQDN":
        return ()
    try:
        ports = {
            p.name or "": L4(p.port, protocol_of(p.protocol))
            for p in slice_.ports or ()
            if p.port is not None
        }
        return tuple(
            _backend(endpoint, parse_address(text), ports)
            for endpoint in slice_.endpoints or ()
            for text in endpoint.addresses or ()
        )
    except ValueError as error:
        meta = slice_.metadata
        raise ObjectError("EndpointSlice", meta.namespace, meta.name, str(error)) from error


def _backend(endpoint: Endpoint, address: Address, ports: dict[str, L4]) -> LocalBackend:
    state, hints = endpoint.conditions, endpoint.hints or EndpointHints()
    ready = state.ready is not False
    return LocalBackend(
        address=address,
        ports=dict(ports),
        ready=ready,
        serving=ready if state.serving is None else state.serving,
        terminating=state.terminating is True,
        node=endpoint.node_name or "",
        hostname=endpoint.hostname or "",
        zone=Zone(endpoint.zone or "", tuple(z.name for z in hints.for_zones or ())),
    )


def merge_backends(slices: Iterable[EndpointSlice]) -> dict[Address, LocalBackend]:
    """All backends of one service by address. Raises ``ObjectError``."""
    return join_backends(
        decode_backends(slice_) for slice_ in sorted(slices, key=lambda s: s.metadata.name)
    )


def join_backends(groups: Iterable[Iterable[LocalBackend]]) -> dict[Address, LocalBackend]:
    """The backends of several slices, in order of the slices' names, by address.

    The ports of an address that stands in several slices are put together; of its states the
    better one wins, because the stale copy is the one that has not yet seen it become ready.
    """
    merged: dict[Address, LocalBackend] = {}
    for group in groups:
        for backend in group:
            known = merged.get(backend.address)
            merged[backend.address] = backend if known is None else _joined(known, backend)
    return merged


def _joined(one: LocalBackend, other: LocalBackend) -> LocalBackend:
    best, rest = sorted((one, other), key=lambda b: (b.ready, b.serving), reverse=True)
    return LocalBackend(
        address=best.address,
        ports={**rest.ports, **best.ports},
        ready=best.ready,
        serving=best.serving,
        terminating=best.terminating,
        node=best.node or rest.node,
        hostname=best.hostname or rest.hostname,
        zone=best.zone,
    )


class EndpointAddress(K8sStruct, frozen=True):
    """An address of an Endpoints object."""

    ip: str = ""
    hostname: str = ""
    node_name: str | None = None


class EndpointSubset(K8sStruct, frozen=True):
    """Addresses that share their ports."""

    addresses: list[EndpointAddress] | None = None
    not_ready_addresses: list[EndpointAddress] | None = None
    ports: list[EndpointPort] | None = None


class Endpoints(K8sObject, frozen=True):
    """The older form of endpoints, kept for readers of it; Isthmus itself reads slices."""

    subsets: list[EndpointSubset] | None = None

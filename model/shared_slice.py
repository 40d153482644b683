"""Endpoint slices as a cluster publishes them: some backends of a service. Pure."""

from dataclasses import dataclass, field

from model.address import Address
from model.cluster import ClusterId, ClusterName
from model.service import L4, BackendState, ServiceName, Zone


@dataclass(frozen=True, slots=True, order=True)
class SliceName:
    """Namespace and name of a slice."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class SharedEndpoint:
    """One address of a slice."""

    address: Address
    state: BackendState = BackendState.ACTIVE
    hostname: str = ""
    node: str = ""
    zone: Zone = Zone()


@dataclass(frozen=True, slots=True)
class SharedSlice:
    """One slice; ``service`` is ``None`` for one that belongs to no service."""

    cluster: ClusterName
    cluster_id: ClusterId
    name: SliceName
    service: ServiceName | None
    endpoints: tuple[SharedEndpoint, ...] = ()
    ports: dict[str, L4] = field(default_factory=dict, hash=False)  # target ports by name
    labels: dict[str, str] = field(default_factory=dict, hash=False)
    annotations: dict[str, str] = field(default_factory=dict, hash=False)

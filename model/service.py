"""Services: frontends, backends, and what the mesh shares of them. Pure."""

from dataclasses import dataclass, field
from enum import Enum, IntEnum

from model.address import Address
from model.cluster import ClusterId, ClusterName


class Protocol(IntEnum):
    """IANA protocol numbers; ANY only where a record leaves it open."""

    ANY = 0
    TCP = 6
    UDP = 17
    SCTP = 132


class Affinity(Enum):
    """Which clusters' backends a consumer prefers."""

    NONE = "none"
    LOCAL = "local"
    REMOTE = "remote"


class BackendState(IntEnum):
    """What a backend may still get; numbers as in the datapath."""

    ACTIVE = 0
    TERMINATING = 1
    QUARANTINED = 2
    MAINTENANCE = 3


class Selection(IntEnum):
    """How the first packet of a flow picks its backend; numbers as in the datapath."""

    RANDOM = 1
    MAGLEV = 2


@dataclass(frozen=True, slots=True, order=True)
class ServiceName:
    """Namespace and name: the same in every cluster that takes part."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, order=True)
class L4:
    """A port with its protocol."""

    port: int
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class Frontend:
    """Where clients connect to: a key of the datapath's service table."""

    address: Address
    port: int
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class Backend:
    """Where a connection ends. ``cluster`` is empty for this cluster's own."""

    address: Address
    port: int
    protocol: Protocol
    state: BackendState = BackendState.ACTIVE
    cluster: ClusterName = ClusterName("")
    cluster_id: ClusterId = ClusterId(0)
    preferred: bool = False
    node: str = ""


@dataclass(frozen=True, slots=True)
class LoadBalancer:
    """One frontend with the backends new connections may take, as the datapath gets it.

    New connections take only the first ``selectable`` of ``backends``, in shares of ``weights``;
    each of ``backends`` keeps the connections it has, and loses them when it is not among them any
    more. Rows that mean the same are equal, so that only what changed is written.
    """

    frontend: Frontend
    name: ServiceName
    backends: tuple[Backend, ...]  # selectable ones first; the rest only keep their connections
    selectable: int  # how many of ``backends`` new connections may take
    selection: Selection = Selection.RANDOM
    affinity_timeout_s: int = 0  # 0: no session affinity
    weights: tuple[int, ...] = ()  # above 0, one for each selectable backend; empty: all alike


@dataclass(frozen=True, slots=True)
class Zone:
    """Where a backend is, and the zones whose clients it is meant for (none named: anybody's)."""

    name: str = ""
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SharedService:
    """A global service as one cluster publishes it (`cilium/state/services/v1/...`)."""

    cluster: ClusterName
    cluster_id: ClusterId
    name: ServiceName
    frontends: dict[Address, dict[str, L4]] = field(default_factory=dict, hash=False)
    backends: dict[Address, dict[str, L4]] = field(default_factory=dict, hash=False)
    hostnames: dict[Address, str] = field(default_factory=dict, hash=False)
    zones: dict[Address, Zone] = field(default_factory=dict, hash=False)
    # Of backends that get no new connections; a record names active ones only, slices all.
    states: dict[Address, BackendState] = field(default_factory=dict, hash=False)
    labels: dict[str, str] = field(default_factory=dict, hash=False)
    selector: dict[str, str] = field(default_factory=dict, hash=False)
    include_external: bool = True
    shared: bool = True

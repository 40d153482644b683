"""A service and its endpoints as this cluster's API server tells them. Pure."""

from dataclasses import dataclass, field
from enum import Enum

from model.address import Address
from model.cluster import ClusterName
from model.service import L4, Affinity, ServiceName, Zone


@dataclass(frozen=True, slots=True)
class MeshSettings:
    """What the annotations of a Service say about the mesh."""

    is_global: bool = False
    shared: bool = True  # our backends may be used by others; only meaningful when global
    affinity: Affinity = Affinity.NONE
    order: tuple[ClusterName, ...] = ()  # whose backends come first; others come last, together
    threshold_pct: int = 0  # of our backends; with fewer ready the next clusters are added
    weights: tuple[tuple[ClusterName, int], ...] = ()  # shares of new connections; empty: even


class Proximity(Enum):
    """Which of the backends a client's node prefers, by where they are."""

    ANYWHERE = "anywhere"
    HINTED = "hinted"  # meant for the node's zone, if every backend says for whom it is meant
    ZONE = "zone"  # meant for the node's zone, or in it
    NODE = "node"  # on the node, else as ZONE
    ONLY_NODE = "only node"  # on the node, or none


@dataclass(frozen=True, slots=True)
class LocalService:
    """A Service with its cluster addresses. ``frontends`` is empty for a headless one."""

    name: ServiceName
    frontends: dict[Address, dict[str, L4]] = field(default_factory=dict, hash=False)
    headless: bool = False
    mesh: MeshSettings = MeshSettings()
    session_affinity_s: int = 0  # 0: no session affinity
    proximity: Proximity = Proximity.ANYWHERE
    selection: str = ""  # "random", "maglev" or "" for the default
    labels: dict[str, str] = field(default_factory=dict, hash=False)
    selector: dict[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class LocalBackend:
    """One address behind a service, with its target ports by port name."""

    address: Address
    ports: dict[str, L4] = field(default_factory=dict, hash=False)
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    node: str = ""
    hostname: str = ""
    zone: Zone = Zone()

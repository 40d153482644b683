"""Every key of the mesh store; nothing else builds or splits one. Pure.

*State* is what a cluster says of itself; *cache* is what a KVStoreMesh mirrored of others. In the
state the cluster's name is part of the keys of nodes and services, not of identities and addresses;
in the cache it follows the version for all of them.
"""

from model.address import Address, Prefix
from model.cluster import ClusterName
from model.service import ServiceName

BASE = "cilium"
HEARTBEAT = "cilium/.heartbeat"
CLUSTER_CONFIG_PREFIX = "cilium/cluster-config/"
SYNCED_PREFIX = "cilium/synced/"
STATE_PREFIX = "cilium/state/"
CACHE_PREFIX = "cilium/cache/"

NODES = "nodes"
IDENTITIES = "identities"
IP = "ip"
SERVICES = "services"
SERVICE_EXPORTS = "serviceexports"
ENDPOINT_SLICES = "endpointslices"
# What a reader needs before it calls a cluster ready.
REQUIRED = (NODES, IDENTITIES, IP, SERVICES)
RESOURCES = (*REQUIRED, SERVICE_EXPORTS)
KNOWN = (*RESOURCES, ENDPOINT_SLICES)  # those that newer writers add may be absent


def cluster_config(cluster: str) -> str:
    """Where a cluster announces itself."""
    return f"{CLUSTER_CONFIG_PREFIX}{cluster}"


def canary_prefix(cluster: str) -> str:
    """All canaries of a cluster."""
    return f"{SYNCED_PREFIX}{cluster}/"


def canary(cluster: str, resource: str, cached: bool = False) -> str:
    """The key that says: everything of this type is written."""
    return f"{canary_prefix(cluster)}{BASE}/{'cache' if cached else 'state'}/{resource}/v1"


def canary_resource(key: str, cluster: str, cached: bool = False) -> str | None:
    """The type a canary speaks of, or ``None`` for an unknown one."""
    return next((r for r in KNOWN if key == canary(cluster, r, cached)), None)


def freshness(cluster: str) -> str:
    """Beside the canaries, where readers that do not know it pass by: how old the copy is."""
    return f"{canary_prefix(cluster)}isthmus.io/freshness"


def resource_prefix(resource: str, cluster: str, cached: bool = False) -> str:
    """What to list and watch for one type of one cluster; row names follow it."""
    root = f"{CACHE_PREFIX if cached else STATE_PREFIX}{resource}/v1/"
    if resource == IDENTITIES:
        return f"{root}{cluster}/id/" if cached else f"{root}id/"
    if resource == IP:
        return f"{root}{cluster}/" if cached else f"{root}default/"
    return f"{root}{cluster}/"


def node(cluster: ClusterName, name: str) -> str:
    """A node."""
    return f"{STATE_PREFIX}nodes/v1/{cluster}/{name}"


def identity(number: int) -> str:
    """An identity."""
    return f"{STATE_PREFIX}identities/v1/id/{number}"


def ip(address: Address | Prefix) -> str:
    """A pod address, or a prefix."""
    return f"{STATE_PREFIX}ip/v1/default/{address}"


def service(cluster: ClusterName, name: ServiceName) -> str:
    """A shared service."""
    return f"{STATE_PREFIX}services/v1/{cluster}/{name}"


def service_export(cluster: ClusterName, name: ServiceName) -> str:
    """A service exported to the set of clusters."""
    return f"{STATE_PREFIX}serviceexports/v1/{cluster}/{name}"

"""A cluster as it introduces itself to one that is to be joined to it. Pure."""

from dataclasses import dataclass

from model.address import Prefix, parse_prefix
from model.cluster import ClusterId, ClusterName, parse_cluster_id, parse_cluster_name


@dataclass(frozen=True, slots=True)
class Peer:
    """What decides whether two clusters can be in one mesh."""

    name: ClusterName
    id: ClusterId
    max_connected: int
    tunnel: str = ""
    pod_cidrs: tuple[Prefix, ...] = ()


def parse_peer(
    name: str, number: int, max_connected: int, tunnel: str, pod_cidrs: list[str]
) -> Peer:
    """Check what was said. Raises ``ValueError`` naming the value and the remedy."""
    cluster = parse_cluster_name(name)
    if cluster == "default":
        raise ValueError('"default" is no name for a mesh: install it with --cluster-name')
    try:
        number = parse_cluster_id(number, max_connected)
        prefixes = tuple(parse_prefix(text) for text in pod_cidrs)
    except ValueError as error:
        raise ValueError(f"cluster {cluster}: {error}") from error
    return Peer(cluster, ClusterId(number), max_connected, tunnel, prefixes)

"""Settings of ``clustermesh-apiserver``. Pure: texts in, values or one clear sentence out."""

from collections.abc import Sequence
from dataclasses import dataclass

from model.cluster import ClusterId, ClusterName, parse_cluster_id, parse_cluster_name
from model.duration import parse_duration_s

LEASE_TTL = "15m"
ETCD_CONFIG = "/var/lib/cilium/etcd-config.yaml"
# What stock charts also pass; our store client paces itself.
IGNORED_KVSTORE_OPTIONS = frozenset({"etcd.qps", "etcd.bootstrapQps", "etcd.maxInflight"})


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``clustermesh`` is told."""

    cluster_name: ClusterName
    cluster_id: ClusterId
    max_connected_clusters: int
    etcd_config: str  # file that names endpoints and certificates
    lease_ttl_s: int
    health_port: int  # 0: the kernel's choice
    metrics: tuple[str, int] | None  # where to serve them
    kubeconfig: str  # empty: in-cluster
    exports: bool = False  # MCS-API: publish what ServiceExports name


def parse_member_name(name: str) -> ClusterName:
    """Raises ``ValueError`` naming setting, value and remedy."""
    try:
        return parse_cluster_name(name)
    except ValueError as error:
        raise ValueError(f"cluster-name: {error}") from error


def parse_cluster(name: str, number: int, max_connected: int) -> tuple[ClusterName, ClusterId]:
    """Raises ``ValueError`` naming setting, value and remedy."""
    cluster = parse_member_name(name)
    try:
        cluster_id = parse_cluster_id(number, max_connected)
    except ValueError as error:
        raise ValueError(f"cluster-id: {error}") from error
    if cluster == "default":
        raise ValueError(
            f'cluster-name: "default" is no name for a member of a mesh (cluster-id {number}): '
            "give each cluster its own name"
        )
    return cluster, cluster_id


@dataclass(frozen=True, slots=True)
class Member:
    """What every process of a mesh member is told."""

    name: ClusterName
    number: ClusterId
    etcd_config: str
    lease_ttl_s: int
    metrics: tuple[str, int] | None


def parse_member(
    name: str, number: int, most: int, kvstore: Sequence[str], lease_ttl: str, metrics: str
) -> Member:
    """Raises ``ValueError`` naming setting, value and remedy."""
    cluster, cluster_id = parse_cluster(name, number, most)
    options = parse_kvstore_options(kvstore)
    return Member(
        cluster,
        cluster_id,
        options.get("etcd.config", ETCD_CONFIG),
        parse_lease_ttl_s(lease_ttl),
        parse_address(metrics) if metrics else None,
    )


def parse_kvstore_options(options: Sequence[str]) -> dict[str, str]:
    """``key=value`` texts. Raises ``ValueError`` for one that is none or is not known."""
    found = {}
    for option in options:
        for text in option.split(","):
            key, separator, value = text.partition("=")
            if not separator:
                raise ValueError(f'kvstore-opt: "{text}" is not key=value')
            if key != "etcd.config" and key not in IGNORED_KVSTORE_OPTIONS:
                raise ValueError(f'kvstore-opt: "{key}" is not known: use etcd.config=FILE')
            found[key] = value
    return found


def parse_seconds(setting: str, text: str) -> float:
    """Raises ``ValueError`` naming setting, value and remedy."""
    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise ValueError(f"{setting}: {error}") from error


def parse_lease_ttl_s(text: str) -> int:
    """Raises ``ValueError`` naming setting, value and remedy."""
    seconds = parse_seconds("kvstore-lease-ttl", text)
    if seconds < 1:
        raise ValueError(f'kvstore-lease-ttl: "{text}" is too short: use at least 1s')
    return int(seconds)


def parse_address(text: str) -> tuple[str, int]:
    """``host:port``, ``:port`` → host (empty: all) and port. Raises ``ValueError``."""
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdigit():
        raise ValueError(f'address "{text}" is not host:port')
    return host.strip("[]"), int(port)

"""What a lab consists of, as a value: names, addresses, paths. Pure.

Every name that the lab puts into the system is computed here and begins with the lab's name, so
that ``down`` finds everything without a memory of what ``up`` did.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

DEFAULT_NAME = "lab"
LABS_DIRECTORY = Path("/run/isthmus/labs")
NETNS_DIRECTORY = Path("/run/netns")
CGROUP_PREFIX = "isthmus-"
API_PORT = 6443
KUBELET_PORT = 10250
ETCD_PORT = 2379
# Underlay addresses are 172.20.CLUSTER.NODE, pods 10.CLUSTER.NODE.x, services 10.(100+CLUSTER).x.x.
# With IPv6 besides: fd00:172:20::CLUSTER:NODE, fd00:10:CLUSTER:NODE::x, fd00:10:(100+CLUSTER)::x,
# the numbers in decimal digits.
MAX_CLUSTERS = 99
MAX_NODES = 50

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")


class LabError(Exception):
    """The lab cannot do this; the text names the object and the remedy."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node: a network namespace, a root file system and a runtime."""

    lab: str
    cluster: str
    name: str
    cluster_index: int  # from 1
    index: int  # from 1; the first is the control plane
    ipv6: bool = False  # of both families

    @property
    def address(self) -> IPv4Address:
        """The node's address on the underlay."""
        return IPv4Address(f"172.20.{self.cluster_index}.{self.index}")

    @property
    def address6(self) -> IPv6Address | None:
        """The node's IPv6 address on the underlay."""
        text = f"fd00:172:20::{self.cluster_index}:{self.index}"
        return IPv6Address(text) if self.ipv6 else None

    @property
    def pod_cidr(self) -> IPv4Network:
        """The node's share of the cluster's pod addresses."""
        return IPv4Network(f"10.{self.cluster_index}.{self.index}.0/24")

    @property
    def pod_cidrs(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The node's share of the cluster's pod addresses, one per family."""
        if not self.ipv6:
            return (self.pod_cidr,)
        six = IPv6Network(f"fd00:10:{self.cluster_index}:{self.index}::/64")
        return (self.pod_cidr, six)

    @property
    def is_control_plane(self) -> bool:
        """True for the node on which etcd and the API server run."""
        return self.index == 1

    @property
    def netns(self) -> str:
        """The name of its network namespace."""
        return f"ist-{self.lab}-{self.name}"

    @property
    def netns_path(self) -> str:
        """The file of its network namespace."""
        return str(NETNS_DIRECTORY / self.netns)

    @property
    def pod_netns_prefix(self) -> str:
        """How the names of its pods' network namespaces begin."""
        return f"ist-{self.lab}-p-"

    @property
    def directory(self) -> Path:
        """All files of the node."""
        return LABS_DIRECTORY / self.lab / "nodes" / self.name

    @property
    def root(self) -> Path:
        """Its root file system: a mount that outlives all its processes."""
        return self.directory / "root"

    @property
    def underlay_port(self) -> str:
        """The name of its link inside the underlay's namespace."""
        return f"c{self.cluster_index}n{self.index}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster of the lab."""

    lab: str
    name: str
    index: int  # from 1
    nodes: tuple[Node, ...]
    ipv6: bool = False  # of both families

    @property
    def pod_cidr(self) -> IPv4Network:
        """Addresses of all its pods."""
        return IPv4Network(f"10.{self.index}.0.0/16")

    @property
    def service_cidr(self) -> IPv4Network:
        """Addresses of its services."""
        return IPv4Network(f"10.{100 + self.index}.0.0/16")

    @property
    def pod_cidrs(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Addresses of all its pods, one network per family."""
        if not self.ipv6:
            return (self.pod_cidr,)
        return (self.pod_cidr, IPv6Network(f"fd00:10:{self.index}::/48"))

    @property
    def service_cidrs(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Addresses of its services, one network per family."""
        if not self.ipv6:
            return (self.service_cidr,)
        return (self.service_cidr, IPv6Network(f"fd00:10:{100 + self.index}::/112"))

    @property
    def api_service_address(self) -> IPv4Address:
        """ClusterIP of the service ``kubernetes``."""
        return self.service_cidr[1]

    @property
    def dns_address(self) -> IPv4Address:
        """ClusterIP of the service ``kube-dns``."""
        return self.service_cidr[10]

    @property
    def control_plane(self) -> Node:
        """The node on which etcd and the API server run."""
        return self.nodes[0]

    @property
    def api_url(self) -> str:
        """The API server as the nodes reach it."""
        return f"https://{self.control_plane.address}:{API_PORT}"

    @property
    def directory(self) -> Path:
        """Keys, tokens and etcd's data."""
        return LABS_DIRECTORY / self.lab / "clusters" / self.name


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole lab."""

    name: str
    clusters: tuple[Cluster, ...]
    underlay_mtu: int
    ipv6: bool = False  # clusters of both families

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes of all clusters."""
        return tuple(node for cluster in self.clusters for node in cluster.nodes)

    @property
    def directory(self) -> Path:
        """All files of the lab."""
        return LABS_DIRECTORY / self.name

    @property
    def underlay_netns(self) -> str:
        """The namespace of the bridge that joins all nodes."""
        return underlay_netns(self.name)

    @property
    def kubeconfig(self) -> Path:
        """One context per cluster, named like the cluster."""
        return self.directory / "kubeconfig"


def underlay_netns(lab: str) -> str:
    """The name of the underlay's namespace."""
    return f"ist-{lab}-underlay"


def lock_path(lab: str) -> Path:
    """Held while a command changes the lab."""
    return LABS_DIRECTORY / f"{lab}.lock"


def owns_netns(lab: str, name: str) -> bool:
    """True when a network namespace of that name is one of this lab's.

    Another lab's name may begin with ours and a dash, so the rest must have one of our shapes.
    """
    rest = name.removeprefix(f"ist-{lab}-")
    if rest == name:
        return False
    return bool(re.fullmatch(r"underlay|p-[a-z0-9]+|cluster\d+-(control-plane|worker\d*)", rest))


def build(
    name: str, clusters: int, nodes: int, underlay_mtu: int = 1500, *, ipv6: bool = False
) -> Topology:
    """Lay out a lab. Raises LabError when the request does not fit the address plan."""
    if not _NAME.fullmatch(name):
        raise LabError(
            f"lab name {name!r} is not usable: up to 20 of a-z, 0-9 and '-', no '-' at the ends"
        )
    if not 1 <= clusters <= MAX_CLUSTERS:
        raise LabError(f"a lab has 1 to {MAX_CLUSTERS} clusters, not {clusters}")
    if not 1 <= nodes <= MAX_NODES:
        raise LabError(f"a cluster has 1 to {MAX_NODES} nodes, not {nodes}")
    if not 1280 <= underlay_mtu <= 65535:
        raise LabError(f"an underlay MTU is 1280 to 65535 bytes, not {underlay_mtu}")
    return Topology(
        name=name,
        clusters=tuple(_cluster(name, index, nodes, ipv6) for index in range(1, clusters + 1)),
        underlay_mtu=underlay_mtu,
        ipv6=ipv6,
    )


def _cluster(lab: str, index: int, nodes: int, ipv6: bool) -> Cluster:
    name = f"cluster{index}"
    return Cluster(
        lab=lab,
        name=name,
        index=index,
        nodes=tuple(
            Node(lab, name, f"{name}-{_role(number)}", index, number, ipv6)
            for number in range(1, nodes + 1)
        ),
        ipv6=ipv6,
    )


def _role(number: int) -> str:
    # kind's own names: control-plane, worker, worker2, worker3, ...
    if number == 1:
        return "control-plane"
    return "worker" if number == 2 else f"worker{number - 1}"

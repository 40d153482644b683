"""What every simulated cluster says, and what the kernel of a reader must then hold. Pure.

Rows are values of the project's own codecs under the names that publishers use; the prefix before
a name (a cluster's own store, or a mirror's cache) is the filler's business. Every change of a
population changes the rows and the truth together.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from datapath import encoding
from kind.simulate import shape as layout
from kind.simulate.shape import FIRST_LOCAL_IDENTITY, NAMESPACE, Shape
from model.address import Address, Prefix, pack
from model.cluster import ClusterId
from model.identity import NumericIdentity, ReservedIdentity
from model.ipcache import EndpointAddress, IpcacheEntry
from model.labels import CLUSTER_LABEL, SOURCE_K8S, Label, Labels
from model.node import INTERNAL_IP, Node, NodeAddress, NodeName
from model.service import L4, Protocol, ServiceName, SharedService
from wire.etcd import identity_v1, ip_v1, keys, node_v1, service_v1


@dataclass(frozen=True, slots=True)
class Row:
    """One row of one cluster; ``value`` is ``None`` for a deletion."""

    cluster: int
    resource: str
    name: str
    value: bytes | None


@dataclass(slots=True)
class Cluster:
    """What churn may change of a cluster."""

    number: int
    free: list[list[int]]  # by node: pod numbers that nobody has
    pods: list[tuple[int, int]] = field(default_factory=list)  # (node, number) that may end
    spare_nodes: set[int] = field(default_factory=set)  # that exist now
    more_backends: dict[int, tuple[int, int]] = field(default_factory=dict)  # by service
    labels_changed: int = 0
    touched: bool = False  # by churn


@dataclass(slots=True)
class Truth:
    """What the kernel must hold of the simulated clusters, in the kernel's own bytes."""

    hosts: dict[bytes, bytes] = field(default_factory=dict)
    prefixes: dict[bytes, bytes] = field(default_factory=dict)
    backends: list[set[Address]] = field(default_factory=list)  # by service


class Population:
    """All simulated clusters."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.truth = Truth(backends=[set() for _ in range(shape.services)])
        self.clusters = [self._cluster(number) for number in range(1, shape.clusters + 1)]

    def _cluster(self, number: int) -> Cluster:
        shape = self.shape
        each, more = divmod(shape.endpoints, shape.nodes)
        free = [
            list(range(each + (node < more), min(shape.pods_per_node, 2 * each + 16)))
            for node in range(shape.nodes)
        ]
        return Cluster(number, free)

    def rows(self, cluster: Cluster) -> Iterator[Row]:
        """Everything a cluster says at the start; enters it into the truth."""
        shape, number = self.shape, cluster.number
        for node in range(shape.nodes):
            yield self.node(number, node)
        for index in range(shape.identities):
            yield self.identity(number, index, 0)
        for index in range(shape.endpoints):
            pod = self.first_pod(index)
            yield self.pod(number, pod, index % shape.identities)
        for service in range(shape.services):
            yield self.service(cluster, service)

    def mortal_pods(self) -> list[tuple[int, int]]:
        """The pods of a cluster at the start that are no backend of a service."""
        first = self.shape.services * self.shape.backends + 1
        return [self.first_pod(index) for index in range(first, self.shape.endpoints)]

    def first_pod(self, index: int) -> tuple[int, int]:
        """Node and number of the pod with this index at the start: nodes in turn."""
        number, node = divmod(index, self.shape.nodes)
        return node, number

    def node(self, cluster: int, node: int) -> Row:
        """A node is there."""
        ip, prefix = self.shape.node_ip(cluster, node), self.shape.pod_prefix(cluster, node)
        self.truth.hosts[pack(ip)] = _value(cluster, ReservedIdentity.REMOTE_NODE, None)
        key = encoding.ipcache_prefix_key(prefix)
        self.truth.prefixes[key] = _value(cluster, ReservedIdentity.UNKNOWN, ip)
        value = Node(
            cluster=self.shape.name(cluster),
            name=NodeName(_node_name(node)),
            cluster_id=ClusterId(cluster),
            addresses=(NodeAddress(INTERNAL_IP, ip),),
            pod_cidrs=(prefix,),
            labels={"kubernetes.io/hostname": _node_name(node), "kubernetes.io/os": "linux"},
        )
        return Row(cluster, keys.NODES, _node_name(node), node_v1.encode(value))

    def no_node(self, cluster: int, node: int) -> Row:
        """A node is gone."""
        del self.truth.hosts[pack(self.shape.node_ip(cluster, node))]
        prefix = self.shape.pod_prefix(cluster, node)
        del self.truth.prefixes[encoding.ipcache_prefix_key(prefix)]
        return Row(cluster, keys.NODES, _node_name(node), None)

    def identity(self, cluster: int, index: int, generation: int) -> Row:
        """Labels of an identity; ``generation`` tells one change of them from the next."""
        labels = Labels.of(
            (
                Label("app", f"app-{index}", SOURCE_K8S),
                Label("generation", str(generation), SOURCE_K8S),
                Label("io.kubernetes.pod.namespace", NAMESPACE, SOURCE_K8S),
                Label(CLUSTER_LABEL, self.shape.name(cluster), SOURCE_K8S),
            )
        )
        number = self.identity_number(cluster, index)
        return Row(cluster, keys.IDENTITIES, str(number), identity_v1.encode(labels))

    def identity_number(self, cluster: int, index: int) -> NumericIdentity:
        """The number of a cluster's identity."""
        base = cluster << self.shape.identity_bits
        return NumericIdentity(base + FIRST_LOCAL_IDENTITY + index)

    def pod(self, cluster: int, pod: tuple[int, int], identity: int) -> Row:
        """A pod's address is there, or has another identity."""
        node, number = pod
        ip, host = self.shape.pod_ip(cluster, node, number), self.shape.node_ip(cluster, node)
        wanted = self.identity_number(cluster, identity)
        self.truth.hosts[pack(ip)] = _value(cluster, wanted, host)
        entry = EndpointAddress(host, wanted, 0, NAMESPACE, f"app-{identity}-{node}-{number}")
        return Row(cluster, keys.IP, str(ip), ip_v1.encode(ip, entry))

    def no_pod(self, cluster: int, pod: tuple[int, int]) -> Row:
        """A pod's address is gone."""
        ip = self.shape.pod_ip(cluster, *pod)
        del self.truth.hosts[pack(ip)]
        return Row(cluster, keys.IP, str(ip), None)

    def service(self, cluster: Cluster, service: int) -> Row:
        """A service with the backends it has now."""
        shape, number = self.shape, cluster.number
        pods = [
            self.first_pod((service * shape.backends + i) % shape.endpoints)
            for i in range(shape.backends)
        ]
        if service in cluster.more_backends:
            pods.append(cluster.more_backends[service])
        addresses = [shape.pod_ip(number, *pod) for pod in pods]
        known = self.truth.backends[service]
        known.update(addresses)
        name = ServiceName(NAMESPACE, service_name(service))
        ports = {layout.PORT_NAME: L4(layout.TARGET_PORT, Protocol.TCP)}
        front = {layout.PORT_NAME: L4(layout.PORT, Protocol.TCP)}
        value = SharedService(
            cluster=shape.name(number),
            cluster_id=ClusterId(number),
            name=name,
            frontends={shape.service_ip(number, service): front},
            backends=dict.fromkeys(addresses, ports),
        )
        row = f"{name.namespace}/{name.name}"
        return Row(number, keys.SERVICES, row, service_v1.encode(value))


def service_name(service: int) -> str:
    """The same in every cluster, ours too: that is what makes it global."""
    return f"service-{service:03}"


def prefixes(population: Population) -> set[Prefix]:
    """Pod prefixes of all nodes there are: each needs a route."""
    return {encoding.parse_ipcache_prefix_key(k) for k in population.truth.prefixes}


def _node_name(node: int) -> str:
    return f"node-{node:04}"


@lru_cache(maxsize=1 << 20)
def _value(cluster: int, identity: int, tunnel: Address | None) -> bytes:
    return encoding.ipcache_value(IpcacheEntry(NumericIdentity(identity), tunnel, 0, cluster))

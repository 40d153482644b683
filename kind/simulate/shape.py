"""How large a rehearsal is, and where everything in it lies. Pure.

    10.(1..511).0.0/16        pods: a block per cluster, cut into as many prefixes as it has nodes
    100.64.0.0/10             nodes: 8,192 addresses per cluster
    172.24.0.0/14             addresses that other clusters give their services
    192.168.250.0/23          the agent under test: its node and its pods
    172.30.0.0/16             its cluster's services

Numbers beyond 255 carry over into the next octet: block 256 is 11.0.0.0/16. All of it lives in a
network namespace without a way out.
"""

from dataclasses import dataclass

from model.address import Address, Prefix, make_address, make_prefix, parse_address, parse_prefix
from model.cluster import ClusterId, ClusterName, identity_shift

POD_BITS = 16  # of a cluster's block
NODE_BITS = 13
SPARE_NODES = 4  # of each cluster, for churn
FIRST_LOCAL_IDENTITY = 256
OWN_NAME = ClusterName("sim-own")
OWN_NODE = "sim-node"
OWN_IP = parse_address("192.168.250.1")
OWN_PODS = parse_prefix("192.168.251.0/24")
OWN_SERVICES = parse_prefix("172.30.0.0/16")
NAMESPACE = "sim"
PORT, TARGET_PORT, PORT_NAME = 80, 8080, "http"

_PODS = int(parse_address("10.0.0.0"))
_NODES = int(parse_address("100.64.0.0"))
_SERVICES = int(parse_address("172.24.0.0"))


def _address(number: int) -> Address:
    return make_address(number.to_bytes(4))


@dataclass(frozen=True, slots=True)
class Shape:
    """What each of the clusters has. Raises ``ValueError`` for what does not fit."""

    clusters: int
    nodes: int
    endpoints: int
    identities: int
    services: int
    backends: int  # of each service

    def __post_init__(self) -> None:
        limits = (
            ("clusters", self.clusters, 1, 510),
            ("nodes", self.nodes, 1, (1 << NODE_BITS) - 2 - SPARE_NODES),
            ("endpoints", self.endpoints, 1, self.nodes * self.pods_per_node // 2),
            (
                "identities",
                self.identities,
                1,
                (1 << self.identity_bits) - 2 * FIRST_LOCAL_IDENTITY,
            ),
            ("services", self.services, 0, 1000),
            ("backends", self.backends, 1, max(self.endpoints // 2, 1)),
        )
        for name, value, lowest, highest in limits:
            if not lowest <= value <= highest:
                raise ValueError(
                    f"--{name} is {value}: use {lowest} to {highest} with {self.clusters} "
                    f"clusters of {self.nodes} nodes and {self.endpoints} endpoints"
                )

    @property
    def max_connected(self) -> int:
        """255 as long as our own cluster finds a number among them."""
        return 255 if self.clusters < 255 else 511

    @property
    def own_id(self) -> ClusterId:
        """The last number there is."""
        return ClusterId(self.max_connected)

    @property
    def identity_bits(self) -> int:
        """Of the cluster-local part of an identity."""
        return identity_shift(self.max_connected)

    @property
    def pod_prefix_length(self) -> int:
        """Of a node's pods: as many equal parts of the block as there are nodes and spares."""
        return 32 - POD_BITS + (self.nodes + SPARE_NODES - 1).bit_length()

    @property
    def pods_per_node(self) -> int:
        """Usable addresses of a node's prefix."""
        return (1 << (32 - self.pod_prefix_length)) - 2

    @property
    def keys(self) -> int:
        """Rows that all clusters together have at the start."""
        each = self.nodes + self.endpoints + self.identities + self.services
        return self.clusters * each

    def name(self, cluster: int) -> ClusterName:
        """Of a cluster, by its number from 1."""
        return ClusterName(f"sim-{cluster:03}")

    def node_ip(self, cluster: int, node: int) -> Address:
        """Where a node is reached."""
        return _address(_NODES + (cluster << NODE_BITS) + node + 1)

    def pod_prefix(self, cluster: int, node: int) -> Prefix:
        """The pods of a node."""
        base = _PODS + (cluster << POD_BITS) + (node << (32 - self.pod_prefix_length))
        return make_prefix(_address(base), self.pod_prefix_length)

    def pod_ip(self, cluster: int, node: int, number: int) -> Address:
        """A pod of a node, counted from 0."""
        base = _PODS + (cluster << POD_BITS) + (node << (32 - self.pod_prefix_length))
        return _address(base + 1 + number)

    def service_ip(self, cluster: int, service: int) -> Address:
        """The address a cluster gives its own service; nobody else uses it."""
        return _address(_SERVICES + (cluster << 9) % (1 << 18) + service % 512)

    def is_simulated(self, address: Address) -> bool:
        """Whether an address is one that a simulated cluster may speak for."""
        number = int(address) if address.version == 4 else -1
        blocks = self.clusters + 1
        return (
            0 <= number - _PODS < blocks << POD_BITS or 0 <= number - _NODES < blocks << NODE_BITS
        )

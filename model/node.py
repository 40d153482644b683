"""A node of some cluster as the others need it. Pure."""

from typing import NewType

import msgspec

from model.address import Address, Prefix
from model.cluster import ClusterId, ClusterName

NodeName = NewType("NodeName", str)

INTERNAL_IP = "InternalIP"
EXTERNAL_IP = "ExternalIP"
CILIUM_INTERNAL_IP = "CiliumInternalIP"


class NodeAddress(msgspec.Struct, frozen=True, gc=False):
    """One address and what it is for."""

    type: str  # InternalIP, ExternalIP, CiliumInternalIP, Hostname, ...
    ip: Address


class Node(msgspec.Struct, frozen=True, gc=False):
    """Name, addresses and pod prefixes."""

    cluster: ClusterName
    name: NodeName
    cluster_id: ClusterId
    addresses: tuple[NodeAddress, ...] = ()
    pod_cidrs: tuple[Prefix, ...] = ()  # primary of each family first
    health_ips: tuple[Address, ...] = ()
    ingress_ips: tuple[Address, ...] = ()
    encryption_key: int = 0
    wireguard_public_key: str = ""
    boot_id: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}

    def address(self, kind: str, version: int = 4) -> Address | None:
        """The first address of a type and family."""
        return next(
            (a.ip for a in self.addresses if a.type == kind and a.ip.version == version), None
        )

    def tunnel_endpoint(self, version: int = 4) -> Address | None:
        """Where tunnelled packets for this node go."""
        return self.address(INTERNAL_IP, version) or self.address(EXTERNAL_IP, version)

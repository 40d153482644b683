"""CiliumNode ↔ Node. Pure."""

from typing import Any

import msgspec

from model.address import Address, Prefix, parse_address, parse_prefix
from model.cluster import ClusterId, ClusterName
from model.node import Node, NodeAddress, NodeName
from wire.k8s.errors import ObjectError
from wire.k8s.meta import K8sObject, K8sStruct, OwnerReference, annotations_of, labels_of

WIREGUARD_KEY = ("network.cilium.io/wg-pub-key", "io.cilium.network.wg-pub-key")

NAME_TYPES = frozenset({"Hostname", "InternalDNS", "ExternalDNS"})  # no addresses


class CiliumNodeAddress(K8sStruct, frozen=True):
    """An address of a node and what it is for."""

    type: str = ""
    ip: str = ""


class FamilyPair(K8sStruct, frozen=True):
    """One address per family."""

    ipv4: str = ""
    ipv6: str = ""


class EncryptionSpec(K8sStruct, frozen=True):
    """Index of the node's encryption key."""

    key: int = 0


class AllocatedPool(K8sStruct, frozen=True):
    """Prefixes given to a node from a pool."""

    pool: str = ""
    cidrs: list[str] | None = None


class IpamPools(K8sStruct, frozen=True):
    """Pools in use on a node."""

    allocated: list[AllocatedPool] | None = None


class IpamSpec(K8sStruct, frozen=True):
    """Where a node's pod addresses come from."""

    pod_cidrs: list[str] | None = msgspec.field(name="podCIDRs", default=None)
    pools: IpamPools | None = None


class CiliumNodeSpec(K8sStruct, frozen=True):
    """What an agent publishes about its node."""

    addresses: list[CiliumNodeAddress] | None = None
    boot_id: str = msgspec.field(name="bootid", default="")
    encryption: EncryptionSpec | None = None
    health: FamilyPair | None = None
    ingress: FamilyPair | None = None
    ipam: IpamSpec | None = None


class CiliumNode(K8sObject, frozen=True):
    """A node as its agent publishes it."""

    spec: CiliumNodeSpec = CiliumNodeSpec()


def _pair(pair: FamilyPair | None) -> tuple[Address, ...]:
    return tuple(parse_address(t) for t in (pair.ipv4, pair.ipv6) if t) if pair else ()


def _pod_cidrs(ipam: IpamSpec | None) -> tuple[Prefix, ...]:
    if ipam is None:
        return ()
    texts = list(ipam.pod_cidrs or ())
    if ipam.pools is not None:
        texts += [c for pool in ipam.pools.allocated or () for c in pool.cidrs or ()]
    return tuple(parse_prefix(text) for text in texts)


def decode_node(obj: CiliumNode, cluster: ClusterName, cluster_id: ClusterId) -> Node:
    """Raises ``ObjectError`` naming the address or prefix that is none."""
    meta, spec = obj.metadata, obj.spec
    annotations = annotations_of(meta)
    try:
        return Node(
            cluster=cluster,
            name=NodeName(meta.name),
            cluster_id=cluster_id,
            addresses=tuple(
                NodeAddress(a.type, parse_address(a.ip))
                for a in spec.addresses or ()
                if a.type not in NAME_TYPES
            ),
            pod_cidrs=_pod_cidrs(spec.ipam),
            health_ips=_pair(spec.health),
            ingress_ips=_pair(spec.ingress),
            encryption_key=spec.encryption.key if spec.encryption else 0,
            wireguard_public_key=next(
                (annotations[k] for k in WIREGUARD_KEY if k in annotations), ""
            ),
            boot_id=spec.boot_id,
            labels=dict(labels_of(meta)),
            annotations=dict(annotations),
        )
    except ValueError as error:
        raise ObjectError("CiliumNode", "", meta.name, str(error)) from error


def _families(addresses: tuple[Address, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for address in addresses:
        found.setdefault(f"ipv{address.version}", str(address))
    return found


def encode_node(node: Node, owner_uid: str = "") -> dict[str, Any]:
    """The body an agent writes for its node; it goes away with the Kubernetes node."""
    metadata: dict[str, Any] = {"name": node.name, "labels": dict(node.labels)}
    annotations = dict(node.annotations)
    if node.wireguard_public_key:
        annotations[WIREGUARD_KEY[0]] = node.wireguard_public_key
    if annotations:
        metadata["annotations"] = annotations
    if owner_uid:
        owner = OwnerReference(api_version="v1", kind="Node", name=node.name, uid=owner_uid)
        metadata["ownerReferences"] = [msgspec.to_builtins(owner)]
    spec: dict[str, Any] = {
        "addresses": [{"type": a.type, "ip": str(a.ip)} for a in node.addresses],
        "ipam": {"podCIDRs": [str(p) for p in node.pod_cidrs]},
        "health": _families(node.health_ips),
        "ingress": _families(node.ingress_ips),
        "encryption": {"key": node.encryption_key} if node.encryption_key else {},
    }
    if node.boot_id:
        spec["bootid"] = node.boot_id
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNode",
        "metadata": metadata,
        "spec": spec,
    }

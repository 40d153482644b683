"""``cilium/state/nodes/v1/<cluster>/<node>``: a node. Pure.

Every field is always present and capitalised. Pod prefixes are written as ``{IP, Mask}`` objects
and read in that form or as plain text, which newer writers will use.
"""

from sys import intern
from typing import Any

import msgspec

from model.address import Address, Prefix
from model.cluster import ClusterId, ClusterName
from model.node import Node, NodeAddress, NodeName
from wire.etcd.codec import address, decode_json, encode_json, encode_mask, masked, prefix
from wire.etcd.errors import RemoteWireError

_NONE: dict[str, str] = {}  # never written to
_IP_TYPES = frozenset({"ExternalIP", "InternalIP", "CiliumInternalIP"})


class _Address(msgspec.Struct, forbid_unknown_fields=True):
    Type: str
    IP: str


class _Node(msgspec.Struct, forbid_unknown_fields=True):
    Name: str
    Cluster: str
    IPAddresses: list[_Address] | None = None
    IPv4AllocCIDR: Any = None
    IPv4SecondaryAllocCIDRs: list[Any] | None = None
    IPv6AllocCIDR: Any = None
    IPv6SecondaryAllocCIDRs: list[Any] | None = None
    IPv4HealthIP: str = ""
    IPv6HealthIP: str = ""
    IPv4IngressIP: str = ""
    IPv6IngressIP: str = ""
    ClusterID: int = 0
    Source: str = ""
    EncryptionKey: int = 0
    Labels: dict[str, str] | None = None
    Annotations: dict[str, str] | None = None
    NodeIdentity: int = 0
    WireguardPubKey: str = ""
    BootID: str = ""


def encode(node: Node) -> bytes:
    """The value of the key."""
    v4 = [_cidr(p) for p in node.pod_cidrs if p.version == 4]
    v6 = [_cidr(p) for p in node.pod_cidrs if p.version == 6]
    return encode_json(
        _Node(
            Name=node.name,
            Cluster=node.cluster,
            IPAddresses=[_Address(a.type, str(a.ip)) for a in node.addresses] or None,
            IPv4AllocCIDR=v4[0] if v4 else None,
            IPv4SecondaryAllocCIDRs=v4[1:] or None,
            IPv6AllocCIDR=v6[0] if v6 else None,
            IPv6SecondaryAllocCIDRs=v6[1:] or None,
            IPv4HealthIP=_first(node.health_ips, 4),
            IPv6HealthIP=_first(node.health_ips, 6),
            IPv4IngressIP=_first(node.ingress_ips, 4),
            IPv6IngressIP=_first(node.ingress_ips, 6),
            ClusterID=node.cluster_id,
            Source="custom-resource",
            EncryptionKey=node.encryption_key,
            Labels=node.labels or None,
            Annotations=node.annotations or None,
            WireguardPubKey=node.wireguard_public_key,
            BootID=node.boot_id,
        )
    )


def decode(
    name: str,
    data: bytes,
    cluster: ClusterName,
    cluster_id: ClusterId,
    where: str,
    *,
    labels: bool = True,
) -> Node:
    """Raises ``RemoteWireError``; ``name`` is the key below the cluster's prefix.

    Without ``labels`` they are left out: hundreds of bytes of each node.
    """
    raw = decode_json(data, _Node, where)
    if raw.Cluster != cluster:
        raise RemoteWireError(where, f"the value is of cluster {raw.Cluster!r}")
    if not raw.Name or raw.Name != name:
        raise RemoteWireError(where, f"the value is of node {raw.Name!r}")
    if raw.ClusterID != cluster_id:
        raise RemoteWireError(where, f"cluster ID {raw.ClusterID}, announced was {cluster_id}")
    if not 0 <= raw.EncryptionKey <= 255:
        raise RemoteWireError(where, f"encryption key {raw.EncryptionKey} is outside 0..255")
    cidrs = [raw.IPv4AllocCIDR, *(raw.IPv4SecondaryAllocCIDRs or ())]
    cidrs += [raw.IPv6AllocCIDR, *(raw.IPv6SecondaryAllocCIDRs or ())]
    return Node(
        cluster=cluster,
        name=NodeName(name),  # the text that the caller keeps as well
        cluster_id=cluster_id,
        addresses=tuple(
            [
                NodeAddress(intern(a.Type), address(a.IP, where))
                for a in raw.IPAddresses or ()
                if a.Type in _IP_TYPES  # host names are no addresses
            ]
        ),
        pod_cidrs=tuple([_read_cidr(c, where) for c in cidrs if c is not None]),
        health_ips=_addresses((raw.IPv4HealthIP, raw.IPv6HealthIP), where),
        ingress_ips=_addresses((raw.IPv4IngressIP, raw.IPv6IngressIP), where),
        encryption_key=raw.EncryptionKey,
        wireguard_public_key=raw.WireguardPubKey,
        boot_id=raw.BootID,
        labels=_shared(raw.Labels) if labels else _NONE,
        annotations=_shared(raw.Annotations),
    )


def _shared(texts: dict[str, str] | None) -> dict[str, str]:
    """The same with texts that equal ones share: most nodes of a mesh say the same."""
    return {intern(key): intern(value) for key, value in texts.items()} if texts else _NONE


def _cidr(prefix: Prefix) -> dict[str, str]:
    return {"IP": str(prefix.network_address), "Mask": encode_mask(prefix)}


def _read_cidr(raw: Any, where: str) -> Prefix:
    try:
        if isinstance(raw, str):
            return prefix(raw, where)
        if "IP" in raw and "Mask" in raw:
            return masked(address(raw["IP"], where), raw["Mask"])
        fields = {str(k).lower(): v for k, v in raw.items()}
        return masked(address(fields["ip"], where), fields["mask"])
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise RemoteWireError(where, f"pod CIDR {raw!r} is not valid: {error}") from error


def _first(addresses: tuple[Address, ...], version: int) -> str:
    return next((str(a) for a in addresses if a.version == version), "")


def _addresses(texts: tuple[str, ...], where: str) -> tuple[Address, ...]:
    return tuple(address(t, where) for t in texts if t)

"""A store as a Cluster Mesh writer leaves it: one put per key, leases of 1,000 keys, slow canaries.

Nothing here uses our codecs: keys and values are built from the published format.
"""

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, ip_network
from typing import Any

import zstandard

from kvstore.etcd import EtcdStore
from tests.support.etcd_raw import message

LEASE_TTL_S, KEYS_PER_LEASE = 900, 1000
TIME = b"2026-03-04T05:06:07Z"


@dataclass(frozen=True)
class Style:
    """How a writer of some version, with some settings, puts things."""

    number: int = 2
    most: int = 255
    cached: bool = False
    canaries: bool = True
    prefixes_as_text: bool = False  # the form of writers to come
    shout: bool = False  # names in another case than usual
    exports: bool | None = False
    slices: str = ""  # endpointSlicesExportMode

    @property
    def shift(self) -> int:
        return 16 if self.most == 255 else 15

    def identity(self, local: int) -> int:
        return (self.number << self.shift) + local


@dataclass
class ReferenceWriter:
    """Writes cluster ``name`` into a store."""

    store: EtcdStore
    name: str = "beta"
    style: Style = field(default_factory=Style)
    lease: int = 0
    on_lease: int = KEYS_PER_LEASE

    async def put(self, key: str, value: bytes) -> None:
        """One put, on the lease that has room."""
        if self.on_lease == KEYS_PER_LEASE:
            self.lease, self.on_lease = await self.store.grant(LEASE_TTL_S), 0
        self.on_lease += 1
        await self.store.put(key, value, self.lease)

    def where(self, kind: str, name: str) -> str:
        """The key of one row."""
        if self.style.cached:
            inner = {"identities": "id/"}.get(kind, "")
            return f"cilium/cache/{kind}/v1/{self.name}/{inner}{name}"
        inner = {"identities": "id/", "ip": "default/"}.get(kind, f"{self.name}/")
        return f"cilium/state/{kind}/v1/{inner}{name}"

    def json(self, value: Any) -> bytes:
        """As Go's encoder writes it; another case where the style wants it, data excepted."""
        if self.style.shout:
            value = _shouted(value)
        return json.dumps(value, separators=(",", ":")).encode()

    async def begin(self) -> None:
        """The announcement, before any data, and the heartbeat."""
        style = self.style
        said: dict[str, Any] = {}
        if style.canaries:
            said["syncedCanaries"] = True
        if style.cached:
            said["cached"] = True
        said["maxConnectedClusters"] = style.most
        if style.exports is not None:
            said["serviceExportsEnabled"] = style.exports
        if style.slices:
            said["endpointSlicesExportMode"] = style.slices
        value = self.json({"id": style.number, "capabilities": said})
        await self.put(f"cilium/cluster-config/{self.name}", value)
        await self.beat()

    async def beat(self) -> None:
        await self.put("cilium/.heartbeat", TIME)

    async def canary(self, *kinds: str) -> None:
        """Named by the type's prefix, whose sub-prefixes are what is read."""
        root = "cache" if self.style.cached else "state"
        for kind in kinds:
            await self.put(f"cilium/synced/{self.name}/cilium/{root}/{kind}/v1", TIME)

    async def node(self, name: str, ip: str, *cidrs: str, wireguard_key: str = "") -> None:
        """``wireguard_key``: the node encrypts; a record has its key and its object's annotation,
        and nothing of rotations.
        """
        v4 = [self._cidr(c) for c in cidrs if ":" not in c]
        v6 = [self._cidr(c) for c in cidrs if ":" in c]
        value = {
            "Name": name,
            "Cluster": self.name,
            "IPAddresses": [
                {"Type": "Hostname", "IP": name},
                {"Type": "InternalIP", "IP": ip},
                {"Type": "CiliumInternalIP", "IP": ip.replace("172.31", "10.199")},
            ],
            "IPv4AllocCIDR": v4[0] if v4 else None,
            "IPv4SecondaryAllocCIDRs": v4[1:] or None,
            "IPv6AllocCIDR": v6[0] if v6 else None,
            "IPv6SecondaryAllocCIDRs": v6[1:] or None,
            "IPv4HealthIP": "",
            "IPv6HealthIP": "",
            "IPv4IngressIP": "",
            "IPv6IngressIP": "",
            "ClusterID": self.style.number,
            "Source": "custom-resource",
            "EncryptionKey": 255 if wireguard_key else 0,
            "Labels": {"kubernetes.io/hostname": name},
            "Annotations": {"network.cilium.io/wg-pub-key": wireguard_key}
            if wireguard_key
            else None,
            "NodeIdentity": 0,
            "WireguardPubKey": wireguard_key,
            "BootID": "0d6c1f7e-1111-4222-8333-abcdefabcdef",
        }
        await self.put(self.where("nodes", f"{name}"), self.json(value))

    def _cidr(self, text: str) -> Any:
        if self.style.prefixes_as_text:
            return text
        network = ip_network(text)
        mask = base64.b64encode(network.netmask.packed).decode()
        return {"IP": str(network.network_address), "Mask": mask}

    async def identity(self, local: int, **labels: str) -> None:
        told = {**labels, "io.cilium.k8s.policy.cluster": self.name}
        text = "".join(f"k8s:{key}={value};" for key, value in sorted(told.items()))
        await self.put(self.where("identities", str(self.style.identity(local))), text.encode())

    async def ip(self, ip: str, host: str, identity: int, pod: str = "p", **more: Any) -> None:
        base, _, length = ip.partition("/")
        mask = base64.b64encode(IPv4Network(ip).netmask.packed).decode() if length else None
        value = {
            "IP": base, "Mask": mask, "HostIP": host, "ID": identity, "Key": 0, "Metadata": "",
            "K8sNamespace": "ns", "K8sPodName": pod, **more,
        }  # fmt: skip
        await self.put(self.where("ip", ip), self.json(value))

    async def service(self, name: str, backends: Iterable[str], shared: bool = True) -> None:
        value = {
            "cluster": self.name,
            "namespace": "default",
            "name": name,
            "frontends": {"10.214.0.10": {"http": {"Protocol": "TCP", "Port": 80}}},
            "backends": {ip: {"http": {"Protocol": "TCP", "Port": 8080}} for ip in backends},
            "hostnames": {},
            "labels": {},
            "selector": {"app": name},
            "includeExternal": True,
            "shared": shared,
            "clusterID": self.style.number,
        }
        await self.put(self.where("services", f"default/{name}"), self.json(value))

    async def slice(
        self, name: str, service: str, endpoints: Mapping[str, tuple[int, int, int]]
    ) -> None:
        """``endpoints``: address → ready, serving, terminating."""
        told = [
            (8, [(1, ip.encode()), (2, [(n, v) for n, v in enumerate(state, 1)])])
            for ip, state in endpoints.items()
        ]
        label = [(1, b"kubernetes.io/service-name"), (2, service.encode())]
        port = [(1, b"http"), (2, b"TCP"), (3, 8080)]
        head = [(1, self.name.encode()), (2, self.style.number), (3, b"default")]
        plain = message([*head, (4, name.encode()), (5, label), (7, b"IPv4"), *told, (9, port)])
        value = zstandard.ZstdCompressor().compress(plain)
        await self.put(self.where("endpointslices", f"default/{name}"), value)


def _shouted(value: Any) -> Any:
    """Every field's name in capitals; names that are data (ports, labels, addresses) stay."""
    if isinstance(value, list):
        return [_shouted(v) for v in value]
    if not isinstance(value, dict):
        return value
    data = ("frontends", "backends", "hostnames", "labels", "selector", "annotations")
    return {
        key.upper() if key.isidentifier() and key != "http" else key: value_
        if key.lower() in data and not isinstance(next(iter((value_ or {}).values()), None), dict)
        else _shouted(value_)
        for key, value_ in value.items()
    }

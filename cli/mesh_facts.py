"""What a cluster is, as far as joining it to others needs to know. Adapter; the value is plain."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from certs import check
from certs.profiles import CA_SECRET, REMOTE_SECRET, SERVER_SECRET, server_host
from cli import cluster
from kube import connections as kept
from kube import own_store, resources
from kube.port import ApiError, Client
from model.address import Prefix, parse_address, parse_prefix

CLUSTERS_SECRET = kept.CLUSTERS_SECRET
KVSTOREMESH_SECRET = kept.KVSTOREMESH_SECRET
KVSTOREMESH = own_store.KVSTOREMESH
IDS_ANNOTATION = kept.IDS_ANNOTATION
MESH_PORT = 32379
JOIN_PORT = 32381
ETCD_PORT = 32382  # of the node itself: the publisher, the mirror and the front
LOCAL_PORT = own_store.LOCAL_PORT
APISERVER = own_store.APISERVER


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """One cluster, read through its API server."""

    context: str
    namespace: str
    name: str
    id: int
    max_connected: int
    tunnel: str = ""
    pod_cidrs: tuple[Prefix, ...] = ()
    ca: bytes = field(default=b"", repr=False)  # its own authority
    ca_id: str = ""
    addresses: tuple[str, ...] = ()  # where the mesh store answers
    port: int = MESH_PORT
    hosts: tuple[str, ...] = ()  # nodes that run it
    service_type: str = ""
    enabled: bool = False
    kvstoremesh: bool = False  # agents read the copies in their own cluster's store
    connected: Mapping[str, int] = field(default_factory=dict)  # name -> ID (0: not recorded)
    declared: Mapping[str, str] = field(default_factory=dict)  # cluster -> ClusterMeshPeer
    # Those whose stores are shown a certificate of their own authority -> ca, crt (PEM).
    own: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict, repr=False)
    server: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    client: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def joined(self) -> frozenset[str]:
        """Those with credentials of their own, brought by a token or an object."""
        return frozenset(self.own)


async def gather(api: Client, context: str, namespace: str) -> ClusterFacts:
    """Read a cluster. Raises ``ValueError`` when Isthmus is not installed in it."""
    config = await cluster.read(api, "ConfigMap", "cilium-config", namespace)
    label = f"cluster of context {context!r}" if context else "the cluster"
    if config is None:
        raise ValueError(
            f"{label}: no ConfigMap {namespace}/cilium-config: run `isthmus install` first"
        )
    data = config.get("data") or {}
    try:
        number = int(data.get("cluster-id", "0"))
        max_connected = int(data.get("max-connected-clusters", "255"))
    except ValueError as error:
        raise ValueError(f"{label}: cilium-config: {error}: install it again") from error
    secrets = {
        name: cluster.secret_data(await cluster.read(api, "Secret", name, namespace))
        for name in (CA_SECRET, SERVER_SECRET, REMOTE_SECRET)
    }
    service = await cluster.read(api, "Service", APISERVER, namespace)
    hosts = () if service is None else await own_store.hosts(api, namespace)
    addresses, port = _access(service, hosts)
    present = await kept.read(api, namespace)
    ca = secrets[CA_SECRET].get("ca.crt", b"")
    return ClusterFacts(
        context=context,
        namespace=namespace,
        name=data.get("cluster-name", "default"),
        id=number,
        max_connected=max_connected,
        tunnel=data.get("tunnel-protocol", ""),
        pod_cidrs=await _pod_cidrs(api),
        ca=ca,
        ca_id=check.subject_key_id(ca) if ca else "",
        addresses=addresses,
        port=port,
        hosts=hosts,
        service_type=(service or {}).get("spec", {}).get("type", ""),
        enabled=service is not None,
        kvstoremesh=service is not None and await own_store.has_kvstoremesh(api, namespace),
        connected=present.ids,
        declared=present.declared,
        own=await kept.credentials(api, namespace),
        server=secrets[SERVER_SECRET],
        client=secrets[REMOTE_SECRET],
    )


def connections(secret: Mapping[str, Any] | None) -> dict[str, int]:
    """The clusters a Secret connects to, with the IDs recorded beside them."""
    return dict(kept.parse(secret).ids)


def _access(
    service: Mapping[str, Any] | None, hosts: tuple[str, ...]
) -> tuple[tuple[str, ...], int]:
    """Where others reach the mesh store: load balancer, or the nodes that run it."""
    if service is None:
        return (), MESH_PORT
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    found = tuple(i.get("ip") or i.get("hostname") for i in ingress)
    if found:
        return found, int(service["spec"]["ports"][0]["port"])
    return hosts, MESH_PORT


async def _pod_cidrs(api: Client) -> tuple[Prefix, ...]:
    """Prefixes of the nodes, from the objects of the agents or else of Kubernetes."""
    try:
        found = await api.list(resources.untyped(resources.CILIUM_NODES))
        texts = [c for n in found for c in n["spec"].get("ipam", {}).get("podCIDRs", [])]
    except ApiError as error:
        if not error.not_found:
            raise
        texts = []
    if not texts:
        nodes = await api.list(resources.untyped(resources.NODES))
        texts = [c for n in nodes for c in n["spec"].get("podCIDRs", [])]
    return tuple(parse_prefix(text) for text in texts)


def at(facts: ClusterFacts, endpoint: str, option: str) -> ClusterFacts:
    """The same cluster, its mesh store at ``IP:PORT``. Raises ``ValueError``; empty: as it is."""
    if not endpoint:
        return facts
    address, _, number = endpoint.rpartition(":")
    try:
        place, port = str(parse_address(address.strip("[]"))), int(number)
    except ValueError:
        place, port = "", 0
    if not 0 < port < 65536:
        raise ValueError(f'{option} "{endpoint}" is not IP:PORT, as in 192.0.2.1:{MESH_PORT}')
    return replace(facts, addresses=(place,), port=port)


def endpoint_config(remote: ClusterFacts) -> bytes:
    """The value of one cluster's key in the Secret."""
    host = server_host(remote.name)
    return kept.store_config(host, remote.port, remote.addresses, "common-etcd-client")


def local_config(own: ClusterFacts) -> bytes:
    """The value of every cluster's key for agents that read the copies in their own store."""
    return own_store.config(own.namespace, own.hosts)


def encode(data: Mapping[str, bytes | None]) -> dict[str, str | None]:
    """Secret data for a patch; ``None`` removes a key."""
    return {
        key: None if value is None else base64.b64encode(value).decode()
        for key, value in data.items()
    }

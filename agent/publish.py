"""CiliumEndpoint and CiliumNode objects as tables that converge. Adapter.

Writing an object is not bound to any timer: a new endpoint's object is written in the round that
follows its creation, for other clusters learn of the pod through it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias, TypeVar

import msgspec

from agent.endpoint_store import Endpoint
from agent.endpoints import Endpoints
from agent.policy_inputs import Port
from encryption import migration, rotation
from kube.informer import Informer
from kube.port import ApiError, Client
from kube.resources import CILIUM_ENDPOINTS, CILIUM_NODES
from model.address import Address, parse_address
from model.cluster import ClusterId, ClusterName
from model.endpoint import EndpointId, EndpointState
from model.node import Node, NodeName
from model.service import Protocol
from reconcile.tasks import TaskGroup
from wire.k8s.cilium_endpoint import CiliumEndpoint, NamedPort, encode_endpoint, encode_status
from wire.k8s.cilium_node import WIREGUARD_KEY, CiliumNode, decode_node, encode_node
from wire.k8s.errors import ObjectError

K = TypeVar("K")

PodKey: TypeAlias = tuple[str, str]
_AT_ONCE = 8  # requests under way together: a node full of pods restarts in a second


@dataclass(frozen=True, slots=True)
class PublishedEndpoint:
    """What an object must say; everything else in it may be anything."""

    pod_uid: str
    id: int
    identity: int
    labels: tuple[str, ...]
    addresses: tuple[str, ...]
    node: str
    ports: tuple[NamedPort, ...] = ()
    encryption_key: int = 0
    endpoint: Endpoint | None = field(default=None, compare=False, hash=False)


def published(
    endpoint: Endpoint, node_ip: Address, encryption_key: int = 0, ports: Sequence[Port] = ()
) -> PublishedEndpoint:
    """What the object of an endpoint must say."""
    return PublishedEndpoint(
        pod_uid=endpoint.pod_uid,
        id=endpoint.id,
        identity=endpoint.identity.id,
        labels=tuple(endpoint.identity.labels.strings()),
        addresses=tuple(str(a) for a in endpoint.local.addresses),
        node=str(node_ip),
        encryption_key=encryption_key,
        ports=tuple(
            NamedPort(name=name, port=number, protocol=Protocol(protocol).name)
            for name, protocol, number in ports
        ),
        endpoint=endpoint,
    )


def read_object(obj: CiliumEndpoint) -> PublishedEndpoint:
    """What an object says."""
    status = obj.status
    owners = obj.metadata.owner_references or ()
    uid = next((o.uid for o in owners if o.kind == "Pod"), "")
    if status is None:
        return PublishedEndpoint(uid, 0, 0, (), (), "")
    network = status.networking
    pairs = (network.addressing or ()) if network else ()
    return PublishedEndpoint(
        pod_uid=uid,
        id=status.id,
        identity=status.identity.id if status.identity else 0,
        labels=tuple((status.identity.labels or ()) if status.identity else ()),
        addresses=tuple(t for p in pairs for t in (p.ipv4, p.ipv6) if t),
        node=network.node if network else "",
        encryption_key=status.encryption.key if status.encryption else 0,
        ports=tuple(status.named_ports or ()),
    )


class WantedEndpoints:
    """The objects there should be: one per pod of this node."""

    def __init__(
        self,
        endpoints: Endpoints,
        node_ip: Address,
        encryption_key: int = 0,
        ports: Callable[[str, str], Sequence[Port]] = lambda namespace, pod: (),
    ) -> None:
        """``ports`` gives the named ports of a pod of this node."""
        self._endpoints, self._node_ip, self._ports = endpoints, node_ip, ports
        self.encryption_key = encryption_key

    def get(self, key: PodKey, /) -> PublishedEndpoint | None:
        """The object of a pod; of the newer one while two have the name."""
        found = [e for e in self._endpoints.of_pod(*key) if e.pod]
        if not found:
            return None
        return published(found[-1], self._node_ip, self.encryption_key, self._ports(*key))

    def items(self) -> Iterator[tuple[PodKey, PublishedEndpoint]]:
        """All objects there should be."""
        for endpoint in self._endpoints:
            if endpoint.pod:
                key = (endpoint.namespace, endpoint.pod)
                found = self.get(key)
                if found is not None:
                    yield key, found


async def _each(
    rows: Sequence[tuple[K, Callable[[], Awaitable[None]]]],
) -> dict[K, OSError]:
    """Run requests, a few at a time; the errors by key."""
    errors: dict[K, OSError] = {}
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(key: K, work: Callable[[], Awaitable[None]]) -> None:
        async with gate:
            try:
                await work()
            except OSError as error:
                errors[key] = error

    async with TaskGroup() as tasks:
        for key, work in rows:
            tasks.create_task(one(key, work))
    return errors


class EndpointObjects:
    """The CiliumEndpoint objects of this node: a ``Target``."""

    def __init__(
        self,
        client: Client,
        informer: Informer[CiliumEndpoint],
        node_ip: Address,
        pod_labels: Callable[[str, str], dict[str, str]],
    ) -> None:
        self._client, self._informer, self._node = client, informer, str(node_ip)
        self._pod_labels = pod_labels

    async def read(self) -> Mapping[PodKey, PublishedEndpoint]:
        """Objects that say they are of this node, as last told by the API server."""
        found = {key: read_object(obj) for key, obj in self._informer.store.items()}
        return {key: row for key, row in found.items() if row.node == self._node}

    async def upsert(
        self, rows: Sequence[tuple[PodKey, PublishedEndpoint]]
    ) -> Mapping[PodKey, OSError]:
        """Create, or change what is there."""
        return await _each([(key, partial(self._write, key, row)) for key, row in rows])

    async def delete(self, keys: Collection[PodKey]) -> Mapping[PodKey, OSError]:
        """Remove; an object that another node has taken over stays."""
        return await _each([(key, partial(self._delete, key)) for key in keys])

    async def _write(self, key: PodKey, row: PublishedEndpoint) -> None:
        endpoint = row.endpoint
        assert endpoint is not None  # only rows read back have none
        namespace, pod = key
        status = encode_status(
            endpoint=EndpointId(endpoint.id),
            state=EndpointState.READY,
            identity=endpoint.identity,
            addresses=endpoint.local.addresses,
            node=parse_address(row.node),
            encryption_key=row.encryption_key,
            named_ports=row.ports,
            identifiers={
                "cni-attachment-id": f"{endpoint.container_id}:{endpoint.container_interface}",
                "container-id": endpoint.container_id,
                "k8s-namespace": namespace,
                "k8s-pod-name": pod,
                "pod-name": f"{namespace}/{pod}",
            },
        )
        labels = self._pod_labels(namespace, pod)
        body = encode_endpoint(namespace, pod, row.pod_uid, labels, status)
        if not row.pod_uid:
            del body["metadata"]["ownerReferences"]
        known = self._informer.store.get(key)
        if known is None:
            try:
                await self._client.create(CILIUM_ENDPOINTS, body, namespace)
                return
            except ApiError as error:
                if not error.already_exists:
                    raise
                known = await self._client.get(CILIUM_ENDPOINTS, pod, namespace)
        if read_object(known).pod_uid != row.pod_uid:
            # It belongs to a pod that had the name before and will go away with it.
            await self._client.delete(CILIUM_ENDPOINTS, pod, namespace, uid=known.metadata.uid)
            await self._client.create(CILIUM_ENDPOINTS, body, namespace)
            return
        # An empty object would leave a number that is there, and no list the names that were.
        status["encryption"] = {"key": row.encryption_key}
        change = {"metadata": {"labels": labels}, "status": {"named-ports": None} | status}
        try:
            await self._client.patch(CILIUM_ENDPOINTS, pod, change, namespace)
        except ApiError as error:
            if not error.not_found:
                raise
            await self._client.create(CILIUM_ENDPOINTS, body, namespace)

    async def _delete(self, key: PodKey) -> None:
        namespace, pod = key
        known = self._informer.store.get(key)
        if known is not None and read_object(known).node not in ("", self._node):
            return
        uid = known.metadata.uid if known is not None else ""
        try:
            await self._client.delete(CILIUM_ENDPOINTS, pod, namespace, uid=uid)
        except ApiError as error:
            if not error.conflict:  # a new object has the name by now
                raise


_ANNOTATIONS = (rotation.ANNOTATION, migration.IPSEC_KEY_ANNOTATION)  # of nodes, that are ours


class NodeObject:
    """This node's CiliumNode: a ``Target`` with one row."""

    def __init__(
        self,
        client: Client,
        informer: Informer[CiliumNode],
        name: NodeName,
        cluster: ClusterName,
        cluster_id: ClusterId,
        owner_uid: str,
    ) -> None:
        self._client, self._informer, self._name = client, informer, name
        self._cluster, self._cluster_id, self._owner_uid = cluster, cluster_id, owner_uid

    async def read(self) -> Mapping[NodeName, Node]:
        """The object as last told by the API server."""
        found = self._informer.store.get(("", self._name))
        if found is None:
            return {}
        try:
            node = decode_node(found, self._cluster, self._cluster_id)
        except ObjectError:
            return {}
        ours = {k: v for k, v in node.annotations.items() if k in _ANNOTATIONS}
        return {self._name: msgspec.structs.replace(node, annotations=ours)}

    async def upsert(self, rows: Sequence[tuple[NodeName, Node]]) -> Mapping[NodeName, OSError]:
        """Create it, or change what is ours in it."""
        return await _each([(name, partial(self._write, node)) for name, node in rows])

    async def delete(self, keys: Collection[NodeName]) -> Mapping[NodeName, OSError]:
        """It goes away with the Kubernetes node and is never removed by us."""
        return {}

    async def _write(self, node: Node) -> None:
        body = encode_node(node, self._owner_uid)
        try:
            await self._client.create(CILIUM_NODES, body)
        except ApiError as error:
            if not error.already_exists:
                raise
            stale = dict.fromkeys((*WIREGUARD_KEY, *_ANNOTATIONS))  # unless they are wanted
            metadata = body["metadata"]
            metadata["annotations"] = stale | metadata.get("annotations", {})
            spec = body["spec"] | {"encryption": {"key": node.encryption_key}}
            await self._client.patch(CILIUM_NODES, node.name, {"metadata": metadata, "spec": spec})

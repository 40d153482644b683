"""What this cluster's API server says → claims. Adapter.

An object that cannot be used is counted and shown, and its last usable version stays in force.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from agent.cni_types import PodName
from agent.identities import IdentityAllocator
from agent.mesh_state import MeshState
from agent.policy_inputs import PolicyInputs, Port, ports_of, published_ports
from kube.informer import Informer
from kube.port import ApiError, Client, Resource
from kube.resources import (
    CILIUM_ENDPOINTS,
    CILIUM_IDENTITIES,
    CILIUM_NODES,
    ENDPOINT_SLICES,
    NAMESPACES,
    NODES,
    PODS,
    SERVICES,
)
from mesh.ipcache import Claimant, IpClaim
from mesh.problems import Problems
from model.address import Address, host_prefix
from model.cluster import ClusterId
from model.identity import Identity
from model.ipcache import IpcacheEntry, Source
from model.node import NodeName
from model.service import ServiceName
from reconcile.tasks import TaskGroup
from wire.k8s.cilium_endpoint import CiliumEndpoint, decode_addresses
from wire.k8s.cilium_identity import CiliumIdentity, decode_identity
from wire.k8s.cilium_node import CiliumNode, decode_node
from wire.k8s.core import Namespace, Node
from wire.k8s.endpointslice import EndpointSlice, is_copied, merge_backends, owner_of
from wire.k8s.errors import ObjectError
from wire.k8s.meta import K8sObject, labels_of
from wire.k8s.pod import Pod, identity_labels_of
from wire.k8s.service import Service, decode_service, service_name

log = logging.getLogger("isthmus.agent.kube")

T = TypeVar("T", bound=K8sObject)

API_SERVER = ServiceName(
    "default", "kubernetes"
)  # its endpoints are the API server's own addresses


class KubeInputs:
    """The watches of an agent."""

    def __init__(
        self,
        client: Client,
        mesh: MeshState,
        cluster_id: ClusterId,
        node_name: NodeName,
        node_ip: Address,
        allocator: IdentityAllocator,
        policy: PolicyInputs,
        on_pod: Callable[[str, str], None],
        on_own_endpoint: Callable[[str, str], None],
    ) -> None:
        """``on_pod`` and ``on_own_endpoint`` are told namespace and name (empty name: all)."""
        self._client, self._mesh, self._allocator = client, mesh, allocator
        self._policy = policy
        self._cluster_id, self._me, self._node_ip = cluster_id, node_name, node_ip
        self._on_pod, self._on_own_endpoint = on_pod, on_own_endpoint
        self._slices: dict[ServiceName, dict[str, EndpointSlice]] = {}
        self.on_ports: Callable[[str, str], None] = lambda namespace, pod: None
        self.on_api_server: Callable[[frozenset[Address]], None] = lambda addresses: None
        self.on_own_node: Callable[[], None] = lambda: None
        self.on_own_labels: Callable[[dict[str, str]], None] = lambda labels: None
        self.problems: Problems[str] = Problems()
        self.pods = self._informer(PODS, self._pod, f"spec.nodeName={node_name}")
        self.namespaces = self._informer(NAMESPACES, self._namespace)
        self.services = self._informer(SERVICES, self._service)
        self.slices = self._informer(ENDPOINT_SLICES, self._slice)
        self.nodes = self._informer(CILIUM_NODES, self._node)
        self.own_node = self._informer(NODES, self._own_node, f"metadata.name={node_name}")
        self.identities = self._informer(CILIUM_IDENTITIES, self._identity)
        self.endpoints = self._informer(CILIUM_ENDPOINTS, self._endpoint)

    def all(self) -> tuple[Informer[Any], ...]:
        """For health and metrics."""
        return (
            self.pods,
            self.namespaces,
            self.services,
            self.slices,
            self.nodes,
            self.own_node,
            self.identities,
            self.endpoints,
            *self._policy.informers(),
        )

    async def run(self) -> None:
        """Until cancelled."""
        async with TaskGroup() as tasks:
            for informer in self.all():
                tasks.create_task(informer.run(), name=f"watch-{informer.resource.plural}")

    async def synced(self) -> None:
        """Wait until every watch has told its first list."""
        for informer in self.all():
            await informer.synced.wait()

    def _informer(
        self,
        resource: Resource[T],
        take: Callable[[T | None, T | None], None],
        field_selector: str = "",
    ) -> Informer[T]:
        async def on_change(old: T | None, new: T | None) -> None:
            some = new or old
            assert some is not None
            subject = " ".join((resource.kind, "/".join(p for p in some.metadata.key if p)))
            try:
                take(old, new)
            except ObjectError as error:
                self._report(subject, (str(error),))
                return
            if resource.kind != SERVICES.kind or new is None:
                self.problems.drop(subject)

        return Informer(self._client, resource, on_change, field_selector=field_selector)

    def _report(self, subject: str, sentences: tuple[str, ...]) -> None:
        before = self.problems.total
        self.problems.set(subject, sentences)
        if self.problems.total != before:
            log.warning('event=rejected count=%d "%s"', self.problems.total, self.problems.last)

    def _pod(self, old: Pod | None, new: Pod | None) -> None:
        if new is not None and (old is None or old.metadata.labels != new.metadata.labels):
            self._on_pod(new.metadata.namespace, new.metadata.name)
        if new is not None and (old is None or ports_of(old) != ports_of(new)):
            self.on_ports(new.metadata.namespace, new.metadata.name)

    def _namespace(self, old: Namespace | None, new: Namespace | None) -> None:
        if old is not None and new is not None and old.metadata.labels != new.metadata.labels:
            self._on_pod(new.metadata.name, "")

    def _service(self, old: Service | None, new: Service | None) -> None:
        some = new or old
        assert some is not None
        name = service_name(some.metadata)
        if new is None:
            self._mesh.services.set_service(name, None)
            self._policy.service(name, None)
            return
        decoded, sentences = decode_service(new)
        self._report(f"Service {name}", sentences)
        self._mesh.services.set_service(name, decoded)
        self._policy.service(name, decoded)

    def _slice(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        before = owner_of(old) if old else None
        after = owner_of(new) if new and not is_copied(new) else None
        some = new or old
        assert some is not None
        touched = {name for name in (before, after) if name is not None}
        for name in touched:
            slices = self._slices.setdefault(name, {})
            slices.pop(some.metadata.name, None)
            if new is not None and name == after:
                slices[some.metadata.name] = new
            if not slices:
                del self._slices[name]
        for name in touched:
            mine = self._slices.get(name)
            backends = merge_backends(mine.values()) if mine else None
            self._mesh.services.set_backends(name, backends)
            self._policy.backends(name, backends or ())
            if name == API_SERVER:
                self.on_api_server(frozenset(backends or ()))

    def _node(self, old: CiliumNode | None, new: CiliumNode | None) -> None:
        some = new or old
        assert some is not None
        if some.metadata.name == self._me:
            self.on_own_node()  # what we are ourselves, we know
        elif new is None:
            self._mesh.nodes.drop(self._mesh.own, NodeName(some.metadata.name))
        else:
            self._mesh.nodes.put(decode_node(new, self._mesh.own, self._cluster_id))

    def _own_node(self, old: Node | None, new: Node | None) -> None:
        if new is not None:
            self.on_own_labels(dict(labels_of(new.metadata)))

    def _identity(self, old: CiliumIdentity | None, new: CiliumIdentity | None) -> None:
        self._allocator.observe(old, new)
        some = new or old
        assert some is not None
        identity = decode_identity(some)
        if new is None:
            self._mesh.identities.drop(identity.id, self._mesh.own)
        else:
            self._mesh.identities.put(identity.id, self._mesh.own, identity.labels)

    def _endpoint(self, old: CiliumEndpoint | None, new: CiliumEndpoint | None) -> None:
        some = new or old
        assert some is not None
        meta = some.metadata
        claimant = Claimant(Source.CUSTOM_RESOURCE, self._mesh.own, f"{meta.namespace}/{meta.name}")
        fresh = decode_addresses(new) if new else {}
        self._policy.port_names(meta.namespace, meta.name, published_ports(new))
        try:
            stale = decode_addresses(old) if old else {}
        except ObjectError:
            stale = {}
        ours = any(v.host_ip == self._node_ip for v in (*fresh.values(), *stale.values()))
        if ours:
            self._on_own_endpoint(meta.namespace, meta.name)
        for address, value in fresh.items():
            if value.host_ip == self._node_ip or value.host_ip is None:
                self._mesh.ipcache.drop(host_prefix(address), claimant)
                continue  # our own pods we know first hand
            row = IpcacheEntry(value.identity, value.host_ip, value.key)
            born = meta.creation_timestamp or ""
            claim = IpClaim(row, value.namespace, value.pod, born)
            self._mesh.ipcache.put(host_prefix(address), claimant, claim)
        for address in stale.keys() - fresh.keys():
            self._mesh.ipcache.drop(host_prefix(address), claimant)

    def pod_ports(self, namespace: str, name: str) -> tuple[Port, ...]:
        """The named ports of a pod of this node."""
        pod = self.pods.store.get((namespace, name))
        return ports_of(pod) if pod is not None else ()

    async def identity_of(self, name: PodName) -> Identity | None:
        """The identity of a pod by its labels now; ``None``: the API server knows no such pod.

        Raises ``OSError``.
        """
        pod = self.pods.store.get((name.namespace, name.name))
        if pod is None or (name.uid and pod.metadata.uid != name.uid):
            pod = await self._found(lambda: self._client.get(PODS, name.name, name.namespace))
        if pod is None or (name.uid and pod.metadata.uid != name.uid):
            return None
        namespace = self.namespaces.store.get(("", name.namespace))
        if namespace is None:
            namespace = await self._found(lambda: self._client.get(NAMESPACES, name.namespace))
        labels = labels_of(namespace.metadata) if namespace else {}
        return await self._allocator.resolve(identity_labels_of(pod, labels, self._mesh.own))

    @staticmethod
    async def _found(read: Callable[[], Awaitable[T]]) -> T | None:
        try:
            return await read()
        except ApiError as error:
            if error.not_found:
                return None
            raise

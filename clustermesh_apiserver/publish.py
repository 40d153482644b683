"""What this cluster says about itself: Kubernetes objects → rows for etcd. Pure.

One change of an object costs the keys it concerns and no other. A ``Publication`` remembers just
what a key's value depends on: the claims on each address, and the slices of each service.

An object that cannot be used leaves its last good rows standing; the sentence about it is kept in
``problems`` until the object is corrected or gone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from model.address import Address
from model.cluster import ClusterId, ClusterName
from model.ipcache import EndpointAddress
from model.local_service import LocalBackend, LocalService
from model.service import ServiceName, SharedService, Zone
from wire.etcd import identity_v1, ip_v1, keys, node_v1, service_v1
from wire.k8s.cilium_endpoint import CiliumEndpoint, decode_addresses
from wire.k8s.cilium_identity import CiliumIdentity, decode_identity
from wire.k8s.cilium_node import CiliumNode, decode_node
from wire.k8s.endpointslice import (
    EndpointSlice,
    decode_backends,
    is_copied,
    join_backends,
    owner_of,
)
from wire.k8s.errors import ObjectError
from wire.k8s.meta import ObjectMeta
from wire.k8s.service import Service, decode_service, service_name

Rows: TypeAlias = dict[str, bytes | None]  # None: the key is to go away
Subject: TypeAlias = tuple[str, str, str]  # kind, namespace, name

# The control plane's own, which exist in every cluster and must not be merged.
NEVER_SHARED = frozenset({"kube-scheduler", "kube-controller-manager"})


def shared_service(
    service: LocalService,
    backends: Mapping[Address, LocalBackend],
    cluster: ClusterName,
    cluster_id: ClusterId,
) -> SharedService | None:
    """A service as other clusters get it; ``None``: they do not get it.

    Only ready addresses are offered: the record has no place for a draining one.
    """
    if not (service.mesh.is_global and service.mesh.shared):
        return None
    if service.name.name in NEVER_SHARED:
        return None
    # One value for one set of backends, so that an unchanged one is not written again.
    ready = {address: backends[address] for address in sorted(backends) if backends[address].ready}
    return SharedService(
        cluster=cluster,
        cluster_id=cluster_id,
        name=service.name,
        frontends={} if service.headless else service.frontends,
        backends={address: b.ports for address, b in ready.items()},
        hostnames={address: b.hostname for address, b in ready.items() if b.hostname},
        zones={address: b.zone for address, b in ready.items() if b.zone != Zone()},
        labels=service.labels,
        selector=service.selector,
        include_external=True,
        shared=True,
    )


@dataclass(frozen=True, slots=True)
class _Claim:
    """An endpoint's word on an address; the younger endpoint is right."""

    born: tuple[str, int]  # when the object was made, then the order in which we met it
    value: EndpointAddress


@dataclass(slots=True)
class Publication:
    """Everything published for one cluster. Not for use from several threads."""

    cluster: ClusterName
    cluster_id: ClusterId
    problems: dict[Subject, tuple[str, ...]] = field(default_factory=dict)
    rejected: int = 0  # how often something was not understood
    _met: int = 0
    _claims: dict[Address, dict[tuple[str, str], _Claim]] = field(default_factory=dict)
    _addresses: dict[tuple[str, str], frozenset[Address]] = field(default_factory=dict)
    _services: dict[ServiceName, LocalService] = field(default_factory=dict)
    # The last usable content of each slice, by service and slice name.
    _slices: dict[ServiceName, dict[str, tuple[LocalBackend, ...]]] = field(default_factory=dict)
    _owners: dict[tuple[str, str], ServiceName] = field(default_factory=dict)
    _services_complete: bool = False

    def node(self, old: CiliumNode | None, new: CiliumNode | None) -> Rows:
        """Take a change of a CiliumNode."""
        meta = _meta(old, new)
        subject = ("CiliumNode", "", meta.name)
        key = keys.node(self.cluster, meta.name)
        if new is None:
            self._clear(subject)
            return {key: None}
        try:
            value = node_v1.encode(decode_node(new, self.cluster, self.cluster_id))
        except ObjectError as error:
            self._reject(subject, [str(error)])
            return {}
        self._clear(subject)
        return {key: value}

    def identity(self, old: CiliumIdentity | None, new: CiliumIdentity | None) -> Rows:
        """Take a change of a CiliumIdentity."""
        meta = _meta(old, new)
        subject = ("CiliumIdentity", "", meta.name)
        try:
            identity = decode_identity(new or old or CiliumIdentity())
        except ObjectError as error:
            if new is None:
                self._clear(subject)
            else:
                self._reject(subject, [str(error)])
            return {}
        self._clear(subject)
        key = keys.identity(identity.id)
        return {key: None if new is None else identity_v1.encode(identity.labels)}

    def endpoint(self, old: CiliumEndpoint | None, new: CiliumEndpoint | None) -> Rows:
        """Take a change of a CiliumEndpoint.

        An address may pass to another pod before its former owner's object goes away; the row
        stays the younger endpoint's whatever comes late about the older one.
        """
        meta = _meta(old, new)
        subject = ("CiliumEndpoint", meta.namespace, meta.name)
        claimed: dict[Address, EndpointAddress] = {}
        try:
            if new is not None:
                claimed = decode_addresses(new)
        except ObjectError as error:
            self._reject(subject, [str(error)])
            return {}
        self._clear(subject)
        before = self._addresses.pop(meta.key, frozenset())
        if claimed:
            self._addresses[meta.key] = frozenset(claimed)
        for address in before - claimed.keys():
            self._withdraw(address, meta.key)
        for address, value in claimed.items():
            self._claim(address, meta, value)
        return {keys.ip(a): self._address(a) for a in sorted(before | claimed.keys(), key=str)}

    def _claim(self, address: Address, meta: ObjectMeta, value: EndpointAddress) -> None:
        claims = self._claims.setdefault(address, {})
        known = claims.get(meta.key)
        if known is None:
            self._met += 1
        born = known.born if known else (meta.creation_timestamp or "", self._met)
        claims[meta.key] = _Claim(born, value)

    def _withdraw(self, address: Address, key: tuple[str, str]) -> None:
        claims = self._claims[address]
        del claims[key]
        if not claims:
            del self._claims[address]

    def _address(self, address: Address) -> bytes | None:
        claims = self._claims.get(address)
        if not claims:
            return None
        return ip_v1.encode(address, max(claims.values(), key=lambda c: c.born).value)

    def service(self, old: Service | None, new: Service | None) -> Rows:
        """Take a change of a Service. No row before ``complete_services``."""
        meta = _meta(old, new)
        name = service_name(meta)
        subject = ("Service", meta.namespace, meta.name)
        if new is None or new.spec.type == "ExternalName":  # which has no backends to offer
            self._clear(subject)
            self._services.pop(name, None)
            return self._service_rows([name])
        try:
            decoded, problems = decode_service(new)
        except ObjectError as error:
            self._reject(subject, [str(error)])
            return {}
        if problems:
            self._reject(subject, problems)
        else:
            self._clear(subject)
        self._services[name] = decoded
        return self._service_rows([name])

    def slice(self, old: EndpointSlice | None, new: EndpointSlice | None) -> Rows:
        """Take a change of an EndpointSlice. No row before ``complete_services``."""
        meta = _meta(old, new)
        subject = ("EndpointSlice", meta.namespace, meta.name)
        owner = owner_of(new) if new is not None and not is_copied(new) else None
        backends: tuple[LocalBackend, ...] = ()
        try:
            if new is not None and owner is not None:
                backends = decode_backends(new)
        except ObjectError as error:
            self._reject(subject, [str(error)])
            return {}
        self._clear(subject)
        before = self._owners.pop(meta.key, None)
        if before is not None:
            del self._slices[before][meta.name]
            if not self._slices[before]:
                del self._slices[before]
        if owner is not None:
            self._owners[meta.key] = owner
            self._slices.setdefault(owner, {})[meta.name] = backends
        return self._service_rows(name for name in dict.fromkeys((before, owner)) if name)

    def complete_services(self) -> Rows:
        """Services and slices have both been listed: the rows of all services.

        Sooner there must be none: a service whose slices have not been read yet would be
        published without backends, and other clusters would stop using it.
        """
        self._services_complete = True
        return {k: v for k, v in self._service_rows(self._services).items() if v is not None}

    def _service_rows(self, names: Iterable[ServiceName]) -> Rows:
        if not self._services_complete:
            return {}
        rows: Rows = {}
        for name in names:
            service = self._services.get(name)
            shared = None
            if service is not None:
                slices = self._slices.get(name, {})
                backends = join_backends(slices[n] for n in sorted(slices))
                shared = shared_service(service, backends, self.cluster, self.cluster_id)
            rows[keys.service(self.cluster, name)] = service_v1.encode(shared) if shared else None
        return rows

    def _reject(self, subject: Subject, problems: Iterable[str]) -> None:
        self.rejected += 1
        self.problems[subject] = tuple(problems)

    def _clear(self, subject: Subject) -> None:
        self.problems.pop(subject, None)


def _meta(
    old: CiliumNode | CiliumIdentity | CiliumEndpoint | Service | EndpointSlice | None,
    new: CiliumNode | CiliumIdentity | CiliumEndpoint | Service | EndpointSlice | None,
) -> ObjectMeta:
    found = new or old
    assert found is not None, "a change has an old or a new side"
    return found.metadata

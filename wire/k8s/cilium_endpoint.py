"""CiliumEndpoint ↔ the addresses of a pod with its identity. Pure. All fields are in status."""

from collections.abc import Sequence
from typing import Any

import msgspec

from model.address import Address, parse_address
from model.endpoint import EndpointId, EndpointState
from model.identity import Identity, NumericIdentity
from model.ipcache import EndpointAddress
from wire.k8s.errors import ObjectError
from wire.k8s.meta import K8sObject, K8sStruct, OwnerReference


class AddressPair(K8sStruct, frozen=True):
    """Addresses of an endpoint, one per family."""

    ipv4: str = ""
    ipv6: str = ""


class EndpointNetworking(K8sStruct, frozen=True):
    """Addresses, and the node's address they are behind."""

    addressing: list[AddressPair] | None = None
    node: str = ""


class EndpointIdentity(K8sStruct, frozen=True):
    """The identity of an endpoint."""

    id: int = 0
    labels: list[str] | None = None


class EncryptionSpec(K8sStruct, frozen=True):
    """The encryption key an endpoint's node uses."""

    key: int = 0


class NamedPort(K8sStruct, frozen=True):
    """A port by its name in the pod."""

    name: str = ""
    port: int = 0
    protocol: str = ""


class CiliumEndpointStatus(K8sStruct, frozen=True):
    """What the agent says about an endpoint."""

    id: int = 0
    state: str = ""
    identity: EndpointIdentity | None = None
    networking: EndpointNetworking | None = None
    encryption: EncryptionSpec | None = None
    # Kubernetes' own camelCase is not used in this kind.
    named_ports: list[NamedPort] | None = msgspec.field(name="named-ports", default=None)


class CiliumEndpoint(K8sObject, frozen=True):
    """An endpoint, named like its pod."""

    status: CiliumEndpointStatus | None = None


def decode_addresses(obj: CiliumEndpoint) -> dict[Address, EndpointAddress]:
    """Each address with what others need to reach it; empty while it has none.

    Raises ``ObjectError`` naming the address that is none.
    """
    status = obj.status
    if status is None or status.networking is None:
        return {}
    meta = obj.metadata
    try:
        node = status.networking.node
        value = EndpointAddress(
            host_ip=parse_address(node) if node else None,
            identity=NumericIdentity(status.identity.id if status.identity else 0),
            key=status.encryption.key if status.encryption else 0,
            namespace=meta.namespace,
            pod=meta.name,
        )
        return {
            parse_address(text): value
            for pair in status.networking.addressing or ()
            for text in (pair.ipv4, pair.ipv6)
            if text
        }
    except ValueError as error:
        raise ObjectError("CiliumEndpoint", meta.namespace, meta.name, str(error)) from error


def encode_status(
    *,
    endpoint: EndpointId,
    state: EndpointState,
    identity: Identity | None,
    addresses: Sequence[Address],
    node: Address,
    encryption_key: int = 0,
    named_ports: Sequence[NamedPort] = (),
    identifiers: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The status an agent writes for one of its endpoints.

    ``identifiers`` are the external ones: container-id, cni-attachment-id, k8s-pod-name, ….
    """
    four = [str(a) for a in addresses if a.version == 4]
    six = [str(a) for a in addresses if a.version == 6]
    pair = {k: v[0] for k, v in (("ipv4", four), ("ipv6", six)) if v}
    status: dict[str, Any] = {
        "id": endpoint,
        "state": state.value,
        "networking": {"addressing": [pair] if pair else [], "node": str(node)},
        "encryption": {"key": encryption_key} if encryption_key else {},
    }
    if identity is not None:
        status["identity"] = {"id": identity.id, "labels": identity.labels.strings()}
    if named_ports:
        status["named-ports"] = [msgspec.to_builtins(p) for p in named_ports]
    if identifiers:
        status["external-identifiers"] = identifiers
    return status


def encode_endpoint(
    namespace: str,
    pod: str,
    pod_uid: str,
    labels: dict[str, str],
    status: dict[str, Any],
) -> dict[str, Any]:
    """The body of a CiliumEndpoint: it goes away with its pod."""
    owner = OwnerReference(api_version="v1", kind="Pod", name=pod, uid=pod_uid)
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumEndpoint",
        "metadata": {
            "name": pod,
            "namespace": namespace,
            "labels": labels,
            "ownerReferences": [msgspec.to_builtins(owner)],
        },
        "status": status,
    }

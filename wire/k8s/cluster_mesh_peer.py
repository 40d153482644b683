"""ClusterMeshPeer of ``isthmus.io/v1alpha1``: a connection to another cluster, declared. Pure."""

from typing import Any

import msgspec

from wire.k8s.meta import Condition, K8sObject, K8sStruct

GROUP, VERSION = "isthmus.io", "v1alpha1"
KIND = "ClusterMeshPeer"


class SecretReference(K8sStruct, frozen=True):
    """A Secret of the namespace for peers."""

    name: str


class PeerSpec(K8sStruct, frozen=True):
    """What a person declares."""

    cluster_id: int = msgspec.field(name="clusterID")
    endpoints: list[str]
    cluster_name: str = ""  # empty: the object's name
    secret_ref: SecretReference | None = None
    cache_ttl: str = msgspec.field(name="cacheTTL", default="")


class PeerStatus(K8sStruct, frozen=True):
    """What became of it."""

    conditions: list[Condition] | None = None
    data_age: str = ""


class ClusterMeshPeerObject(K8sObject, frozen=True):
    """The wish to read another cluster; ``spec`` is read by ``spec_of``, errors and all."""

    spec: Any = None
    status: PeerStatus | None = None


def spec_of(peer: ClusterMeshPeerObject) -> PeerSpec:
    """Raises ``ValueError`` naming the field."""
    try:
        return msgspec.convert(peer.spec, PeerSpec)
    except msgspec.ValidationError as error:
        text = str(error).replace("$", "spec")
        raise ValueError(f"{text}: correct it (`kubectl explain clustermeshpeer.spec`)") from error

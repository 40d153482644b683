"""What may be thrown away in the cluster, decided from lists of everything. Pure.

Identities are given up in two steps: an unused one is marked, and deleted when it is still unused
after the mark has grown old. A CiliumEndpoint outlives its pod only when its agent was not there
to remove it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from wire.k8s.cilium_endpoint import CiliumEndpoint
from wire.k8s.cilium_identity import GC_MARK, CiliumIdentity
from wire.k8s.cilium_node import CiliumNode
from wire.k8s.core import Node
from wire.k8s.meta import ObjectMeta, annotations_of
from wire.k8s.pod import Pod


@dataclass(frozen=True, slots=True)
class Mark:
    """Note on an identity since when it is unused; ``None``: it is used again."""

    name: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove this very version of an object."""

    namespace: str
    name: str
    uid: str
    resource_version: str

    @classmethod
    def of(cls, meta: ObjectMeta) -> "Delete":
        return cls(meta.namespace, meta.name, meta.uid, meta.resource_version)


def format_time(at: datetime) -> str:
    """RFC 3339 with a ``Z``."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _marked_at(identity: CiliumIdentity) -> datetime | None:
    try:
        at = datetime.fromisoformat(annotations_of(identity.metadata).get(GC_MARK, ""))
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def used_identities(endpoints: Iterable[CiliumEndpoint]) -> set[str]:
    """Names of the identities that endpoints carry."""
    return {str(e.status.identity.id) for e in endpoints if e.status and e.status.identity}


def plan_identities(
    identities: Iterable[CiliumIdentity], used: set[str], now: datetime, keep: timedelta
) -> list[Mark | Delete]:
    """Mark what is newly unused, unmark what is used again, delete what has been unused long."""
    plan: list[Mark | Delete] = []
    for identity in identities:
        name, marked = identity.metadata.name, _marked_at(identity)
        if name in used:
            if GC_MARK in annotations_of(identity.metadata):
                plan.append(Mark(name, None))
        elif marked is None:
            plan.append(Mark(name, now))
        elif now - marked >= keep:
            plan.append(Delete.of(identity.metadata))
    return plan


def orphaned_endpoints(endpoints: Iterable[CiliumEndpoint], pods: Iterable[Pod]) -> list[Delete]:
    """Endpoints whose pod is gone or has ended."""
    alive = {pod.metadata.key for pod in pods if pod.running}
    return [Delete.of(e.metadata) for e in endpoints if e.metadata.key not in alive]


def unmanaged_pods(endpoints: Iterable[CiliumEndpoint], pods: Iterable[Pod]) -> list[Pod]:
    """Pods that run in the pod network, and that no agent has made an endpoint of."""
    managed = {endpoint.metadata.key for endpoint in endpoints}
    return [
        pod
        for pod in pods
        if pod.status.phase == "Running"
        and not pod.spec.host_network
        and pod.metadata.key not in managed
    ]


def orphaned_nodes(ciliumnodes: Iterable[CiliumNode], nodes: Iterable[Node]) -> list[Delete]:
    """CiliumNodes whose Kubernetes node is gone."""
    alive = {node.metadata.name for node in nodes}
    return [Delete.of(n.metadata) for n in ciliumnodes if n.metadata.name not in alive]

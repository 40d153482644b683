"""What the REST API answers, from our values. Pure. Names and nesting are a public interface."""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from agent.endpoint_store import Endpoint
from kvstore.status import RemoteStatus
from mesh.ipcache import SaidIp
from mesh.problems import Tally
from model.address import Address, Prefix
from model.identity import RESERVED_NAMES, NumericIdentity
from model.ipcache import Source
from model.labels import Labels
from model.node import CILIUM_INTERNAL_IP, Node
from model.service import Backend, BackendState, LoadBalancer, Protocol
from reconcile.status import TableStatus
from wire.etcd import keys

SOURCES = {
    Source.KUBE_APISERVER: "kube-apiserver",
    Source.LOCAL: "local",
    Source.KVSTORE: "kvstore",
    Source.CUSTOM_RESOURCE: "custom-resource",
    Source.KUBERNETES: "k8s",
    Source.CLUSTERMESH: "clustermesh",
    Source.GENERATED: "generated",
    Source.RESTORED: "restored",
}


def identity(number: NumericIdentity, labels: Labels | None) -> dict[str, Any]:
    """``Identity``."""
    if labels is None:
        name = {int(k): v for k, v in RESERVED_NAMES.items()}.get(number)
        texts = [name] if name else []
        text = "".join(f"{t}=;" for t in texts)
    else:
        texts, text = labels.strings(), labels.text()
    return {"id": number, "labels": texts, "labelsSHA256": sha256(text.encode()).hexdigest()}


def endpoint(
    value: Endpoint, routers: Iterable[Address], policy: dict[str, Any], policy_health: str
) -> dict[str, Any]:
    """``Endpoint``."""
    local = value.local
    pair: dict[str, str] = {}
    for address in local.addresses:
        pair.setdefault(f"ipv{address.version}", str(address))
    return {
        "id": local.id,
        "spec": {"label-configuration": {}, "options": {}},
        "status": {
            "state": value.state.value,
            "identity": identity(value.identity.id, value.identity.labels),
            "labels": {"security-relevant": value.identity.labels.strings()},
            "external-identifiers": {
                "cni-attachment-id": f"{value.container_id}:{value.container_interface}",
                "container-id": value.container_id,
                "k8s-namespace": value.namespace,
                "k8s-pod-name": value.pod,
                "pod-name": f"{value.namespace}/{value.pod}" if value.pod else "",
            },
            "networking": {
                "addressing": [pair],
                "host-addressing": {f"ipv{r.version}": str(r) for r in routers},
                "mac": local.mac.hex(":"),
                "host-mac": local.host_mac.hex(":"),
                "interface-index": local.ifindex,
                "interface-name": local.interface,
                "container-interface-name": value.container_interface,
            },
            "health": {
                "bpf": "OK",
                "policy": policy_health,
                "overallHealth": "Failure" if policy_health == "Failure" else "OK",
                "connected": True,
            },
            "policy": policy,
        },
    }


def ip(prefix: Prefix, said: SaidIp) -> dict[str, Any]:
    """``IPListEntry``."""
    claimant, claim = said.owner, said.claim
    entry: dict[str, Any] = {
        "cidr": str(prefix),
        "identity": claim.entry.identity,
        "encryptKey": claim.entry.encrypt_key,
        "metadata": {
            "source": SOURCES[claimant.source],
            "namespace": claim.namespace,
            "name": claim.pod,
            "cluster": claimant.cluster,
        },
    }
    if claim.entry.tunnel_endpoint is not None:
        entry["hostIP"] = str(claim.entry.tunnel_endpoint)
    return entry


_STATES = {
    BackendState.ACTIVE: "active",
    BackendState.TERMINATING: "terminating",
    BackendState.QUARANTINED: "quarantined",
    BackendState.MAINTENANCE: "maintenance",
}


def _backend(value: Backend, selectable: bool, weight: int) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "ip": str(value.address),
        "port": value.port,
        "protocol": Protocol(value.protocol).name.lower(),
        "state": _STATES[value.state],
        "preferred": value.preferred,
        "selectable": selectable,
    }
    if weight:
        shape["weight"] = weight
    if value.node:
        shape["nodeName"] = value.node
    if value.cluster:
        shape["cluster"] = value.cluster
    return shape


def service(number: int, row: LoadBalancer) -> dict[str, Any]:
    """``Service``. ``number`` is the row's place in the list."""
    front = row.frontend
    weights = dict(enumerate(row.weights))
    spec = {
        "id": number,
        "frontend-address": {
            "ip": str(front.address),
            "port": front.port,
            "protocol": front.protocol.name.lower(),
            "scope": "external",
        },
        "backend-addresses": [
            _backend(b, place < row.selectable, weights.get(place, 0))
            for place, b in enumerate(row.backends)
        ],
        "flags": {
            "type": "ClusterIP",
            "trafficPolicy": "Cluster",
            "name": row.name.name,
            "namespace": row.name.namespace,
            "algorithm": row.selection.name.lower(),
            "sessionAffinitySeconds": row.affinity_timeout_s,
        },
    }
    return {"spec": spec, "status": {"realized": spec}}


def node(value: Node, source: str) -> dict[str, Any]:
    """``NodeElement``."""
    shape: dict[str, Any] = {"name": f"{value.cluster}/{value.name}", "source": source}
    primary: dict[str, Any] = {}
    for version in (4, 6):
        address = value.tunnel_endpoint(version)
        prefix = next((p for p in value.pod_cidrs if p.version == version), None)
        if address is not None or prefix is not None:
            primary[f"ipv{version}"] = {
                "enabled": True,
                "ip": str(address) if address else "",
                "alloc-range": str(prefix) if prefix else "",
            }
    shape["primary-address"] = primary
    shape["secondary-addresses"] = [
        {"ip": str(a.ip), "address-type": a.type}
        for a in value.addresses
        if a.type == CILIUM_INTERNAL_IP
    ]
    return shape


def controllers(tables: Iterable[TableStatus], now_s: float) -> list[dict[str, Any]]:
    """``controllers``: one per table."""
    return [
        {
            "name": f"table-{table.name}",
            "status": {
                "success-count": table.rounds,
                "failure-count": table.failures,
                "consecutive-failure-count": len(table.failing) or int(bool(table.error)),
                "last-failure-msg": table.error
                or next((f.error for f in table.failing.values()), ""),
                "message": table.line(now_s),
            },
        }
        for table in tables
    ]


def remote_cluster(
    status: RemoteStatus,
    counts: Mapping[str, int],
    last_failure: str | None,
    violations: Mapping[str, Tally],
    certificate: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """``RemoteCluster``, and what of its records is not believed, by kind."""
    kinds = {
        **{f"record-{r}": Tally(n, status.examples.get(r, "")) for r, n in status.rejected.items()},
        **violations,
    }
    latest = status.last_rejected or next((t.example for t in violations.values()), "")
    config = status.config
    shape: dict[str, Any] = {
        "name": status.name,
        "connected": status.connected,
        "ready": status.ready,
        "status": _remote_text(status),
        "num-nodes": counts[keys.NODES],
        "num-endpoints": counts[keys.IP],
        "num-identities": counts[keys.IDENTITIES],
        "num-shared-services": counts[keys.SERVICES],
        "num-service-exports": 0,
        "num-failures": status.failures,
        "synced": {
            "nodes": keys.NODES in status.synced,
            "endpoints": keys.IP in status.synced,
            "identities": keys.IDENTITIES in status.synced,
            "services": status.ready or keys.SERVICES in status.synced,
        },
        "config": {
            "required": True,
            "retrieved": config is not None and status.connected,
            "cluster-id": config.id if config else 0,
            "kvstoremesh": bool(config and config.capabilities.cached),
            "sync-canaries": bool(config and config.capabilities.synced_canaries),
            "service-exports-enabled": bool(config and config.capabilities.service_exports),
        },
        "num-rejected": sum(t.total for t in kinds.values()),
        "last-rejected": latest,
        "violations": [
            {"kind": kind, "count": tally.total, "example": tally.example}
            for kind, tally in sorted(kinds.items())
        ],
        "num-late": status.late,
        "num-throttled": status.throttled,
    }
    if status.freshness is not None:
        shape["copy"] = {
            "last-heard": status.freshness.heard,
            "connected": status.freshness.connected,
            "error": status.freshness.error,
        }
    if last_failure is not None:
        shape["last-failure"] = last_failure
    if certificate is not None:
        shape["certificate"] = dict(certificate)
    return shape


def _remote_text(status: RemoteStatus) -> str:
    if status.connected and status.endpoint:
        return f"etcd: 1/1 connected, endpoint: {status.endpoint}, ID: {status.etcd_id:x}"
    return status.message

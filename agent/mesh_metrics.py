"""Metrics of the mesh: remote clusters as this agent sees them, and the stores it reads."""

import time
from collections.abc import Mapping

from agent.view import View
from certs.presented import presented
from kvstore.observed import OBSERVED
from model.cluster import ClusterName
from telemetry.metrics import Family, family
from wire.etcd import keys


def _wall_s(view: View, moment_s: float) -> float:
    """A moment of the loop's clock as one of the wall's; 0 stays 0."""
    return time.time() - view.clock() + moment_s if moment_s else 0.0


def collect(view: View) -> list[Family]:
    here = {
        "source_cluster": str(view.config.cluster_name),
        "source_node_name": str(view.me.node.name),
    }
    statuses = view.remotes.statuses

    def per_cluster(name: str, kind: str, text: str, values: Mapping[ClusterName, float]) -> Family:
        return family(
            f"cilium_clustermesh_{name}",
            kind,
            text,
            tuple(({**here, "target_cluster": str(c)}, v) for c, v in values.items()),
        )

    violations = family(
        "isthmus_peer_violations_total",
        "counter",
        "Records of remote clusters that break a rule",
        tuple(
            ({"target_cluster": str(c), "kind": kind}, tally.total)
            for c in statuses
            for kind, tally in view.mesh.violations(c).items()
        ),
    )
    return [
        *OBSERVED.families("cilium_"),
        _initial_sync(view),
        violations,
        family(
            "cilium_clustermesh_remote_clusters",
            "gauge",
            "Configured remote clusters",
            ((here, len(statuses)),),
        ),
        family(
            "cilium_clustermesh_global_services",
            "gauge",
            "Global services",
            ((here, view.mesh.services.count_global()),),
        ),
        per_cluster(
            "remote_cluster_failures",
            "gauge",
            "Connections lost",
            {c: s.failures for c, s in statuses.items()},
        ),
        per_cluster(
            "remote_cluster_last_failure_ts",
            "gauge",
            "When a connection was lost last, seconds since 1970; 0: never",
            {c: _wall_s(view, s.last_failure_s) for c, s in statuses.items()},
        ),
        per_cluster(
            "remote_cluster_readiness_status",
            "gauge",
            "1: connected and synchronised",
            {c: int(s.ready) for c, s in statuses.items()},
        ),
        family(
            "isthmus_certificate_expiration_timestamp_seconds",
            "gauge",
            "When the certificate that we show a remote cluster expires, seconds since 1970",
            tuple(
                ({**here, "target_cluster": name}, found.expires.timestamp())
                for name, found in presented(view.remotes.configs).items()
            ),
        ),
        per_cluster(
            "remote_cluster_throttled_total",
            "counter",
            "Changes that had to wait because the cluster made too many",
            {c: s.throttled for c, s in statuses.items()},
        ),
        per_cluster(
            "remote_cluster_nodes",
            "gauge",
            "Nodes of a remote cluster",
            {c: view.mesh.nodes.count(c) for c in statuses},
        ),
        per_cluster(
            "remote_cluster_endpoints",
            "gauge",
            "Addresses of a remote cluster's endpoints",
            {c: s.counts.get(keys.IP, 0) for c, s in statuses.items()},
        ),
        per_cluster(
            "remote_cluster_cache_revocations",
            "counter",
            "How often backends of a remote cluster were taken back because they were too old",
            {c: s.age.revocations for c, s in statuses.items()},
        ),
        per_cluster(
            "remote_cluster_services",
            "gauge",
            "Services that a remote cluster shares",
            {c: view.mesh.services.count_shared(c) for c in statuses},
        ),
        per_cluster(
            "remote_cluster_service_exports",
            "gauge",
            "Services that a remote cluster exports to all of the mesh; an agent reads none",
            {c: s.counts.get(keys.SERVICE_EXPORTS, 0) for c, s in statuses.items()},
        ),
    ]


def _initial_sync(view: View) -> Family:
    return family(
        "cilium_kvstore_initial_sync_completed",
        "gauge",
        "Whether a type of a remote cluster was listed over this connection",
        [
            (
                {"scope": f"{resource}/v1", "source_cluster": str(name), "action": "read"},
                float(resource in status.synced),
            )
            for name, status in sorted(view.remotes.statuses.items())
            for resource in keys.REQUIRED
        ],
    )

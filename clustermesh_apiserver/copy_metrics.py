"""The metrics page of ``kvstoremesh``. Reads values only; names are Cluster Mesh's."""

from collections.abc import Callable, Mapping
from datetime import datetime

from clustermesh_apiserver.requests import Requests
from kvstore.observed import OBSERVED
from kvstore.reflection import Reflection
from model.cluster import ClusterName
from telemetry.metrics import Family, family, render
from wire.etcd import keys

PREFIX = "cilium_kvstoremesh_"


def page(
    here: Mapping[str, str],
    bootstrap_s: float,
    found: Mapping[ClusterName, Reflection],
    expires: Mapping[ClusterName, datetime],
    wall_s: Callable[[float], float],
    requests: Requests,
) -> str:
    """``here``: cluster and node of this process; ``expires``: certificates that remote clusters
    are shown; ``wall_s``: the loop's time as the world's."""

    def each(
        name: str, text: str, value: Callable[[Reflection], float], kind: str = "gauge"
    ) -> Family:
        samples = [({**here, "target_cluster": n}, value(r)) for n, r in sorted(found.items())]
        return family(f"{PREFIX}{name}", kind, text, samples)

    def by_type(
        name: str, kind: str, text: str, value: Callable[[Reflection, str], float]
    ) -> Family:
        samples = [
            ({"scope": f"{resource}/v1", "source_cluster": cluster}, value(copy, resource))
            for cluster, copy in sorted(found.items())
            for resource in keys.RESOURCES
        ]
        return family(f"{PREFIX}{name}", kind, text, samples)

    cluster_only = {"source_cluster": here["source_cluster"]}
    return render(
        [
            family(
                f"{PREFIX}bootstrap_seconds",
                "gauge",
                "Duration from start to ready",
                [(cluster_only, bootstrap_s)],
            ),
            family(
                f"{PREFIX}remote_clusters",
                "gauge",
                "Remote clusters that are copied",
                [(here, len(found))],
            ),
            each("remote_cluster_failures", "Lost connections", lambda r: r.source.status.failures),
            each(
                "remote_cluster_last_failure_ts",
                "When a connection was lost last, seconds since 1970; 0: never",
                lambda r: wall_s(r.source.status.last_failure_s),
            ),
            each(
                "remote_cluster_readiness_status",
                "Whether the copy follows the remote cluster",
                lambda r: r.source.status.ready,
            ),
            _initial_sync(found),
            family(
                f"{PREFIX}certificate_expiration_timestamp_seconds",
                "gauge",
                "When the certificate that a remote cluster is shown expires, seconds since 1970",
                [
                    ({**here, "target_cluster": name}, ends.timestamp())
                    for name, ends in sorted(expires.items())
                ],
            ),
            by_type(
                "kvstore_sync_queue_size",
                "gauge",
                "Changes not written yet",
                lambda r, resource: r.copy_status.queued.get(resource, 0),
            ),
            by_type(
                "kvstore_sync_errors_total",
                "counter",
                "How often our own store was lost",
                lambda r, _: r.copy_status.errors,
            ),
            *OBSERVED.families(PREFIX),
            *requests.families(PREFIX),
            each(
                "remote_cluster_writes_total",
                "Rows written into our own store",
                lambda r: r.copy_status.writes,
                "counter",
            ),
            each(
                "remote_cluster_refused_rows",
                "Rows that our own store does not take",
                lambda r: r.copy_status.refused,
            ),
        ]
    )


def _initial_sync(found: Mapping[ClusterName, Reflection]) -> Family:
    """A canary follows its rows, so what was read whole has been written whole."""
    return family(
        f"{PREFIX}kvstore_initial_sync_completed",
        "gauge",
        "Whether a type was read and written over this connection",
        [
            (
                {"scope": f"{resource}/v1", "source_cluster": cluster, "action": action},
                float(resource in copy.source.status.synced),
            )
            for cluster, copy in sorted(found.items())
            for resource in keys.RESOURCES
            for action in ("read", "write")
        ],
    )

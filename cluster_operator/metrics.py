"""The metrics page of the operator. Reads values only; names are Cilium's where it has them."""

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from cluster_operator.collector import Collector
from cluster_operator.slice_counts import SliceCounts
from kube.observed import OBSERVED as API_SERVER
from kvstore.observed import OBSERVED
from kvstore.remotes import Remotes
from kvstore.status import RemoteStatus
from model.cluster import ClusterName
from model.service import ServiceName
from telemetry import logs, process
from telemetry.metrics import Family, family

PREFIX = "cilium_operator_"
MESH = f"{PREFIX}clustermesh_"
OWN = "isthmus_operator_"
Known = Mapping[ServiceName, Collection[ClusterName]]


def of_remotes(cluster: str, readers: Iterable[Remotes], now_s: float) -> list[Family]:
    """What is read of the mesh; ``now_s``: of the loop's clock.

    Several duties read the same clusters over connections of their own: a cluster is ready when
    all of them have read what they need.
    """
    found: dict[ClusterName, list[RemoteStatus]] = {}
    for reader in readers:
        for name, status in reader.statuses.items():
            found.setdefault(name, []).append(status)
    here = {"source_cluster": cluster}

    def each(name: str, text: str, values: Mapping[ClusterName, float]) -> Family:
        samples = [({**here, "target_cluster": n}, v) for n, v in sorted(values.items())]
        return family(f"{MESH}{name}", "gauge", text, samples)

    def wall_s(moment_s: float) -> float:
        return time.time() - now_s + moment_s if moment_s else 0.0

    return [
        family(
            f"{MESH}remote_clusters", "gauge", "Remote clusters that are read", [(here, len(found))]
        ),
        each(
            "remote_cluster_failures",
            "Connections lost",
            {n: sum(s.failures for s in all_) for n, all_ in found.items()},
        ),
        each(
            "remote_cluster_last_failure_ts",
            "When a connection was lost last, seconds since 1970; 0: never",
            {n: wall_s(max(s.last_failure_s for s in all_)) for n, all_ in found.items()},
        ),
        each(
            "remote_cluster_readiness_status",
            "1: connected and synchronised",
            {n: all(s.ready for s in all_) for n, all_ in found.items()},
        ),
    ]


def of_services(cluster: str, name: str, each_name: str, text: str, known: Known) -> list[Family]:
    """How many services the mesh has, and how many each of its clusters."""
    here = {"source_cluster": cluster}
    counts = Counter(c for clusters in known.values() for c in clusters)
    return [
        family(f"{MESH}{name}", "gauge", f"{text} in the mesh", [(here, len(known))]),
        family(
            f"{MESH}{each_name}",
            "gauge",
            f"{text} in a remote cluster",
            [({**here, "target_cluster": c}, n) for c, n in sorted(counts.items())],
        ),
    ]


def of_services_and_slices(
    cluster: str, services: Known, exports: Known, slices: SliceCounts, standing: int
) -> list[Family]:
    """What the mesh offers to this cluster, and what became of it."""
    return [
        *of_services(
            cluster,
            "global_services",
            "remote_cluster_global_services",
            "Global services",
            services,
        ),
        *of_services(
            cluster,
            "global_service_exports",
            "remote_cluster_service_exports",
            "Exported services",
            exports,
        ),
        *slices.families(MESH, standing),
    ]


def of_garbage(collector: Collector) -> list[Family]:
    """The rounds."""
    identity = {"identity_type": "crd"}
    ended = [(o, n) for (name, o), n in sorted(collector.runs.items()) if name == "identities"]
    took = [(o, s) for (name, o), s in sorted(collector.latest_s.items()) if name == "identities"]
    failed = [(name, n) for (name, o), n in sorted(collector.runs.items()) if o == "fail"]
    deleted = collector.deleted["CiliumIdentity"]
    return [
        family(
            f"{PREFIX}identity_gc_entries",
            "gauge",
            "Identities after the latest round, and those deleted since the start",
            [
                ({"status": "alive", **identity}, collector.identities_alive),
                ({"status": "deleted", **identity}, deleted),
            ],
        ),
        family(
            f"{PREFIX}identity_gc_runs",
            "gauge",
            "Rounds over the identities since the start",
            [({"outcome": o, **identity}, n) for o, n in ended],
        ),
        family(
            f"{PREFIX}identity_gc_latency",
            "gauge",
            "How long the latest round over the identities took, seconds",
            [({"outcome": o, **identity}, s) for o, s in took],
        ),
        family(
            f"{PREFIX}unmanaged_pods",
            "gauge",
            "Running pods of the pod network that no agent has",
            [({}, collector.unmanaged_pods)],
        ),
        family(
            f"{OWN}deleted_total",
            "counter",
            "Objects deleted as garbage",
            [({"kind": kind}, n) for kind, n in sorted(collector.deleted.items())],
        ),
        family(
            f"{OWN}failed_rounds_total",
            "counter",
            "Rounds that could not be finished",
            [({"round": name}, n) for name, n in failed],
        ),
        *OBSERVED.families(PREFIX),
    ]


def of_certificates(expires: Mapping[str, datetime], renewed: Mapping[str, int]) -> list[Family]:
    """Both by Secret."""
    return [
        family(
            f"{OWN}certificate_expiration_timestamp_seconds",
            "gauge",
            "When a certificate of the mesh expires, seconds since 1970",
            [({"secret": s}, at.timestamp()) for s, at in sorted(expires.items())],
        ),
        family(
            f"{OWN}certificates_renewed_total",
            "counter",
            "Certificates renewed",
            [({"secret": s}, n) for s, n in sorted(renewed.items())],
        ),
    ]


def of_process() -> list[Family]:
    """The process itself, and the API server as it sees it."""
    return [
        *process.families(PREFIX),
        logs.COUNTED.family(f"{PREFIX}errors_warnings_total", "Warnings and errors in the log"),
        *API_SERVER.families(PREFIX),
    ]

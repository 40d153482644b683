"""Prometheus text of the agent. Reads values; the names are a public interface."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent import certificates
from agent.health import VERSION
from agent.view import View
from datapath.metrics import Counter
from wire.bpf.layouts import DropReason, TrafficDirection


def _direction(number: int) -> str:
    try:
        return TrafficDirection(number).name.removeprefix("DIRECTION_")
    except ValueError:
        return "UNKNOWN"


def _reason(number: int) -> str:
    """As words, from the name in the programs' own list."""
    try:
        return DropReason(number).name.removeprefix("DROP_").replace("_", " ").capitalize()
    except ValueError:
        return str(number)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with its samples."""

    name: str
    kind: str  # gauge or counter
    help: str
    samples: tuple[tuple[Mapping[str, str], float], ...]


def _quoted(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def render(families: Iterable[Family]) -> str:
    """Exposition format 0.0.4."""
    lines: list[str] = []
    for family in families:
        lines.append(f"# HELP {family.name} {family.help}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        for labels, value in family.samples:
            inner = ",".join(f'{k}="{_quoted(v)}"' for k, v in labels.items())
            number = repr(float(value)) if value != int(value) else str(int(value))
            lines.append(
                f"{family.name}{{{inner}}} {number}" if inner else f"{family.name} {number}"
            )
    return "\n".join(lines) + "\n"


def _gauge(name: str, text: str, value: float) -> Family:
    return Family(f"cilium_{name}", "gauge", text, (({}, value),))


def collect(view: View, packets: Iterable[Counter]) -> list[Family]:
    """Every family we have a value for."""
    counters = view.endpoints.counters
    families = [
        Family("cilium_version", "gauge", "Version of the agent", (({"version": VERSION}, 1),)),
        _gauge("endpoint", "Endpoints managed by this agent", len(view.endpoints)),
        Family(
            "cilium_endpoint_state",
            "gauge",
            "Endpoints by state",
            (({"endpoint_state": "ready"}, len(view.endpoints)),),
        ),
        Family(
            "cilium_endpoint_regenerations_total",
            "counter",
            "Endpoints brought into the datapath, by outcome",
            (
                ({"outcome": "success"}, counters.created + counters.restored),
                ({"outcome": "fail"}, counters.failed),
            ),
        ),
        Family(
            "cilium_ip_addresses",
            "gauge",
            "Allocated addresses",
            (({"family": "ipv4"}, len(view.pool)),),
        ),
        Family(
            "cilium_ipam_capacity",
            "gauge",
            "Addresses this node can give out",
            (({"family": "ipv4"}, view.pool.capacity),),
        ),
        _gauge("identity", "Identities known", len(view.mesh.identities)),
        _gauge(
            "controllers_failing",
            "Tables that are not as wanted",
            sum(1 for loop in view.loops for t in loop.tables if not t.status.healthy),
        ),
    ]
    return families + _tables(view) + _mesh(view) + _packets(packets)


def _tables(view: View) -> list[Family]:
    tables = [table.status for loop in view.loops for table in loop.tables]
    return [
        Family(
            "isthmus_table_rows",
            "gauge",
            "Rows in a table",
            tuple(({"table": t.name}, t.rows) for t in tables),
        ),
        Family(
            "isthmus_table_rows_failing",
            "gauge",
            "Rows that cannot be written or removed",
            tuple(({"table": t.name}, len(t.failing)) for t in tables),
        ),
        Family(
            "isthmus_table_operations_total",
            "counter",
            "Rows written and removed",
            tuple(
                ({"table": t.name, "operation": word}, value)
                for t in tables
                for word, value in (("write", t.written), ("remove", t.removed))
            ),
        ),
        Family(
            "isthmus_rejected_total",
            "counter",
            "Objects and records that could not be used",
            (
                ({"from": "kubernetes"}, _kube_rejected(view)),
                ({"from": "clustermesh"}, view.mesh.problem_count() + _peer_rejected(view)),
            ),
        ),
    ]


def _kube_rejected(view: View) -> int:
    return view.kube.problems.total + sum(i.rejected for i in view.kube.all())


def _peer_rejected(view: View) -> int:
    return sum(sum(s.rejected.values()) for s in view.remotes.statuses.values())


def _wall_s(view: View, moment_s: float) -> float:
    """A moment of the loop's clock as one of the wall's; 0 stays 0."""
    return time.time() - view.clock() + moment_s if moment_s else 0.0


def _mesh(view: View) -> list[Family]:
    here = {
        "source_cluster": str(view.config.cluster_name),
        "source_node_name": str(view.me.node.name),
    }
    statuses = view.remotes.statuses

    def per_cluster(name: str, kind: str, text: str, values: Mapping[str, float]) -> Family:
        return Family(
            f"cilium_clustermesh_{name}",
            kind,
            text,
            tuple(({**here, "target_cluster": c}, v) for c, v in values.items()),
        )

    violations = Family(
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
        violations,
        Family(
            "cilium_clustermesh_remote_clusters",
            "gauge",
            "Configured remote clusters",
            ((here, len(statuses)),),
        ),
        Family(
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
        Family(
            "isthmus_certificate_expiration_timestamp_seconds",
            "gauge",
            "When the certificate that we show a remote cluster expires, seconds since 1970",
            tuple(
                ({**here, "target_cluster": name}, found.expires.timestamp())
                for name, found in certificates.presented(view.remotes.configs).items()
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
    ]


def _packets(packets: Iterable[Counter]) -> list[Family]:
    sums: dict[tuple[str, str, str], tuple[int, int]] = {}
    for counter in packets:
        kind = "drop" if counter.reason else "forward"
        key = (kind, _reason(counter.reason), _direction(counter.direction))
        known = sums.get(key, (0, 0))
        sums[key] = (known[0] + counter.packets, known[1] + counter.bytes)
    families = []
    for kind, text in (("drop", "Packets dropped"), ("forward", "Packets forwarded")):
        for index, unit in enumerate(("count", "bytes")):
            samples = tuple(
                (
                    {"reason": reason, "direction": direction}
                    if kind == "drop"
                    else {"direction": direction},
                    float(value[index]),
                )
                for (found, reason, direction), value in sorted(sums.items())
                if found == kind
            )
            families.append(Family(f"cilium_{kind}_{unit}_total", "counter", text, samples))
    return families

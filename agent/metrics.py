"""Prometheus text of the agent. Reads values; the names are a public interface."""

from collections.abc import Iterable

from agent import encryption_view, map_pressure, mesh_metrics, own_metrics, probe_metrics
from agent.view import View
from datapath.metrics import Counter
from telemetry.metrics import Family, family
from wire.bpf.drop_texts import drop_text
from wire.bpf.layouts import TrafficDirection


def _direction(number: int) -> str:
    try:
        return TrafficDirection(number).name.removeprefix("DIRECTION_")
    except ValueError:
        return "UNKNOWN"


def _gauge(name: str, text: str, value: float) -> Family:
    return family(f"cilium_{name}", "gauge", text, (({}, value),))


def collect(view: View, packets: Iterable[Counter]) -> list[Family]:
    """Every family we have a value for."""
    counters = view.endpoints.counters
    families = [
        _gauge("endpoint", "Endpoints managed by this agent", len(view.endpoints)),
        family(
            "cilium_endpoint_state",
            "gauge",
            "Endpoints by state",
            (({"endpoint_state": "ready"}, len(view.endpoints)),),
        ),
        family(
            "cilium_endpoint_regenerations_total",
            "counter",
            "Endpoints brought into the datapath, by outcome",
            (
                ({"outcome": "success"}, counters.created + counters.restored),
                ({"outcome": "failure"}, counters.failed),
            ),
        ),
        family(
            "cilium_ip_addresses",
            "gauge",
            "Allocated addresses",
            tuple(({"family": f"ipv{p.prefix.version}"}, len(p)) for p in view.pools.each),
        ),
        family(
            "cilium_ipam_capacity",
            "gauge",
            "Addresses this node can give out",
            tuple(({"family": f"ipv{p.prefix.version}"}, p.capacity) for p in view.pools.each),
        ),
        _gauge("identity", "Identities known", len(view.mesh.identities)),
        _gauge(
            "controllers_failing",
            "Tables that are not as wanted",
            sum(1 for loop in view.loops for t in loop.tables if not t.status.healthy),
        ),
    ]
    return (
        families
        + _maps(view)
        + _tables(view)
        + own_metrics.collect(view)
        + mesh_metrics.collect(view)
        + probe_metrics.collect(view)
        + encryption_view.collect(view)
        + _packets(packets)
    )


def _maps(view: View) -> list[Family]:
    found = map_pressure.pressures(view.tables, view.datapath)
    return [
        family(
            "cilium_bpf_map_pressure",
            "gauge",
            "Rows wanted in a map, as a share of its room; at 1 it is full",
            tuple(({"map_name": p.name.removeprefix("ist_")}, round(p.share, 4)) for p in found),
        )
    ]


def _tables(view: View) -> list[Family]:
    tables = [table.status for loop in view.loops for table in loop.tables]
    return [
        family(
            "isthmus_table_rows",
            "gauge",
            "Rows in a table",
            tuple(({"table": t.name}, t.rows) for t in tables),
        ),
        family(
            "isthmus_table_rows_failing",
            "gauge",
            "Rows that cannot be written or removed",
            tuple(({"table": t.name}, len(t.failing)) for t in tables),
        ),
        family(
            "isthmus_table_operations_total",
            "counter",
            "Rows written and removed",
            tuple(
                ({"table": t.name, "operation": word}, value)
                for t in tables
                for word, value in (("write", t.written), ("remove", t.removed))
            ),
        ),
        family(
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


def _packets(packets: Iterable[Counter]) -> list[Family]:
    sums: dict[tuple[str, str, str], tuple[int, int]] = {}
    for counter in packets:
        kind = "drop" if counter.reason else "forward"
        key = (kind, drop_text(counter.reason), _direction(counter.direction))
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
            families.append(family(f"cilium_{kind}_{unit}_total", "counter", text, samples))
    return families

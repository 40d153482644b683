"""Write `deploy/dashboards/*.json`: Grafana's dashboards from the short lists below.

A panel is a title, a unit and its queries. Every query has the matcher of its dashboard's
variables; `$__rate_interval` is Grafana's. `tests/lab/test_hubble.py` evaluates all of them.
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent.parent / "deploy" / "dashboards"
RATE = "[$__rate_interval]"
Json = dict[str, Any]


class Panel(NamedTuple):
    """One picture."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]  # PromQL, legend
    kind: str = "timeseries"


class Board(NamedTuple):
    """One file."""

    file: str
    title: str
    source: str  # the metric whose labels fill the variables
    variables: tuple[str, ...]
    panels: tuple[Panel, ...]


def q(query: str, legend: str) -> tuple[str, str]:
    """One line of a panel."""
    return query, legend


def by(metric: str, labels: str, matchers: str = "") -> tuple[str, str]:
    """The rate of a counter by labels; ``%`` stands for the dashboard's matchers."""
    some = f"%,{matchers}" if matchers else "%"
    legend = " ".join(f"{{{{{label}}}}}" for label in labels.split(","))
    return f"sum by ({labels}) (rate({metric}{{{some}}}{RATE}))", legend


def now(metric: str, labels: str, matchers: str = "") -> tuple[str, str]:
    """A gauge by labels."""
    some = f"%,{matchers}" if matchers else "%"
    legend = " ".join(f"{{{{{label}}}}}" for label in labels.split(","))
    return f"sum by ({labels}) ({metric}{{{some}}})", legend


def quantile(share: float, metric: str, labels: str = "") -> tuple[str, str]:
    """Of a histogram."""
    group = f"le,{labels}" if labels else "le"
    legend = " ".join((f"p{share * 100:g}", *(f"{{{{{x}}}}}" for x in labels.split(",") if x)))
    inner = f"sum by ({group}) (rate({metric}_bucket{{%}}{RATE}))"
    return f"histogram_quantile({share}, {inner})", legend


def top(number: int, query: tuple[str, str]) -> tuple[str, str]:
    """The largest."""
    return f"topk({number}, {query[0]})", query[1]


def each_cluster(
    function: str, metric: str, labels: str = "cluster,target_cluster"
) -> tuple[str, str]:
    """One number for each, of what every agent says."""
    legend = " ".join(f"{{{{{label}}}}}" for label in labels.split(","))
    return f"{function} by ({labels}) ({metric}{{%}})", legend


def process(prefix: str) -> tuple[Panel, ...]:
    """CPU and memory of a process."""
    return (
        Panel("CPU", "percentunit", (by(f"{prefix}process_cpu_seconds_total", "cluster,pod"),)),
        Panel("Memory", "bytes", (now(f"{prefix}process_resident_memory_bytes", "cluster,pod"),)),
    )


SYN = 'flag="SYN"'
FLOWS, DROPS = "hubble_flows_processed_total", "hubble_drop_total"
HTTP, TOOK = "hubble_http_requests_total", "hubble_http_request_duration_seconds"
QUERIES, ANSWERS = "hubble_dns_queries_total", "hubble_dns_responses_total"
ENDS = "source_namespace,destination_namespace"
WORKLOADS = "destination_namespace,destination_workload"

OVERVIEW = Board(
    "hubble-overview.json",
    "Isthmus / Hubble overview",
    FLOWS,
    ("cluster", "pod"),
    (
        Panel("Flows by verdict", "ops", (by(FLOWS, "verdict"),)),
        Panel("Flows by node", "ops", (by(FLOWS, "cluster,pod"),)),
        Panel("Flows by kind of event", "ops", (by(FLOWS, "type,subtype"),)),
        Panel("Flows by protocol", "ops", (by(FLOWS, "protocol"),)),
        Panel("Dropped, by reason", "ops", (by(DROPS, "reason"),)),
        Panel("Dropped, by node", "ops", (by(DROPS, "cluster,pod"),)),
        Panel("TCP flags", "ops", (by("hubble_tcp_flags_total", "flag,family"),)),
        Panel("ICMP", "ops", (by("hubble_icmp_total", "family,type"),)),
        Panel(
            "Busiest destination ports",
            "ops",
            (top(10, by("hubble_port_distribution_total", "protocol,port")),),
        ),
        Panel("Requests seen by proxies", "ops", (by(FLOWS, "subtype", 'type="L7"'),)),
        Panel("Events lost", "ops", (by("hubble_lost_events_total", "source"),)),
        *process("hubble_"),
        Panel(
            "Series",
            "short",
            (q('count by (__name__) ({__name__=~"hubble_.*_total",%})', "{{__name__}}"),),
        ),
        Panel(
            "Making the page",
            "s",
            (quantile(0.99, "hubble_metrics_http_handler_request_duration_seconds"),),
        ),
        Panel("Lines exported", "ops", (by("hubble_exporter_lines_total", "name"),)),
        Panel(
            "Lines of exports lost", "ops", (by("hubble_exporter_lost_lines_total", "name,reason"),)
        ),
    ),
)

DNS = Board(
    "hubble-dns.json",
    "Isthmus / DNS",
    QUERIES,
    ("cluster", "source_namespace"),
    (
        Panel("Questions by type", "ops", (by(QUERIES, "qtypes"),)),
        Panel("Questions by namespace", "ops", (by(QUERIES, "source_namespace"),)),
        Panel("Most asked for", "ops", (top(10, by(QUERIES, "query")),)),
        Panel("Answers by outcome", "ops", (by("hubble_dns_responses_total", "rcode"),)),
        Panel(
            "Errors by question",
            "ops",
            (top(10, by(ANSWERS, "rcode,query", 'rcode!="No Error"')),),
        ),
        Panel("Refused by policy", "ops", (by(QUERIES, "query", 'rcode="Policy denied"'),)),
        Panel("Addresses in an answer", "ops", (by(ANSWERS, "ips_returned"),)),
        Panel("Records by type", "ops", (by("hubble_dns_response_types_total", "type"),)),
        Panel(
            "Without an answer",
            "ops",
            (
                q(
                    f"sum(rate({QUERIES}{{%}}{RATE})) - sum(rate({ANSWERS}{{%}}{RATE}))",
                    "questions less answers",
                ),
            ),
        ),
        Panel(
            "Share of errors",
            "percentunit",
            (
                q(
                    f'sum(rate({ANSWERS}{{%,rcode!="No Error"}}{RATE})) / '
                    f"sum(rate({ANSWERS}{{%}}{RATE}))",
                    "errors",
                ),
            ),
        ),
    ),
)

L7 = Board(
    "hubble-http.json",
    "Isthmus / HTTP",
    HTTP,
    ("cluster", "destination_namespace", "destination_workload", "reporter"),
    (
        Panel("Requests", "reqps", (q(f"sum(rate({HTTP}{{%}}{RATE}))", "requests"),), "stat"),
        Panel(
            "Succeeded",
            "percentunit",
            (
                q(
                    f'sum(rate({HTTP}{{%,status!~"5.*"}}{RATE})) / sum(rate({HTTP}{{%}}{RATE}))',
                    "not 5xx",
                ),
            ),
            "stat",
        ),
        Panel("Half of all within", "s", (quantile(0.5, TOOK),), "stat"),
        Panel("99 % within", "s", (quantile(0.99, TOOK),), "stat"),
        Panel("By destination", "reqps", (by(HTTP, WORKLOADS),)),
        Panel("By source", "reqps", (by(HTTP, "source_namespace,source_workload"),)),
        Panel("By status", "reqps", (by(HTTP, "status"),)),
        Panel("By method", "reqps", (by(HTTP, "method,protocol"),)),
        Panel("Server errors by destination", "reqps", (by(HTTP, WORKLOADS, 'status=~"5.*"'),)),
        Panel(
            "Duration by destination",
            "s",
            tuple(quantile(share, TOOK, "destination_workload") for share in (0.5, 0.95, 0.99)),
        ),
        Panel("Seen by", "reqps", (by(HTTP, "reporter"),)),
    ),
)

NETWORK = Board(
    "hubble-network.json",
    "Isthmus / Network and policy",
    FLOWS,
    ("cluster", "source_namespace", "destination_namespace"),
    (
        Panel("Flows between namespaces", "ops", (by(FLOWS, ENDS),)),
        Panel("Flows by verdict", "ops", (by(FLOWS, "verdict"),)),
        Panel(
            "Verdicts of policy", "ops", (by("hubble_policy_verdicts_total", "direction,action"),)
        ),
        Panel("Rules that decided", "ops", (by("hubble_policy_verdicts_total", "match,action"),)),
        Panel("Dropped between namespaces", "ops", (by(DROPS, ENDS),)),
        Panel("Dropped, by reason and protocol", "ops", (by(DROPS, "reason,protocol"),)),
        Panel("Denied by policy", "ops", (by(DROPS, ENDS, 'reason=~"POLICY_DEN.*"'),)),
        Panel(
            "Connections asked for and accepted",
            "ops",
            (
                q(f"sum(rate(hubble_tcp_flags_total{{%,{SYN}}}{RATE}))", "SYN"),
                q(f'sum(rate(hubble_tcp_flags_total{{%,flag="SYN-ACK"}}{RATE}))', "SYN-ACK"),
            ),
        ),
        Panel(
            "Connections ended", "ops", (by("hubble_tcp_flags_total", "flag", 'flag=~"FIN|RST"'),)
        ),
        Panel(
            "To the world", "ops", (by("hubble_flows_to_world_total", "source_namespace,verdict"),)
        ),
        Panel("Pings", "ops", (by("hubble_icmp_total", "type", 'type=~"Echo.*"'),)),
        Panel("Ports", "ops", (top(10, by("hubble_port_distribution_total", "protocol,port")),)),
    ),
)

AGENT = Board(
    "agent.json",
    "Isthmus / Agents",
    "cilium_version",
    ("cluster", "pod"),
    (
        Panel(
            "Versions",
            "short",
            (q("count by (version) (cilium_version{%})", "{{version}}"),),
            "stat",
        ),
        Panel("Endpoints", "short", (now("cilium_endpoint", "cluster"),), "stat"),
        Panel(
            "Tables that are not as wanted",
            "short",
            (now("cilium_controllers_failing", "cluster"),),
            "stat",
        ),
        *process("cilium_"),
        Panel("Open files", "short", (now("cilium_process_open_fds", "cluster,pod"),)),
        Panel(
            "Warnings and errors", "ops", (by("cilium_errors_warnings_total", "level,subsystem"),)
        ),
        Panel("Packets forwarded", "pps", (by("cilium_forward_count_total", "direction"),)),
        Panel("Bytes forwarded", "Bps", (by("cilium_forward_bytes_total", "direction"),)),
        Panel("Packets dropped", "pps", (by("cilium_drop_count_total", "reason,direction"),)),
        Panel("Endpoints by state", "short", (now("cilium_endpoint_state", "endpoint_state"),)),
        Panel(
            "Endpoints by enforcement",
            "short",
            (now("cilium_policy_endpoint_enforcement_status", "enforcement"),),
        ),
        Panel("Endpoints made", "ops", (by("cilium_endpoint_regenerations_total", "outcome"),)),
        Panel(
            "To make an endpoint",
            "s",
            (quantile(0.99, "cilium_endpoint_regeneration_time_stats_seconds", "status"),),
        ),
        Panel("Policies", "short", (now("cilium_policy", "cluster,pod"),)),
        Panel("Policies changed", "ops", (by("cilium_policy_change_total", "outcome"),)),
        Panel(
            "From a policy's news to the kernel",
            "s",
            (quantile(0.99, "cilium_policy_implementation_delay", "source"),),
        ),
        Panel(
            "Addresses",
            "short",
            (now("cilium_ip_addresses", "family"), now("cilium_ipam_capacity", "family")),
        ),
        Panel("Identities", "short", (now("cilium_identity", "cluster,pod"),)),
        Panel(
            "Fullest maps",
            "percentunit",
            (q("topk(10, max by (map_name) (cilium_bpf_map_pressure{%}))", "{{map_name}}"),),
        ),
        Panel("Writes to maps", "ops", (by("cilium_bpf_map_ops_total", "map_name,operation"),)),
        Panel(
            "Failed writes to maps",
            "ops",
            (by("cilium_bpf_map_ops_total", "map_name,operation", 'outcome="fail"'),),
        ),
        Panel(
            "Memory of maps and programs",
            "bytes",
            (
                now("cilium_bpf_maps_virtual_memory_max_bytes", "pod"),
                now("cilium_bpf_progs_virtual_memory_max_bytes", "pod"),
            ),
        ),
        Panel("Rounds over tables", "ops", (by("cilium_controllers_runs_total", "status"),)),
        Panel(
            "A round takes",
            "s",
            (quantile(0.99, "cilium_controllers_runs_duration_seconds", "status"),),
        ),
        Panel("Rows that fail", "short", (now("isthmus_table_rows_failing", "table"),)),
        Panel("Rows by table", "short", (now("isthmus_table_rows", "table"),)),
        Panel(
            "Calls of the agent's API",
            "s",
            (quantile(0.99, "cilium_agent_api_process_time_seconds", "method,path"),),
        ),
        Panel(
            "The API server answers within",
            "s",
            (quantile(0.99, "cilium_k8s_client_api_latency_time_seconds", "method"),),
        ),
        Panel(
            "Calls to the API server",
            "ops",
            (by("cilium_k8s_client_api_calls_total", "method,return_code"),),
        ),
        Panel(
            "Objects that changed", "ops", (by("cilium_kubernetes_events_total", "scope,action"),)
        ),
        Panel("Objects rejected", "short", (now("isthmus_rejected_total", "from"),)),
    ),
)

OPERATOR = Board(
    "operator.json",
    "Isthmus / Operator",
    "cilium_operator_process_start_time_seconds",
    ("cluster",),
    (
        *process("cilium_operator_"),
        Panel(
            "Warnings and errors",
            "short",
            (now("cilium_operator_errors_warnings_total", "level,subsystem"),),
        ),
        Panel("Identities", "short", (now("cilium_operator_identity_gc_entries", "status"),)),
        Panel(
            "Rounds over identities", "short", (now("cilium_operator_identity_gc_runs", "outcome"),)
        ),
        Panel("The last round took", "s", (now("cilium_operator_identity_gc_latency", "outcome"),)),
        Panel(
            "Pods that no agent has", "short", (now("cilium_operator_unmanaged_pods", "cluster"),)
        ),
        Panel("Objects deleted", "short", (now("isthmus_operator_deleted_total", "kind"),)),
        Panel(
            "Remote clusters",
            "short",
            (now("cilium_operator_clustermesh_remote_clusters", "cluster"),),
        ),
        Panel(
            "Certificates end in",
            "s",
            (
                q(
                    "min by (cluster, secret) "
                    "(isthmus_operator_certificate_expiration_timestamp_seconds{%}) - time()",
                    "{{cluster}} {{secret}}",
                ),
            ),
        ),
        Panel(
            "The API server answers within",
            "s",
            (quantile(0.99, "cilium_operator_k8s_client_api_latency_time_seconds", "method"),),
        ),
        Panel(
            "Calls to the API server",
            "ops",
            (by("cilium_operator_k8s_client_api_calls_total", "method,return_code"),),
        ),
    ),
)

MESH = Board(
    "clustermesh.json",
    "Isthmus / Cluster mesh",
    "cilium_clustermesh_remote_clusters",
    ("cluster", "target_cluster"),
    (
        Panel(
            "Agents that are connected",
            "short",
            (now("cilium_clustermesh_remote_cluster_readiness_status", "cluster,target_cluster"),),
        ),
        Panel(
            "Agents whose packets get through",
            "short",
            (now("isthmus_remote_cluster_data_path_status", "cluster,target_cluster"),),
        ),
        Panel(
            "Share of new connections",
            "percentunit",
            (each_cluster("avg", "isthmus_remote_cluster_share_ratio", "cluster,target_cluster"),),
        ),
        Panel(
            "Connections lost",
            "short",
            (now("cilium_clustermesh_remote_cluster_failures", "cluster,target_cluster"),),
        ),
        Panel(
            "Remote nodes answer within",
            "s",
            (
                quantile(
                    0.99, "isthmus_remote_cluster_probe_latency_seconds", "cluster,target_cluster"
                ),
            ),
        ),
        Panel(
            "Probes",
            "ops",
            (by("isthmus_remote_cluster_probes_total", "cluster,target_cluster,outcome"),),
        ),
        Panel(
            "Nodes",
            "short",
            (
                each_cluster(
                    "max", "cilium_clustermesh_remote_cluster_nodes", "cluster,target_cluster"
                ),
            ),
        ),
        Panel(
            "Endpoints",
            "short",
            (
                each_cluster(
                    "max", "cilium_clustermesh_remote_cluster_endpoints", "cluster,target_cluster"
                ),
            ),
        ),
        Panel(
            "Services that it shares",
            "short",
            (
                each_cluster(
                    "max", "cilium_clustermesh_remote_cluster_services", "cluster,target_cluster"
                ),
            ),
        ),
        Panel(
            "Changes held back",
            "ops",
            (by("cilium_clustermesh_remote_cluster_throttled_total", "cluster,target_cluster"),),
        ),
        Panel(
            "Backends taken back as too old",
            "short",
            (now("cilium_clustermesh_remote_cluster_cache_revocations", "cluster,target_cluster"),),
        ),
        Panel(
            "Certificates end in",
            "s",
            (
                q(
                    "min by (cluster, target_cluster) "
                    "(isthmus_certificate_expiration_timestamp_seconds{%}) - time()",
                    "{{cluster}} {{target_cluster}}",
                ),
            ),
        ),
    ),
)
STORES = Board(
    "clustermesh-stores.json",
    "Isthmus / Stores of the mesh",
    "cilium_kvstore_initial_sync_completed",
    ("cluster",),
    (
        Panel(
            "Global services",
            "short",
            (each_cluster("max", "cilium_clustermesh_global_services", "cluster"),),
        ),
        Panel(
            "Remote clusters",
            "short",
            (each_cluster("max", "cilium_clustermesh_remote_clusters", "cluster"),),
        ),
        Panel(
            "Kinds that were listed",
            "short",
            (
                each_cluster(
                    "min", "cilium_kvstore_initial_sync_completed", "cluster,source_cluster,scope"
                ),
            ),
        ),
        Panel(
            "Stores answer within",
            "s",
            (quantile(0.99, "cilium_kvstore_operations_duration_seconds", "scope"),),
        ),
        Panel(
            "Rounds of upkeep",
            "ops",
            (by("cilium_controllers_group_runs_total", "group_name,status"),),
        ),
        Panel(
            "The publisher's store answers within",
            "s",
            (
                quantile(
                    0.99,
                    "cilium_clustermesh_apiserver_kvstore_operations_duration_seconds",
                    "scope",
                ),
            ),
        ),
        Panel(
            "Waiting to be published",
            "short",
            (now("cilium_clustermesh_apiserver_kvstore_sync_queue_size", "cluster,scope"),),
        ),
    ),
)
BOARDS = (OVERVIEW, DNS, L7, NETWORK, AGENT, OPERATOR, MESH, STORES)


def _matchers(board: Board) -> str:
    return ",".join(f'{name}=~"${name}"' for name in board.variables)


def _panel(board: Board, panel: Panel, number: int) -> Json:
    matchers = _matchers(board)
    source = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
    targets = [
        {
            "datasource": source,
            "expr": query.replace("%", matchers),
            "legendFormat": legend,
            "refId": chr(ord("A") + at),
        }
        for at, (query, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number + 1,
        "title": panel.title,
        "type": panel.kind,
        "datasource": source,
        "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}}
        if panel.kind == "timeseries"
        else {"reduceOptions": {"calcs": ["lastNotNull"]}},
        "targets": targets,
    }


def _variable(board: Board, name: str) -> Json:
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${DS_PROMETHEUS}"},
        "query": {"query": f"label_values({board.source}, {name})", "refId": name},
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def made(board: Board) -> Json:
    """As Grafana reads it."""
    return {
        "title": board.title,
        "uid": "isthmus-" + board.file.removesuffix(".json"),
        "tags": ["isthmus", "cilium"],
        "schemaVersion": 38,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "DS_PROMETHEUS", "type": "datasource", "query": "prometheus"},
                *(_variable(board, name) for name in board.variables),
            ]
        },
        "panels": [_panel(board, panel, at) for at, panel in enumerate(board.panels)],
    }


def text(board: Board) -> str:
    """Of its file."""
    return json.dumps(made(board), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for one in BOARDS:
        (HERE / one.file).write_text(text(one))
    sys.exit(0)

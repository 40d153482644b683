"""Dashboards of what Hubble sees."""

from tools.dashboards.panels import RATE, Board, Panel, by, process, q, quantile, top

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

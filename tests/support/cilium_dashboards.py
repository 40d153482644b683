"""What the dashboards read that come with Cilium's chart: families, labels, values of labels.

A line of ``READ`` is a selector, then the labels that panels group by. ``DUAL`` needs pods of both
families of addresses. Nothing of ``ABSENT`` can have a value here: docs/monitoring.md says why.
"""

from collections.abc import Iterator
from pathlib import Path

READ = """
cilium_version{} cluster pod
cilium_errors_warnings_total{AGENT} pod level
cilium_process_cpu_seconds_total{AGENT} pod
cilium_process_virtual_memory_bytes{AGENT} pod
cilium_process_resident_memory_bytes{AGENT} pod
cilium_process_open_fds{AGENT} pod
cilium_bpf_maps_virtual_memory_max_bytes{AGENT} pod
cilium_bpf_progs_virtual_memory_max_bytes{AGENT} pod
cilium_bpf_map_pressure{AGENT} pod map_name
cilium_bpf_map_ops_total{AGENT} pod map_name operation
cilium_bpf_map_ops_total{AGENT,outcome="fail"} pod map_name operation
cilium_bpf_syscall_duration_seconds_sum{AGENT} pod operation
cilium_bpf_syscall_duration_seconds_count{AGENT} pod operation
cilium_agent_api_process_time_seconds_sum{AGENT} pod method path
cilium_agent_api_process_time_seconds_count{AGENT} pod method path return_code
cilium_kvstore_operations_duration_seconds_sum{} pod action scope
cilium_kvstore_operations_duration_seconds_count{} pod action scope
cilium_kvstore_events_queue_seconds_count{} pod action scope
cilium_forward_count_total{AGENT} pod direction
cilium_forward_bytes_total{AGENT} pod direction
cilium_drop_count_total{AGENT,direction="INGRESS"} reason
cilium_drop_count_total{AGENT,direction="EGRESS"} reason
cilium_drop_bytes_total{AGENT,direction="INGRESS"} reason
cilium_drop_bytes_total{AGENT,direction="EGRESS"} reason
cilium_ip_addresses{AGENT} pod family
cilium_services_events_total{AGENT} pod action
cilium_unreachable_nodes{AGENT} pod
cilium_unreachable_health_endpoints{AGENT} pod
cilium_nodes_all_num{AGENT} pod
cilium_nodes_all_events_received_total{AGENT} pod event_type source
cilium_policy{AGENT} pod
cilium_policy_change_total{AGENT,outcome="success"} pod
cilium_policy_change_total{AGENT,outcome="failure"} pod
cilium_policy_max_revision{AGENT} pod
cilium_policy_implementation_delay_sum{AGENT} pod source
cilium_policy_incremental_update_duration_sum{AGENT} pod scope
cilium_policy_endpoint_enforcement_status{AGENT} enforcement
cilium_endpoint_regeneration_time_stats_seconds_bucket{AGENT,scope!="total"} scope le
cilium_endpoint_regenerations_total{AGENT} outcome
cilium_endpoint_state{AGENT} endpoint_state
cilium_controllers_runs_total{AGENT} pod
cilium_controllers_failing{AGENT} pod
cilium_controllers_runs_duration_seconds_sum{AGENT} pod status
cilium_controllers_runs_duration_seconds_count{AGENT} pod status
cilium_k8s_client_api_latency_time_seconds_sum{AGENT} pod method path
cilium_k8s_client_api_latency_time_seconds_count{AGENT} pod method path
cilium_k8s_client_api_calls_total{AGENT} pod method return_code
cilium_kubernetes_events_received_total{AGENT,equal="false",valid="true"} pod scope action
cilium_kubernetes_events_received_total{AGENT,equal="true",valid="true"} pod scope action
cilium_kubernetes_events_total{AGENT,scope="CiliumNetworkPolicy"} pod action
cilium_kubernetes_events_total{AGENT,scope="NetworkPolicy"} pod action
cilium_kubernetes_events_total{AGENT,scope="Pod"} pod action
cilium_kubernetes_events_total{AGENT,scope="Node"} pod action
cilium_kubernetes_events_total{AGENT,scope="Service"} pod action
cilium_kubernetes_events_total{AGENT,scope="Endpoint"} pod action
cilium_kubernetes_events_total{AGENT,scope="Namespace"} pod action
cilium_operator_process_cpu_seconds_total{OPERATOR} pod
cilium_operator_process_resident_memory_bytes{OPERATOR} pod
hubble_flows_processed_total{BETWEEN} pod type subtype verdict source destination
hubble_flows_processed_total{type="L7"} pod subtype
hubble_flows_processed_total{type="Trace"} pod subtype
hubble_drop_total{BETWEEN} pod reason protocol source destination
hubble_drop_total{reason="POLICY_DENIED"} pod reason protocol source destination
hubble_port_distribution_total{port!="0"} pod port protocol
hubble_tcp_flags_total{BETWEEN,family="IPv4",flag="SYN"} pod flag source
hubble_tcp_flags_total{BETWEEN,family="IPv4",flag="SYN-ACK"} pod flag destination
hubble_icmp_total{BETWEEN,family="IPv4",type="EchoRequest"} pod type source
hubble_icmp_total{BETWEEN,family="IPv4",type="EchoReply"} pod type destination
hubble_dns_queries_total{source_namespace!=""} pod qtypes query source
hubble_dns_responses_total{rcode="No Error",destination_namespace!=""} pod qtypes ips_returned
hubble_dns_responses_total{rcode!="No Error"} pod qtypes rcode destination
hubble_dns_response_types_total{} pod type
hubble_http_requests_total{} pod method protocol
hubble_http_responses_total{} pod status
hubble_http_requests_total{reporter="client",status="503"} source_namespace source_workload
hubble_http_requests_total{reporter="server",status="200"} destination_namespace
hubble_http_requests_total{reporter="server",status!~"5.*"} cluster destination_workload
hubble_http_request_duration_seconds_bucket{reporter="client"} method source_workload le
hubble_http_request_duration_seconds_bucket{reporter="server"} cluster destination_workload le
"""
DUAL = (
    ("hubble_tcp_flags_total", {"family": "IPv6", "flag": "SYN"}),
    ("hubble_tcp_flags_total", {"family": "IPv6", "flag": "SYN-ACK"}),
    ("hubble_icmp_total", {"family": "IPv6", "type": "EchoRequest"}),
    ("hubble_icmp_total", {"family": "IPv6", "type": "EchoReply"}),
)
ABSENT = (
    *("kvstore_operations_total", "cilium_datapath_conntrack_gc_entries"),
    "cilium_datapath_conntrack_dump_resets_total",
    *("cilium_policy_l7_total", "cilium_policy_l7_denied_total", "cilium_proxy_redirects"),
    *("cilium_policy_l7_forwarded_total", "cilium_policy_l7_received_total"),
    *("cilium_policy_l7_parse_errors_total", "cilium_proxy_upstream_reply_seconds_count"),
    *("cilium_triggers_policy_update_total", "cilium_triggers_policy_update_folds"),
    "cilium_triggers_policy_update_call_duration_seconds_count",
    *("cilium_operator_ipam_used_ips", "cilium_operator_ipam_ips", "cilium_operator_ipam_nodes"),
    *("cilium_operator_ipam_available", "cilium_operator_ipam_resync_total"),
    "cilium_operator_ipam_interface_creation_ops",
    "cilium_operator_ec2_api_duration_seconds_count",
    "cilium_operator_ec2_api_rate_limit_duration_seconds_count",
)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "monitoring.md"
_WORDS = {
    "AGENT": 'k8s_app="cilium",pod=~"cilium.*"',
    "OPERATOR": 'io_cilium_app="operator"',
    "BETWEEN": 'source_namespace!="",destination_namespace!=""',
}


def selectors() -> Iterator[str]:
    """One for each line of ``READ``: what has all these labels."""
    for line in READ.split("\n"):
        if line:
            selector, _, labels = line.rpartition("}")
            for word, matchers in _WORDS.items():
                selector = selector.replace(word, matchers)
            family, _, inner = selector.partition("{")
            wanted = [m for m in (inner, *(f'{name}!=""' for name in labels.split())) if m]
            yield f"{family}{{{','.join(wanted)}}}"


def unexplained() -> list[str]:
    """Of ``ABSENT``: what the page does not speak of, by name or by a beginning and a star."""
    words = PAGE.read_text().replace("`", " ").replace(",", " ").split()
    starts = tuple(word.removesuffix("*") for word in words if word.endswith("*") and len(word) > 9)
    names = (name.removesuffix("_count") for name in ABSENT)
    return [name for name in names if name not in words and not name.startswith(starts)]

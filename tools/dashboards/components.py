"""Dashboards of the programs: agents, operator, mesh, stores."""

from tools.dashboards.panels import Board, Panel, by, each_cluster, now, process, q, quantile

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

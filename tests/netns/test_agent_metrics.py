"""Metrics, health and log of a real agent, held against the published lists of Cluster Mesh."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import (
    AgentNode,
    RemoteCluster,
    agent_node,
    put,
    remote_cluster,
    service,
    until,
)
from tests.support.metrics_page import Scraped, Wanted, check, parse
from tests.support.nodes import sh

pytestmark = pytest.mark.root

REMOTE_NODE = "172.31.9.66"
HERE = "source_cluster source_node_name"
MESH: Wanted = {
    "remote_clusters": ("gauge", HERE),
    "global_services": ("gauge", HERE),
    "remote_cluster_failures": ("gauge", f"{HERE} target_cluster"),
    "remote_cluster_last_failure_ts": ("gauge", f"{HERE} target_cluster"),
    "remote_cluster_readiness_status": ("gauge", f"{HERE} target_cluster"),
    "remote_cluster_nodes": ("gauge", f"{HERE} target_cluster"),
    "remote_cluster_services": ("gauge", f"{HERE} target_cluster"),
    "remote_cluster_endpoints": ("gauge", f"{HERE} target_cluster"),
    "remote_cluster_cache_revocations": ("counter", f"{HERE} target_cluster"),
    "remote_cluster_service_exports": ("gauge", f"{HERE} target_cluster"),
}
STORES: Wanted = {
    "kvstore_operations_duration_seconds": ("histogram", "scope kind action outcome"),
    "kvstore_events_queue_seconds": ("histogram", "scope action"),
    "kvstore_quorum_errors_total": ("counter", "error"),
    "kvstore_initial_sync_completed": ("gauge", "scope source_cluster action"),
    "controllers_group_runs_total": ("counter", "status group_name"),
}
PATHS: Wanted = {
    "cilium_node_health_connectivity_status": ("gauge", f"{HERE} type status"),
    "isthmus_remote_cluster_probe_latency_seconds": ("histogram", f"{HERE} target_cluster"),
    "isthmus_remote_cluster_probes_total": ("counter", f"{HERE} target_cluster outcome"),
    "isthmus_remote_cluster_data_path_changes_total": ("counter", f"{HERE} target_cluster to"),
    "isthmus_remote_cluster_data_path_status": ("gauge", f"{HERE} target_cluster"),
    "isthmus_remote_cluster_share_ratio": ("gauge", f"{HERE} target_cluster"),
}
OWN: Wanted = {
    "process_cpu_seconds_total": ("counter", ""),
    "process_virtual_memory_bytes": ("gauge", ""),
    "process_resident_memory_bytes": ("gauge", ""),
    "process_open_fds": ("gauge", ""),
    "process_start_time_seconds": ("gauge", ""),
    "errors_warnings_total": ("counter", "level subsystem"),
    "version": ("gauge", "version revision arch"),
    "agent_bootstrap_seconds": ("gauge", "scope outcome"),
    "agent_api_process_time_seconds": ("histogram", "path method return_code"),
    "controllers_runs_total": ("counter", "status"),
    "controllers_runs_duration_seconds": ("histogram", "status"),
    "k8s_client_api_latency_time_seconds": ("histogram", "path method"),
    "k8s_client_api_calls_total": ("counter", "host method return_code"),
    "kubernetes_events_total": ("counter", "scope action status"),
    "kubernetes_events_received_total": ("counter", "scope action valid equal"),
    "bpf_maps_virtual_memory_max_bytes": ("gauge", ""),
    "bpf_progs_virtual_memory_max_bytes": ("gauge", ""),
    "bpf_map_ops_total": ("counter", "map_name operation outcome"),
    "bpf_syscall_duration_seconds": ("histogram", "operation outcome"),
    "bpf_map_pressure": ("gauge", "map_name"),
    "endpoint_regeneration_time_stats_seconds": ("histogram", "scope status"),
    "endpoint_regenerations_total": ("counter", "outcome"),
    "endpoint_state": ("gauge", "endpoint_state"),
    "ip_addresses": ("gauge", "family"),
    "policy": ("gauge", ""),
    "policy_max_revision": ("gauge", ""),
    "policy_change_total": ("counter", "outcome"),
    "policy_implementation_delay": ("histogram", "source"),
    "policy_incremental_update_duration": ("histogram", "scope"),
    "policy_endpoint_enforcement_status": ("gauge", "enforcement"),
    "nodes_all_num": ("gauge", ""),
    "nodes_all_events_received_total": ("counter", "event_type source"),
    "unreachable_nodes": ("gauge", ""),
    "unreachable_health_endpoints": ("gauge", ""),
    "services_events_total": ("counter", "action"),
    "forward_count_total": ("counter", "direction"),
    "forward_bytes_total": ("counter", "direction"),
    "drop_count_total": ("counter", "reason direction"),
    "drop_bytes_total": ("counter", "reason direction"),
}
POLICY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "closed", "namespace": "default"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
}
PREFIX = "cilium_clustermesh_"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[AgentNode]:
    async with agent_node(tmp_path) as found:
        found.flags = {
            "prometheus-serve-addr": "127.0.0.1:9090",
            "agent-health-port": "9879",
            "clustermesh-cache-ttl": "10s",  # more than it takes to be ready
            "log-opt": "format=json-ts,level=debug",
        }
        yield found


@pytest.fixture
async def beta(node: AgentNode) -> AsyncIterator[RemoteCluster]:
    async with remote_cluster(node) as found:
        await found.add_node("m1", REMOTE_NODE, "10.213.1.0/24")
        for last in (5, 6, 7):
            await found.add_pod(f"10.213.1.{last}", REMOTE_NODE)
        await found.share("web", "10.213.1.5")
        yield found


def page(node: AgentNode, address: str) -> tuple[int, str]:
    text = sh(f"ip netns exec {node.namespace} curl -s -w '\\n%{{http_code}}' http://{address}")
    body, _, code = text.rpartition("\n")
    return int(code), body


def scrape(node: AgentNode) -> dict[str, Scraped]:
    return parse(page(node, "127.0.0.1:9090/metrics")[1])


async def test_an_agent_has_every_metric(node: AgentNode, beta: RemoteCluster) -> None:
    """Names, types and labels; numbers where something has happened, through a loss."""
    put(node.fake, "services", service("web", "10.204.0.10", {"service.cilium.io/global": "true"}))
    node.start()
    await node.ready()
    assert page(node, "127.0.0.1:9879/healthz")[0] == 200
    beta.connect()
    labels = {"source_cluster": "alpha", "source_node_name": "n1"}
    target = {**labels, "target_cluster": "beta"}

    def number(name: str, **wanted: str) -> float:
        return scrape(node)[name].total(**wanted)

    await until(
        lambda: number(f"{PREFIX}remote_cluster_readiness_status", **target) == 1, "beta is ready"
    )
    await until(lambda: number(f"{PREFIX}remote_cluster_services", **target) == 1, "its service")
    found = scrape(node)
    check(found, PREFIX, MESH)
    check(found, "cilium_", STORES)
    check(found, "", PATHS)

    def total(name: str, **wanted: str) -> float:
        return found[name].total(**wanted)

    # Its node declares no address behind the tunnel, so there is nobody to ask.
    assert total("cilium_node_health_connectivity_status", **labels, status="unknown") == 1
    assert total("isthmus_remote_cluster_share_ratio", **target) == 1
    assert total(f"{PREFIX}remote_clusters", **labels) == 1
    assert total(f"{PREFIX}global_services", **labels) == 1
    assert total(f"{PREFIX}remote_cluster_nodes", **target) == 1
    assert total(f"{PREFIX}remote_cluster_endpoints", **target) == 3
    assert total(f"{PREFIX}remote_cluster_failures", **target) == 0
    assert total(f"{PREFIX}remote_cluster_last_failure_ts", **target) == 0
    for kind in ("nodes", "identities", "ip", "services"):
        synced = {"scope": f"{kind}/v1", "source_cluster": "beta", "action": "read"}
        assert total("cilium_kvstore_initial_sync_completed", **synced) == 1
        read = {"scope": f"{kind}/v1", "kind": "read", "action": "listPrefix"}
        assert total("cilium_kvstore_operations_duration_seconds", **read, outcome="success") > 0
    runs = {"status": "success", "group_name": "remote-etcd"}
    assert total("cilium_controllers_group_runs_total", **runs) == 1

    await beta.add_pod("10.213.1.8", REMOTE_NODE)
    events = {"scope": "ip/v1", "action": "modify"}
    await until(
        lambda: number("cilium_kvstore_events_queue_seconds", **events) > 0, "the event is counted"
    )
    await until(
        lambda: number(f"{PREFIX}remote_cluster_endpoints", **target) == 4, "the new endpoint"
    )
    beta.etcd.kill()
    await until(
        lambda: number(f"{PREFIX}remote_cluster_readiness_status", **target) == 0, "beta is lost"
    )
    found = scrape(node)
    assert total(f"{PREFIX}remote_cluster_failures", **target) == 1
    assert total(f"{PREFIX}remote_cluster_last_failure_ts", **target) > 1_700_000_000
    assert total("cilium_kvstore_quorum_errors_total") > 0
    assert total(f"{PREFIX}remote_cluster_cache_revocations", **target) == 0
    await until(
        lambda: number(f"{PREFIX}remote_cluster_cache_revocations", **target) == 1, "it is too old"
    )
    await until(lambda: number(f"{PREFIX}remote_cluster_services", **target) == 0, "its backends")
    # The rest of what was learnt stays, and is still counted.
    assert total(f"{PREFIX}remote_cluster_endpoints", **target) == 4
    assert page(node, "127.0.0.1:9879/healthz")[0] == 200
    _log_is_clean(node)


def _log_is_clean(node: AgentNode) -> None:
    """Every line is JSON with level and subsystem, and the token for the API server is in none."""
    text = node.log.read_text()
    lines: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    assert all({"time", "level", "subsys"} <= set(line) for line in lines)
    assert any(line.get("event") == "remote_lost" for line in lines)
    assert "secret-token" not in text


async def test_an_agent_tells_of_itself(node: AgentNode) -> None:
    """Its process, its calls, what it writes, policy, endpoints and packets: with true numbers."""
    put(node.fake, "services", service("web", "10.204.0.10", {}))
    node.start()
    await node.ready()
    client = await node.add(node.pod("client", {"app": "client"}))
    server = await node.add(node.pod("server", {"app": "server"}))
    client.sh(f"ping -q -c 2 -i 0.1 -W 10 {server.address}")
    put(node.fake, "networkpolicies", POLICY)

    def number(name: str, **wanted: str) -> float:
        return scrape(node)[f"cilium_{name}"].total(**wanted)

    ingress = {"enforcement": "ingress"}
    await until(lambda: number("policy_endpoint_enforcement_status", **ingress) == 2, "policy")

    def denied() -> bool:
        client.sh(f"ping -q -c 2 -i 0.1 -W 1 {server.address} || true")
        return number("drop_count_total", reason="Policy denied") >= 2

    await until(denied, "drops")
    found = scrape(node)
    check(found, "cilium_", OWN)

    def total(name: str, **wanted: str) -> float:
        return found[f"cilium_{name}"].total(**wanted)

    assert total("process_cpu_seconds_total") > 0
    assert total("process_resident_memory_bytes") > 10_000_000
    assert total("process_open_fds") > 20
    assert total("policy") == total("policy_change_total", outcome="success") == 1
    assert total("policy_implementation_delay", source="k8s") >= 1
    for scope in ("total", "prepareBuild", "bpfLoadProg", "mapSync"):
        found_s = {"scope": scope, "status": "success"}
        assert total("endpoint_regeneration_time_stats_seconds", **found_s) == 2
    assert total("policy_change_total", outcome="failure") == 0
    assert total("policy_incremental_update_duration", scope="global") >= 1
    assert total("bpf_syscall_duration_seconds", operation="update", outcome="success") > 5
    assert total("kubernetes_events_received_total", scope="Service", equal="false") >= 1
    assert total("endpoint_regenerations_total", outcome="success") == 2
    assert total("services_events_total", action="add") == 1
    assert total("nodes_all_num") == 1
    assert total("kubernetes_events_total", scope="Pod", action="create", status="success") >= 2
    assert total("k8s_client_api_calls_total", method="GET", return_code="200") > 5
    assert total("controllers_runs_total", status="success") >= 2
    assert total("controllers_runs_duration_seconds") >= 2
    assert total("bpf_map_ops_total", operation="update", outcome="success") > 5
    assert total("bpf_maps_virtual_memory_max_bytes") > 1_000_000
    assert total("bpf_progs_virtual_memory_max_bytes") > 10_000
    assert 0 < total("agent_bootstrap_seconds", outcome="success") < 60
    assert total("forward_count_total") >= 4
    before = total("agent_api_process_time_seconds", path="/v1/healthz", return_code="200")
    await node.get("healthz")
    healthz = {"path": "/v1/healthz", "method": "get", "return_code": "200"}
    assert number("agent_api_process_time_seconds", **healthz) > before

"""Settings of the operator: flags, environment ``CILIUM_…``, files of a directory. Adapter."""

import os
from dataclasses import dataclass
from pathlib import Path

from cluster_operator.slice_copies import MAX_ENDPOINTS
from model.duration import parse_duration_s
from policy.known import Mode
from telemetry.logs import LogOptions, parse_options


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is told."""

    kubeconfig: str = ""  # empty: in-cluster
    operator_api_serve_addr: str = "127.0.0.1:9234"
    operator_prometheus_serve_addr: str = ""  # empty: metrics are on the address above alone
    identity_gc_interval_s: float = 15 * 60
    identity_heartbeat_timeout_s: float = 30 * 60  # how long an unused identity is kept
    cilium_endpoint_gc_interval_s: float = 5 * 60  # 0: not collected
    nodes_gc_interval_s: float = 5 * 60  # 0: not collected
    certificate_renewal_interval_s: float = 60 * 60  # 0: not renewed here
    cluster_name: str = "default"
    k8s_namespace: str = "kube-system"
    skip_crd_creation: bool = False
    crd_timeout_s: float = 60
    clustermesh_enable_mcs_api: bool = False
    clustermesh_mcs_api_install_crds: bool = True
    clustermesh_enable_endpoint_sync: bool = False
    clustermesh_concurrent_service_endpoint_syncs: int = 5
    clustermesh_endpoint_updates_batch_period_s: float = 0.5
    clustermesh_endpoints_per_slice: int = 100
    clustermesh_config: str = "/var/lib/cilium/clustermesh"  # a file per remote cluster
    cluster_id: int = 0
    max_connected_clusters: int = 255
    validate_network_policy: bool = True
    enable_policy: Mode = Mode.DEFAULT  # this and the next ones as the agents have them
    policy_default_local_cluster: bool = False
    policy_audit_mode: bool = False
    enable_non_default_deny_policies: bool = True
    policy_upstream_readings: bool = False
    policy_invalid_open: bool = False
    policy_invalid_closes_nodes: bool = False
    enable_l7_proxy: bool = True
    enable_node_selector_labels: bool = False
    enable_host_firewall: bool = False
    debug: bool = False
    log: LogOptions = LogOptions()


def read_directory(path: str) -> dict[str, str]:
    """One file per key, as a mounted ConfigMap is. Hidden files are the mount's own."""
    if not path:
        return {}
    files = (p for p in Path(path).iterdir() if not p.name.startswith(".") and p.is_file())
    return {p.name: p.read_text().strip() for p in files}


def setting(key: str, flag: str | None, directory: dict[str, str], default: str) -> str:
    """Flags win over the environment, the environment over files."""
    if flag is not None:
        return flag
    environment = os.environ.get("CILIUM_" + key.upper().replace("-", "_"))
    return environment if environment is not None else directory.get(key, default)


def load(flags: dict[str, str | None], config_dir: str) -> Settings:
    """Raises ``ValueError`` naming the setting and the remedy, ``OSError`` for the directory."""
    directory = read_directory(config_dir)

    def text(key: str, default: str) -> str:
        return setting(key, flags.get(key), directory, default)

    def address(key: str, default: str) -> str:
        value = text(key, default)
        _, colon, port = value.rpartition(":")
        if value and not (colon and port.isdigit() and int(port) < 1 << 16):
            raise ValueError(f'{key}: "{value}" is not valid: use HOST:PORT or :PORT')
        return value

    def seconds(key: str, default: str) -> float:
        try:
            return parse_duration_s(text(key, default))
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error

    def number(key: str, default: int, least: int = 0, most: int | None = None) -> int:
        value = text(key, str(default))
        if not value.isdigit():
            raise ValueError(f'{key}: "{value}" is not valid: use a number')
        if int(value) < least or (most is not None and int(value) > most):
            upper = "" if most is None else f" and at most {most}"
            raise ValueError(f"{key}: {value} is not valid: use at least {least}{upper}")
        return int(value)

    def boolean(key: str, default: str = "false") -> bool:
        value = text(key, default).lower()
        if value not in ("true", "false"):
            raise ValueError(f'{key}: "{value}" is not valid: use true or false')
        return value == "true"

    def mode(key: str) -> Mode:
        value = text(key, Mode.DEFAULT).lower()
        if value not in list(Mode):
            raise ValueError(f'{key}: "{value}" is not valid: use one of {", ".join(Mode)}')
        return Mode(value)

    return Settings(
        kubeconfig=text("kubeconfig", ""),
        operator_api_serve_addr=address("operator-api-serve-addr", "127.0.0.1:9234"),
        operator_prometheus_serve_addr=address("operator-prometheus-serve-addr", ""),
        identity_gc_interval_s=seconds("identity-gc-interval", "15m"),
        identity_heartbeat_timeout_s=seconds("identity-heartbeat-timeout", "30m"),
        cilium_endpoint_gc_interval_s=seconds("cilium-endpoint-gc-interval", "5m"),
        nodes_gc_interval_s=seconds("nodes-gc-interval", "5m"),
        certificate_renewal_interval_s=seconds("certificate-renewal-interval", "1h"),
        cluster_name=text("cluster-name", "default"),
        k8s_namespace=text("k8s-namespace", "kube-system"),
        skip_crd_creation=boolean("skip-crd-creation"),
        clustermesh_enable_mcs_api=boolean("clustermesh-enable-mcs-api"),
        clustermesh_mcs_api_install_crds=boolean("clustermesh-mcs-api-install-crds", "true"),
        clustermesh_enable_endpoint_sync=boolean("clustermesh-enable-endpoint-sync"),
        clustermesh_concurrent_service_endpoint_syncs=number(
            "clustermesh-concurrent-service-endpoint-syncs", 5, least=1
        ),
        clustermesh_endpoint_updates_batch_period_s=seconds(
            "clustermesh-endpoint-updates-batch-period", "500ms"
        ),
        clustermesh_endpoints_per_slice=number(
            "clustermesh-endpoints-per-slice", 100, least=1, most=MAX_ENDPOINTS
        ),
        clustermesh_config=text("clustermesh-config", "/var/lib/cilium/clustermesh"),
        cluster_id=number("cluster-id", 0),
        max_connected_clusters=number("max-connected-clusters", 255),
        validate_network_policy=boolean("validate-network-policy", "true"),
        enable_policy=mode("enable-policy"),
        policy_default_local_cluster=boolean("policy-default-local-cluster"),
        policy_audit_mode=boolean("policy-audit-mode"),
        enable_non_default_deny_policies=boolean("enable-non-default-deny-policies", "true"),
        policy_upstream_readings=boolean("policy-upstream-readings"),
        policy_invalid_open=boolean("policy-invalid-open"),
        policy_invalid_closes_nodes=boolean("policy-invalid-closes-nodes"),
        enable_l7_proxy=boolean("enable-l7-proxy", "true"),
        enable_node_selector_labels=boolean("enable-node-selector-labels"),
        enable_host_firewall=boolean("enable-host-firewall"),
        debug=boolean("debug"),
        log=parse_options([text("log-opt", "")]),
    )

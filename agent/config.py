"""Settings of the agent: keys of `cilium-config`, from flags, environment, files. Adapter.

Flags win over the environment (``CILIUM_<KEY>``), that over files below ``--config-dir`` (one per
key), these over defaults. Keys in files and environment that we do not know belong to other
programs and are passed over; an unknown flag is a mistake.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from agent import family_rules, routing_rules
from encryption.migration import Kind, Stance
from kvstore.allowance import Limits
from mesh.data_path import Rules
from mesh.remote_slices import Preference
from model.address import parse_prefix
from model.cluster import ClusterId, ClusterName, parse_cluster_id, parse_cluster_name
from model.duration import parse_duration_s
from model.service import Selection
from policy.cidr_modes import CidrMode, parse_cidr_modes
from policy.known import Mode
from policy.table import LIMIT as POLICY_ROWS_MAX
from telemetry.logs import LogOptions, parse_options
from wire.bpf.layouts import TraceLevel
from wire.etcd import keys


class ConfigError(ValueError):
    """A setting cannot be used: the text names the key, its value and the remedy."""


class SettingsChangedError(Exception):
    """The process must be replaced by a new one of the same command."""


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1"):
        return True
    if text.lower() in ("false", "0"):
        return False
    raise ValueError("use true or false")


def _number(lowest: int, highest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not lowest <= int(text) <= highest:
            raise ValueError(f"use a number from {lowest} to {highest}")
        return int(text)

    return parse


def _duration(lowest_s: float, highest_s: float = math.inf) -> Callable[[str], float]:
    def parse(text: str) -> float:
        found = parse_duration_s(text)
        if found < lowest_s:
            raise ValueError(f"use {lowest_s:g}s or more")
        if found > highest_s:
            raise ValueError(f"use {highest_s:g}s or less")
        return found

    return parse


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            choices = words[0] if len(words) == 1 else f"one of {', '.join(words)}"
            raise ValueError(f"this version supports {choices}")
        return text

    return parse


def _selection(text: str) -> Selection:
    try:
        return {"random": Selection.RANDOM, "maglev": Selection.MAGLEV}[text]
    except KeyError:
        raise ValueError("use random or maglev") from None


def _mode(text: str) -> Mode:
    try:
        return Mode(text.lower())
    except ValueError:
        raise ValueError(f"use one of {', '.join(m.value for m in Mode)}") from None


def _localhost(text: str) -> bool:
    """Whether the node always reaches its pods; ``auto`` is ``always`` in Kubernetes."""
    if text not in ("auto", "always", "policy"):
        raise ValueError("use auto, always or policy")
    return text != "policy"


def _preference(text: str) -> Preference:
    try:
        return Preference(text)
    except ValueError:
        raise ValueError(f"use one of {', '.join(p.value for p in Preference)}") from None


_LEVELS = {
    "none": TraceLevel.TRACE_ALL,
    "disabled": TraceLevel.TRACE_ALL,
    "lowest": TraceLevel.TRACE_OUTCOME,
    "low": TraceLevel.TRACE_OUTCOME,
    "medium": TraceLevel.TRACE_CHANGES,
    "max": TraceLevel.TRACE_CHANGES,
    "maximum": TraceLevel.TRACE_CHANGES,
}
_TCP_FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr")  # by bit


def _aggregation(text: str) -> TraceLevel:
    try:
        return _LEVELS[text.lower()]
    except KeyError:
        raise ValueError("use none, lowest, low, medium or maximum") from None


def _tcp_flags(text: str) -> int:
    words = {word.strip().lower() for word in text.split(",")} - {""}
    if words & {"all"}:
        return 0xFF
    if words - set(_TCP_FLAGS):
        raise ValueError(f"use all, or some of {','.join(_TCP_FLAGS)}")
    return sum(1 << _TCP_FLAGS.index(word) for word in words)


def _log_options(text: str) -> LogOptions:
    return parse_options([text])


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.replace(",", " ").split() if word)


def _prefixes(text: str) -> tuple[str, ...]:
    words = _words(text)
    for word in words:
        try:
            parse_prefix(word)
        except ValueError as error:
            raise ValueError(f"use prefixes like 10.0.0.0/8,fd00::/16 ({error})") from None
    return words


def _prefix_of_4(text: str) -> str:
    if text and (":" in text or len(_prefixes(text)) != 1):
        raise ValueError("use one IPv4 prefix like 10.0.0.0/8")
    return text


def _absolute(text: str) -> Path:
    if not text.startswith("/"):
        raise ValueError("use an absolute path")
    return Path(text)


def _kind(text: str) -> Kind:
    try:
        return Kind(text)
    except ValueError:
        raise ValueError(f"use one of {', '.join(kind.value for kind in Kind)}") from None


def _optional_path(text: str) -> Path | None:
    return _absolute(text) if text else None


def _listen(text: str) -> tuple[str, int] | None:
    if not text:
        return None
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("use HOST:PORT or :PORT")
    return host.strip("[]") or "0.0.0.0", int(port)


def _key(parse: Callable[[str], Any], default: Any) -> Any:
    """A field with its parser; the key is the field's name with dashes."""
    return field(default=default, metadata={"parse": parse})


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Parsed settings. Field names are the keys, with dashes."""

    cluster_name: ClusterName = _key(parse_cluster_name, ClusterName("default"))
    cluster_id: int = _key(_number(0, 511), 0)
    max_connected_clusters: int = _key(lambda text: int(_one_of("255", "511")(text)), 255)
    enable_ipv4: bool = _key(_boolean, True)
    enable_ipv6: bool = _key(_boolean, False)
    routing_mode: str = _key(_one_of("tunnel", "native"), "tunnel")
    auto_direct_node_routes: bool = _key(_boolean, False)
    direct_routing_skip_unreachable: bool = _key(_boolean, False)
    ipv4_native_routing_cidr: str = _key(_prefix_of_4, "")
    tunnel_protocol: str = _key(_one_of("vxlan"), "vxlan")
    ipam: str = _key(_one_of("kubernetes"), "kubernetes")
    enable_wireguard: bool = _key(_boolean, False)
    enable_ipsec: bool = _key(_boolean, False)
    # Ours: a kind that is received besides, while the mesh goes from one to another (ADR 0198).
    encryption_accepts: Kind = _key(lambda text: _kind(text), Kind.OFF)
    ipsec_key_file: Path = _key(_absolute, Path("/etc/ipsec/keys"))
    ipsec_key_rotation_duration: float = _key(parse_duration_s, 300.0)
    enable_ipsec_key_watcher: bool = _key(_boolean, True)
    wireguard_persistent_keepalive: float = _key(parse_duration_s, 0.0)  # 0: none
    encrypt_node: bool = _key(_boolean, False)  # also what nodes send to nodes
    node_encryption_opt_out_labels: tuple[str, ...] = _key(
        _words, ("node-role.kubernetes.io/control-plane",)
    )
    enable_encryption_strict_mode: bool = _key(_boolean, False)
    encryption_strict_mode_cidr: tuple[str, ...] = _key(_prefixes, ())
    encryption_strict_mode_allow_remote_node_identities: bool = _key(_boolean, False)
    mtu: int = _key(_number(0, 65535), 0)  # 0: that of the underlay
    devices: str = _key(str, "")  # empty: the device that holds the node's address
    bpf_lb_algorithm: Selection = _key(_selection, Selection.RANDOM)
    bpf_lb_map_max: int = _key(_number(0, 1 << 24), 0)  # 0: as the objects say
    bpf_ipcache_map_max: int = _key(_number(0, 1 << 26), 0)  # addresses; 0: as the objects say
    bpf_root: Path = _key(_absolute, Path("/sys/fs/bpf"))
    state_dir: Path = _key(_absolute, Path("/var/run/cilium"))
    clustermesh_config: Path = _key(_absolute, Path("/var/lib/cilium/clustermesh"))
    clustermesh_sync_timeout: float = _key(parse_duration_s, 60.0)
    clustermesh_backend_drain: float = _key(parse_duration_s, 60.0)  # 0: removed at once
    # After how long without its cluster a remote backend is taken back; 0: never.
    clustermesh_cache_ttl: float = _key(parse_duration_s, 0.0)
    clustermesh_compare_interval: float = _key(parse_duration_s, 600.0)  # 0: never
    enable_health_checking: bool = _key(_boolean, True)
    # Whether packets reach remote clusters: rounds of probes, and when they count (ADR 0122).
    clustermesh_probe_interval: float = _key(_duration(1.0), 10.0)
    clustermesh_probe_nodes: int = _key(_number(1, 100), 3)  # of each cluster, in a round
    clustermesh_probe_failures: int = _key(_number(1, 1000), 3)  # rounds until it is down
    clustermesh_probe_successes: int = _key(_number(1, 1000), 3)  # rounds until it returns
    clustermesh_probe_return: float = _key(parse_duration_s, 120.0)  # until it has all its part
    # What one remote cluster may cost us.
    clustermesh_peer_max_nodes: int = _key(_number(1, 1 << 24), 10_000)
    clustermesh_peer_max_identities: int = _key(_number(1, 1 << 24), 65_536)
    clustermesh_peer_max_endpoints: int = _key(_number(1, 1 << 24), 1_000_000)
    clustermesh_peer_max_services: int = _key(_number(1, 1 << 24), 50_000)
    clustermesh_peer_changes_per_second: int = _key(_number(1, 1 << 24), 2_000)
    clustermesh_service_v2: Preference = _key(_preference, Preference.SLICES)
    enable_policy: Mode = _key(_mode, Mode.DEFAULT)
    policy_default_local_cluster: bool = _key(_boolean, False)
    policy_cidr_match_mode: frozenset[CidrMode] = _key(parse_cidr_modes, frozenset())
    policy_audit_mode: bool = _key(_boolean, False)
    enable_non_default_deny_policies: bool = _key(_boolean, True)
    allow_localhost: bool = _key(_localhost, True)
    enable_host_firewall: bool = _key(_boolean, False)  # policies with nodeSelector
    bpf_policy_map_max: int = _key(_number(256, POLICY_ROWS_MAX), POLICY_ROWS_MAX)
    enable_l7_proxy: bool = _key(_boolean, True)
    enable_node_selector_labels: bool = _key(_boolean, False)
    # Ours: where policy differs from Cilium's, and what becomes of connections (ADR 0143, 0144).
    policy_upstream_readings: bool = _key(_boolean, False)
    policy_invalid_open: bool = _key(_boolean, False)
    policy_invalid_closes_nodes: bool = _key(_boolean, False)
    policy_keep_connections: bool = _key(_boolean, False)
    policy_kubelet_port: int = _key(_number(1, 65535), 10250)  # the API server always reaches it
    conntrack_gc_interval: float = _key(parse_duration_s, 0.0)  # 0: the default of a minute
    socket_path: Path | None = _key(_optional_path, None)  # None: cilium.sock in state-dir
    write_cni_conf_when_ready: Path | None = _key(
        _optional_path, Path("/etc/cni/net.d/05-cilium.conflist")
    )
    cni_plugin: Path = _key(
        _absolute, Path(__file__).resolve().parent.parent / "cni" / "build" / "cilium-cni"
    )
    cni_bin_dir: Path = _key(_absolute, Path("/opt/cni/bin"))
    agent_health_port: int = _key(_number(0, 65535), 9879)  # 0: not served
    prometheus_serve_addr: tuple[str, int] | None = _key(_listen, None)
    k8s_kubeconfig_path: str = _key(str, "")
    k8s_node_name: str = _key(str, "")
    # What the programs tell of packets (docs/modules/bpf.md); Hubble reads it.
    enable_hubble: bool = _key(_boolean, False)
    monitor_aggregation: TraceLevel = _key(_aggregation, TraceLevel.TRACE_CHANGES)
    monitor_aggregation_interval: float = _key(_duration(1.0, 3600.0), 5.0)
    monitor_aggregation_flags: int = _key(_tcp_flags, 0xFF)
    debug: bool = _key(_boolean, False)
    log_opt: LogOptions = _key(_log_options, LogOptions())

    @property
    def stance(self) -> Stance:
        """With what this node encrypts, and what it decrypts."""
        sends = Kind.WIREGUARD if self.enable_wireguard else Kind.OFF
        return Stance(Kind.IPSEC if self.enable_ipsec else sends, self.encryption_accepts)

    @property
    def api_socket(self) -> Path:
        """Where the REST API is served."""
        return self.socket_path or self.state_dir / "cilium.sock"


_ALIASES = {"kubeconfig": "k8s-kubeconfig-path"}


def _keys() -> dict[str, Callable[[str], Any]]:
    return {f.name.replace("_", "-"): f.metadata["parse"] for f in fields(AgentConfig)}


def _flags(arguments: Sequence[str]) -> dict[str, str]:
    """``--key=value``, ``--key value``, and ``--key`` alone for a switch."""
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise ConfigError(f'argument "{word}" is not understood: settings are --KEY=VALUE')
        key, separator, value = word[2:].partition("=")
        if not separator:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        found[_ALIASES.get(key, key)] = value
    return found


def _files(directory: Path) -> dict[str, str]:
    """One file per key. What begins with a dot is Kubernetes' own bookkeeping."""
    try:
        return {
            entry.name: entry.read_text().strip()
            for entry in sorted(directory.iterdir())
            if not entry.name.startswith(".") and entry.is_file()
        }
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config-dir {directory} cannot be read: {error}") from error


def load(arguments: Sequence[str], environment: Mapping[str, str]) -> AgentConfig:
    """Read all sources. Raises ``ConfigError``."""
    flags = _flags(arguments)
    directory = flags.pop("config-dir", environment.get("CILIUM_CONFIG_DIR", ""))
    known = _keys()
    unknown = sorted(flags.keys() - known.keys())
    if unknown:
        raise ConfigError(f"flag --{unknown[0]} is not known: see docs/modules/agent.md")
    files = _files(Path(directory)) if directory else {}
    values: dict[str, Any] = {}
    for key, parse in known.items():
        variable = "CILIUM_" + key.upper().replace("-", "_")
        text = flags.get(key, environment.get(variable, files.get(key)))
        if text is None:
            continue
        try:
            values[key.replace("-", "_")] = parse(text)
        except ValueError as error:
            raise ConfigError(f'{key} is "{text}": {error}') from error
    return _checked(values, environment)


def _checked(values: dict[str, Any], environment: Mapping[str, str]) -> AgentConfig:
    """Rules that tie settings to one another."""
    if not values.get("k8s_node_name"):
        values["k8s_node_name"] = environment.get("K8S_NODE_NAME") or os.uname().nodename
    config = AgentConfig(**values)
    if config.cluster_id:
        try:
            parse_cluster_id(config.cluster_id, config.max_connected_clusters)
        except ValueError as error:
            raise ConfigError(f'cluster-id is "{config.cluster_id}": {error}') from error
        if config.cluster_name == "default":
            raise ConfigError(
                'cluster-name is "default" while cluster-id is not 0: '
                "give the cluster a name of its own"
            )
    if config.enable_wireguard and config.enable_ipsec:
        raise ConfigError(
            'enable-wireguard and enable-ipsec are both "true": a mesh encrypts by one of them; '
            "from one to the other leads `isthmus encrypt migrate`"
        )
    if config.encryption_accepts in {config.stance.sends} - {Kind.OFF}:
        raise ConfigError(
            f'encryption-accepts is "{config.encryption_accepts.value}", with which this node '
            "sends: what is sent with is always accepted, leave it out"
        )
    encrypts = config.enable_wireguard or config.enable_ipsec
    if config.enable_encryption_strict_mode and not encrypts:
        raise ConfigError(
            'enable-encryption-strict-mode is "true" while nothing encrypts: '
            "set enable-wireguard or enable-ipsec"
        )
    if refusal := routing_rules.refusal(config) or family_rules.refusal(config):
        raise ConfigError(refusal)
    if config.enable_host_firewall and config.encrypt_node:
        raise ConfigError(
            'enable-host-firewall and encrypt-node are both "true": what comes out of WireGuard '
            "is not judged by policies of nodes, so one of them must be off"
        )
    return config


def peer_limits(config: AgentConfig) -> Limits:
    """What one remote cluster may cost us."""
    return Limits(
        rows={
            keys.NODES: config.clustermesh_peer_max_nodes,
            keys.IDENTITIES: config.clustermesh_peer_max_identities,
            keys.IP: config.clustermesh_peer_max_endpoints,
            keys.SERVICES: config.clustermesh_peer_max_services,
            keys.ENDPOINT_SLICES: 2 * config.clustermesh_peer_max_services,
        },
        rows_per_s=config.clustermesh_peer_changes_per_second,
        burst_rows=10 * config.clustermesh_peer_changes_per_second,
        compare_s=config.clustermesh_compare_interval,
    )


def probe_rules(config: AgentConfig) -> Rules:
    """When a remote cluster's data path is down."""
    return Rules(
        config.clustermesh_probe_failures,
        config.clustermesh_probe_successes,
        config.clustermesh_probe_return,
    )


def cluster_id(config: AgentConfig) -> ClusterId:
    """The number of this cluster; 0: in no mesh."""
    return ClusterId(config.cluster_id)

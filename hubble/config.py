"""Settings of a node's Hubble: flags, environment ``CILIUM_…``, files of a directory. Adapter.

The keys are those of `cilium-config`; what is not known here is other programs' business.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hubble import drop_events
from hubble.export import settings as export
from hubble.metrics.options import Metric, parse_text
from hubble.redact import Redaction
from hubble.ring import CAPACITY_DEFAULT, RECORD_ACCESS_LOG, RECORD_AGENT, Ring
from telemetry.logs import LogOptions, parse_options
from wire.hubble.flow_pb2 import FlowFilter

QUEUE_MAX = 65536
PORT = 4244
METRICS_PORT = 9965
MONITORED = {  # types of records, as people name them
    "drop": 1,
    "debug": 2,
    "capture": 3,
    "trace": 4,
    "policy-verdict": 5,
    "recorder": 6,
    "trace-sock": 7,
    "l7": RECORD_ACCESS_LOG,
    "agent": RECORD_AGENT,
}
ACCESS_LOG = "envoy/sockets/access_log.sock"


class ConfigError(ValueError):
    """A setting cannot be used: the text names the key, its value and the remedy."""


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("use true or false")
    return text.lower() == "true"


def _capacity(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError("use a number")
    return Ring(int(text)).capacity


def _queue(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > QUEUE_MAX:
        raise ValueError(f"use a number up to {QUEUE_MAX}; 0: the default")
    return int(text)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError("use a number")
    return int(text)


def _path(text: str) -> Path:
    if not text.startswith("/"):
        raise ValueError("use an absolute path")
    return Path(text)


def paths(text: str) -> tuple[Path, ...]:
    """Files named in one setting, with commas or spaces between. ``ValueError``."""
    found = text.replace(",", " ").split()
    if any(not one.startswith("/") for one in found):
        raise ValueError("use absolute paths, with commas between")
    return tuple(Path(one) for one in found)


def _headers(text: str) -> frozenset[str]:
    return frozenset(text.lower().replace(",", " ").split())


def _kinds(text: str) -> frozenset[int]:
    names = text.lower().replace(",", " ").split()
    unknown = [name for name in names if name not in MONITORED]
    if unknown:
        raise ValueError(f'no event "{unknown[0]}": use {", ".join(MONITORED)}')
    return frozenset(MONITORED[name] for name in names)


def _listen(usual_port: int) -> Callable[[str], tuple[str, int] | None]:
    def parse(text: str) -> tuple[str, int] | None:
        if not text:
            return None
        host, colon, port = text.rpartition(":")
        if not colon:
            host, port = text, str(usual_port)
        if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError("use HOST:PORT or :PORT")
        return host.strip("[]"), int(port)

    return parse


def _key(parse: Callable[[str], Any], default: Any) -> Any:
    """A field with its parser; the key is the field's name with dashes."""
    return field(default=default, metadata={"parse": parse})


@dataclass(frozen=True, slots=True)
class HubbleConfig:
    """Parsed settings. Field names are the keys, with dashes."""

    cluster_name: str = _key(str, "default")
    k8s_node_name: str = _key(str, "")
    bpf_root: Path = _key(_path, Path("/sys/fs/bpf"))
    socket_path: Path = _key(_path, Path("/var/run/cilium/cilium.sock"))  # the agent's
    hubble_socket_path: Path = _key(_path, Path("/var/run/cilium/hubble.sock"))
    hubble_access_log_path: Path | None = _key(_path, None)  # None: below the agent's socket
    hubble_listen_address: tuple[str, int] | None = _key(_listen(PORT), None)  # None: no TCP
    hubble_disable_tls: bool = _key(_boolean, False)  # of TCP; the socket has none
    hubble_tls_cert_file: Path | None = _key(_path, None)
    hubble_tls_key_file: Path | None = _key(_path, None)
    hubble_tls_client_ca_files: tuple[Path, ...] = _key(paths, ())  # only clients of these
    hubble_event_buffer_capacity: int = _key(_capacity, CAPACITY_DEFAULT)
    hubble_event_queue_size: int = _key(_queue, 0)  # 0: 1,024 a CPU, at most 16,384
    hubble_monitor_events: frozenset[int] = _key(_kinds, frozenset())  # none: all
    hubble_metrics: tuple[Metric, ...] = _key(parse_text, ())
    hubble_metrics_server: tuple[str, int] | None = _key(_listen(METRICS_PORT), None)  # None: none
    hubble_metrics_server_enable_tls: bool = _key(_boolean, False)
    hubble_metrics_server_tls_cert_file: Path | None = _key(_path, None)
    hubble_metrics_server_tls_key_file: Path | None = _key(_path, None)
    hubble_metrics_server_tls_client_ca_files: Path | None = _key(_path, None)
    hubble_dynamic_metrics_config_path: Path | None = _key(_path, None)
    enable_hubble_open_metrics: bool = _key(_boolean, False)
    hubble_export_file_path: str = _key(str, "")  # empty: none
    hubble_export_allowlist: tuple[FlowFilter, ...] = _key(export.filters, ())
    hubble_export_denylist: tuple[FlowFilter, ...] = _key(export.filters, ())
    hubble_export_fieldmask: tuple[str, ...] = _key(export.paths, ())
    hubble_export_fieldaggregate: tuple[str, ...] = _key(export.paths, ())
    hubble_export_aggregation_interval: float = _key(export.duration, 0.0)
    hubble_export_file_max_size_mb: int = _key(_number, 10)
    hubble_export_file_max_backups: int = _key(_number, 5)
    hubble_export_file_compress: bool = _key(_boolean, False)
    hubble_drop_events: bool = _key(_boolean, False)
    hubble_drop_events_interval: float = _key(export.duration, 120.0)
    hubble_drop_events_reasons: frozenset[int] = _key(drop_events.reasons, drop_events.USUAL)
    hubble_drop_events_extended: bool = _key(_boolean, False)
    hubble_drop_events_rate_limit: int = _key(_number, 1)  # a second; 0: no limit
    hubble_redact_enabled: bool = _key(_boolean, False)  # the others count only with it
    hubble_redact_http_urlquery: bool = _key(_boolean, False)
    hubble_redact_http_userinfo: bool = _key(_boolean, True)
    hubble_redact_http_headers_allow: frozenset[str] = _key(_headers, frozenset())
    hubble_redact_http_headers_deny: frozenset[str] = _key(_headers, frozenset())
    hubble_redact_kafka_apikey: bool = _key(_boolean, False)
    k8s_kubeconfig_path: str = _key(str, "")  # empty: what the kubelet gives a pod
    hubble_flowlogs_config_path: Path | None = _key(_path, None)
    debug: bool = _key(_boolean, False)
    log_opt: LogOptions = _key(lambda text: parse_options([text]), LogOptions())

    @property
    def access_log_path(self) -> Path:
        """The socket on which proxies tell of requests."""
        return self.hubble_access_log_path or self.socket_path.parent / ACCESS_LOG

    @property
    def export_rotation(self) -> export.Rotation:
        """Of every exported file that has none of its own."""
        return export.Rotation(
            self.hubble_export_file_max_size_mb,
            self.hubble_export_file_max_backups,
            self.hubble_export_file_compress,
        )

    @property
    def drop_events(self) -> drop_events.Settings:
        """What of drops is told to Kubernetes, if that is wanted."""
        return drop_events.Settings(
            self.hubble_drop_events_interval,
            self.hubble_drop_events_reasons,
            self.hubble_drop_events_extended,
            self.hubble_drop_events_rate_limit,
        )

    @property
    def redaction(self) -> Redaction | None:
        """What of proxies' records is not to be read; ``None``: all is."""
        if not self.hubble_redact_enabled:
            return None
        return Redaction(
            self.hubble_redact_http_urlquery,
            self.hubble_redact_http_userinfo,
            self.hubble_redact_http_headers_allow,
            self.hubble_redact_http_headers_deny,
            self.hubble_redact_kafka_apikey,
        )

    @property
    def exports(self) -> tuple[export.Export, ...]:
        """The one of the settings, if there is one."""
        if not self.hubble_export_file_path:
            return ()
        return (
            export.Export(
                export.STATIC,
                self.hubble_export_file_path,
                self.hubble_export_fieldmask,
                self.hubble_export_allowlist,
                self.hubble_export_denylist,
                aggregate=self.hubble_export_fieldaggregate,
                interval_s=self.hubble_export_aggregation_interval,
                rotation=self.export_rotation,
            ),
        )

    @property
    def queue_size(self) -> int:
        """Events between the kernel's ring and ours."""
        return self.hubble_event_queue_size or min(1024 * (os.cpu_count() or 1), 16384)


def _files(directory: str) -> dict[str, str]:
    if not directory:
        return {}
    try:
        found = [p for p in Path(directory).iterdir() if not p.name.startswith(".")]
        return {p.name: p.read_text().strip() for p in found if p.is_file()}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config-dir {directory} cannot be read: {error}") from error


def load(arguments: Sequence[str], environment: Mapping[str, str]) -> HubbleConfig:
    """Flags win over the environment, that over files. Raises ``ConfigError``."""
    known = {f.name.replace("_", "-"): f.metadata["parse"] for f in fields(HubbleConfig)}
    flags: dict[str, str] = {}
    for word in arguments:
        key, separator, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not separator or key not in (*known, "config-dir"):
            raise ConfigError(f'argument "{word}": settings are --KEY=VALUE, see docs/modules')
        flags[key] = value
    files = _files(flags.pop("config-dir", environment.get("CILIUM_CONFIG_DIR", "")))
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
    if not values.get("k8s_node_name"):
        values["k8s_node_name"] = environment.get("K8S_NODE_NAME") or os.uname().nodename
    return _checked(HubbleConfig(**values))


def _checked(config: HubbleConfig) -> HubbleConfig:
    """Rules that tie settings to one another."""
    if config.hubble_listen_address and not config.hubble_disable_tls:
        for key in ("hubble_tls_cert_file", "hubble_tls_key_file"):
            if getattr(config, key) is None:
                raise ConfigError(
                    f"hubble-listen-address is set and {key.replace('_', '-')} is not: name the "
                    "certificate's files, or set hubble-disable-tls to true"
                )
    if config.hubble_metrics_server_enable_tls:
        for key in ("hubble_metrics_server_tls_cert_file", "hubble_metrics_server_tls_key_file"):
            if getattr(config, key) is None:
                raise ConfigError(
                    f"hubble-metrics-server-enable-tls is true and {key.replace('_', '-')} is not "
                    "set: name the certificate's files, or set it to false"
                )
    path = config.hubble_export_file_path
    if path and path != export.STDOUT and not path.startswith("/"):
        raise ConfigError(
            f'hubble-export-file-path is "{path}": use an absolute path, or {export.STDOUT}'
        )
    if config.hubble_redact_http_headers_allow and config.hubble_redact_http_headers_deny:
        raise ConfigError(
            "hubble-redact-http-headers-allow and hubble-redact-http-headers-deny are both set: "
            "use one of them"
        )
    if config.hubble_metrics and config.hubble_dynamic_metrics_config_path:
        raise ConfigError(
            "hubble-metrics and hubble-dynamic-metrics-config-path are both set: use one of them"
        )
    return config

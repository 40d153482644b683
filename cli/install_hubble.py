"""What ``isthmus install`` makes of Hubble's metrics and exports: settings, a Service. Pure."""

import re
from collections.abc import Mapping
from typing import Any

ALIASES = {
    "hubble.metrics.enabled": "hubble-metrics",
    "hubble.metrics.enableOpenMetrics": "enable-hubble-open-metrics",
    "hubble.metrics.tls.enabled": "hubble-metrics-server-enable-tls",
    "hubble.export.static.filePath": "hubble-export-file-path",
    "hubble.export.static.fieldMask": "hubble-export-fieldmask",
    "hubble.export.static.allowList": "hubble-export-allowlist",
    "hubble.export.static.denyList": "hubble-export-denylist",
    "hubble.export.static.fieldAggregate": "hubble-export-fieldaggregate",
    "hubble.export.static.aggregationInterval": "hubble-export-aggregation-interval",
    "hubble.dropEventEmitter.enabled": "hubble-drop-events",
    "hubble.dropEventEmitter.interval": "hubble-drop-events-interval",
    "hubble.dropEventEmitter.reasons": "hubble-drop-events-reasons",
    "hubble.redact.enabled": "hubble-redact-enabled",
    "hubble.redact.http.urlQuery": "hubble-redact-http-urlquery",
    "hubble.redact.http.userInfo": "hubble-redact-http-userinfo",
    "hubble.redact.http.headers.allow": "hubble-redact-http-headers-allow",
    "hubble.redact.http.headers.deny": "hubble-redact-http-headers-deny",
    "hubble.redact.kafka.apiKey": "hubble-redact-kafka-apikey",
    "hubble.export.fileMaxSizeMb": "hubble-export-file-max-size-mb",
    "hubble.export.fileMaxBackups": "hubble-export-file-max-backups",
    "hubble.export.fileCompress": "hubble-export-file-compress",
}
SERVER = "hubble-metrics-server"
METRICS_FILE = "hubble-dynamic-metrics-config-path"
_PORT = "9965"
_TLS = "/var/lib/cilium/tls/hubble-metrics"
_TLS_FILES = {
    "hubble-metrics-server-tls-cert-file": f"{_TLS}/server.crt",
    "hubble-metrics-server-tls-key-file": f"{_TLS}/server.key",
}
_CONFIG_MAP_FILE = "/dynamic-metrics-config/dynamic-metrics.yaml"
_FLOWLOGS_FILE = "/flowlog-config/flowlogs.yaml"
_EXPORT_FILE = "/var/run/cilium/hubble/events.log"
_LISTS = (
    "hubble-drop-events-reasons",
    "hubble-redact-http-headers-allow",
    "hubble-redact-http-headers-deny",
    "hubble-metrics",
    "hubble-export-fieldmask",
    "hubble-export-fieldaggregate",
    "hubble-export-allowlist",
    "hubble-export-denylist",
)
_COMMA = re.compile(r"(?<!\\),")


def complete(config: dict[str, str]) -> None:
    """What follows from the chart's values, in place. Raises ``ValueError``."""
    from hubble.config import load

    for key in _LISTS:
        if key in config:
            config[key] = _words(config[key])
    if config.pop("hubble.export.static.enabled", "false") == "true":
        config.setdefault("hubble-export-file-path", _EXPORT_FILE)
    if config.pop("hubble.export.dynamic.enabled", "false") == "true":
        config.setdefault("hubble-flowlogs-config-path", _FLOWLOGS_FILE)
    if config.pop("hubble.metrics.dynamic.enabled", "false") == "true":
        config.setdefault(METRICS_FILE, _CONFIG_MAP_FILE)
    port = config.pop("hubble.metrics.port", _PORT)
    if config.get("hubble-metrics") or config.get(METRICS_FILE):
        config.setdefault(SERVER, f":{port}")
    if config.get("hubble-metrics-server-enable-tls") == "true":
        for key, path in _TLS_FILES.items():
            config.setdefault(key, path)
    # What the process would refuse when it starts is refused here, in its own words.
    load((), {"CILIUM_" + key.upper().replace("-", "_"): text for key, text in config.items()})


def _words(text: str) -> str:
    """A list as charts take it, ``{a,b\\,c}``, as the words of a setting; JSON is left alone."""
    if text.startswith("{") and text.endswith("}") and not text.startswith('{"'):
        parts = _COMMA.split(text[1:-1])
        text = " ".join(part.strip().replace("\\,", ",") for part in parts)
    return text


def services(config: Mapping[str, str], namespace: str) -> list[dict[str, Any]]:
    """The Service by which monitoring finds every node's page."""
    address = config.get(SERVER, "")
    if config.get("enable-hubble") != "true" or not address:
        return []
    port = address.rpartition(":")[2] if ":" in address else _PORT
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "hubble-metrics",
                "namespace": namespace,
                "labels": {
                    "k8s-app": "hubble",
                    "app.kubernetes.io/name": "hubble",
                    "app.kubernetes.io/part-of": "cilium",
                },
                "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": port},
            },
            "spec": {
                "clusterIP": "None",
                "type": "ClusterIP",
                "selector": {"k8s-app": "cilium"},
                "ports": [
                    {
                        "name": "hubble-metrics",
                        "port": int(port),
                        "protocol": "TCP",
                        "targetPort": int(port),
                    }
                ],
            },
        }
    ]


def show_page(pod: dict[str, Any], config: Mapping[str, str], key: str) -> None:
    """Have monitoring find the page of a pod's first container, if ``key`` says where it is.

    The usual settings of Prometheus read annotations, and only of pods that declare a port.
    """
    port = config.get(key, "").rpartition(":")[2]
    if not port:
        return
    found = {"prometheus.io/scrape": "true", "prometheus.io/port": port}
    pod["metadata"].setdefault("annotations", {}).update(found)
    number = int(port)
    pod["spec"]["containers"][0].setdefault("ports", []).append(
        {"name": "prometheus", "containerPort": number, "hostPort": number, "protocol": "TCP"}
    )

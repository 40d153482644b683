"""Hubble's part of an installation: settings and objects. Pure but for reading the manifests."""

from collections.abc import Mapping
from typing import Any, Final

from cli import cluster

RELAY: Final = "enable-hubble-relay"
RELAY_TLS: Final = "hubble-relay-server-tls"
UI: Final = "enable-hubble-ui"
UI_FRONT_END: Final = "hubble-ui-frontend-image"
_FRONT_END: Final = "quay.io/cilium/hubble-ui:v0.13.2"
_TLS: Final = "/var/lib/cilium/tls/hubble"
# What a node's observer gets when Hubble is enabled, unless it is told otherwise.
DEFAULTS: Final = {
    "hubble-listen-address": ":4244",
    "hubble-disable-tls": "false",
    "hubble-tls-cert-file": f"{_TLS}/server.crt",
    "hubble-tls-key-file": f"{_TLS}/server.key",
    "hubble-tls-client-ca-files": f"{_TLS}/client-ca.crt,{_TLS}/mesh-ca.crt",
}
ALIASES: Final = {
    "hubble.enabled": "enable-hubble",
    "hubble.eventBufferCapacity": "hubble-event-buffer-capacity",
    "hubble.eventQueueSize": "hubble-event-queue-size",
    "hubble.socketPath": "hubble-socket-path",
    "hubble.listenAddress": "hubble-listen-address",
    "hubble.relay.enabled": RELAY,
    "hubble.relay.tls.server.enabled": RELAY_TLS,
    "hubble.ui.enabled": UI,
    "hubble.ui.frontend.image": UI_FRONT_END,
}
TLS_ENABLED: Final = "hubble.tls.enabled"  # the chart's, for the reverse of hubble-disable-tls


def is_enabled(config: Mapping[str, str]) -> bool:
    """Are there observers?"""
    return config.get("enable-hubble") == "true"


def has_tls(config: Mapping[str, str]) -> bool:
    """Do they need certificates?"""
    listens = is_enabled(config) and bool(config.get("hubble-listen-address"))
    return listens and config.get("hubble-disable-tls") != "true"


def completed(config: Mapping[str, str]) -> dict[str, str]:
    """With what Hubble needs beside what was asked for. Raises ``ValueError``."""
    found = dict(config)
    if TLS_ENABLED in found:
        given = found.pop(TLS_ENABLED)
        if given not in ("true", "false"):
            raise ValueError(f'{TLS_ENABLED} is "{given}": use true or false')
        found["hubble-disable-tls"] = "false" if given == "true" else "true"
    if found.get(UI) == "true" and found.get(RELAY) != "true":
        raise ValueError("hubble.ui.enabled is true and hubble.relay.enabled is not: set both")
    if is_enabled(found):
        return {**DEFAULTS, **found}
    if found.get(RELAY) == "true":
        raise ValueError("hubble.relay.enabled is true and hubble.enabled is not: set both")
    return found


def objects(config: Mapping[str, str], namespace: str, image: str) -> list[dict[str, Any]]:
    """The objects beside the agents' pods."""
    if not is_enabled(config):
        return []
    tls = has_tls(config)
    peer_port = 443 if tls else 80
    found = cluster.manifest("hubble", namespace=namespace, peer_port=peer_port)
    if config.get(RELAY) == "true":
        found += _relay(config, namespace, image, peer_port)
    if config.get(UI) == "true":
        found += _ui(config, namespace, image)
    return found


def _ui(config: Mapping[str, str], namespace: str, image: str) -> list[dict[str, Any]]:
    tls = config.get(RELAY_TLS) == "true"
    found = cluster.manifest(
        "hubble-ui",
        namespace=namespace,
        image=image,
        frontend=config.get(UI_FRONT_END, _FRONT_END),
        relay_port=443 if tls else 80,
    )
    for item in found:
        if item["kind"] == "Deployment" and not tls:
            backend = item["spec"]["template"]["spec"]["containers"][1]
            backend["args"] = [a for a in backend["args"] if not a.startswith("--tls")]
    return found


def _relay(
    config: Mapping[str, str], namespace: str, image: str, peer_port: int
) -> list[dict[str, Any]]:
    serves_tls = config.get(RELAY_TLS) == "true"
    found = cluster.manifest(
        "hubble-relay",
        namespace=namespace,
        image=image,
        cluster_name=config["cluster-name"],
        peer_port=peer_port,
        relay_port=443 if serves_tls else 80,
    )
    for item in found:
        if item["kind"] == "Deployment":
            (container,) = item["spec"]["template"]["spec"]["containers"]
            container["args"] = _relay_args(container["args"], has_tls(config), serves_tls)
    return found


def _relay_args(args: list[str], nodes_tls: bool, serves_tls: bool) -> list[str]:
    if not serves_tls:
        args = [a for a in args if not a.startswith("--tls-relay-")] + ["--disable-server-tls"]
    if not nodes_tls:
        args = [a for a in args if not a.startswith("--tls-hubble-")] + ["--disable-client-tls"]
    return args

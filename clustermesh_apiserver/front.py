"""The front of a mesh store: which calls of other clusters reach etcd, as a configuration. Pure.

Stock Envoy stands where other clusters connect, and speaks to etcd with a certificate of the role
that they have anyway, whatever the name in the client's own certificate. Of etcd's API it passes
three methods: range, watch and status. Our own processes connect to etcd itself, which need not
trust the authority of any other cluster.
"""

from dataclasses import dataclass
from typing import Any

METHODS = (
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.Watch/Watch",
    "/etcdserverpb.Maintenance/Status",
)
CONNECT_TIMEOUT = "5s"
_TYPE = "type.googleapis.com/envoy"
_HTTP = "extensions.upstreams.http.v3.HttpProtocolOptions"


@dataclass(frozen=True, slots=True)
class Front:
    """What the front is told. A directory of certificates holds tls.crt, tls.key and ca.crt."""

    listen: tuple[str, int]
    store: tuple[str, int]
    server: str  # directory: shown to clients; whom its ca.crt names may connect
    client: str  # directory: shown to the store for every client
    directory: str  # of ``secrets``


def secrets(front: Front) -> dict[str, dict[str, Any]]:
    """Files by name: which certificates are in use. They are read anew when they are replaced."""
    found = {}
    for name, directory in (("server", front.server), ("client", front.client)):
        watched = {"watched_directory": {"path": directory}}
        pair = {
            "certificate_chain": {"filename": f"{directory}/tls.crt"},
            "private_key": {"filename": f"{directory}/tls.key"},
            **watched,
        }
        trust = {"trusted_ca": {"filename": f"{directory}/ca.crt"}, **watched}
        found[f"{name}.json"] = _resource(name, {"tls_certificate": pair})
        found[f"{name}-trust.json"] = _resource(f"{name}-trust", {"validation_context": trust})
    return found


def bootstrap(front: Front, lua: str) -> dict[str, Any]:
    """Envoy's configuration."""
    routes = [
        {"match": {"path": method}, "route": {"cluster": "store", "timeout": "0s"}}
        for method in METHODS
    ]
    return {
        "node": {"id": "front", "cluster": "front"},  # asked for by what is read from files
        "static_resources": {
            "listeners": [_listener(front, lua, routes)],
            "clusters": [_cluster(front)],
        },
    }


def _resource(name: str, content: dict[str, Any]) -> dict[str, Any]:
    kind = f"{_TYPE}.extensions.transport_sockets.tls.v3.Secret"
    return {"resources": [{"@type": kind, "name": name, **content}]}


def _address(place: tuple[str, int]) -> dict[str, Any]:
    return {"socket_address": {"address": place[0], "port_value": place[1]}}


def _tls(front: Front, name: str) -> dict[str, Any]:
    def secret(of: str) -> dict[str, Any]:
        source = {"path_config_source": {"path": f"{front.directory}/{of}.json"}}
        return {"name": of, "sds_config": {**source, "resource_api_version": "V3"}}

    return {
        # Named twice: a client of Envoy's ends at 1.2 otherwise.
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
        },
        "alpn_protocols": ["h2"],
        "tls_certificate_sds_secret_configs": [secret(name)],
        "validation_context_sds_secret_config": secret(f"{name}-trust"),
    }


def _listener(front: Front, lua: str, routes: list[dict[str, Any]]) -> dict[str, Any]:
    manager = {
        "@type": f"{_TYPE}.extensions.filters.network.http_connection_manager.v3."
        "HttpConnectionManager",
        "stat_prefix": "store",
        "codec_type": "HTTP2",
        # Watches live for ever.
        "stream_idle_timeout": "0s",
        "http2_protocol_options": {
            "max_concurrent_streams": 128,
            "initial_stream_window_size": 1 << 20,
            "initial_connection_window_size": 4 << 20,
        },
        "route_config": {
            "virtual_hosts": [{"name": "store", "domains": ["*"], "routes": routes}],
        },
        "http_filters": [
            {
                "name": "watches",
                "typed_config": {
                    "@type": f"{_TYPE}.extensions.filters.http.lua.v3.Lua",
                    "default_source_code": {"inline_string": lua},
                },
            },
            {
                "name": "router",
                "typed_config": {"@type": f"{_TYPE}.extensions.filters.http.router.v3.Router"},
            },
        ],
    }
    tls = {
        "@type": f"{_TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": _tls(front, "server"),
    }
    return {
        "name": "store",
        "address": _address(front.listen),
        "per_connection_buffer_limit_bytes": 1 << 20,
        "filter_chains": [
            {
                "transport_socket": {"name": "tls", "typed_config": tls},
                "filters": [{"name": "http", "typed_config": manager}],
            }
        ],
    }


def _cluster(front: Front) -> dict[str, Any]:
    tls = {
        "@type": f"{_TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": _tls(front, "client"),
    }
    options = {
        "@type": f"{_TYPE}.{_HTTP}",
        "explicit_http_config": {
            "http2_protocol_options": {
                "initial_stream_window_size": 1 << 20,
                "initial_connection_window_size": 16 << 20,
            }
        },
    }
    return {
        "name": "store",
        "type": "STATIC",
        "connect_timeout": CONNECT_TIMEOUT,
        "typed_extension_protocol_options": {f"envoy.{_HTTP}": options},
        "transport_socket": {"name": "tls", "typed_config": tls},
        "load_assignment": {
            "cluster_name": "store",
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": _address(front.store)}}]},
            ],
        },
    }

"""The front of a mesh store: which calls of other clusters reach etcd, as a configuration. Pure.

Stock Envoy stands where other clusters connect, and speaks to etcd with a certificate of the role
that they have anyway, whatever the name in the client's own certificate. Of etcd's API it passes
three methods: range, watch and status. Agents of our own cluster that read copies have a door of
their own, because theirs is another role. The processes beside etcd connect to etcd itself, which
need not trust the authority of any other cluster.
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
class Door:
    """A place where clients connect, all of them as one user of the store."""

    name: str
    listen: tuple[str, int]
    client: str  # directory: shown to the store for every client; its ca.crt is the store's
    trust: str  # directory: whom its ca.crt names may connect
    only: str = ""  # the name that a client's certificate must carry; empty: any


@dataclass(frozen=True, slots=True)
class Front:
    """What the front is told. A directory of certificates holds tls.crt, tls.key and ca.crt."""

    doors: tuple[Door, ...]
    store: tuple[str, int]
    server: str  # directory: the certificate that is shown to clients
    directory: str  # of ``secrets``


def certificates(front: Front) -> tuple[str, ...]:
    """The files that must be there."""
    pairs = (front.server, *(door.client for door in front.doors))
    trusts = [d for door in front.doors for d in (door.client, door.trust)]
    found = [f"{d}/{name}" for d in pairs for name in ("tls.crt", "tls.key")]
    return tuple(dict.fromkeys([*found, *(f"{d}/ca.crt" for d in trusts)]))


def secrets(front: Front) -> dict[str, dict[str, Any]]:
    """Files by name: which certificates are in use. They are read anew when they are replaced."""
    found = {"server.json": _pair("server", front.server)}
    for door in front.doors:
        found[f"{door.name}.json"] = _pair(door.name, door.client)
        for name, directory in ((f"{door.name}-store", door.client), (door.name, door.trust)):
            found[f"{name}-trust.json"] = _trust(f"{name}-trust", directory)
    return found


def bootstrap(front: Front, lua: str) -> dict[str, Any]:
    """Envoy's configuration."""
    return {
        "node": {"id": "front", "cluster": "front"},  # asked for by what is read from files
        "static_resources": {
            "listeners": [_listener(front, door, lua) for door in front.doors],
            "clusters": [_cluster(front, door) for door in front.doors],
        },
    }


def _pair(name: str, directory: str) -> dict[str, Any]:
    certificate = {
        "certificate_chain": {"filename": f"{directory}/tls.crt"},
        "private_key": {"filename": f"{directory}/tls.key"},
        "watched_directory": {"path": directory},
    }
    return _resource(name, {"tls_certificate": certificate})


def _trust(name: str, directory: str) -> dict[str, Any]:
    trust = {
        "trusted_ca": {"filename": f"{directory}/ca.crt"},
        "watched_directory": {"path": directory},
    }
    return _resource(name, {"validation_context": trust})


def _resource(name: str, content: dict[str, Any]) -> dict[str, Any]:
    kind = f"{_TYPE}.extensions.transport_sockets.tls.v3.Secret"
    return {"resources": [{"@type": kind, "name": name, **content}]}


def _address(place: tuple[str, int]) -> dict[str, Any]:
    return {"socket_address": {"address": place[0], "port_value": place[1]}}


def _tls(front: Front, name: str, trust: str) -> dict[str, Any]:
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
        "validation_context_sds_secret_config": secret(f"{trust}-trust"),
    }


def _filter(name: str, kind: str, **settings: Any) -> dict[str, Any]:
    settings = {"@type": f"{_TYPE}.extensions.filters.http.{kind}", **settings}
    return {"name": name, "typed_config": settings}


def _filters(door: Door, lua: str) -> list[dict[str, Any]]:
    found = [
        _filter("watches", "lua.v3.Lua", default_source_code={"inline_string": lua}),
        _filter("router", "router.v3.Router"),
    ]
    if door.only:
        # The certificate's subject, which is looked at when it has no name beside it, as ours.
        who = {"authenticated": {"principal_name": {"exact": f"CN={door.only}"}}}
        policy = {"permissions": [{"any": True}], "principals": [who]}
        rules = {"action": "ALLOW", "policies": {door.name: policy}}
        found.insert(0, _filter("who", "rbac.v3.RBAC", rules=rules))
    return found


def _listener(front: Front, door: Door, lua: str) -> dict[str, Any]:
    routes = [
        {"match": {"path": method}, "route": {"cluster": door.name, "timeout": "0s"}}
        for method in METHODS
    ]
    manager = {
        "@type": f"{_TYPE}.extensions.filters.network.http_connection_manager.v3."
        "HttpConnectionManager",
        "stat_prefix": door.name,
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
        "http_filters": _filters(door, lua),
    }
    tls = {
        "@type": f"{_TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": _tls(front, "server", door.name),
    }
    return {
        "name": door.name,
        "address": _address(door.listen),
        "per_connection_buffer_limit_bytes": 1 << 20,
        "filter_chains": [
            {
                "transport_socket": {"name": "tls", "typed_config": tls},
                "filters": [{"name": "http", "typed_config": manager}],
            }
        ],
    }


def _cluster(front: Front, door: Door) -> dict[str, Any]:
    tls = {
        "@type": f"{_TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": _tls(front, door.name, f"{door.name}-store"),
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
        "name": door.name,
        "type": "STATIC",
        "connect_timeout": CONNECT_TIMEOUT,
        "typed_extension_protocol_options": {f"envoy.{_HTTP}": options},
        "transport_socket": {"name": "tls", "typed_config": tls},
        "load_assignment": {
            "cluster_name": door.name,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": _address(front.store)}}]},
            ],
        },
    }

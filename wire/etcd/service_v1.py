"""``cilium/state/services/v1/<cluster>/<namespace>/<name>``: a shared service. Pure."""

from functools import lru_cache

import msgspec

from model.address import Address
from model.cluster import ClusterId, ClusterName
from model.service import L4, Protocol, ServiceName, SharedService, Zone
from wire.etcd.codec import address, decode_json, encode_json
from wire.etcd.errors import RemoteWireError

_PROTOCOLS = {"NONE": Protocol.ANY, "": Protocol.ANY} | {p.name: p for p in Protocol}


class _L4(msgspec.Struct, forbid_unknown_fields=True):
    Protocol: str = ""
    Port: int = 0


class _ForZone(msgspec.Struct, forbid_unknown_fields=True):
    name: str = ""


class _Zone(msgspec.Struct, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    zone: str = ""
    for_zones: list[_ForZone] | None = None


class _Service(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    cluster: str
    namespace: str
    name: str
    frontends: dict[str, dict[str, _L4]] | None = {}
    backends: dict[str, dict[str, _L4]] | None = {}
    hostnames: dict[str, str] | None = {}
    zones: dict[str, _Zone] | msgspec.UnsetType | None = msgspec.UNSET  # newer writers, if any
    labels: dict[str, str] | None = {}
    selector: dict[str, str] | None = {}
    include_external: bool = False
    shared: bool = False
    cluster_id: int = msgspec.field(name="clusterID", default=0)


_EXACT = msgspec.json.Decoder(_Service)
_EXACT_PORTS = msgspec.json.Decoder(dict[str, dict[str, _L4]])


def encode(service: SharedService) -> bytes:
    """The value of the key."""
    return encode_json(
        _Service(
            service.cluster,
            service.name.namespace,
            service.name.name,
            _write_ports(service.frontends),
            _write_ports(service.backends),
            {str(ip): name for ip, name in service.hostnames.items()},
            {str(ip): _write_zone(zone) for ip, zone in service.zones.items()} or msgspec.UNSET,
            service.labels,
            service.selector,
            service.include_external,
            service.shared,
            service.cluster_id,
        )
    )


def decode(
    name: str, data: bytes, cluster: ClusterName, cluster_id: ClusterId, where: str
) -> SharedService:
    """Raises ``RemoteWireError``; ``name`` is ``namespace/name`` of the key."""
    raw = decode_json(data, _Service, where)
    if raw.cluster != cluster:
        raise RemoteWireError(where, f"the value is of cluster {raw.cluster!r}")
    if not raw.namespace or not raw.name or f"{raw.namespace}/{raw.name}" != name:
        raise RemoteWireError(where, f"the value is of service {raw.namespace}/{raw.name}")
    if raw.cluster_id != cluster_id:
        raise RemoteWireError(where, f"cluster ID {raw.cluster_id}, announced was {cluster_id}")
    return SharedService(
        cluster=cluster,
        cluster_id=cluster_id,
        name=ServiceName(raw.namespace, raw.name),
        frontends=_read_ports(raw.frontends or {}, where),
        backends=_read_ports(raw.backends or {}, where),
        hostnames={address(ip, where): host for ip, host in (raw.hostnames or {}).items()},
        zones=_read_zones(raw.zones or {}, where),
        labels=raw.labels or {},
        selector=raw.selector or {},
        include_external=raw.include_external,
        shared=raw.shared,
    )


def is_exact(data: bytes) -> bool:
    """Whether a value has our fields and no others, written as we write them."""
    try:
        _EXACT.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def decode_ports(data: bytes, where: str) -> dict[Address, dict[str, L4]]:
    """Ports by address and name, in the exact form only. Raises ``RemoteWireError``."""
    try:
        return _read_ports(_EXACT_PORTS.decode(data), where)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteWireError(where, f"does not decode: {error}") from error


def decode_name(name: str, where: str) -> ServiceName:
    """The service in a key. Raises ``RemoteWireError``."""
    namespace, slash, service = name.partition("/")
    if not (namespace and slash and service) or "/" in service:
        raise RemoteWireError(where, f"{name!r} is not namespace/name")
    return ServiceName(namespace, service)


def _write_zone(zone: Zone) -> _Zone:
    return _Zone(zone.name, [_ForZone(name) for name in zone.hints] or None)


def _read_zones(zones: dict[str, _Zone], where: str) -> dict[Address, Zone]:
    return {
        address(ip, where): Zone(z.zone, tuple(f.name for f in z.for_zones or ()))
        for ip, z in zones.items()
    }


def _write_ports(ports: dict[Address, dict[str, L4]]) -> dict[str, dict[str, _L4]]:
    return {
        str(ip): {name: _L4(l4.protocol.name, l4.port) for name, l4 in named.items()}
        for ip, named in ports.items()
    }


def _read_ports(ports: dict[str, dict[str, _L4]], where: str) -> dict[Address, dict[str, L4]]:
    # Thousands of backends have the same ports: one value for all takes 300 bytes less of each.
    seen: dict[tuple[object, ...], dict[str, L4]] = {}
    found = {}
    for ip, named in ports.items():
        key = tuple((name, l4.Protocol, l4.Port) for name, l4 in named.items())
        known = seen.get(key)
        if known is None:
            known = seen[key] = {name: _read_l4(l4, where) for name, l4 in named.items()}
        found[address(ip, where)] = known
    return found


def _read_l4(raw: _L4, where: str) -> L4:
    protocol = _PROTOCOLS.get(raw.Protocol.upper())
    if protocol is None:
        raise RemoteWireError(where, f"protocol {raw.Protocol!r} is not known")
    if not 0 <= raw.Port <= 65535:
        raise RemoteWireError(where, f"port {raw.Port} is outside 0..65535")
    return _l4(raw.Port, protocol)


@lru_cache(maxsize=1024)
def _l4(port: int, protocol: Protocol) -> L4:
    return L4(port, protocol)

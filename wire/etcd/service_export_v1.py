"""``cilium/state/serviceexports/v1/<cluster>/<namespace>/<name>``: an exported service. Pure."""

import re
from datetime import UTC, datetime

import msgspec

from model.cluster import ClusterName
from model.service import Protocol, ServiceName
from model.service_export import (
    ExportedPort,
    ExportType,
    ServiceExport,
    SessionAffinity,
    check_metadata,
    is_qualified,
)
from wire.etcd.codec import decode_json, encode_json
from wire.etcd.errors import RemoteWireError

_PROTOCOLS = {p.name: p for p in (Protocol.TCP, Protocol.UDP, Protocol.SCTP)}
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
MAX_PORTS = 100  # of one service, as the API server has it
MAX_AFFINITY_S = 86_400


class _Port(msgspec.Struct, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    name: str = ""
    protocol: str = ""
    app_protocol: str | None = None
    port: int = 0


class _ClientIP(msgspec.Struct, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    timeout_seconds: int | None = None


class _AffinityConfig(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    client_ip: _ClientIP | None = msgspec.field(name="clientIP", default=None)


class _Export(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    cluster: str
    name: str
    namespace: str
    export_creation_timestamp: str = ""
    ports: list[_Port] | None = None
    type: str = ""
    session_affinity: str = ""
    session_affinity_config: _AffinityConfig | msgspec.UnsetType | None = msgspec.UNSET
    annotations: dict[str, str] | None = msgspec.field(name="Annotations", default=None)
    labels: dict[str, str] | None = msgspec.field(name="Labels", default=None)


def encode(export: ServiceExport) -> bytes:
    """The value of the key."""
    timeout = export.affinity_timeout_s
    return encode_json(
        _Export(
            export.cluster,
            export.name.name,
            export.name.namespace,
            export.created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            [_Port(p.name, p.protocol.name, p.app_protocol or None, p.port) for p in export.ports],
            export.type.value,
            export.affinity.value,
            msgspec.UNSET if timeout is None else _AffinityConfig(_ClientIP(timeout)),
            dict(export.annotations) or None,
            dict(export.labels) or None,
        )
    )


def decode(name: str, data: bytes, cluster: ClusterName, where: str) -> ServiceExport:
    """Raises ``RemoteWireError``; ``name`` is ``namespace/name`` of the key."""
    raw = decode_json(data, _Export, where)
    if raw.cluster != cluster:
        raise RemoteWireError(where, f"the value is of cluster {raw.cluster!r}")
    if f"{raw.namespace}/{raw.name}" != name:
        raise RemoteWireError(where, f"the value is of service {raw.namespace}/{raw.name}")
    try:
        check_metadata(raw.annotations or {}, raw.labels or {})
        return ServiceExport(
            cluster=cluster,
            name=decode_name(name, where),
            created=_created(raw.export_creation_timestamp),
            ports=_ports(raw.ports or []),
            type=ExportType(raw.type),
            affinity=SessionAffinity(raw.session_affinity),
            affinity_timeout_s=_timeout_s(raw),
            annotations=raw.annotations or {},
            labels=raw.labels or {},
        )
    except RemoteWireError:
        raise
    except ValueError as error:
        raise RemoteWireError(where, str(error)) from error


def decode_name(name: str, where: str) -> ServiceName:
    """The service in a key. Raises ``RemoteWireError``."""
    namespace, _, service = name.partition("/")
    if not (_LABEL.fullmatch(namespace) and _LABEL.fullmatch(service)):
        raise RemoteWireError(where, f"{name!r} is not namespace/name")
    return ServiceName(namespace, service)


def _created(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"exportCreationTimestamp {text!r} is no time") from None
    if found.tzinfo is None or found.year == 1:
        raise ValueError(f"exportCreationTimestamp {text!r} is no moment")
    return found


def _ports(ports: list[_Port]) -> tuple[ExportedPort, ...]:
    if len(ports) > MAX_PORTS:
        raise ValueError(f"{len(ports)} ports, more than {MAX_PORTS}")
    return tuple(map(_port, ports))


def _port(raw: _Port) -> ExportedPort:
    protocol = _PROTOCOLS.get(raw.protocol or "TCP")
    if protocol is None:
        raise ValueError(f"protocol {raw.protocol!r} is none of {', '.join(_PROTOCOLS)}")
    if not 1 <= raw.port <= 65535:
        raise ValueError(f"port {raw.port} is outside 1..65535")
    if raw.name and not _LABEL.fullmatch(raw.name):
        raise ValueError(f"{raw.name!r} is no name of a port")
    app = raw.app_protocol or ""
    if app and not is_qualified(app):
        raise ValueError(f"{app!r} is no appProtocol")
    return ExportedPort(raw.port, protocol, raw.name, app)


def _timeout_s(raw: _Export) -> int | None:
    config = raw.session_affinity_config
    if not config or config.client_ip is None:
        return None
    seconds = config.client_ip.timeout_seconds
    if seconds is not None and not 1 <= seconds <= MAX_AFFINITY_S:
        raise ValueError(f"timeoutSeconds {seconds} is outside 1..{MAX_AFFINITY_S}")
    return seconds

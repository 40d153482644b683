"""``cilium/cluster-config/<cluster>``: number and capabilities. Pure. Empty fields are left out."""

import msgspec

from model.cluster import Capabilities, ClusterConfig, ClusterId, SliceExport
from wire.etcd.codec import decode_json, encode_json
from wire.etcd.errors import RemoteWireError

ID_LIMIT = 1 << 32  # the field's width; which numbers may be used is the session's to decide


class _Capabilities(msgspec.Struct, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    synced_canaries: bool = False
    cached: bool = False
    max_connected_clusters: int = 0
    service_exports_enabled: bool | None = None
    endpoint_slices_export_mode: str = ""


class _Config(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    id: int = 0
    capabilities: _Capabilities = msgspec.field(default_factory=_Capabilities)


def encode(config: ClusterConfig) -> bytes:
    """The value of the key."""
    c = config.capabilities
    raw = _Capabilities(
        c.synced_canaries, c.cached, c.max_connected_clusters, c.service_exports, c.slices.value
    )
    return encode_json(_Config(config.id, raw))


def decode(data: bytes, where: str) -> ClusterConfig:
    """Raises ``RemoteWireError``. Whether the number may be used is the session's to decide."""
    raw = decode_json(data, _Config, where)
    c = raw.capabilities
    if not 0 <= raw.id < ID_LIMIT:
        raise RemoteWireError(where, f"cluster ID {raw.id} is outside 0..{ID_LIMIT - 1}")
    try:
        slices = SliceExport(c.endpoint_slices_export_mode)
    except ValueError as error:
        modes = ", ".join(repr(m.value) for m in SliceExport)
        raise RemoteWireError(
            where, f"endpointSlicesExportMode {c.endpoint_slices_export_mode!r} is none of {modes}"
        ) from error
    return ClusterConfig(
        ClusterId(raw.id),
        Capabilities(
            c.synced_canaries,
            c.cached,
            c.max_connected_clusters or 255,
            c.service_exports_enabled,
            slices,
        ),
    )

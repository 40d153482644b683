"""``cilium/state/endpointslices/v1/<cluster>/<namespace>/<slice>``: backends of a service. Pure.

Protobuf, compressed with zstd. Unlike a service's record a slice also names backends that are not
ready or terminate. Unknown fields are passed over.
"""

import zstandard
from google.protobuf.message import DecodeError

from model.cluster import ClusterId, ClusterName
from model.service import L4, BackendState, Protocol, ServiceName, Zone
from model.shared_slice import SharedEndpoint, SharedSlice, SliceName
from wire.etcd import endpointslice_pb2 as pb
from wire.etcd.codec import LIMIT_BYTES, address
from wire.etcd.errors import RemoteWireError

PLAIN_LIMIT_BYTES = 2 << 20  # no object of Kubernetes is larger, and this becomes objects of ours
WINDOW_LIMIT_BYTES = 8 << 20  # memory that a frame may ask for
ADDRESSES_LIMIT = 1_000  # that many endpoints has a slice at most
SERVICE_NAME_LABEL = "kubernetes.io/service-name"
_VERSIONS = {"IPv4": 4, "IPv6": 6}
_PROTOCOLS = {"": Protocol.TCP} | {p.name: p for p in Protocol if p is not Protocol.ANY}


def encode(shared: SharedSlice) -> bytes:
    """The value of the key: for stores that tests and rehearsals fill as newer writers do."""
    version = shared.endpoints[0].address.version if shared.endpoints else 4
    raw = pb.EndpointSlice(
        cluster=shared.cluster,
        cluster_id=shared.cluster_id,
        namespace=shared.name.namespace,
        name=shared.name.name,
        labels=shared.labels,
        annotations=shared.annotations,
        address_type=f"IPv{version}",
        endpoints=[_write_endpoint(e) for e in shared.endpoints],
        ports=[
            pb.EndpointPort(name=name, protocol=l4.protocol.name, port=l4.port)
            for name, l4 in shared.ports.items()
        ],
    )
    return zstandard.ZstdCompressor().compress(raw.SerializeToString(deterministic=True))


def decode(
    name: str, data: bytes, cluster: ClusterName, cluster_id: ClusterId, where: str
) -> SharedSlice:
    """Raises ``RemoteWireError``; ``name`` is ``namespace/name`` of the key."""
    raw = pb.EndpointSlice()
    try:
        raw.ParseFromString(_plain(data, where))
        return _read(raw, name, cluster, cluster_id, where)
    except (DecodeError, UnicodeDecodeError) as error:
        raise RemoteWireError(where, f"does not decode: {error}") from error


def decode_name(name: str, where: str) -> SliceName:
    """The slice in a key. Raises ``RemoteWireError``."""
    namespace, slash, rest = name.partition("/")
    if not (namespace and slash and rest) or "/" in rest:
        raise RemoteWireError(where, f"{name!r} is not namespace/name")
    return SliceName(namespace, rest)


def _plain(data: bytes, where: str) -> bytes:
    if len(data) > LIMIT_BYTES:
        raise RemoteWireError(where, f"{len(data)} bytes, more than {LIMIT_BYTES}")
    unpacker = zstandard.ZstdDecompressor(max_window_size=WINDOW_LIMIT_BYTES)
    try:
        # What a frame says about its own size is not believed.
        with unpacker.stream_reader(data, read_across_frames=True) as reader:
            plain = bytes(reader.read(PLAIN_LIMIT_BYTES + 1))
    except zstandard.ZstdError as error:
        raise RemoteWireError(where, f"does not decompress: {error}") from error
    if len(plain) > PLAIN_LIMIT_BYTES:
        raise RemoteWireError(where, f"more than {PLAIN_LIMIT_BYTES} bytes when decompressed")
    return plain


def _read(
    raw: pb.EndpointSlice, name: str, cluster: ClusterName, cluster_id: ClusterId, where: str
) -> SharedSlice:
    if raw.cluster != cluster:
        raise RemoteWireError(where, f"the value is of cluster {raw.cluster!r}")
    if not raw.namespace or not raw.name or f"{raw.namespace}/{raw.name}" != name:
        raise RemoteWireError(where, f"the value is of slice {raw.namespace}/{raw.name}")
    if raw.cluster_id != cluster_id:
        raise RemoteWireError(where, f"cluster ID {raw.cluster_id}, announced was {cluster_id}")
    version = _VERSIONS.get(raw.address_type)
    if version is None:
        raise RemoteWireError(where, f"address type {raw.address_type!r} is none of IPv4, IPv6")
    if sum(len(e.addresses) for e in raw.endpoints) > ADDRESSES_LIMIT:
        raise RemoteWireError(where, f"more than {ADDRESSES_LIMIT} addresses")
    endpoints = tuple(_read_endpoint(e, text, where) for e in raw.endpoints for text in e.addresses)
    for endpoint in endpoints:
        if endpoint.address.version != version:
            raise RemoteWireError(where, f"{endpoint.address} is no {raw.address_type} address")
    service = raw.labels.get(SERVICE_NAME_LABEL, "")
    return SharedSlice(
        cluster=cluster,
        cluster_id=cluster_id,
        name=decode_name(name, where),
        service=ServiceName(raw.namespace, service) if service else None,
        endpoints=endpoints,
        ports={p.name: _read_port(p, where) for p in raw.ports if p.HasField("port")},
        labels=dict(raw.labels),
        annotations=dict(raw.annotations),
    )


def _read_endpoint(raw: pb.Endpoint, text: str, where: str) -> SharedEndpoint:
    return SharedEndpoint(
        address(text, where),
        _state(raw.conditions),
        raw.hostname,
        raw.node_name,
        Zone(raw.zone, tuple(z.name for z in raw.hints.for_zones)),
    )


def _state(conditions: pb.EndpointConditions) -> BackendState:
    """What is not said reads as ready, serving, not terminating."""
    ready = conditions.ready or not conditions.HasField("ready")
    serving = conditions.serving if conditions.HasField("serving") else ready
    if conditions.terminating:
        return BackendState.TERMINATING if serving else BackendState.QUARANTINED
    return BackendState.ACTIVE if ready else BackendState.QUARANTINED


def _read_port(raw: pb.EndpointPort, where: str) -> L4:
    protocol = _PROTOCOLS.get(raw.protocol)
    if protocol is None:
        raise RemoteWireError(where, f"protocol {raw.protocol!r} is not known")
    if not 0 < raw.port <= 65535:
        raise RemoteWireError(where, f"port {raw.port} is outside 1..65535")
    return L4(raw.port, protocol)


def _write_endpoint(endpoint: SharedEndpoint) -> pb.Endpoint:
    ready = endpoint.state is BackendState.ACTIVE
    ending = endpoint.state is BackendState.TERMINATING
    raw = pb.Endpoint(
        addresses=[str(endpoint.address)],
        conditions=pb.EndpointConditions(ready=ready, serving=ready or ending, terminating=ending),
    )
    if endpoint.hostname:
        raw.hostname = endpoint.hostname
    if endpoint.node:
        raw.node_name = endpoint.node
    if endpoint.zone.name:
        raw.zone = endpoint.zone.name
    if endpoint.zone.hints:
        raw.hints.for_zones.extend(pb.ForZone(name=name) for name in endpoint.zone.hints)
    return raw

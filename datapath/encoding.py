"""Values of the model as rows of kernel maps. Pure.

Where each byte lies is said by ``wire.bpf.layouts``, generated from `bpf/lib/abi/*.h`; this module
says which value of the model goes into which field.
"""

from dataclasses import dataclass
from typing import NamedTuple

from model.address import Address, Prefix, pack, pack_prefix, unpack, unpack_prefix
from model.cluster import ClusterId
from model.identity import NumericIdentity
from model.ipcache import IpcacheEntry
from model.service import BackendState, Frontend, Protocol
from wire.bpf import layouts

_NONE = bytes(16)

ENDPOINT_HOST = int(layouts.EndpointFlags.ENDPOINT_HOST)
SERVICE_AFFINITY = int(layouts.ServiceFlags.SERVICE_AFFINITY)
SERVICE_MAGLEV = int(layouts.ServiceFlags.SERVICE_MAGLEV)
MAGLEV_TABLE_SIZE = int(layouts.ServiceLimits.MAGLEV_TABLE_SIZE)

EndpointRow = layouts.EndpointValue
InterfaceRow = layouts.InterfaceValue
MetricsKey = layouts.MetricsKey


def _packed(address: Address | None) -> bytes:
    return _NONE if address is None else pack(address)


def ipcache_prefix_key(prefix: Prefix) -> bytes:
    """Key of the trie."""
    return layouts.IpcachePrefixKey(*pack_prefix(prefix)).pack()


def parse_ipcache_prefix_key(key: bytes) -> Prefix:
    """Inverse of ``ipcache_prefix_key``."""
    return unpack_prefix(*layouts.IpcachePrefixKey.parse(key))


def ipcache_value(entry: IpcacheEntry) -> bytes:
    """Value of both ipcache maps."""
    return layouts.IPCACHE_VALUE.pack(
        entry.tunnel_endpoint or _NONE, entry.identity, entry.cluster_id, entry.encrypt_key, 0
    )


def parse_ipcache_value(value: bytes) -> IpcacheEntry:
    """Inverse of ``ipcache_value``."""
    endpoint, identity, cluster, key, _ = layouts.IPCACHE_VALUE.unpack(value)
    tunnel = None if endpoint == _NONE else unpack(endpoint)
    return IpcacheEntry(NumericIdentity(identity), tunnel, key, cluster)


def service_key(frontend: Frontend, slot: int) -> bytes:
    """Slot 0 is the master."""
    row = layouts.ServiceKey(pack(frontend.address), frontend.port, slot, frontend.protocol, 0)
    return row.pack()


def parse_service_key(key: bytes) -> tuple[Frontend, int]:
    """Frontend and slot."""
    row = layouts.ServiceKey.parse(key)
    return Frontend(unpack(row.address), row.port, Protocol(row.protocol)), row.slot


class ServiceRow(NamedTuple):
    """The master row of a frontend: its slot 0."""

    backend_id: int = 0
    affinity_timeout_s: int = 0
    selectable: int = 0  # how many of the slots new flows may take
    revnat_id: int = 0
    flags: int = 0

    def pack(self) -> bytes:
        """The bytes."""
        return layouts.SERVICE_VALUE.pack(*self)

    @classmethod
    def parse(cls, value: bytes) -> "ServiceRow":
        """From the bytes."""
        return cls(*layouts.SERVICE_VALUE.unpack(value))


class SlotRow(NamedTuple):
    """Any other slot. Of 65,536 draws of it ``other_share`` lead to the other backend."""

    backend_id: int = 0
    other_id: int = 0
    other_share: int = 0
    revnat_id: int = 0

    def pack(self) -> bytes:
        """The bytes."""
        return layouts.SERVICE_SLOT.pack(*self, 0)

    @classmethod
    def parse(cls, value: bytes) -> "SlotRow":
        """From the bytes."""
        return cls(*layouts.SERVICE_SLOT.unpack(value)[:4])


@dataclass(frozen=True, slots=True)
class BackendRow:
    """What the datapath knows of a backend."""

    address: Address
    port: int
    protocol: Protocol
    state: BackendState
    cluster_id: ClusterId

    def pack(self) -> bytes:
        """The bytes."""
        return layouts.BackendValue(
            pack(self.address), self.port, self.protocol, self.state, self.cluster_id
        ).pack()

    @classmethod
    def parse(cls, value: bytes) -> "BackendRow":
        """From the bytes."""
        row = layouts.BackendValue.parse(value)
        return cls(
            unpack(row.address),
            row.port,
            Protocol(row.protocol),
            BackendState(row.state),
            ClusterId(row.cluster_id),
        )


def number_key(number: int) -> bytes:
    """Key of the maps that are keyed by a backend, a reverse NAT or an interface number."""
    return number.to_bytes(4, "little")


def parse_number_key(key: bytes) -> int:
    """Inverse of ``number_key``."""
    return int.from_bytes(key, "little")


def revnat_value(frontend: Frontend) -> bytes:
    """What replies are given back as their source."""
    return layouts.RevnatValue(pack(frontend.address), frontend.port).pack()


def parse_revnat_value(value: bytes) -> tuple[Address, int]:
    """Address and port."""
    row = layouts.RevnatValue.parse(value)
    return unpack(row.address), row.port


def affinity_match_key(backend_id: int, revnat_id: int) -> bytes:
    """This backend still belongs to this service."""
    return layouts.AFFINITY_MATCH_KEY.pack(backend_id, revnat_id)


def parse_affinity_match_key(key: bytes) -> tuple[int, int]:
    """Backend and reverse NAT number."""
    backend_id, revnat_id = layouts.AFFINITY_MATCH_KEY.unpack(key)
    return backend_id, revnat_id


@dataclass(frozen=True, slots=True)
class ConntrackEntry:
    """One flow at one point of enforcement."""

    source: Address
    destination: Address
    source_port: int
    destination_port: int
    protocol: int
    scope: int
    packets: int
    bytes: int
    expires_s: int  # CLOCK_MONOTONIC
    source_identity: NumericIdentity
    backend_id: int
    revnat_id: int
    flags: int
    tx_tcp_flags: int
    rx_tcp_flags: int


def parse_conntrack(key: bytes, value: bytes) -> ConntrackEntry:
    """One element of the conntrack map."""
    flow, row = layouts.ConntrackKey.parse(key), layouts.ConntrackValue.parse(value)
    return ConntrackEntry(
        source=unpack(flow.source),
        destination=unpack(flow.destination),
        source_port=flow.source_port,
        destination_port=flow.destination_port,
        protocol=flow.protocol,
        scope=flow.scope,
        packets=row.packets,
        bytes=row.size,
        expires_s=row.expires_s,
        source_identity=NumericIdentity(row.source_identity),
        backend_id=row.backend_id,
        revnat_id=row.revnat_id,
        flags=row.flags,
        tx_tcp_flags=row.tx_tcp_flags,
        rx_tcp_flags=row.rx_tcp_flags,
    )

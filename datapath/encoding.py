"""Values of the model as rows of kernel maps. Pure.

Layouts are those of `bpf/lib/abi/*.h`.
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple

from model.address import Address, Prefix, pack, pack_prefix, unpack, unpack_prefix
from model.cluster import ClusterId
from model.identity import NumericIdentity
from model.ipcache import IpcacheEntry
from model.service import BackendState, Frontend, Protocol

_NONE = bytes(16)


def _optional(data: bytes) -> Address | None:
    return None if data == _NONE else unpack(data)


def _packed(address: Address | None) -> bytes:
    return _NONE if address is None else pack(address)


# ipcache.h

_IPCACHE = struct.Struct("=16sIHBB")


def ipcache_prefix_key(prefix: Prefix) -> bytes:
    """Key of the trie."""
    length, base = pack_prefix(prefix)
    return struct.pack("=I16s", length, base)


def parse_ipcache_prefix_key(key: bytes) -> Prefix:
    """Inverse of ``ipcache_prefix_key``."""
    length, base = struct.unpack("=I16s", key)
    return unpack_prefix(length, base)


def ipcache_value(entry: IpcacheEntry) -> bytes:
    """Value of both tables."""
    return _IPCACHE.pack(
        _packed(entry.tunnel_endpoint), entry.identity, entry.cluster_id, entry.encrypt_key, 0
    )


def parse_ipcache_value(value: bytes) -> IpcacheEntry:
    """Inverse of ``ipcache_value``."""
    endpoint, identity, cluster, key, _ = _IPCACHE.unpack(value)
    return IpcacheEntry(NumericIdentity(identity), _optional(endpoint), key, cluster)


# endpoint.h

ENDPOINT_HOST = 1
_ENDPOINT = struct.Struct("=IIHH6s6s")
_INTERFACE = struct.Struct("=16s16sIH6s6s6x")


class EndpointRow(NamedTuple):
    """``struct endpoint_value``."""

    ifindex: int
    identity: int
    id: int
    flags: int
    mac: bytes
    node_mac: bytes

    def pack(self) -> bytes:
        """The bytes."""
        return _ENDPOINT.pack(*self)

    @classmethod
    def parse(cls, value: bytes) -> "EndpointRow":
        """From the bytes."""
        return cls(*_ENDPOINT.unpack(value))


class InterfaceRow(NamedTuple):
    """``struct interface_value``."""

    address4: bytes
    address6: bytes
    identity: int
    endpoint_id: int
    mac: bytes
    node_mac: bytes

    def pack(self) -> bytes:
        """The bytes."""
        return _INTERFACE.pack(*self)

    @classmethod
    def parse(cls, value: bytes) -> "InterfaceRow":
        """From the bytes."""
        return cls(*_INTERFACE.unpack(value))


# service.h

SERVICE_AFFINITY = 1
SERVICE_MAGLEV = 2
MAGLEV_TABLE_SIZE = 16381


def service_key(frontend: Frontend, slot: int) -> bytes:
    """Slot 0 is the master."""
    return (
        pack(frontend.address)
        + struct.pack("!H", frontend.port)
        + struct.pack("=HBB2x", slot, frontend.protocol, 0)
    )


def parse_service_key(key: bytes) -> tuple[Frontend, int]:
    """Frontend and slot."""
    (port,) = struct.unpack_from("!H", key, 16)
    slot, protocol = struct.unpack_from("=HB", key, 18)
    return Frontend(unpack(key[:16]), port, Protocol(protocol)), slot


class ServiceRow(NamedTuple):
    """``struct service_value``."""

    backend_id: int = 0
    affinity_timeout_s: int = 0
    selectable: int = 0  # `count` in C
    revnat_id: int = 0
    flags: int = 0

    def pack(self) -> bytes:
        """The bytes."""
        return struct.pack("=IIHHHxx", *self)

    @classmethod
    def parse(cls, value: bytes) -> "ServiceRow":
        """From the bytes."""
        return cls(*struct.unpack("=IIHHHxx", value))


@dataclass(frozen=True, slots=True)
class BackendRow:
    """``struct backend_value``."""

    address: Address
    port: int
    protocol: Protocol
    state: BackendState
    cluster_id: ClusterId

    def pack(self) -> bytes:
        """The bytes."""
        return (
            pack(self.address)
            + struct.pack("!H", self.port)
            + struct.pack("=BBHxx", self.protocol, self.state, self.cluster_id)
        )

    @classmethod
    def parse(cls, value: bytes) -> "BackendRow":
        """From the bytes."""
        (port,) = struct.unpack_from("!H", value, 16)
        protocol, state, cluster = struct.unpack_from("=BBH", value, 18)
        return cls(
            unpack(value[:16]), port, Protocol(protocol), BackendState(state), ClusterId(cluster)
        )


def number_key(number: int) -> bytes:
    """Key of the maps that are keyed by a backend, a reverse NAT or an interface number."""
    return struct.pack("=I", number)


def parse_number_key(key: bytes) -> int:
    """Inverse of ``number_key``."""
    return int(struct.unpack("=I", key)[0])


def revnat_value(frontend: Frontend) -> bytes:
    """What replies are given back as their source."""
    return pack(frontend.address) + struct.pack("!Hxx", frontend.port)


def affinity_match_key(backend_id: int, revnat_id: int) -> bytes:
    """This backend still belongs to this service."""
    return struct.pack("=II", backend_id, revnat_id)


# conntrack.h

_CONNTRACK_PORTS = struct.Struct("!HH")


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
    source_port, destination_port = _CONNTRACK_PORTS.unpack_from(key, 32)
    return ConntrackEntry(
        unpack(key[:16]),
        unpack(key[16:32]),
        source_port,
        destination_port,
        key[36],
        key[37],
        *struct.unpack_from("=QQIIIHHBB", value),
    )


# metrics.h


class MetricsKey(NamedTuple):
    """``struct metrics_key``."""

    reason: int
    direction: int
    line: int
    file: int


def parse_metrics_key(key: bytes) -> MetricsKey:
    """From the bytes."""
    return MetricsKey(*struct.unpack_from("=BBHB", key))

"""What a WireGuard device holds, and what can be changed in it, as values. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from encryption.peers import PublicKey
from model.address import Address, Prefix

MARK = 0x1E00  # on what the device itself sends: bpf/lib/abi/marks.h
OVERHEAD_BYTES = 80  # outer IPv6 40 + UDP 8 + WireGuard 32
NOBODY = PublicKey("A" * 43 + "=")  # a key that no node can have: all zeroes


@dataclass(frozen=True, slots=True)
class PeerState:
    """A peer as its device has it."""

    endpoint: Address | None
    port: int
    allowed: frozenset[Prefix]
    handshake_s: float = 0.0  # Unix time of the last handshake; 0: none yet
    received_bytes: int = 0
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DeviceState:
    """A device without its secret."""

    public_key: PublicKey | None
    port: int
    mark: int
    peers: Mapping[PublicKey, PeerState]


@dataclass(frozen=True, slots=True)
class PeerChange:
    """What to do with one peer."""

    key: PublicKey
    remove: bool = False
    endpoint: Address | None = None  # None: as it is
    port: int = 0
    add: tuple[Prefix, ...] = ()
    keepalive_s: int | None = None  # None: as it is; 0: never

"""WireGuard in memory: devices of several nodes, who of them shakes hands, what a packet meets.

``FakeDevice`` passes the suite of real devices (tests/unit/encryption/test_fake_wireguard.py). Of
the protocol there is what a change of keys depends on: both ends must have each other's present key
to shake hands; an end whose key changes sends nothing under a session of its old key, and
understands what still comes by it; a session ends with its peer, and after three minutes.
"""

import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from encryption.device import DeviceState, PeerChange, PeerState
from encryption.peers import PublicKey
from encryption.wireguard_keys import PrivateKey
from model.address import Address, Prefix, host_prefix

REKEY_S, REJECT_S = 120.0, 180.0  # of the protocol's definition
HANDSHAKE_BYTES, PACKET_BYTES = 148, 1000


@dataclass(eq=False)
class Session:
    """What two devices have agreed on. ``senders``: whose key is still that of the handshake."""

    begun_s: float
    senders: set["FakeDevice"]


@dataclass
class _Peer:
    endpoint: Address | None = None
    port: int = 0
    allowed: set[Prefix] = field(default_factory=set)
    keepalive_s: int = 0
    handshake_s: float = 0.0
    received_bytes: int = 0
    sent_bytes: int = 0
    session: Session | None = None


class FakeDevice:
    """A ``Device`` of one node."""

    kind = "fake"

    def __init__(self, network: "Network", host: Address, name: str) -> None:
        self.name, self.host = name, host
        self._network = network
        self.public_key: PublicKey | None = None
        self.port = self._mark = 0
        self.peers: dict[PublicKey, _Peer] = {}

    def ensure(self, mtu: int) -> int:
        return self._network.ensure(self)

    def configure(self, key: PrivateKey, port: int, mark: int) -> None:
        public_key = key.public()
        if public_key != self.public_key:
            for peer in self.peers.values():
                if peer.session is not None:
                    peer.session.senders.discard(self)
        self.public_key, self.port, self._mark = public_key, port, mark
        self.peers.pop(public_key, None)

    def read(self) -> DeviceState:
        self._must_be()
        peers = {
            key: PeerState(
                peer.endpoint,
                peer.port,
                frozenset(peer.allowed),
                peer.handshake_s,
                peer.received_bytes,
                peer.sent_bytes,
            )
            for key, peer in self.peers.items()
        }
        return DeviceState(self.public_key, self.port, self._mark, peers)

    def change(self, changes: Sequence[PeerChange]) -> Mapping[PublicKey, OSError]:
        self._must_be()
        for change in changes:
            if change.remove:
                self.peers.pop(change.key, None)
            elif change.key != self.public_key:
                self._change(change)
        return {}

    def _change(self, change: PeerChange) -> None:
        peer = self.peers.setdefault(change.key, _Peer())
        if change.endpoint is not None:
            peer.endpoint, peer.port = change.endpoint, change.port
        if change.keepalive_s is not None:
            peer.keepalive_s = change.keepalive_s
        for other in self.peers.values():
            other.allowed -= set(change.add)
        peer.allowed |= set(change.add)

    def remove(self) -> None:
        self._network.remove(self)

    def _must_be(self) -> None:
        if not self._network.has(self):
            raise OSError(errno.ENODEV, f"device {self.name} of {self.host} is gone")


class Network:
    """The devices of all nodes, whoever runs or does not run there."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock``: Unix time."""
        self._clock = clock
        self._devices: dict[tuple[Address, str], FakeDevice] = {}
        self._numbers: dict[tuple[Address, str], int] = {}

    def open(self, host: Address, name: str) -> tuple[FakeDevice, int]:
        """As ``open_device``: one that exists is taken over."""
        found = self._devices.get((host, name)) or FakeDevice(self, host, name)
        return found, self.ensure(found)

    def ensure(self, device: FakeDevice) -> int:
        at = device.host, device.name
        self._devices.setdefault(at, device)
        return self._numbers.setdefault(at, len(self._numbers) + 1)

    def remove(self, device: FakeDevice) -> None:
        if self.has(device):
            del self._devices[device.host, device.name]
            device.peers.clear()

    def has(self, device: FakeDevice) -> bool:
        return self._devices.get((device.host, device.name)) is device

    def of(self, host: Address) -> dict[str, FakeDevice]:
        """The devices of a node."""
        return {name: device for (at, name), device in self._devices.items() if at == host}

    def name(self, number: int) -> str:
        """Of a device, by its ifindex."""
        return next(name for (_, name), found in self._numbers.items() if found == number)

    def shake_hands(self) -> None:
        """Whoever has a peer that it must keep alive does what its timers would do."""
        for device in list(self._devices.values()):
            for key, peer in device.peers.items():
                if peer.keepalive_s:
                    self._session(device, key, peer)

    def send(self, host: Address, name: str, target: Address) -> bool:
        """Whether a packet that enters a device comes out at the node of the address ``target``."""
        device = self._devices.get((host, name))
        found = device and next(
            (row for row in device.peers.items() if host_prefix(target) in row[1].allowed), None
        )
        if not device or not found:
            return False
        key, peer = found
        session = self._session(device, key, peer)
        if session is None or device not in session.senders:
            return False
        for other in self.of(target).values():
            for back in other.peers.values():
                if back.session is session:
                    back.received_bytes += PACKET_BYTES
                    peer.sent_bytes += PACKET_BYTES
                    return True
        return False

    def _session(self, device: FakeDevice, key: PublicKey, peer: _Peer) -> Session | None:
        """What a packet for a peer is encrypted by; hands are shaken before, when it is due."""
        session, now_s = peer.session, self._clock()
        if session is None or device not in session.senders or now_s - session.begun_s >= REKEY_S:
            other = self._facing(device, key, peer)
            if other is not None:
                assert device.public_key is not None
                back = other.peers[device.public_key]
                session = Session(now_s, {device, other})
                for end in (peer, back):
                    end.session, end.handshake_s = session, now_s
                    end.received_bytes += HANDSHAKE_BYTES
                    end.sent_bytes += HANDSHAKE_BYTES
        if session is not None and now_s - session.begun_s >= REJECT_S:
            return None
        return session

    def _facing(self, device: FakeDevice, key: PublicKey, peer: _Peer) -> FakeDevice | None:
        """The other end, if either has the present key of the other."""
        for (host, _), other in self._devices.items():
            if (host, other.port, other.public_key) == (peer.endpoint, peer.port, key):
                return other if device.public_key in other.peers else None
        return None

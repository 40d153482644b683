"""A WireGuard device as a ``Target`` of peers, whoever implements it. Adapter.

``Device`` is the port; ``wireguard_kernel`` and ``wireguard_userspace`` keep it, and one suite
tests both. Changes are incremental: nothing is ever replaced as a whole, since packets would find
no peer meanwhile. Adding a prefix to a peer takes it from the one that had it. Taking a prefix from
a peer without giving it to another goes by way of a peer that nobody is, which is then removed:
older kernels cannot do it otherwise.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from encryption.device import NOBODY, DeviceState, PeerChange
from encryption.peers import Peer, PublicKey
from encryption.wireguard_keys import PrivateKey
from model.address import Address, Prefix

T = TypeVar("T")


class Device(Protocol):
    """One WireGuard device; every call blocks, for milliseconds. Raises ``OSError``."""

    name: str
    kind: str  # "kernel" or "userspace", as people are told

    def ensure(self, mtu: int) -> int:
        """Make the device when it is missing, with MTU and flags. Returns its ifindex."""
        ...

    def configure(self, key: PrivateKey, port: int, mark: int) -> None:
        """Set the device's own half. What peers send under an earlier key is still understood."""
        ...

    def read(self) -> DeviceState:
        """All of it."""
        ...

    def change(self, changes: Sequence[PeerChange]) -> Mapping[PublicKey, OSError]:
        """Apply in order. Returns the peers that failed."""
        ...

    def remove(self) -> None:
        """Take the device away. No error when it is gone."""
        ...


@dataclass(slots=True)
class _Memory:
    """What the device holds, as far as we know."""

    peers: dict[PublicKey, Peer] = field(default_factory=dict)
    owner: dict[Prefix, PublicKey] = field(default_factory=dict)

    def learn(self, state: DeviceState) -> None:
        self.peers = {
            key: Peer(peer.endpoint or Address(bytes(16)), peer.port, peer.allowed)
            for key, peer in state.peers.items()
            if key != NOBODY
        }
        self.owner = {p: key for key, peer in self.peers.items() for p in peer.allowed}

    def take(self, key: PublicKey, peer: Peer) -> None:
        for prefix in peer.allowed:
            before = self.owner.get(prefix)
            if before is not None and before != key and before in self.peers:
                loser = self.peers[before]
                kept = loser.allowed - {prefix}
                self.peers[before] = Peer(loser.endpoint, loser.port, kept)
            self.owner[prefix] = key
        self.peers[key] = peer

    def drop(self, key: PublicKey) -> None:
        gone = self.peers.pop(key, None)
        for prefix in gone.allowed if gone else ():
            if self.owner.get(prefix) == key:
                del self.owner[prefix]


class PeerTable:
    """The peers of one device: a ``Target``."""

    def __init__(
        self,
        device: Device,
        call: Callable[..., Awaitable[Any]],
        keepalive_s: int = 0,
    ) -> None:
        """``call(function, *arguments)`` runs what blocks, always in the same thread."""
        self._device, self._call, self._keepalive_s = device, call, keepalive_s
        self._memory: _Memory | None = None

    async def read(self) -> Mapping[PublicKey, Peer]:
        """All peers, as the device has them."""
        found: Mapping[PublicKey, Peer] = await self._call(self._read)
        return found

    async def upsert(self, rows: Sequence[tuple[PublicKey, Peer]]) -> Mapping[PublicKey, OSError]:
        """Add what is new; a prefix goes from peer to peer without a gap."""
        failed: Mapping[PublicKey, OSError] = await self._call(self._upsert, rows)
        return failed

    async def delete(self, keys: Collection[PublicKey]) -> Mapping[PublicKey, OSError]:
        """Remove peers with their sessions."""
        failed: Mapping[PublicKey, OSError] = await self._call(self._delete, keys)
        return failed

    async def keep_alive(self, seconds: int) -> None:
        """Let every peer, now and later, hear from us at least so often; 0: only when needed."""
        self._keepalive_s = seconds
        await self._call(self._keep_alive)

    def _keep_alive(self) -> None:
        keys = self._known().peers
        self._device.change([PeerChange(key, keepalive_s=self._keepalive_s) for key in keys])

    def _read(self) -> dict[PublicKey, Peer]:
        memory = self._memory = _Memory()
        memory.learn(self._device.read())
        return dict(memory.peers)

    def _known(self) -> _Memory:
        if self._memory is None:
            self._read()
        assert self._memory is not None
        return self._memory

    def _upsert(self, rows: Sequence[tuple[PublicKey, Peer]]) -> dict[PublicKey, OSError]:
        memory = self._known()
        failed = dict(self._device.change([self._addition(memory, *row) for row in rows]))
        surplus: list[Prefix] = []
        for key, peer in rows:
            if key in failed:
                continue
            before = memory.peers.get(key)
            memory.take(key, peer)
            for prefix in (before.allowed if before else frozenset()) - peer.allowed:
                if memory.owner.get(prefix) == key:
                    surplus.append(prefix)
                    del memory.owner[prefix]
        if surplus:
            self._throw_away([p for p in surplus if p not in memory.owner])
        if failed:
            self._memory = None  # the device says what it holds now
        return failed

    def _addition(self, memory: _Memory, key: PublicKey, peer: Peer) -> PeerChange:
        known = memory.peers.get(key)
        missing = [p for p in peer.allowed if memory.owner.get(p) != key]
        moved = known is None or (known.endpoint, known.port) != (peer.endpoint, peer.port)
        return PeerChange(
            key,
            endpoint=peer.endpoint if moved else None,
            port=peer.port,
            add=tuple(sorted(missing)),
            keepalive_s=self._keepalive_s if known is None else None,
        )

    def _throw_away(self, prefixes: Sequence[Prefix]) -> None:
        """Raises ``OSError``: whose the prefixes are is then read again."""
        errors = self._device.change(
            [PeerChange(NOBODY, add=tuple(prefixes)), PeerChange(NOBODY, remove=True)]
        )
        if errors:
            self._memory = None
            raise next(iter(errors.values()))

    def _delete(self, keys: Collection[PublicKey]) -> dict[PublicKey, OSError]:
        memory = self._known()
        failed = dict(self._device.change([PeerChange(key, remove=True) for key in keys]))
        for key in keys:
            if key not in failed:
                memory.drop(key)
        return failed

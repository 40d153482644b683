"""What the kernel's IPsec must hold for a set of nodes and keys. Pure.

Packets of the tunnel between two nodes' own addresses are encrypted: ESP around VXLAN; where no
tunnel is, packets to the pods behind a node. A program of ours marks them with the key and the
receiver's node ID; the policy of that mark says which state encrypts. What comes in is marked with
the sender's node ID, because all senders use the same SPI. A marked packet without a policy of its
own meets the one that blocks, so that nothing marked ever leaves in clear text. Formats:
docs/adr/0167.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import NamedTuple

from encryption import ipsec_keys
from encryption.device import MARK as MARK_WIREGUARD
from encryption.ipsec_keys import End, Material, MeshKey
from model.address import Address, Prefix, host_prefix, parse_prefix

REQUEST_ID = 2  # of states around the tunnel; 1 is that of pods' own packets
REPLAY_WINDOW = 1024
_ENCRYPT, _DECRYPT, _MAGIC = 0x0E00, 0x0D00, 0x0F00
_OUT_MASK, _IN_MASK = 0xFFFFFF00, 0xFFFF0F00
_BLOCK_PRIORITY, _PASS_PRIORITY = 100, 50
_ANY_PRIORITY = 0x0B9F  # behind everybody else's policies
_ANYWHERE = parse_prefix("0.0.0.0/0")


class Direction(Enum):
    """Of a policy, by the kernel's number."""

    IN = 0
    OUT = 1


class Mark(NamedTuple):
    """Bits that a packet must have, of those in ``mask``."""

    value: int
    mask: int


class StateId(NamedTuple):
    """What tells a state from others: the kernel holds one of each."""

    receiver: Address
    spi: int
    mark: Mark


@dataclass(frozen=True, slots=True)
class State:
    """How one direction between two nodes is encrypted."""

    sender: Address
    material: Material
    output_mark: Mark


class PolicyId(NamedTuple):
    """What tells a policy from others."""

    direction: Direction
    source: Prefix
    destination: Prefix
    mark: Mark


@dataclass(frozen=True, slots=True)
class Template:
    """The state that a policy asks for. Without ends: any, and none will do."""

    sender: Address | None = None
    receiver: Address | None = None
    spi: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """What becomes of the packets it is about; ``None`` for a template: they are blocked."""

    priority: int
    template: Template | None
    passes: bool = False  # without a template: they go as they are


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node as IPsec needs it."""

    end: End
    node_id: int  # of ours, for its address
    key_id: int  # its current key as it announces it; 0: it does not encrypt
    behind: tuple[Prefix, ...] = ()  # its pods, where no tunnel leads to them


_UNMARKED = Mark(0, 0)
_DECRYPTED = Policy(_ANY_PRIORITY, Template())
BLOCKED = PolicyId(Direction.OUT, _ANYWHERE, _ANYWHERE, Mark(_ENCRYPT, _MAGIC))
# What WireGuard sends itself has bits of that mark, and no node ID, which all of ours have.
WIREGUARD = PolicyId(Direction.OUT, _ANYWHERE, _ANYWHERE, Mark(MARK_WIREGUARD, 0xFFFFFFFF))


def mark_out(key_id: int, node_id: int) -> Mark:
    """Of a packet that is to be encrypted."""
    return Mark(node_id << 16 | key_id << 12 | _ENCRYPT, _OUT_MASK)


def mark_in(node_id: int) -> Mark:
    """Of a packet that is to be decrypted."""
    return Mark(node_id << 16 | _DECRYPT, _IN_MASK)


def desired_states(
    own: End, peers: Sequence[Peer], keys: Sequence[MeshKey]
) -> dict[StateId, State]:
    """Both directions for every peer that encrypts, in every key that we have."""
    found: dict[StateId, State] = {}
    for peer in peers:
        if not peer.key_id or not ipsec_keys.is_boot_id(peer.end.boot_id):
            continue
        theirs, ours = peer.end.address, own.address
        for key in keys:
            out, back = mark_out(key.id, peer.node_id), mark_in(peer.node_id)
            found[StateId(ours, key.id, back)] = State(
                theirs, ipsec_keys.derive(key, peer.end, own), Mark(_DECRYPT, _IN_MASK)
            )
            found[StateId(theirs, key.id, out)] = State(
                ours, ipsec_keys.derive(key, own, peer.end), Mark(_ENCRYPT, _OUT_MASK)
            )
    return found


def desired_policies(
    own: Address, peers: Sequence[Peer], key_ids: Sequence[int]
) -> dict[PolicyId, Policy]:
    """What is marked for a peer is encrypted for it, and blocked if there is no such peer; what a
    peer has encrypted may come in, and so may what it has not.
    """
    found = {
        BLOCKED: Policy(_BLOCK_PRIORITY, None),
        WIREGUARD: Policy(_PASS_PRIORITY, None, passes=True),
    }
    for peer in peers:
        for ours, theirs in _between(own, peer) if peer.key_id else ():
            for key_id in key_ids:
                mark = mark_out(key_id, peer.node_id)
                row = Policy(0, Template(own, peer.end.address, key_id))
                found[PolicyId(Direction.OUT, ours, theirs, mark)] = row
            if key_ids:
                found[PolicyId(Direction.IN, theirs, ours, _UNMARKED)] = _DECRYPTED
    return found


def _between(own: Address, peer: Peer) -> Iterator[tuple[Prefix, Prefix]]:
    """Whose packets with whom are encrypted: the tunnel's, or those of everybody here."""
    if not peer.behind:
        yield host_prefix(own), host_prefix(peer.end.address)
    for prefix in peer.behind:
        yield _ANYWHERE, prefix


def is_ours_state(state_id: StateId) -> bool:
    """By the marks, which nobody else has."""
    mark = state_id.mark
    return mark.mask in (_OUT_MASK, _IN_MASK) and mark.value & _MAGIC in (_ENCRYPT, _DECRYPT)


def is_ours_policy(policy_id: PolicyId, policy: Policy) -> bool:
    """By the marks, which nobody else has, or by its place behind everybody else's."""
    if policy_id in (BLOCKED, WIREGUARD):
        return True
    if policy_id.direction is Direction.IN and policy == _DECRYPTED:
        return True
    mark = policy_id.mark
    return mark.mask == _OUT_MASK and mark.value & _MAGIC == _ENCRYPT


def sending_key(own_key_id: int, peer: Peer, usable: Sequence[int]) -> int:
    """With which key we send to a peer: the older of the two currents; 0: none that we have."""
    found = ipsec_keys.agreed(own_key_id, peer.key_id)
    return found if found in usable else 0


class NodeIds:
    """Numbers for other nodes' addresses, ours alone. A number is used again only when it must."""

    def __init__(self, known: Mapping[Address, int]) -> None:
        """``known``: what the kernel still holds from an earlier life."""
        self._of = dict(known)
        self._next: int = max(self._of.values(), default=0) + 1

    def of(self, address: Address) -> int:
        """The number of an address, from 1 to 65535. Raises ``OSError`` when there is none left."""
        if address not in self._of:
            self._of[address] = self._free()
        return self._of[address]

    def forget(self, address: Address) -> None:
        """The node is gone."""
        self._of.pop(address, None)

    def items(self) -> Iterator[tuple[Address, int]]:
        """All numbers."""
        yield from self._of.items()

    def _free(self) -> int:
        taken = set(self._of.values())
        later, earlier = range(self._next, 0x10000), range(1, self._next)
        for number in chain(later, earlier):
            if number not in taken:
                self._next = number + 1
                return number
        raise OSError("no node ID is left: a mesh with IPsec has at most 65535 nodes")

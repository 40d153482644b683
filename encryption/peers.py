"""Nodes and ipcache of all clusters → WireGuard peers. Pure, kept key by key.

A peer is a node: its public key, where its packets go, and the prefixes that may come from it and
are sent to it: its own addresses, and what the ipcache puts behind them. Two nodes with one key,
one address of two nodes, and a prefix that is a node's address and somebody's pod are decided by
rank (our own cluster first, then by name, so that the order of hearing does not matter) and
reported. ``desired_peers`` computes the same from everything at once, as the oracle of tests.
"""

import base64
import binascii
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NewType, TypeAlias, TypeVar

from model.address import Address, Prefix, host_prefix, unpack_prefix
from model.cluster import ClusterName
from model.kernel_numbers import WIREGUARD_PORT
from model.node import CILIUM_INTERNAL_IP, Node, NodeName

K = TypeVar("K")
V = TypeVar("V")

PublicKey = NewType("PublicKey", str)  # base64, 44 characters
NodeKey: TypeAlias = tuple[ClusterName, NodeName]

_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Peer:
    """What a device is told of one node."""

    endpoint: Address
    port: int
    allowed: frozenset[Prefix]


@dataclass(frozen=True, slots=True)
class Claim:
    """What a node says of itself."""

    key: PublicKey
    endpoint: Address
    addresses: tuple[Address, ...]  # its own, of the underlay


def public_key(text: str) -> PublicKey:
    """Check an announced key. Raises ``ValueError``."""
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("it is not base64") from None
    if len(raw) != _KEY_BYTES:
        raise ValueError(f"it has {len(raw)} bytes, a key has {_KEY_BYTES}")
    if not any(raw):
        raise ValueError("it is all zeroes")
    return PublicKey(base64.b64encode(raw).decode())


def claim_of(node: Node, version: int = 4) -> Claim | None:
    """A node's part; ``None`` when it does not encrypt, or has no address. Raises ``ValueError``.

    ``version``: the family of the underlay.
    """
    endpoint = node.tunnel_endpoint(version)
    if not node.wireguard_public_key or endpoint is None:
        return None
    own = dict.fromkeys(a.ip for a in node.addresses if a.type != CILIUM_INTERNAL_IP)
    return Claim(public_key(node.wireguard_public_key), endpoint, tuple(own))


class Peers:
    """The table by public key. ``on_change`` is told every key whose peer may differ."""

    def __init__(
        self,
        own: ClusterName,
        my_key: PublicKey,
        on_change: Callable[[PublicKey], None],
        port: int = WIREGUARD_PORT,
    ) -> None:
        self._own, self._my_key, self._on_change = own, my_key, on_change
        self._port = port
        self._claims: dict[NodeKey, Claim] = {}
        self._by_key: dict[PublicKey, set[NodeKey]] = {}
        self._by_address: dict[Address, set[NodeKey]] = {}
        self._behind: dict[Address, set[Prefix]] = {}  # node address -> prefixes of the ipcache
        self._hosts: dict[Prefix, Address] = {}  # prefix of the ipcache -> node address
        self._lengths: Counter[int] = Counter()  # of those prefixes
        self._bad: dict[NodeKey, str] = {}

    def rekey(self, mine: PublicKey) -> None:
        """Our own key has changed."""
        before, self._my_key = self._my_key, mine
        self._tell(before, mine)

    def put(self, node: Node, version: int = 4) -> None:
        """A node is new or has changed."""
        name = (node.cluster, node.name)
        try:
            fresh = claim_of(node, version)
            self._bad.pop(name, None)
        except ValueError as error:
            fresh = None
            self._bad[name] = f"node {_text(name)} announces a WireGuard key that is none: {error}"
        self._replace(name, fresh)

    def drop(self, cluster: ClusterName, name: NodeName) -> None:
        """A node is gone."""
        self._bad.pop((cluster, name), None)
        self._replace((cluster, name), None)

    def _replace(self, name: NodeKey, fresh: Claim | None) -> None:
        old = self._claims.get(name)
        if old == fresh:
            return
        touched: set[NodeKey] = {name}
        for claim in (old, fresh):  # who shares a key or an address is judged again
            if claim is not None:
                touched |= self._by_key.get(claim.key, set())
                for address in claim.addresses:
                    touched |= self._by_address.get(address, set())
                    # What the ipcache puts behind another node may be a node's own address now.
                    host = self._hosts.get(host_prefix(address))
                    touched |= self._by_address.get(host, set()) if host is not None else set()
        keys = {self._claims[n].key for n in touched if n in self._claims}
        if old is not None:
            del self._claims[name]
            _discard(self._by_key, old.key, name)
            for address in old.addresses:
                _discard(self._by_address, address, name)
        if fresh is not None:
            self._claims[name] = fresh
            self._by_key.setdefault(fresh.key, set()).add(name)
            for address in fresh.addresses:
                self._by_address.setdefault(address, set()).add(name)
            keys.add(fresh.key)
        self._tell(*keys)

    def set_prefix(self, prefix: Prefix, host: Address | None) -> None:
        """The ipcache's row of a prefix: behind which node address; ``None``: behind none."""
        old = self._hosts.get(prefix)
        if old == host:
            return
        if old is not None:
            _discard(self._behind, old, prefix)
            del self._hosts[prefix]
            self._lengths[prefix.length] -= 1
        if host is not None:
            self._hosts[prefix] = host
            self._behind.setdefault(host, set()).add(prefix)
            self._lengths[prefix.length] += 1
        # Rows inside this prefix may be needed now, or not any more: its own node's, and those of
        # the node that has what is around it.
        around = None if prefix.length == 128 else self._around(prefix)
        for address in {old, host, around}:
            holder = self._holder(address) if address is not None else None
            if holder is not None:
                self._tell(self._claims[holder].key)

    def _around(self, prefix: Prefix) -> Address | None:
        """Behind which node address the next larger prefix of the ipcache is."""
        for length in sorted((n for n, count in self._lengths.items() if count), reverse=True):
            if length < prefix.length:
                found = self._hosts.get(_shortened(prefix, length))
                if found is not None:
                    return found
        return None

    def _tell(self, *keys: PublicKey) -> None:
        for key in keys:
            self._on_change(key)

    def _rank(self, name: NodeKey) -> tuple[bool, NodeKey]:
        return name[0] != self._own, name

    def _holder(self, address: Address) -> NodeKey | None:
        """Whose an address of the underlay is."""
        names = self._by_address.get(address)
        return min(names, key=self._rank) if names else None

    def owner(self, key: PublicKey) -> NodeKey | None:
        """Whose a key is; nobody else's may be ours."""
        names = self._by_key.get(key)
        return min(names, key=self._rank) if names and key != self._my_key else None

    def claim(self, name: NodeKey) -> Claim | None:
        """What a node says of itself."""
        return self._claims.get(name)

    def get(self, key: PublicKey, /) -> Peer | None:
        """The wanted peer of a key."""
        name = self.owner(key)
        if name is None:
            return None
        claim = self._claims[name]
        mine = [a for a in claim.addresses if self._holder(a) == name]
        if claim.endpoint not in mine:
            return None  # what is sent there would reach another
        prefixes = {host_prefix(a) for a in mine}
        for address in mine:
            for prefix in self._behind.get(address, ()):
                # Nearly all pods lie in their node's prefix, which says it for all of them.
                if not self._is_node(prefix) and self._around(prefix) not in mine:
                    prefixes.add(prefix)
        return Peer(claim.endpoint, self._port, frozenset(prefixes))

    def _is_node(self, prefix: Prefix) -> bool:
        return prefix.length == 128 and prefix.network_address in self._by_address

    def items(self) -> Iterator[tuple[PublicKey, Peer]]:
        """All wanted peers."""
        for key in self._by_key:
            found = self.get(key)
            if found is not None:
                yield key, found

    def __len__(self) -> int:
        return len(self._by_key)

    def problems(self) -> list[str]:
        """What is wrong with what nodes announce, one sentence each."""
        found = list(self._bad.values())
        for key, names in self._by_key.items():
            if key == self._my_key:
                found += [
                    f"node {_text(n)} announces the WireGuard key of this node and gets no peer: "
                    "remove its key file and restart its agent"
                    for n in sorted(names)
                ]
            elif len(names) > 1:
                first, *rest = sorted(names, key=self._rank)
                found += [
                    f"node {_text(n)} announces the WireGuard key of node {_text(first)} and gets "
                    "no peer: remove its key file and restart its agent"
                    for n in rest
                ]
        for address, names in self._by_address.items():
            if len(names) > 1:
                first, *rest = sorted(names, key=self._rank)
                found += [
                    f"address {address} is node {_text(first)}'s and claimed by node {_text(n)}: "
                    "correct the address of one of them"
                    for n in rest
                ]
        found += [
            f"prefix {prefix} behind node address {host} is the address of a node, whose it stays: "
            "give the clusters pod CIDRs apart from their nodes"
            for prefix, host in self._hosts.items()
            if self._is_node(prefix)
        ]
        return sorted(found)


def _discard(index: dict[K, set[V]], key: K, item: V) -> None:
    found = index[key]
    found.discard(item)
    if not found:
        del index[key]


def _shortened(prefix: Prefix, length: int) -> Prefix:
    kept = prefix.bits >> (128 - length) << (128 - length)
    return unpack_prefix(length, kept.to_bytes(16))


def _text(name: NodeKey) -> str:
    return "/".join(name)


def desired_peers(
    nodes: Iterable[Node], hosts: Mapping[Prefix, Address], own: ClusterName, my_key: PublicKey
) -> dict[PublicKey, Peer]:
    """All peers from everything at once."""
    claims: dict[NodeKey, Claim] = {}
    for node in nodes:
        try:
            claim = claim_of(node)
        except ValueError:
            continue
        if claim is not None:
            claims[node.cluster, node.name] = claim
    ranked = sorted(claims, key=lambda n: (n[0] != own, n))
    keys: dict[PublicKey, NodeKey] = {}
    addresses: dict[Address, NodeKey] = {}
    for name in ranked:
        keys.setdefault(claims[name].key, name)
        for address in claims[name].addresses:
            addresses.setdefault(address, name)
    keys.pop(my_key, None)
    found: dict[PublicKey, Peer] = {}
    for key, name in keys.items():
        mine = {a for a in claims[name].addresses if addresses[a] == name}
        if claims[name].endpoint in mine:
            behind = {
                p
                for p, host in hosts.items()
                if host in mine and not (p.length == 128 and p.network_address in addresses)
            }
            needed = {p for p in behind if _nearest(p, hosts) not in mine}
            allowed = frozenset({host_prefix(a) for a in mine} | needed)
            found[key] = Peer(claims[name].endpoint, WIREGUARD_PORT, allowed)
    return found


def _nearest(prefix: Prefix, hosts: Mapping[Prefix, Address]) -> Address | None:
    around = [p for p in hosts if p != prefix and p.covers(prefix)]
    return hosts[max(around, key=lambda p: p.length)] if around else None

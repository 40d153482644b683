"""What becomes a WireGuard peer, and what is refused and said."""

import base64

import pytest

from encryption.peers import Peer, Peers, PublicKey, public_key
from model.address import parse_address, parse_prefix
from model.cluster import ClusterId, ClusterName
from model.node import CILIUM_INTERNAL_IP, INTERNAL_IP, Node, NodeAddress, NodeName

OWN, OTHER = ClusterName("own"), ClusterName("other")


def key(number: int) -> PublicKey:
    return PublicKey(base64.b64encode(bytes([number]) * 32).decode())


MINE = key(99)


def node(cluster: ClusterName, name: str, wg: str, *ips: str, router: str = "10.9.0.1") -> Node:
    addresses = [NodeAddress(INTERNAL_IP, parse_address(ip)) for ip in ips]
    addresses.append(NodeAddress(CILIUM_INTERNAL_IP, parse_address(router)))
    return Node(cluster, NodeName(name), ClusterId(1), tuple(addresses), wireguard_public_key=wg)


def made(*nodes: Node, mine: PublicKey = MINE) -> Peers:
    peers = Peers(OWN, mine, lambda changed: None)
    for each in nodes:
        peers.put(each)
    return peers


def prefixes(*texts: str) -> frozenset:
    return frozenset(parse_prefix(text) for text in texts)


def test_a_node_is_a_peer_with_its_addresses_and_what_is_behind_it() -> None:
    """Of both families; pods inside the node's prefix need no row of their own."""
    peers = made(node(OTHER, "n1", key(1), "192.0.2.1", "fd01::1"))
    host = parse_address("192.0.2.1")
    rows = ("10.1.0.0/24", "10.1.0.7/32", "10.5.0.7/32", "fd00:1::/64", "fd00:1::7/128")
    for text in rows:
        peers.set_prefix(parse_prefix(text), host)
    allowed = ("192.0.2.1/32", "fd01::1/128", "10.1.0.0/24", "10.5.0.7/32", "fd00:1::/64")
    assert peers.get(key(1)) == Peer(host, 51871, prefixes(*allowed))
    peers.set_prefix(parse_prefix("10.1.0.0/24"), None)
    found = peers.get(key(1))
    assert found is not None
    assert parse_prefix("10.1.0.7/32") in found.allowed


def test_a_node_that_does_not_encrypt_is_no_peer() -> None:
    """No key, or no address."""
    peers = made(node(OTHER, "n1", "", "192.0.2.1"), node(OTHER, "n2", key(2)))
    assert dict(peers.items()) == {}
    assert peers.problems() == []


@pytest.mark.parametrize("text", ["x", "AAAA", key(0), key(1)[:-1]])
def test_a_key_that_is_none_is_said(text: str) -> None:
    """And costs nobody else anything."""
    peers = made(node(OTHER, "n1", text, "192.0.2.1"), node(OTHER, "n2", key(2), "192.0.2.2"))
    assert [k for k, _ in peers.items()] == [key(2)]
    (sentence,) = peers.problems()
    assert sentence.startswith("node other/n1 announces a WireGuard key that is none: ")
    peers.put(node(OTHER, "n1", key(1), "192.0.2.1"))
    assert peers.problems() == []


@pytest.mark.parametrize("turn", [1, -1])
def test_two_nodes_with_one_key(turn: int) -> None:
    """Our own cluster's keeps it, whoever came first; when it leaves, the other has it."""
    ours, theirs = node(OWN, "z", key(1), "192.0.2.1"), node(OTHER, "a", key(1), "192.0.2.2")
    peers = made(*[ours, theirs][::turn])
    found = peers.get(key(1))
    assert found is not None
    assert str(found.endpoint) == "192.0.2.1"
    (sentence,) = peers.problems()
    assert "node other/a announces the WireGuard key of node own/z" in sentence
    peers.drop(OWN, NodeName("z"))
    found = peers.get(key(1))
    assert found is not None
    assert str(found.endpoint) == "192.0.2.2"
    assert peers.problems() == []


def test_our_own_key_is_nobody_elses() -> None:
    """A copy of the key file on another node."""
    peers = made(node(OWN, "copy", key(9), "192.0.2.9"), mine=key(9))
    assert dict(peers.items()) == {}
    (sentence,) = peers.problems()
    assert "the WireGuard key of this node" in sentence
    peers.rekey(key(10))
    assert [k for k, _ in peers.items()] == [key(9)]


@pytest.mark.parametrize("turn", [1, -1])
def test_one_address_of_two_nodes(turn: int) -> None:
    """It stays with the one of higher rank; the other's traffic has no way that is its own."""
    pair = [node(OWN, "n1", key(1), "192.0.2.1"), node(OTHER, "n2", key(2), "192.0.2.1")]
    peers = made(*pair[::turn])
    assert [k for k, _ in peers.items()] == [key(1)]
    (sentence,) = peers.problems()
    assert "address 192.0.2.1 is node own/n1's and claimed by node other/n2" in sentence


def test_a_pod_row_does_not_take_a_nodes_address() -> None:
    """A prefix claimed twice: as a node's address and as somebody's pod."""
    peers = made(node(OWN, "n1", key(1), "192.0.2.1"), node(OTHER, "n2", key(2), "192.0.2.2"))
    peers.set_prefix(parse_prefix("192.0.2.1/32"), parse_address("192.0.2.2"))
    found = peers.get(key(2))
    assert found is not None
    assert found.allowed == prefixes("192.0.2.2/32")
    (sentence,) = peers.problems()
    assert "prefix 192.0.2.1/32" in sentence


def test_public_key_is_checked() -> None:
    """32 bytes of base64, not all zero."""
    assert public_key(key(7)) == key(7)
    with pytest.raises(ValueError, match="all zeroes"):
        public_key(key(0))

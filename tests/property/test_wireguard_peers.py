"""Peers kept key by key are those computed from everything at once, whatever happened before."""

import base64

from hypothesis import example, given
from hypothesis import strategies as st

from encryption.peers import Peer, Peers, PublicKey, desired_peers
from model.address import Address, Prefix, parse_address, parse_prefix
from model.cluster import ClusterId, ClusterName
from model.node import EXTERNAL_IP, INTERNAL_IP, Node, NodeAddress, NodeName

OWN = ClusterName("own")
CLUSTERS = [OWN, ClusterName("aaa"), ClusterName("zzz")]
KEYS = [PublicKey(base64.b64encode(bytes([n]) * 32).decode()) for n in range(1, 5)]
ADDRESSES = [parse_address(t) for t in ("192.0.2.1", "192.0.2.2", "192.0.2.3", "fd01::1")]
PREFIXES = [
    parse_prefix(t)
    for t in (
        *("10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.1.1.1/32", "10.1.1.2/32", "10.2.0.9/32"),
        *("fd00::/16", "fd00:1::/32", "fd00:1::1/128", "192.0.2.1/32"),
    )
]
KINDS = st.sampled_from([INTERNAL_IP, EXTERNAL_IP])
NODES = st.builds(
    lambda cluster, name, key, addresses: Node(
        cluster,
        NodeName(name),
        ClusterId(1),
        addresses=tuple(NodeAddress(kind, ip) for kind, ip in addresses),
        wireguard_public_key=key,
    ),
    st.sampled_from(CLUSTERS),
    st.sampled_from(["n1", "n2"]),
    st.sampled_from([*KEYS, "", "not base64", "AAAA"]),
    st.lists(st.tuples(KINDS, st.sampled_from(ADDRESSES)), max_size=2),
)
ROWS = st.tuples(st.sampled_from(PREFIXES), st.none() | st.sampled_from(ADDRESSES))
DROPS = st.tuples(st.sampled_from(CLUSTERS), st.sampled_from([NodeName("n1"), NodeName("n2")]))


def _own_node(name: str, key: PublicKey, address: Address) -> Node:
    addresses = (NodeAddress(INTERNAL_IP, address),)
    return Node(OWN, NodeName(name), ClusterId(1), addresses=addresses, wireguard_public_key=key)


@example(
    [
        _own_node("n2", KEYS[1], ADDRESSES[1]),
        (parse_prefix("192.0.2.1/32"), ADDRESSES[1]),
        _own_node("n1", KEYS[2], ADDRESSES[0]),
    ]
)
@given(st.lists(st.one_of(NODES, ROWS, DROPS.map(lambda d: ("drop", *d))), max_size=40))
def test_incremental_is_the_whole(steps: list) -> None:
    """After every step; and a key that nobody was told of has not changed."""
    nodes: dict[tuple, Node] = {}
    hosts: dict[Prefix, Address] = {}
    told: set[PublicKey] = set()
    peers = Peers(OWN, KEYS[0], told.add)
    before: dict[PublicKey, Peer] = {}
    for step in steps:
        told.clear()
        if isinstance(step, Node):
            nodes[step.cluster, step.name] = step
            peers.put(step)
        elif step[0] == "drop":
            nodes.pop(step[1:], None)
            peers.drop(*step[1:])
        else:
            prefix, host = step
            peers.set_prefix(prefix, host)
            if host is None:
                hosts.pop(prefix, None)
            else:
                hosts[prefix] = host
        wanted = desired_peers(nodes.values(), hosts, OWN, KEYS[0])
        assert dict(peers.items()) == wanted
        assert {k for k in KEYS if before.get(k) != wanted.get(k)} <= told
        allowed = [p for peer in wanted.values() for p in peer.allowed]
        assert len(allowed) == len(set(allowed)), "one prefix of two peers"
        before = wanted
        assert all(sentence for sentence in peers.problems())

"""Rotation of IPsec keys in a mesh that hears of it in any order: no packet meets a node without
its key, and in the end all send with the new one.
"""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from encryption.ipsec import Peer, sending_key
from encryption.ipsec_keys import End, MeshKey, parse_secret
from encryption.ipsec_rotation import KeyRing
from model.address import parse_address

DURATION_S = 300.0
LATE_S = 250.0  # until the last node has the file, and again until all have heard of it
NODES = 4


def mesh_key(key_id: int) -> MeshKey:
    return parse_secret(f"{key_id}+ rfc4106(gcm(aes)) {key_id:02x}{'5a' * 19} 128")[0]


@dataclass
class Node:
    number: int
    ring: KeyRing = field(default_factory=lambda: KeyRing(DURATION_S))
    heard: dict[int, int] = field(default_factory=dict)  # what others announce, as it knows

    def sends_with(self, other: "Node") -> int:
        end = End(parse_address(f"192.0.2.{other.number}"), "0" * 36)
        peer = Peer(end, other.number, self.heard[other.number])
        return sending_key(self.ring.current, peer, self.ring.key_ids)


def check(nodes: list[Node], now_s: float) -> None:
    for one in nodes:
        for other in nodes:
            if one is not other:
                used = one.sends_with(other)
                assert used in one.ring.key_ids, (now_s, one, other)
                assert used in other.ring.key_ids, (now_s, one, other)


late = st.floats(0, LATE_S, allow_nan=False)


@given(
    first=st.sampled_from([3, 14, 15]),
    loads=st.lists(late, min_size=NODES, max_size=NODES),
    delays=st.lists(late, min_size=NODES * NODES, max_size=NODES * NODES),
)
def test_every_packet_meets_its_key(first: int, loads: list[float], delays: list[float]) -> None:
    """Files arrive, announcements arrive, old keys go: in whatever order, all can be read."""
    old, new = mesh_key(first), mesh_key(first % 15 + 1)
    nodes = [Node(n) for n in range(NODES)]
    for node in nodes:
        node.ring.load([old], 0.0)
        node.heard = {other.number: first for other in nodes if other is not node}
    events: list[tuple[float, int, int]] = [(at, n, -1) for n, at in enumerate(loads)]
    events += [
        (loads[a] + delays[a * NODES + b], a, b)
        for a in range(NODES)
        for b in range(NODES)
        if a != b
    ]
    # What was announced late is retired by a node no earlier than its own rotation's end.
    ticks = [(float(t), -1, -1) for t in range(0, 1200, 50)]
    for at, a, b in sorted(events + ticks):
        if a < 0:
            for node in nodes:
                node.ring.retire({node.ring.current, *node.heard.values()}, at)
        elif b < 0:
            nodes[a].ring.load([new], at)
        else:
            nodes[b].heard[a] = new.id
        check(nodes, at)
    assert all(a.sends_with(b) == new.id for a in nodes for b in nodes if a is not b)
    assert {node.ring.key_ids for node in nodes} == {(new.id,)}

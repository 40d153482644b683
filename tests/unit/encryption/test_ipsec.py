"""States, policies, node IDs and the life of keys, without a kernel."""

import pytest

from encryption import ipsec
from encryption.ipsec import Direction, Mark, NodeIds, Peer
from encryption.ipsec_errors import by_label
from encryption.ipsec_keys import End, KeyFileError, parse_secret
from encryption.ipsec_rotation import KeyRing
from model.address import parse_address
from tests.unit.encryption.test_ipsec_keys import AEAD, KEY, ONE, PAIR, TWO

OLD, NEW = parse_secret(f"{AEAD}\n{PAIR}")
PEER = Peer(TWO, node_id=7, key_id=3)


def test_one_state_in_each_direction_and_key() -> None:
    """Marks carry node ID and key; what comes in is found by the sender's node ID."""
    states = ipsec.desired_states(ONE, [PEER], [OLD, NEW])
    assert set(states) == {
        (TWO.address, 3, Mark(0x00073E00, 0xFFFFFF00)),
        (TWO.address, 4, Mark(0x00074E00, 0xFFFFFF00)),
        (ONE.address, 3, Mark(0x00070D00, 0xFFFF0F00)),
        (ONE.address, 4, Mark(0x00070D00, 0xFFFF0F00)),
    }
    assert all(ipsec.is_ours_state(key) for key in states)


def test_what_one_sends_the_other_reads() -> None:
    """The key of our outgoing state is that of the peer's incoming one, in every key and form."""
    ours = ipsec.desired_states(ONE, [PEER], [OLD, NEW])
    theirs = ipsec.desired_states(TWO, [Peer(ONE, node_id=9, key_id=3)], [OLD, NEW])
    for spi in (3, 4):
        out = ours[ipsec.StateId(TWO.address, spi, ipsec.mark_out(spi, 7))]
        back = theirs[ipsec.StateId(TWO.address, spi, ipsec.mark_in(9))]
        assert out.material == back.material
        assert out.material != ours[ipsec.StateId(ONE.address, spi, ipsec.mark_in(7))].material


@pytest.mark.parametrize("peer", [Peer(TWO, 7, 0), Peer(End(TWO.address, "short"), 7, 3)])
def test_who_cannot_be_a_peer_gets_no_state(peer: Peer) -> None:
    """A node that announces no key or no boot ID has no states."""
    assert ipsec.desired_states(ONE, [peer], [OLD]) == {}


def test_a_marked_packet_without_a_peer_is_blocked() -> None:
    """Without any peer there is the policy that blocks, behind those of peers."""
    policies = ipsec.desired_policies(ONE.address, [PEER], [3, 4])
    blocking = [(k, p) for k, p in policies.items() if p.template is None and not p.passes]
    assert [(k.direction, k.mark) for k, _ in blocking] == [(Direction.OUT, Mark(0x0E00, 0x0F00))]
    mine = [p for k, p in policies.items() if k.direction is Direction.OUT and p.template]
    assert len(mine) == 2
    assert all(p.priority < blocking[0][1].priority for p in mine)
    assert policies[ipsec.WIREGUARD].priority < blocking[0][1].priority
    assert all(ipsec.is_ours_policy(k, p) for k, p in policies.items())


def test_sending_waits_for_both() -> None:
    """We send with a new key when both announce it, and not with one that we lack."""
    assert ipsec.sending_key(4, PEER, [3, 4]) == 3
    assert ipsec.sending_key(4, Peer(TWO, 7, 4), [3, 4]) == 4
    assert ipsec.sending_key(3, Peer(TWO, 7, 4), [3]) == 3
    assert ipsec.sending_key(4, PEER, [4]) == 0


def test_node_ids_stay_and_come_back_last() -> None:
    """An address keeps its number, also over a restart; a freed one is not the next to be given."""
    ids = NodeIds({})
    first, second = ids.of(ONE.address), ids.of(TWO.address)
    assert {first, second} == {1, 2}
    again = NodeIds(dict(ids.items()))
    assert again.of(ONE.address) == first
    again.forget(ONE.address)
    assert again.of(parse_address("192.0.2.9")) == 3


def test_node_ids_end() -> None:
    """The 65,536th node is an error with a sentence, and a number that is given back helps."""
    addresses = [parse_address(f"10.0.{n >> 8}.{n & 255}") for n in range(65535)]
    ids = NodeIds({a: n for n, a in enumerate(addresses, 1)})
    with pytest.raises(OSError, match="65535 nodes"):
        ids.of(ONE.address)
    ids.forget(addresses[41])
    assert ids.of(ONE.address) == 42


def test_a_rotation_keeps_the_old_key_until_nobody_uses_it() -> None:
    """Old and new are received; the old one goes by time and only when no peer announces it."""
    ring = KeyRing(300.0)
    assert ring.load([OLD], 0.0)
    assert not ring.load([OLD], 1.0)
    assert ring.load([NEW], 10.0)
    assert (ring.key_ids, ring.current) == ((3, 4), 4)
    assert ring.overhead_bytes == 93
    assert ring.retire({3, 4}, 1000.0) == []
    assert ring.retire({4}, 200.0) == []
    assert ring.retire({4}, 310.0) == [3]
    assert ring.key_ids == (4,)


def test_going_back_is_a_rotation_too() -> None:
    """An aborted rotation makes the earlier key current again, and the new one old."""
    ring = KeyRing(300.0)
    ring.load([OLD], 0.0)
    ring.load([NEW], 10.0)
    assert ring.load([NEW, OLD], 20.0)
    assert (ring.current, ring.key_ids) == (3, (4, 3))
    assert ring.retire({3}, 320.0) == [4]


def test_one_id_is_one_key() -> None:
    """A known ID with another key is refused with the next ID, and nothing changes."""
    ring = KeyRing(300.0)
    ring.load([OLD], 0.0)
    other = parse_secret(AEAD.replace(KEY[:4], "ffff"))[0]
    with pytest.raises(KeyFileError, match=r"key ID 3 .* as 4\+"):
        ring.load([other], 1.0)
    assert ring.keys == (OLD,)


def test_error_counters_have_the_names_of_the_reference() -> None:
    """Every label is there from the beginning; what the kernel adds one day is ``other``."""
    found = by_label({"XfrmOutPolBlock": 3, "XfrmInNoStates": 2, "XfrmInNewer": 1})
    assert found["policy_blocked", "outbound"] == 3
    assert found["no_state", "inbound"] == 2
    assert found["other", "inbound"] == 1
    assert found["bundle_check", "outbound"] == 0

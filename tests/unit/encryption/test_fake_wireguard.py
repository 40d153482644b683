"""The model of WireGuard (``tests/support/fake_wireguard.py``): the suite that real devices pass,
and what it knows of the protocol.
"""

from collections.abc import Iterator

import pytest

from datapath.kernel_thread import KernelThread
from encryption import wireguard_keys as keys
from encryption.device import MARK, PeerChange
from model.address import host_prefix, parse_address
from tests.conformance.test_wireguard_device import (  # noqa: F401  (run here on the model)
    test_a_row_fails_alone,
    test_a_thousand_peers,
    test_new_key_of_a_node_takes_over_before_the_old_one_goes,
    test_own_half,
    test_peers_are_written_and_read_back,
    test_prefix_is_taken_without_another_peer,
    test_prefix_moves_from_peer_to_peer,
)
from tests.support.fake_wireguard import REJECT_S, REKEY_S, FakeDevice, Network
from tests.support.wireguard import Encrypted

ONE, TWO = parse_address("192.0.2.1"), parse_address("192.0.2.2")
NAME, PORT = "ist_wg0", 51871


@pytest.fixture
def ready() -> Iterator[Encrypted]:
    device, ifindex = Network(float).open(ONE, NAME)
    key = keys.generate()
    device.configure(key, PORT, MARK)
    thread = KernelThread("wg")
    yield Encrypted(device, key, ifindex, thread)
    thread.close()


class Pair:
    """Two nodes, and the time."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.network = Network(lambda: self.now_s)
        self.one, _ = self.network.open(ONE, NAME)
        self.two, _ = self.network.open(TWO, NAME)
        for device in (self.one, self.two):
            device.configure(keys.generate(), PORT, MARK)

    def introduce(self, device: FakeDevice, other: FakeDevice, keepalive_s: int = 0) -> None:
        assert other.public_key is not None
        add, endpoint = (host_prefix(other.host),), other.host
        change = PeerChange(other.public_key, False, endpoint, PORT, add, keepalive_s)
        assert device.change([change]) == {}

    def speaks(self) -> tuple[bool, bool]:
        """Whether the one gets through to the other, and back."""
        send = self.network.send
        return send(ONE, NAME, TWO), send(TWO, NAME, ONE)


@pytest.fixture
def pair() -> Pair:
    made = Pair()
    made.introduce(made.one, made.two)
    made.introduce(made.two, made.one)
    return made


def test_both_must_know_the_other() -> None:
    """By the present key."""
    made = Pair()
    made.introduce(made.one, made.two)
    assert made.speaks() == (False, False)
    made.introduce(made.two, made.one)
    assert made.speaks() == (True, True)


def test_hands_are_shaken_by_who_has_something_to_say(pair: Pair) -> None:
    """A packet, or a keepalive; nothing else does."""
    pair.network.shake_hands()
    assert [p.handshake_s for p in pair.one.read().peers.values()] == [0.0]
    pair.introduce(pair.one, pair.two, keepalive_s=1)
    pair.network.shake_hands()
    for device in (pair.one, pair.two):
        assert [p.handshake_s for p in device.read().peers.values()] == [1000.0]


def test_another_key_of_ours(pair: Pair) -> None:
    """What the other sends by the old one is understood, and nothing of ours leaves until it knows
    the new one.
    """
    assert pair.speaks() == (True, True)
    pair.one.configure(keys.generate(), PORT, MARK)
    assert pair.speaks() == (False, True)
    pair.introduce(pair.two, pair.one)
    assert pair.speaks() == (True, True)


def test_a_session_is_renewed_and_ends(pair: Pair) -> None:
    """After two minutes, where both still have the keys; after three it is over."""
    assert pair.speaks() == (True, True)
    assert pair.two.public_key is not None
    pair.now_s += REKEY_S
    assert pair.speaks() == (True, True)
    assert pair.one.read().peers[pair.two.public_key].handshake_s == pair.now_s
    pair.one.configure(keys.generate(), PORT, MARK)
    pair.now_s += REJECT_S - 1
    assert pair.speaks() == (False, True)
    pair.now_s += 1
    assert pair.speaks() == (False, False)


def test_a_device_that_is_gone(pair: Pair) -> None:
    """With its sessions; one of its name is another."""
    assert pair.speaks() == (True, True)
    pair.two.remove()
    pair.two.remove()
    assert pair.network.of(TWO) == {}
    assert pair.speaks() == (False, False)
    with pytest.raises(OSError, match="is gone"):
        pair.two.read()
    assert pair.network.open(TWO, NAME)[0] is not pair.two
    assert pair.network.open(ONE, NAME)[0] is pair.one

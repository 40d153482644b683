"""States of IPsec in a kernel that has ESP, in a namespace that ends with the test."""

import re
from collections.abc import Iterator

import pytest

from datapath.kernel_thread import KernelThread
from encryption import ipsec
from encryption.ipsec import Peer
from encryption.ipsec_keys import End, parse_secret
from encryption.xfrm import States
from model.address import parse_address
from tests.support.datapath import kernel_thread
from tests.support.nodes import sh

OWN = End(parse_address("192.0.2.1"), f"{1:036d}")
PEERS = [Peer(End(parse_address(f"192.0.2.{n}"), f"{n:036d}"), n, 3) for n in (2, 3)]
KEYS = parse_secret(
    f"3+ rfc4106(gcm(aes)) {'5a' * 20} 128\n"
    f"4+ hmac(sha256) {'0b' * 32} cbc(aes) {'0c' * 16}\n"
    f"15+ rfc4106(gcm(aes)) {'5b' * 36} 96\n"
    f"1+ hmac(sha512) {'0d' * 64} cbc(aes) {'0e' * 32}\n"
)


@pytest.fixture
def thread() -> Iterator[KernelThread]:
    with kernel_thread(own_network=True) as made:
        yield made


async def test_states_are_read_as_they_were_written(thread: KernelThread) -> None:
    """Both forms of keys, two peers with the same SPIs: written, read, replaced, removed."""
    table = States(thread.call)
    wanted = ipsec.desired_states(OWN, PEERS, KEYS)
    assert len(wanted) == 2 * 2 * 4
    assert await table.read() == {}
    for _ in range(2):
        assert await table.upsert(list(wanted.items())) == {}
        assert await table.read() == wanted
    booted = [Peer(End(peer.end.address, f"{9:036d}"), peer.node_id, 3) for peer in PEERS]
    changed = ipsec.desired_states(OWN, booted, KEYS)
    assert changed.keys() == wanted.keys()
    assert await table.upsert(list(changed.items())) == {}
    assert await table.read() == changed
    for _ in range(2):
        assert await table.delete(list(changed)) == {}
    assert await table.read() == {}
    assert await table.last_sequence() == 0


async def test_states_have_a_replay_window_of_1024(thread: KernelThread) -> None:
    """With extended sequence numbers, in both directions and with either form of keys; as the
    kernel's own tool reads them.
    """
    table = States(thread.call)
    wanted = ipsec.desired_states(OWN, PEERS, KEYS)
    assert await table.upsert(list(wanted.items())) == {}
    listed = await thread.call(sh, "ip -d xfrm state list")
    states = re.split(r"^(?=src )", listed, flags=re.MULTILINE)[1:]
    assert len(states) == len(wanted)
    for state in states:
        flags = re.search(r"\bflag (.+)", state)
        assert flags, state
        assert "esn" in flags[1].split(), state
        window = re.search(r"\breplay_window (\d+), bitmap-length (\d+)", state)
        assert window, state
        assert window.groups() == ("1024", "32"), state


async def test_states_of_others_are_not_ours(thread: KernelThread) -> None:
    """Another program's states are neither read, replaced nor removed."""
    table = States(thread.call)
    await thread.call(
        sh,
        "ip xfrm state add src 192.0.2.2 dst 192.0.2.1 proto esp spi 3 reqid 9 mode tunnel"
        f" aead 'rfc4106(gcm(aes))' 0x{'11' * 20} 128",
    )
    before = await thread.call(sh, "ip xfrm state list")
    wanted = ipsec.desired_states(OWN, PEERS, KEYS)
    errors = await table.upsert(list(wanted.items()))
    assert {(key.receiver, key.spi) for key in errors} == {(OWN.address, 3)}
    assert all("not ours" in str(error) for error in errors.values())
    assert await table.read() == {k: v for k, v in wanted.items() if k not in errors}
    assert await table.delete(list(wanted)) == {}
    assert await thread.call(sh, "ip xfrm state list") == before

"""WireGuard devices as ``Target`` tables: the kernel's where there is one, else wireguard-go's.

The virtual machine of tests/vm runs the same file on a kernel that has WireGuard.
"""

from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from datapath.kernel_thread import KernelThread
from encryption import links
from encryption import wireguard_keys as keys
from encryption.device import MARK
from encryption.peers import Peer, PublicKey
from encryption.wireguard import PeerTable
from model.address import parse_address, parse_prefix
from tests.support import wireguard
from tests.support.nodes import enter, new_namespace, sh
from tests.support.wireguard import Encrypted

pytestmark = pytest.mark.root


@pytest.fixture
async def ready(tmp_path: Path) -> AsyncIterator[Encrypted]:
    with ExitStack() as stack:
        space = new_namespace("wg")
        stack.callback(sh, f"ip netns del {space}")
        stack.enter_context(wireguard.keeper(space, tmp_path))
        thread = KernelThread("wg")
        stack.callback(thread.close)
        enter(thread, space)
        yield await wireguard.start(thread, tmp_path)


def table(ready: Encrypted) -> PeerTable:
    return PeerTable(ready.device, ready.thread.call)


def peer(host: str, *allowed: str, port: int = 51871) -> Peer:
    return Peer(parse_address(host), port, frozenset(map(parse_prefix, allowed)))


def key() -> PublicKey:
    return keys.generate().public()


async def test_own_half(ready: Encrypted) -> None:
    """Key, port and mark are as told, and MTU and flags of the device."""
    state = await ready.thread.call(ready.device.read)
    assert (state.public_key, state.port, state.mark) == (ready.key.public(), 51871, MARK)
    assert state.peers == {}
    other = keys.generate()
    await ready.thread.call(ready.device.configure, other, 51872, MARK)
    state = await ready.thread.call(ready.device.read)
    assert (state.public_key, state.port) == (other.public(), 51872)
    assert await ready.thread.call(ready.device.ensure, 1400) == ready.ifindex


async def test_peers_are_written_and_read_back(ready: Encrypted) -> None:
    """Both families; what is written is what is read, by another reader too."""
    rows = {
        key(): peer("192.0.2.1", "192.0.2.1/32", "10.1.0.0/24", "fd00:1::/64"),
        key(): peer("fd01::2", "fd01::2/128", "10.2.0.0/24"),
    }
    mine = table(ready)
    assert await mine.upsert(list(rows.items())) == {}
    assert await mine.read() == rows
    assert await table(ready).read() == rows
    assert await mine.upsert(list(rows.items())) == {}
    first, second = rows
    assert await mine.delete([first, key()]) == {}
    assert await mine.read() == {second: rows[second]}


async def test_prefix_moves_from_peer_to_peer(ready: Encrypted) -> None:
    """Whichever is written first, and in one round or two."""
    one, two = key(), key()
    shared = "10.7.0.0/24"
    with_it = {one: peer("192.0.2.1", "192.0.2.1/32", shared), two: peer("192.0.2.2")}
    moved = {one: peer("192.0.2.1", "192.0.2.1/32"), two: peer("192.0.2.2", shared)}
    mine = table(ready)
    for order in (1, -1):
        assert await mine.upsert(list(with_it.items())[::order]) == {}
        assert await mine.read() == with_it
        assert await mine.upsert(list(moved.items())[::order]) == {}
        assert await mine.read() == moved
    for rows in ([one, two], [two, one]):
        for row in rows:
            assert await mine.upsert([(row, with_it[row])]) == {}
        assert await table(ready).read() == with_it
        for row in rows:
            assert await mine.upsert([(row, moved[row])]) == {}
        assert await table(ready).read() == moved


async def test_prefix_is_taken_without_another_peer(ready: Encrypted) -> None:
    """Nobody has it then, and no helper is left behind."""
    one = key()
    mine = table(ready)
    before = peer("192.0.2.1", "192.0.2.1/32", "10.1.0.0/24", "fd00:1::/64")
    assert await mine.upsert([(one, before)]) == {}
    after = peer("192.0.2.9", "10.1.0.0/24", port=51872)
    assert await mine.upsert([(one, after)]) == {}
    assert await table(ready).read() == {one: after}
    state = await ready.thread.call(ready.device.read)
    assert list(state.peers) == [one]


async def test_new_key_of_a_node_takes_over_before_the_old_one_goes(ready: Encrypted) -> None:
    """As the convergence loop writes it: upserts, then removals."""
    old, new = key(), key()
    row = peer("192.0.2.1", "192.0.2.1/32", "10.1.0.0/24")
    mine = table(ready)
    assert await mine.upsert([(old, row)]) == {}
    assert await mine.upsert([(new, row)]) == {}
    assert await mine.delete([old]) == {}
    assert await mine.read() == {new: row}


async def test_a_row_fails_alone(ready: Encrypted) -> None:
    """The device's own key is no peer, and the rows beside it are written."""
    good = key()
    rows = [(good, peer("192.0.2.1", "192.0.2.1/32")), (key(), peer("192.0.2.2", "10.0.0.0/8"))]
    mine = table(ready)
    failed = await mine.upsert([*rows, (ready.key.public(), peer("192.0.2.3"))])
    assert failed.keys() <= {ready.key.public()}
    found = await table(ready).read()
    assert found.keys() == {k for k, _ in rows}


async def test_device_survives_who_made_it(ready: Encrypted, tmp_path: Path) -> None:
    """Opening it again takes it over with its peers; only ``remove`` ends it, and twice."""
    one = key()
    row = peer("192.0.2.1", "192.0.2.1/32")
    assert await table(ready).upsert([(one, row)]) == {}
    again, ifindex = await ready.thread.call(wireguard.opened, "ist_wg0", 1420, tmp_path)
    assert ifindex == ready.ifindex
    assert await PeerTable(again, ready.thread.call).read() == {one: row}
    await ready.thread.call(again.remove)
    await ready.thread.call(again.remove)
    assert await ready.thread.call(links.find, "ist_wg0") is None


async def test_a_thousand_peers(ready: Encrypted) -> None:
    """All in one round, and read back."""
    rows = {
        key(): peer(f"192.0.{n >> 8}.{n & 255}", f"10.{n >> 8}.{n & 255}.0/24") for n in range(1000)
    }
    mine = table(ready)
    assert await mine.upsert(list(rows.items())) == {}
    assert await mine.read() == rows

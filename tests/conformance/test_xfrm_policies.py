"""Policies of IPsec in the kernel, in a namespace that ends with the test."""

import subprocess
from collections.abc import Iterator

import pytest

from datapath.kernel_thread import KernelThread
from encryption import ipsec
from encryption.ipsec import Peer
from encryption.ipsec_keys import End
from encryption.xfrm import Policies, error_counters
from model.address import parse_address
from tests.support.datapath import kernel_thread
from tests.support.nodes import sh

pytestmark = pytest.mark.root

OWN = parse_address("192.0.2.1")
PEERS = [Peer(End(parse_address(f"192.0.2.{n}"), "0" * 36), n, 3) for n in (2, 3)]


@pytest.fixture
def thread() -> Iterator[KernelThread]:
    with kernel_thread(own_network=True) as made:
        yield made


async def test_policies_are_read_as_they_were_written(thread: KernelThread) -> None:
    """Write, read, write again, remove, remove again: always what was asked for, and no more."""
    table = Policies(thread.call)
    wanted = ipsec.desired_policies(OWN, PEERS, [3, 4])
    assert await table.read() == {}
    for _ in range(2):
        assert await table.upsert(list(wanted.items())) == {}
        assert await table.read() == wanted
    fewer = ipsec.desired_policies(OWN, PEERS[:1], [4])
    gone = [key for key in wanted if key not in fewer]
    for _ in range(2):
        assert await table.delete(gone) == {}
        assert await table.read() == fewer


async def test_policies_of_others_are_not_ours(thread: KernelThread) -> None:
    """Another program's policies are neither read, replaced nor removed."""
    table = Policies(thread.call)
    await thread.call(
        sh,
        "ip xfrm policy add src 10.0.0.0/8 dst 10.9.0.0/16 dir out tmpl src 192.0.2.1"
        " dst 192.0.2.9 proto esp mode tunnel; "
        "ip xfrm policy add src 192.0.2.3 dst 192.0.2.1 dir in priority 7 tmpl proto esp"
        " mode tunnel level use",
    )
    before = await thread.call(sh, "ip xfrm policy list")
    assert await table.read() == {}
    wanted = ipsec.desired_policies(OWN, PEERS, [3])
    errors = await table.upsert(list(wanted.items()))
    (taken,) = errors
    assert str(taken.source) == "192.0.2.3/32"
    assert "not ours" in str(errors[taken])
    ours = {key: policy for key, policy in wanted.items() if key != taken}
    assert await table.read() == ours
    await table.delete(list(ours))
    assert await thread.call(sh, "ip xfrm policy list") == before


async def test_what_is_marked_never_leaves_in_clear_text(thread: KernelThread) -> None:
    """A marked packet is blocked without a peer and stopped without a state; others pass."""
    table = Policies(thread.call)
    await table.upsert(list(ipsec.desired_policies(OWN, PEERS, [3]).items()))
    await thread.call(
        sh,
        "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6;"  # it would send packets of its own
        "ip link set lo up; ip link add veth-a type veth peer name veth-b;"
        " ip addr add 192.0.2.1/24 dev veth-a; ip link set veth-a up; ip link set veth-b up;"
        " ip neigh add 192.0.2.2 dev veth-a lladdr 02:00:00:00:00:02",
    )
    send = (
        "python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
        ' s.setsockopt(socket.SOL_SOCKET, 36, {mark}); s.sendto(b"x", ("192.0.2.2", 9))\''
    )

    def by_device() -> int:
        line = next(
            row for row in sh("cat /proc/thread-self/net/dev").splitlines() if "veth-a:" in row
        )
        return int(line.split(":")[1].split()[9])

    quiet = await thread.call(by_device)
    blocked = await thread.call(lambda: _fails(send.format(mark=0x00093E00)))
    assert blocked
    await thread.call(lambda: _fails(send.format(mark=ipsec.mark_out(3, 2).value)))
    assert await thread.call(by_device) == quiet
    counters = await error_counters(thread.call)
    assert (counters["XfrmOutPolBlock"], counters["XfrmOutNoStates"]) == (1, 1)
    await thread.call(sh, send.format(mark=0))
    assert await thread.call(by_device) > quiet


def _fails(command: str) -> bool:
    return subprocess.run(["bash", "-c", command], capture_output=True, timeout=30).returncode != 0

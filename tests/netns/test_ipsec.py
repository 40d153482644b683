"""Two nodes with real programs and the kernel's policies of IPsec, on a kernel without ESP as well:
what is marked never leaves in clear text. With ESP: tests/vm/test_ipsec.py.
"""

import pytest

from datapath.attach import AttachMode
from datapath.runtime import Encryption
from encryption import ipsec
from encryption.ipsec import Peer
from encryption.ipsec_keys import End
from encryption.xfrm import Policies, error_counters
from tests.support.ipsec import send
from tests.support.nodes import two_nodes
from tests.support.sniffer import Sniffer

pytestmark = pytest.mark.root

PODS = ["10.201.0.0/16"]


@pytest.mark.parametrize(
    ("mode", "native"),
    [(AttachMode.TCX, False), (AttachMode.CLSACT, False), (AttachMode.TCX, True)],
)
async def test_marked_packets_stop_without_a_state(mode: AttachMode, native: bool) -> None:
    """Without a policy of the peer they are blocked, without a state they are stopped; both count.
    What comes in unencrypted is still taken, and IPsec off means clear text again.
    """
    async with two_nodes(attach_mode=mode, native=native) as stage:
        one, two = stage.nodes
        client, far = await one.add_pod("client", 70001), await two.add_pod("far", 70003)
        assert client.run("ping", far.address, 1)["answered"] == 1
        policies = Policies(one.thread.call)
        wanted = ipsec.desired_policies(one.config.node_ip, [], [5])
        assert await policies.upsert(list(wanted.items())) == {}
        await send(one, 5)
        await one.reopen(encryption=Encryption(0, 77, ipsec=True, hears_ipsec=True))
        assert one.datapath.route_mtu == 1500 - (0 if native else 50) - 77

        sniffer = Sniffer(one.namespace, PODS, "under0")
        assert client.try_("ping", far.address, 1)["answered"] == 0
        blocked = await error_counters(one.thread.call)
        behind = two.config.pod_cidrs if native else ()
        peer = Peer(End(two.config.node_ip, "0" * 36), 2, 5, behind)
        wanted = ipsec.desired_policies(one.config.node_ip, [peer], [5])
        assert await policies.upsert(list(wanted.items())) == {}
        assert client.try_("ping", far.address, 1)["answered"] == 0
        stopped = await error_counters(one.thread.call)
        seen = sniffer.stop()
        assert seen.leaks == []
        assert blocked["XfrmOutPolBlock"] > 0
        assert blocked["XfrmOutNoStates"] == 0
        assert stopped["XfrmOutNoStates"] > 0

        await one.reopen(encryption=None)
        assert client.run("ping", far.address, 1)["answered"] == 1

"""Two nodes with real programs and the kernel's IPsec: what is on the wire between them, in both
routing modes.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from encryption.ipsec_keys import parse_secret
from encryption.xfrm import States, error_counters
from tests.support import ipsec
from tests.support.nodes import Pod, Stage, two_nodes
from tests.support.sniffer import Sightings, Sniffer, sniffing
from wire.bpf.layouts import DropReason, TrafficDirection

PODS = ["10.201.0.0/16"]
UNDERLAY = "under0"
AEAD, PAIR = parse_secret(
    f"15+ rfc4106(gcm(aes)) {'5a' * 20} 128\n1+ hmac(sha256) {'0b' * 32} cbc(aes) {'0c' * 16}\n"
)
TOO_BIG = (DropReason.DROP_FRAGMENTATION_NEEDED, TrafficDirection.DIRECTION_EGRESS)


@dataclass
class World:
    stage: Stage
    client: Pod
    far: Pod
    native: bool

    @contextmanager
    def in_cipher(self) -> Iterator[list[Sightings]]:
        """What both nodes send is watched: what comes in is seen again when it is decrypted."""
        one, two = (node.namespace for node in self.stage.nodes)
        with (
            sniffing(one, PODS, UNDERLAY, "out") as first,
            sniffing(two, PODS, UNDERLAY, "out") as second,
        ):
            yield [first, second]

    def traffic(self) -> None:
        """TCP, UDP and ICMP, of both sizes."""
        answer = self.client.run("tcp", self.far.address, 8080, 3, 30_000)
        assert answer["names"] == {"far": 3}, answer
        answer = self.client.run("udp", self.far.address, 8081, 3, 1000)
        assert answer["names"] == {"far": 3}, answer
        assert self.client.run("ping", self.far.address, 2)["answered"] == 2

    async def assert_nothing_refused(self) -> None:
        """Neither by our programs nor by the kernel's IPsec."""
        for node in self.stage.nodes:
            # Pods that were there before learn of the smaller packets from ICMP.
            assert (await node.drops()).keys() <= {TOO_BIG}
            counters = await error_counters(node.thread.call)
            assert {name: n for name, n in counters.items() if n} == {}


@pytest.fixture(params=["tunnel", "native"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    native = request.param == "native"
    async with two_nodes(native=native) as stage:
        one, two = stage.nodes
        client, far = await one.add_pod("client", 70001), await two.add_pod("far", 70003)
        far.serve()
        far.serve("udp", 8081)
        yield World(stage, client, far, native)


async def test_pods_speak_in_cipher_through_a_rotation(world: World) -> None:
    """Clear text before; none with IPsec, with either form of keys, and while keys change; the
    kernel refuses no packet.
    """
    stage, one = world.stage, world.stage.nodes[0]
    sniffer = Sniffer(one.namespace, PODS, UNDERLAY)
    world.traffic()
    seen = sniffer.stop()
    assert (seen.missed, seen.esp) == (0, 0)
    word = "pod address" if world.native else "tunnel"
    assert any(word in leak for leak in seen.leaks), seen.leaks

    await ipsec.switch_on(stage, [AEAD])
    assert {node.datapath.route_mtu for node in stage.nodes} == {
        1500 - (0 if world.native else 50) - 77
    }
    with world.in_cipher() as sightings:
        world.traffic()
        before = await States(one.thread.call).last_sequence()
        # The receiver of the new key is everywhere before anybody sends with it.
        await ipsec.receive(stage, [AEAD, PAIR])
        for node in stage.nodes:
            await ipsec.send(node, PAIR.id)
            assert world.client.run("ping", world.far.address, 2)["answered"] == 2
        await ipsec.receive(stage, [PAIR])
        world.traffic()
    assert sum(seen.esp for seen in sightings) > 60
    assert before > 20
    await world.assert_nothing_refused()


async def test_nothing_leaves_without_its_state(world: World) -> None:
    """Without a state, or a peer: packets stop and are counted, and none goes in clear text."""
    stage, (one, two) = world.stage, world.stage.nodes
    await ipsec.switch_on(stage, [AEAD], strict=True)
    states = States(one.thread.call)
    with world.in_cipher():
        assert world.client.run("ping", world.far.address, 2)["answered"] == 2
        assert await states.delete(list(await states.read())) == {}
        assert world.client.try_("ping", world.far.address, 1)["answered"] == 0
        assert await one.datapath.nodes.delete([two.config.node_ip]) == {}
        assert world.client.try_("ping", world.far.address, 1)["answered"] == 0
    assert (await error_counters(one.thread.call))["XfrmOutNoStates"] > 0
    dropped = (DropReason.DROP_NO_NODE_ID, TrafficDirection.DIRECTION_EGRESS)
    assert (await one.drops())[dropped] == 1

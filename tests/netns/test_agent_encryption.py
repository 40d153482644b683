"""Two real agents, each the only node of its cluster, that encrypt what nodes send, too: who opted
out of it, and what strict mode makes of that.
"""

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from agent.wireguard_state import KEY_FILE
from datapath import inspect, namespaces
from encryption import links, wireguard_keys
from model.kernel_numbers import DEVICE_WIREGUARD, DEVICE_WIREGUARD_DETOUR
from tests.support.agent import until
from tests.support.canary_traffic import BLOCK, Flow, Place, say_once, serving
from tests.support.encrypted_pair import NODES, PODS, Cluster, EncryptedPair, encrypted_pair
from tests.support.leak_matrix import PORT, ROUNDS, flowing
from tests.support.metrics_page import Scraped, Wanted, check, parse
from tests.support.nodes import netns_path, sh
from tests.support.sniffer import Sightings
from wire.bpf.layouts import DropReason

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(400),
    pytest.mark.asyncio(loop_scope="module"),
]

OUT = {"node-encryption-opt-out-labels": "zone=a"}  # which every node here has
IN = {"node-encryption-opt-out-labels": "zone=b"}
STRICT = {
    "enable-encryption-strict-mode": "true",
    "encryption-strict-mode-cidr": ",".join(PODS + NODES),
}
EXCEPT_NODES = {"encryption-strict-mode-allow-remote-node-identities": "true"}
SAID = 8  # datagrams that are said to a node that gets none
METRICS = {"prometheus-serve-addr": "127.0.0.1:9090"}
DAY_S = 86400.0
PREFIX = "isthmus_encryption_"
FAMILIES: Wanted = {
    "peers": ("gauge", "state"),
    "bytes_total": ("counter", "direction"),
    "key_age_seconds": ("gauge", ""),
    "rotation": ("gauge", "phase"),
    "stance": ("gauge", "sends accepts"),
    "problems": ("gauge", ""),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EncryptedPair]:
    async with encrypted_pair(tmp_path_factory.mktemp("pair"), userspace=True) as made:
        yield made


def _place(cluster: Cluster) -> Place:
    return Place(netns_path(cluster.node.namespace), cluster.address)


async def _between_nodes(pair: EncryptedPair) -> Sightings:
    """What is seen while a process of one node speaks with a process of the other."""
    one, two = map(_place, pair.clusters)
    async with serving(two, PORT):
        (sniffer,) = pair.sniffers()
        try:
            async with flowing(Flow(one, two.address, PORT)):
                pass
        finally:
            seen = await asyncio.to_thread(sniffer.stop)
    return seen


async def _between_pods(pair: EncryptedPair) -> Sightings:
    (sniffer,) = pair.sniffers()
    try:
        async with flowing(
            Flow(pair.near, pair.far.address, PORT),
            Flow(pair.node, pair.far.address, PORT, socket.SOCK_DGRAM),
        ):
            pass
    finally:
        seen = await asyncio.to_thread(sniffer.stop)
    return seen


def _refused(cluster: Cluster) -> int:
    """Packets of a node that would have left in clear text."""
    counters = inspect.counters(cluster.node.bpf_root / "isthmus")
    return sum(c.packets for c in counters if c.reason == DropReason.DROP_UNENCRYPTED)


async def test_nodes_encrypt_for_nodes(pair: EncryptedPair) -> None:
    """With encrypt-node, what a process of one node says to one of another is ciphertext."""
    await pair.change("wireguard", "tunnel", IN, IN)
    (await _between_nodes(pair)).assert_clean()


async def test_a_node_that_opted_out_is_in_clear_text(pair: EncryptedPair) -> None:
    """By its label: what others say to it and it to them; its pods' traffic is ciphertext."""
    await pair.change("wireguard", "tunnel", IN, OUT)
    seen = await _between_nodes(pair)
    assert any("canary" in leak for leak in seen.leaks), seen
    (await _between_pods(pair)).assert_clean()


async def test_strict_mode_of_nodes(pair: EncryptedPair) -> None:
    """With the nodes' own prefix among the strict ones, a node that opted out gets nothing from
    another, and each packet is counted; unless nodes are let through.
    """
    await pair.change("wireguard", "tunnel", IN | STRICT, OUT)
    one, two = pair.clusters
    before = _refused(one)
    (sniffer,) = pair.sniffers()
    for _ in range(SAID):
        say_once(_place(one), two.address)
    async with flowing(Flow(pair.near, pair.far.address, PORT)):
        pass  # pods are not concerned
    seen = await asyncio.to_thread(sniffer.stop)
    seen.assert_clean()
    assert _refused(one) - before >= SAID

    await pair.change("wireguard", "tunnel", IN | STRICT | EXCEPT_NODES, OUT)
    seen = await _between_nodes(pair)
    assert any("canary" in leak for leak in seen.leaks), seen


def _scrape(cluster: Cluster) -> dict[str, Scraped]:
    url = "http://127.0.0.1:9090/metrics"
    return parse(sh(f"ip netns exec {cluster.node.namespace} curl -s {url}"))


def _moved(page: dict[str, Scraped]) -> list[float]:
    """Bytes in cipher, in and out."""
    family = page[f"{PREFIX}bytes_total"]
    return [family.total(direction=direction) for direction in ("ingress", "egress")]


async def test_metrics_of_encryption(pair: EncryptedPair) -> None:
    """Every family of both nodes: who is encrypted for, what has moved, how old the key is, that no
    key changes, what the node is set to, and that nothing is wrong.
    """
    await pair.change("wireguard", "tunnel", IN | METRICS, IN | METRICS)
    for cluster in pair.clusters:
        made_s = time.time() - DAY_S
        os.utime(cluster.node.state / "state" / KEY_FILE, (made_s, made_s))
    before = [_moved(_scrape(cluster)) for cluster in pair.clusters]
    async with flowing(Flow(pair.near, pair.far.address, PORT)):
        pass
    for cluster, was in zip(pair.clusters, before, strict=True):

        def told(cluster: Cluster = cluster, was: list[float] = was) -> dict[str, Scraped] | None:
            """The page, when it has what was said: devices are read every few seconds."""
            page = _scrape(cluster)
            grown = [new - old for new, old in zip(_moved(page), was, strict=True)]
            live = page[f"{PREFIX}peers"].total(state="live")
            return page if live == 1 and min(grown) >= ROUNDS * len(BLOCK) else None

        page = await until(told, "the other node is live, and bytes are counted", 60, 0.5)
        check(page, PREFIX, FAMILIES)
        samples = {name: page[PREFIX + name].samples for name in FAMILIES}
        assert samples["peers"] == [({"state": "known"}, 1), ({"state": "live"}, 1)]
        assert samples["rotation"] == [({"phase": "steady"}, 0)]
        assert samples["stance"] == [({"sends": "wireguard", "accepts": "off"}, 1)]
        assert samples["problems"] == [({}, 0)]
        ((labels, age_s),) = samples["key_age_seconds"]
        assert labels == {}
        assert DAY_S <= age_s < 2 * DAY_S


async def test_what_a_rotation_left_is_removed(pair: EncryptedPair) -> None:
    """An agent that ends while it takes the second device of a rotation down: its successor finds
    the device and the file of its key, and takes both away.
    """
    await pair.change("wireguard", "tunnel", IN, IN)
    node = pair.clusters[0].node
    key, wanted = (
        node.state / "state" / f"{KEY_FILE}.next",
        node.state / "wireguard" / DEVICE_WIREGUARD_DETOUR,
    )
    wanted.touch()  # which makes it, as in a rotation
    path = netns_path(node.namespace)

    def link() -> Any:
        return namespaces.run_inside(path, lambda: links.find(DEVICE_WIREGUARD_DETOUR))

    await until(link, "the device is there", 60)
    namespaces.run_inside(path, lambda: links.adjust(DEVICE_WIREGUARD_DETOUR, 1420))
    wireguard_keys.save(key, wireguard_keys.generate())

    await pair.change("wireguard", "tunnel", IN, IN)
    await until(lambda: link() is None, "the device is gone", 60)
    assert not key.exists()
    assert not wanted.exists()
    status = await node.get("encryption")
    assert [i["name"] for i in status["wireguard"]["interfaces"]] == [DEVICE_WIREGUARD]


async def test_status_answers_while_a_device_goes(pair: EncryptedPair) -> None:
    """The device is taken away and made anew: who asks meanwhile is told so, and not refused."""
    await pair.change("wireguard", "tunnel", IN, IN)
    node = pair.clusters[0].node
    words = ["ip", "-n", node.namespace, "link", "delete", DEVICE_WIREGUARD]
    problems: list[str] = []
    async with asyncio.timeout(60):
        while True:
            if not problems:  # it may have been made anew between two looks
                await asyncio.to_thread(subprocess.run, words, check=False, capture_output=True)
            status = await node.get("encryption")  # fails on an answer that is none
            if any("could not be read" in problem for problem in status["problems"]):
                problems = status["problems"]
            elif problems:
                break
            await asyncio.sleep(0.02)

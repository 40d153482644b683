"""Two clusters of one node each on one wire: a real agent, a real store with its real publisher and
the fake API server for each; and all ways to encrypt between them, one after another.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from clustermesh_apiserver.config import Settings
from kvstore.config import StoreConfig
from model.cluster import ClusterId, ClusterName
from tests.support.agent import (
    AgentNode,
    Forwarder,
    TestPod,
    agent_node,
    drop,
    endpoint_slice,
    put,
    service,
    until,
)
from tests.support.canary_traffic import Place, serving
from tests.support.etcd import Etcd, plain_etcd, when_up
from tests.support.forked_agent import ForkedNode, forked, publish
from tests.support.kube import write_kubeconfig
from tests.support.leak_matrix import PORT
from tests.support.nodes import netns_path, sh
from tests.support.sniffer import Sniffer

PODS = ["10.203.0.0/16"]
VIP = "10.204.0.10"
STRANGER = "172.31.9.200"
LONG_S = 120.0  # for whatever happens in a machine that is emulated
SECRET = "{} rfc4106(gcm(aes)) {} 128\n"
ENCRYPTION: dict[str, dict[str, str]] = {
    "wireguard": {"enable-wireguard": "true", "encrypt-node": "true"},
    "ipsec": {"enable-ipsec": "true"},
}
ROUTING: dict[str, dict[str, str]] = {
    "tunnel": {"routing-mode": "tunnel"},
    "native": {"routing-mode": "native", "auto-direct-node-routes": "true"},
}


@dataclass
class Cluster:
    """One node with its store."""

    node: AgentNode
    name: str
    address: str
    etcd: Etcd
    door: Forwarder  # by which the other's agent reads this store
    pods: dict[str, TestPod] = field(default_factory=dict)

    @property
    def cilium_node(self) -> dict[str, Any]:
        found = self.node.fake.objects.get(("ciliumnodes", "", "n1"), {})
        return dict(found)


class EncryptedPair:
    """A ``leak_matrix.World``."""

    service = (VIP, 80)
    stranger = STRANGER

    def __init__(self, one: Cluster, two: Cluster, key_file: Path, stack: AsyncExitStack) -> None:
        self.clusters = one, two
        self._key_file, self._stack, self._numbers = key_file, stack, count(1)
        self._served: dict[str, AsyncExitStack] = {}
        self._key = 0
        self.near = self.far = self.node = Place("", "")

    async def begin(self) -> None:
        """Agents without encryption, two pods, and the service of both clusters."""
        self._write_key()
        await self._start({}, "")
        one, two = self.clusters
        self.near, self.far = await self._pod(one, "near"), await self._pod(two, "far")
        self.node = Place(netns_path(one.node.namespace), one.address)
        shared = {"service.cilium.io/global": "true"}
        for cluster in self.clusters:
            put(cluster.node.fake, "services", service("web", VIP, shared))
        rows = endpoint_slice("web", self.far.address)
        rows["ports"][0]["port"] = PORT
        put(two.node.fake, "endpointslices", rows)
        await until(self._is_served, "the service leads to the other cluster", LONG_S)

    async def _is_served(self) -> bool:
        with self.near.socket(socket.SOCK_STREAM) as client:
            try:
                await asyncio.get_running_loop().sock_connect(client, self.service)
            except OSError:
                return False
        return True

    async def change(self, encryption: str, routing: str) -> None:
        """Every agent starts anew with other settings."""
        for cluster in self.clusters:
            if cluster.node.process is not None:
                cluster.node.kill()
        await self._start(ENCRYPTION[encryption] | ROUTING[routing], encryption)
        await until(self._joined, "each node encrypts for the other", LONG_S)

    async def _start(self, settings: dict[str, str], encryption: str) -> None:
        self._encryption = encryption
        for number, cluster in enumerate(self.clusters, start=1):
            cluster.node.flags = {
                "cluster-name": cluster.name,
                "cluster-id": str(number),
                "enable-health-checking": "false",
                "ipsec-key-file": str(self._key_file),
                "ipsec-key-rotation-duration": "2s",
                **settings,
            }
            cluster.node.start()
        for cluster in self.clusters:
            await self._ready(cluster)

    async def _ready(self, cluster: Cluster) -> None:
        async def claim() -> bool:
            assert cluster.node.process is not None
            assert cluster.node.process.poll() is None, cluster.node.log.read_text()[-3000:]
            try:
                status = await cluster.node.get("healthz")
            except OSError:
                return False
            remote = status["cluster-mesh"]["clusters"]
            return status["cilium"]["state"] == "Ok" and all(r["ready"] for r in remote)

        await until(claim, f"the agent of {cluster.name} is ready", LONG_S, 0.1)

    async def _joined(self) -> bool:
        """Both have the other's key, and what they send is encrypted with it."""
        found = [await cluster.node.get("encryption") for cluster in self.clusters]
        if self._encryption == "ipsec":
            peers = [status["ipsec"]["peers"] for status in found]
            return all(row and row[0]["sends-with"] == self._key for row in peers)
        keys = [status["wireguard"]["interfaces"][0]["public-key"] for status in found]
        peers = [status["wireguard"]["interfaces"][0]["peers"] for status in found]
        return [[peer["public-key"] for peer in row] for row in peers] == [[k] for k in keys[::-1]]

    # World

    def sniffers(self) -> list[Sniffer]:
        return [
            Sniffer(c.node.namespace, PODS, "under0", "out", nodes=["172.31.9.0/24"])
            for c in self.clusters
        ]

    async def victim(self) -> Place:
        two = self.clusters[1]
        place = await self._pod(two, f"victim{next(self._numbers)}")
        one = self.clusters[0]

        async def known() -> bool:
            found = await one.node.get(f"ip?cidr={place.address}/32")
            return bool(found)

        await until(known, "the other cluster knows the pod", LONG_S)
        return place

    async def end(self, pod: Place) -> None:
        two = self.clusters[1]
        name = next(n for n, p in two.pods.items() if p.address == pod.address)
        await self._served.pop(pod.address).aclose()
        gone = two.pods.pop(name)
        await two.node.cni("DEL", gone)
        drop(two.node.fake, "pods", "default", name)
        await asyncio.to_thread(sh, f"ip netns del {gone.namespace}")

    async def kill_agents(self) -> None:
        for cluster in self.clusters:
            cluster.node.kill()
        await asyncio.sleep(0.3)
        for cluster in self.clusters:
            cluster.node.start()
        for cluster in self.clusters:
            await self._ready(cluster)

    async def cut(self) -> None:
        one, two = self.clusters
        two.door.open = False
        two.door.cut()

        async def lost() -> bool:
            status = await one.node.get("healthz")
            return not all(r["connected"] for r in status["cluster-mesh"]["clusters"])

        await until(lost, "the agent notices", LONG_S)

    async def mend(self) -> None:
        one, two = self.clusters
        two.door.open = True
        await self._ready(one)

        async def back() -> bool:
            status = await one.node.get("healthz")
            return all(r["connected"] for r in status["cluster-mesh"]["clusters"])

        await until(back, "the agent is connected again", LONG_S)

    async def rotate(self) -> None:
        if self._encryption == "ipsec":
            await self._rotate_ipsec()
        else:
            await self._rotate_wireguard()

    async def _rotate_ipsec(self) -> None:
        self._write_key()

        async def retired() -> bool:
            for cluster in self.clusters:
                shown = await asyncio.to_thread(
                    sh, f"ip netns exec {cluster.node.namespace} ip xfrm state list"
                )
                spis = {line.split()[3] for line in shown.splitlines() if "proto esp spi" in line}
                if spis != {f"0x{self._key:08x}"}:
                    return False
            return True

        await until(retired, "only the new key is left", LONG_S, 0.3)

    async def _rotate_wireguard(self) -> None:
        before = self._public_keys()
        assert "number" in await self.clusters[0].node.put("encryption/rotate")

        async def done() -> bool:
            after = self._public_keys()
            steady = [
                (await c.node.get("encryption"))["rotation"]["phase"] == "steady"
                for c in self.clusters
            ]
            return all(steady) and not before & after

        await until(done, "every key is another", LONG_S, 0.2)

    def _public_keys(self) -> set[str]:
        name = "network.cilium.io/wg-pub-key"
        return {c.cilium_node["metadata"]["annotations"][name] for c in self.clusters}

    def _write_key(self) -> None:
        self._key = self._key % 15 + 1
        text = SECRET.format(f"{self._key}+", f"{self._key:02x}" * 20)
        fresh = self._key_file.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self._key_file)

    async def _pod(self, cluster: Cluster, name: str) -> Place:
        made = await cluster.node.add(cluster.node.pod(name))
        cluster.pods[name] = made
        place = Place(netns_path(made.namespace), made.address)
        stack = self._served[place.address] = AsyncExitStack()
        self._stack.push_async_callback(stack.aclose)
        await stack.enter_async_context(serving(place, PORT))
        return place


@asynccontextmanager
async def encrypted_pair(directory: Path) -> AsyncIterator[EncryptedPair]:
    """The pair, up and in clear text; everything is gone afterwards."""
    async with AsyncExitStack() as stack:
        clusters = []
        for number, name in ((1, "alpha"), (2, "beta")):
            (directory / name).mkdir()
            clusters.append(await _cluster(stack, directory / name, number, name))
        _join_wires(*(c.node.namespace for c in clusters))
        for cluster, other in ((clusters[0], clusters[1]), (clusters[1], clusters[0])):
            door = await Forwarder(cluster.node.namespace, other.etcd.port).start()
            stack.push_async_callback(door.stop)
            other.door = door
            text = f"endpoints:\n- http://127.0.0.1:{door.port}\n"
            (cluster.node.mesh / other.name).write_text(text)
        pair = EncryptedPair(clusters[0], clusters[1], directory / "keys", stack)
        await pair.begin()
        yield pair


async def _cluster(stack: AsyncExitStack, directory: Path, number: int, name: str) -> Cluster:
    address, cidr = f"172.31.9.{number}", f"10.203.{number}.0/24"
    node = await stack.enter_async_context(agent_node(directory, address, cidr, ForkedNode))
    etcd = stack.enter_context(plain_etcd())
    await (await when_up(StoreConfig((etcd.url,)))).close()
    config = directory / "etcd.yaml"
    config.write_text(f"endpoints:\n- {etcd.url}\n")
    user = {"token": "secret-token"}
    kubeconfig = write_kubeconfig(directory / "publisher", node.fake.url, user, {})
    settings = Settings(
        *(ClusterName(name), ClusterId(number), 255, str(config), 900, 0, None, str(kubeconfig))
    )
    stack.callback(forked(publish, settings, directory / "publisher.log").kill)
    return Cluster(node, name, address, etcd, Forwarder(node.namespace, 0))


def _join_wires(one: str, two: str) -> None:
    for space in (one, two):
        sh(f"ip -n {space} link del under0")
    sh(f"ip -n {one} link add under0 type veth peer name under0 netns {two}")
    for number, space in enumerate((one, two), start=1):
        sh(f"ip -n {space} addr add 172.31.9.{number}/24 dev under0")
        sh(f"ip -n {space} link set under0 up")
    sh(f"ip -n {two} addr add {STRANGER}/24 dev under0")

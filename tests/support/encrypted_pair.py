"""Two clusters of one node each on one wire: a real agent, a real store with its real publisher and
the fake API server for each; and all ways to encrypt between them, one after another.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count, zip_longest
from pathlib import Path

import aiohttp

from clustermesh_apiserver.config import Settings
from kvstore.config import StoreConfig
from model.cluster import ClusterId, ClusterName
from tests.support.agent import (
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
from tests.support.nodes import netns_path, new_namespace, sh
from tests.support.sniffer import Sniffer

PODS, NODES = ["10.203.0.0/16"], ["172.31.9.0/24"]
VIP = "10.204.0.10"
STRANGER = "172.31.9.200"
PORTS = "port1", "port2"  # of the wire, where the nodes are plugged in
LONG_S = 600.0  # for whatever happens in a machine that is emulated, on a busy one
LOOK_S = 0.5  # between questions, which cost an emulated agent's time
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

    node: ForkedNode
    name: str
    number: int
    address: str
    etcd: Etcd
    door: Forwarder  # by which the other's agent reads this store
    pods: dict[str, TestPod] = field(default_factory=dict)


class EncryptedPair:
    """A ``leak_matrix.World``, once ``change`` was called."""

    service = (VIP, 80)
    stranger = STRANGER

    def __init__(self, clusters: tuple[Cluster, Cluster], wire: str, key_file: Path) -> None:
        self.clusters, self._wire, self._key_file = clusters, wire, key_file
        self._numbers, self._key, self._encryption = count(1), 0, ""
        self._stack, self._served = AsyncExitStack(), dict[str, AsyncExitStack]()
        one = clusters[0]
        self.node = Place(netns_path(one.node.namespace), one.address)
        self.near = self.far = Place("", "")
        self._write_key()

    async def close(self) -> None:
        """No server is left."""
        await self._stack.aclose()

    async def change(self, encryption: str, routing: str, *own: dict[str, str]) -> None:
        """Every agent starts anew, with these settings. The first time pods are made, too.

        ``own``: further settings of the first cluster, and of the second.
        """
        self._encryption = encryption
        for cluster, more in zip_longest(self.clusters, own, fillvalue={}):
            if cluster.node.process is not None:
                cluster.node.kill()
            common = ENCRYPTION[encryption] | ROUTING[routing]
            cluster.node.flags = self._settings(cluster) | common | more
        await self._start()
        if not self.far.address:
            await self._inhabit()
        await until(self._joined, "each node encrypts for the other", LONG_S, LOOK_S)
        await until(self._is_served, "the service leads to the other cluster", LONG_S, LOOK_S)

    def _settings(self, cluster: Cluster) -> dict[str, str]:
        return {
            "cluster-name": cluster.name,
            "cluster-id": str(cluster.number),
            "enable-health-checking": "false",
            "ipsec-key-file": str(self._key_file),
            "ipsec-key-rotation-duration": "1s",
            # What an emulated kernel is slow at: a long way for the verifier, and large maps.
            "enable-policy": "never",
            "bpf-lb-map-max": "1024",
            "bpf-ipcache-map-max": "1024",
        }

    async def _start(self) -> None:
        for cluster in self.clusters:
            cluster.node.start()
        for cluster in self.clusters:
            await self._ready(cluster)

    async def _inhabit(self) -> None:
        """A pod in each cluster, and the service of both."""
        one, two = self.clusters
        self.near, self.far = await self._pod(one, "near"), await self._pod(two, "far")
        for cluster in self.clusters:
            shared = service("web", VIP, {"service.cilium.io/global": "true"})
            put(cluster.node.fake, "services", shared)
        rows = endpoint_slice("web", self.far.address)
        rows["ports"][0]["port"] = PORT
        put(two.node.fake, "endpointslices", rows)

    async def _is_served(self) -> bool:
        with self.near.socket(socket.SOCK_STREAM) as client:
            try:
                async with asyncio.timeout(2.0):
                    await asyncio.get_running_loop().sock_connect(client, self.service)
            except OSError:
                return False
        return True

    async def _ready(self, cluster: Cluster) -> None:
        async def claim() -> bool:
            process = cluster.node.process
            assert process is not None
            assert process.poll() is None, cluster.node.log.read_text()[-3000:]
            try:
                status = await cluster.node.get("healthz")
            except (aiohttp.ClientError, OSError):
                return False
            remote = status["cluster-mesh"]["clusters"]
            return status["cilium"]["state"] == "Ok" and all(r["ready"] for r in remote)

        await until(claim, f"the agent of {cluster.name} is ready", LONG_S, LOOK_S)

    async def _joined(self) -> bool:
        """Both have the other's key, and what they send is encrypted with it."""
        found = [await cluster.node.get("encryption") for cluster in self.clusters]
        if self._encryption == "ipsec":
            peers = [status["ipsec"]["peers"] for status in found]
            return all(row and row[0]["sends-with"] == self._key for row in peers)
        devices = [status["wireguard"]["interfaces"][0] for status in found]
        known = [{peer["public-key"] for peer in device["peers"]} for device in devices]
        return known == [{device["public-key"]} for device in reversed(devices)]

    # World

    def sniffers(self) -> list[Sniffer]:
        """One, where the first node is plugged in: every frame passes it once."""
        return [Sniffer(self._wire, PODS, PORTS[0], nodes=NODES)]

    async def victim(self) -> Place:
        one, two = self.clusters
        place = await self._pod(two, f"victim{next(self._numbers)}")

        async def known() -> bool:
            return bool(await one.node.get(f"ip?cidr={place.address}/32"))

        await until(known, "the other cluster knows the pod", LONG_S, LOOK_S)
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
        await self._start()

    async def cut(self) -> None:
        self.clusters[1].door.open = False
        self.clusters[1].door.cut()
        await until(lambda: self._connected(False), "the agent notices", LONG_S, LOOK_S)

    async def mend(self) -> None:
        self.clusters[1].door.open = True
        await until(lambda: self._connected(True), "the agent is connected again", LONG_S, LOOK_S)

    async def _connected(self, wanted: bool) -> bool:
        status = await self.clusters[0].node.get("healthz")
        return [r["connected"] for r in status["cluster-mesh"]["clusters"]] == [wanted]

    async def rotate(self) -> None:
        if self._encryption == "ipsec":
            self._write_key()
            await until(self._retired, "only the new key is left", LONG_S, LOOK_S)
            return
        before = await self._public_keys()
        assert "number" in await self.clusters[0].node.change("encryption/rotate")

        async def done() -> bool:
            found = [await c.node.get("encryption") for c in self.clusters]
            steady = all(status["rotation"]["phase"] == "steady" for status in found)
            return steady and not before & await self._public_keys()

        await until(done, "every key is another", LONG_S, LOOK_S)

    async def _public_keys(self) -> set[str]:
        found = [await c.node.get("encryption") for c in self.clusters]
        return {status["wireguard"]["interfaces"][0]["public-key"] for status in found}

    async def _retired(self) -> bool:
        found = [(await c.node.get("encryption"))["ipsec"] for c in self.clusters]
        return all(
            status["key-ids"] == [self._key]
            and [peer["sends-with"] for peer in status["peers"]] == [self._key]
            for status in found
        )

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
async def encrypted_pair(
    directory: Path, *, userspace: bool = False
) -> AsyncIterator[EncryptedPair]:
    """The pair, without agents yet; everything is gone afterwards.

    ``userspace``: with what WireGuard needs where the kernel has none.
    """
    async with AsyncExitStack() as stack:
        wire = new_namespace("wire")
        stack.callback(sh, f"ip netns del {wire}")
        sh(f"ip -n {wire} link add wire type bridge")
        sh(f"ip -n {wire} addr add {STRANGER}/24 dev wire")
        sh(f"ip -n {wire} link set wire up")
        names = "alpha", "beta"
        one, two = [
            await _cluster(stack, _made(directory / name), number, name, wire)
            for number, name in enumerate(names, start=1)
        ]
        if userspace:
            for cluster in (one, two):
                stack.callback(cluster.node.keep().end)
        for cluster, other in ((one, two), (two, one)):
            door = other.door = await Forwarder(cluster.node.namespace, other.etcd.port).start()
            stack.push_async_callback(door.stop)
            text = f"endpoints:\n- http://127.0.0.1:{door.port}\n"
            (cluster.node.mesh / other.name).write_text(text)
        pair = EncryptedPair((one, two), wire, directory / "keys")
        stack.push_async_callback(pair.close)
        yield pair


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


async def _cluster(
    stack: AsyncExitStack, directory: Path, number: int, name: str, wire: str
) -> Cluster:
    address, cidr, port = f"172.31.9.{number}", f"10.203.{number}.0/24", PORTS[number - 1]
    node = await stack.enter_async_context(agent_node(directory, address, cidr, ForkedNode))
    sh(f"ip -n {node.namespace} link set wire0 netns {wire} name {port}")
    sh(f"ip -n {wire} link set {port} master wire up")
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
    return Cluster(node, name, number, address, etcd, Forwarder(node.namespace, 0))

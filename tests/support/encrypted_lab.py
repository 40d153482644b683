"""Two joined clusters of a lab as the world of ``leak_matrix``: what is done is done by commands
that people use, or by killing what runs.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Any

from kind import story
from kind.lab import host
from kind.story import C1, C2
from tests.support import lab as labs
from tests.support.canary_traffic import Place, serving
from tests.support.leak_matrix import PORT
from tests.support.nodes import sh
from tests.support.sniffer import Sniffer

PODS, NODES = ["10.1.0.0/16", "10.2.0.0/16"], ["172.20.0.0/16"]
STRANGER = "172.20.99.99"
SETTINGS = ("enable-wireguard=true", "encrypt-node=true")
ROUTING = {
    "tunnel": (),
    "native": ("routing-mode=native", "auto-direct-node-routes=true"),
}
WORKERS = {C1: "cluster1-worker", C2: "cluster2-worker"}
CHANGES_S = 180.0


class EncryptedLab:
    """A ``leak_matrix.World``."""

    stranger = STRANGER

    def __init__(self, lab: labs.Lab) -> None:
        self.lab = lab
        self._numbers = count(1)
        self._stack = AsyncExitStack()
        self._served: dict[str, AsyncExitStack] = {}
        self.near = self.far = Place("", "")
        worker = lab.node(WORKERS[C1])
        self.node = Place(worker.netns_path, str(worker.address))
        self.service = ("", 80)

    async def begin(self) -> None:
        """Join the clusters; a pod in each, and a service of both."""
        await asyncio.to_thread(self._join)
        sh(f"ip -n {self.lab.topology.underlay_netns} addr replace {STRANGER}/32 dev lo")
        sh(f"ip -n {self.lab.topology.underlay_netns} link set lo up")
        self.near = await self._pod(C1, "near")
        self.far = await self._pod(C2, "far")
        for context in (C1, C2):
            self.lab.apply(_service(), cluster=context)
        shown = self.lab.get("service", "leaks", cluster=C1)
        self.service = (shown["spec"]["clusterIP"], 80)
        await self._until("all nodes are peers", lambda: self._peers() == [3, 3, 3, 3])

    def _join(self) -> None:
        for context in (C1, C2):
            self._isthmus("clustermesh", "enable", "--context", context)
        self._isthmus("clustermesh", "connect", "--context", C1, "--destination-context", C2)
        for context in (C1, C2):
            words = ("--context", context, "--wait", "--wait-duration", "90s")
            self._isthmus("clustermesh", "status", *words)

    async def close(self) -> None:
        """No server is left."""
        await self._stack.aclose()

    def sniffers(self) -> list[Sniffer]:
        """One on the bridge between all nodes, whose own traffic is encrypted between workers."""
        return [Sniffer(self.lab.topology.underlay_netns, PODS, nodes=NODES)]

    async def victim(self) -> Place:
        name = f"victim{next(self._numbers)}"
        place = await self._pod(C2, name)
        node = WORKERS[C1]

        def known() -> bool:
            return place.address in self.lab.exec(node, "isthmus", "bpf", "ipcache", "list")[1]

        await self._until("the other cluster knows the pod", known)
        return place

    async def end(self, pod: Place) -> None:
        await self._served.pop(pod.address).aclose()
        name = next(
            p["metadata"]["name"]
            for p in self.lab.get("pods", cluster=C2)["items"]
            if p["status"].get("podIP") == pod.address
        )
        words = ("delete", "pod", name, "--wait=true")
        await asyncio.to_thread(self.lab.kubectl, *words, cluster=C2)

    async def kill_agents(self) -> None:
        pids = self._processes(b"/isthmus-agent")
        assert len(pids) == 4, pids
        for pid in pids:
            os.kill(pid, 9)
        await self._until("agents are back", lambda: len(self._agents_without(pids)) == 4)
        await self._until("they answer", lambda: len(self._status()) == 4)

    async def cut(self) -> None:
        """The mesh store of the other cluster is killed; its kubelet starts it again."""
        pids = [p for p in self._processes(b"etcd") if self._is_mesh_store(p, C2)]
        assert pids, "no mesh store runs"
        for pid in pids:
            os.kill(pid, 9)

    async def mend(self) -> None:
        words = ("clustermesh", "status", "--context", C1, "--wait", "--wait-duration", "90s")
        await asyncio.to_thread(self._isthmus, *words)

    async def rotate(self) -> None:
        before = await asyncio.to_thread(self._keys)
        words = ("encrypt", "rotate", "--context", C1, "--wait-duration", "180")
        await asyncio.to_thread(self._isthmus, *words)

        def steady() -> bool:
            return all(s["rotation"]["phase"] == "steady" for s in self._status().values())

        await self._until("every node is steady", steady)
        after = await asyncio.to_thread(self._keys)
        assert not set(before.values()) & set(after.values())

    async def migrate(self, kind: str) -> None:
        """The whole mesh goes to another kind of encryption."""
        words = ("--to", kind, "--context", C1, "--also", C2, "--wait-duration", "120")
        await asyncio.to_thread(self._isthmus, "encrypt", "migrate", *words)

    async def stances(self) -> set[tuple[str, str]]:
        """What agents send with, and accept."""
        found = await asyncio.to_thread(self._status)
        assert len(found) == 4, found
        return {(s["migration"]["sends"], s["migration"]["accepts"]) for s in found.values()}

    async def _until(self, what: str, look: Callable[[], object]) -> None:
        await asyncio.to_thread(labs.wait_until, what, look, CHANGES_S, 0.3)

    async def _pod(self, context: str, name: str) -> Place:
        def ready() -> str:
            self.lab.apply(_pod(name, WORKERS[context]), cluster=context)
            self.lab.wait_ready(name, cluster=context)
            return str(self.lab.get("pod", name, cluster=context)["status"]["podIP"])

        address = await asyncio.to_thread(ready)
        place = Place(self._space(address), address)
        stack = self._served[address] = AsyncExitStack()
        self._stack.push_async_callback(stack.aclose)
        await stack.enter_async_context(serving(place, PORT))
        return place

    def _space(self, address: str) -> str:
        prefix = self.lab.topology.nodes[0].pod_netns_prefix
        for path in Path("/run/netns").iterdir():
            if path.name.startswith(prefix) and f" {address}/" in sh(
                f"ip -n {path.name} -o -4 addr || true"
            ):
                return str(path)
        raise AssertionError(f"no pod has {address}")

    def _isthmus(self, *words: str, check: bool = True) -> str:
        command = [sys.executable, "-m", "cli.main", *words]
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.lab.env, timeout=400, check=False
        )
        assert done.returncode == 0 or not check, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def _status(self) -> dict[str, Any]:
        words = ("--context", C1, "--also", C2, "-o", "json")
        shown = self._isthmus("encrypt", "status", *words, check=False)
        try:
            return dict(json.loads(shown)["nodes"])
        except ValueError:
            return {}

    def _peers(self) -> list[int]:
        found = self._status().values()
        return [s["wireguard"]["interfaces"][0]["peer-count"] for s in found]

    def _keys(self) -> dict[str, str]:
        found = self._status().items()
        return {n: s["wireguard"]["interfaces"][0]["public-key"] for n, s in found}

    def _agents_without(self, gone: list[int]) -> list[int]:
        return [pid for pid in self._processes(b"/isthmus-agent") if pid not in gone]

    def _is_mesh_store(self, pid: int, context: str) -> bool:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        return b"clustermesh-apiserver" in words and self._node_of(pid).startswith(context)

    def _node_of(self, pid: int) -> str:
        own = os.stat(f"/proc/{pid}/ns/net").st_ino
        for node in self.lab.topology.nodes:
            if os.stat(node.netns_path).st_ino == own:
                return node.name
        return ""

    def _processes(self, name: bytes) -> list[int]:
        found = []
        for pid in host.processes_of(self.lab.name):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(word.endswith(name) for word in words[:2]):
                found.append(pid)
        return found


def _pod(name: str, node: str) -> dict[str, Any]:
    shell = {"name": "c", "image": "busybox", "command": ["sh", "-c", "sleep 100000"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [shell]},
    }


def _service() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "leaks",
            "namespace": "default",
            "annotations": {story.GLOBAL: "true"},
        },
        "spec": {
            "selector": {"app": "far"},
            "ports": [{"name": "all", "port": 80, "targetPort": PORT}],
        },
    }


def start(suffix: str, routing: str) -> labs.Lab:
    """A lab that encrypts, node traffic too."""
    return labs.start(suffix, *(f"--set={text}" for text in (*SETTINGS, *ROUTING[routing])))

"""Two joined clusters whose nodes encrypt for one another, and traffic in their pods and nodes."""

import json
import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from kind import story
from kind.lab import host
from kind.lab.topology import Node
from kind.story import C1, C2
from tests.support import lab as labs
from tests.support.lab import Lab
from tests.support.nodes import Process
from tests.support.sniffer import Sightings, sniffing

TRAFFIC = Path(__file__).with_name("traffic.py")
PYTHON = os.path.realpath(sys.executable)
PODS = ["10.1.0.0/16", "10.2.0.0/16"]
NODES = ["172.20.0.0/16"]


class World:
    """The clusters, and a way to run traffic in their pods."""

    def __init__(self, lab: Lab, encrypted: bool = True) -> None:
        self.lab, self.mesh = lab, story.Mesh(lab.name)
        for tell in (story.clusters, story.joined):
            step = story.Step(0, tell.__name__)
            tell(self.mesh, step)
            assert step.held, step.checks
        self.underlay = lab.topology.underlay_netns
        self.one, self.two, self.three = self._pods()
        self.running: list[Process] = []
        if encrypted:
            labs.wait_until("all nodes are peers", self.are_peers)

    def _pods(self) -> tuple[str, str, str]:
        """Addresses of a pod in cluster1, one on its other node, and one in cluster2."""
        ours, theirs = (self.lab.get("pods", cluster=c)["items"] for c in (C1, C2))
        first = ours[0]
        other = next(p for p in ours if p["spec"]["nodeName"] != first["spec"]["nodeName"])
        return tuple(p["status"]["podIP"] for p in (first, other, theirs[0]))

    def are_peers(self) -> bool:
        """Whether each node has all others."""
        found = [s["wireguard"]["interfaces"][0]["peer-count"] for s in self.status().values()]
        return found == [3, 3, 3, 3]

    def isthmus(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli.main", *words]
        return subprocess.run(
            command, capture_output=True, text=True, env=self.lab.env, timeout=400, check=False
        )

    def status(self) -> dict[str, Any]:
        """``isthmus encrypt status`` of the whole mesh, once every agent answers in time."""
        found: dict[str, Any] = labs.wait_until("every agent answers", self._status)
        return found

    def _status(self) -> dict[str, Any]:
        done = self.isthmus("encrypt", "status", "--context", C1, "--also", C2, "-o", "json")
        assert done.stdout, done.stderr
        found = json.loads(done.stdout)
        assert found["faults"] == [], found["faults"]
        return dict(found["nodes"])

    def keys(self) -> dict[str, str]:
        return {n: s["wireguard"]["interfaces"][0]["public-key"] for n, s in self.status().items()}

    def start(self, address: str, *words: object, patience_s: float = 20) -> Process:
        """A program of traffic.py in the pod that has an address; a client waits ``patience_s``."""
        return self._start(self._space(address), *words, patience_s=patience_s)

    def on(self, node: Node, *words: object) -> Process:
        """The same as a process of a node itself."""
        return self._start(node.netns, *words)

    def _start(self, space: str, *words: object, patience_s: float = 20) -> Process:
        command = ["ip", "netns", "exec", space, PYTHON, str(TRAFFIC)]
        process = Process(
            subprocess.Popen(
                [*command, *map(str, words)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "TRAFFIC_PATIENCE_S": str(patience_s)},
            )
        )
        self.running.append(process)
        return process

    def _space(self, address: str) -> str:
        prefix = self.lab.topology.nodes[0].pod_netns_prefix
        for path in Path("/run/netns").iterdir():
            if path.name.startswith(prefix):
                shown = subprocess.run(
                    ["ip", "-n", path.name, "-o", "-4", "addr"], capture_output=True, text=True
                )
                if f" {address}/" in shown.stdout:
                    return path.name
        raise AssertionError(f"no pod has {address}")

    def sniffing(self) -> AbstractContextManager[Sightings]:
        """Between nodes; their own traffic is not encrypted here."""
        return sniffing(self.underlay, PODS, nodes=NODES)

    def stop(self) -> None:
        for process in self.running:
            process.kill()
        self.running.clear()

    def configure(self, **settings: str) -> None:
        """Change settings, and let every agent read them."""
        patch = json.dumps({"data": settings})
        for context in (C1, C2):
            named = ("-n", "kube-system")
            self.mesh.kubectl(
                context, *named, "patch", "configmap", "cilium-config", "--type=merge", "-p", patch
            )
            for name in self.mesh.agents(context).values():
                self.mesh.kubectl(context, *named, "delete", "pod", name, "--wait")
            labs.wait_until("agents are back", lambda c=context: len(self.mesh.agents(c)) == 2)
            for pod in self.mesh.agents(context).values():
                self.lab.wait_ready(pod, namespace="kube-system", cluster=context)

    def pod_of(self, name: str) -> str | None:
        """The address of a pod of cluster2."""
        pods = self.lab.get("pods", cluster=C2)["items"]
        return next((p["status"].get("podIP") for p in pods if p["metadata"]["name"] == name), None)

    def newest(self) -> str | None:
        """The address of cluster2's youngest pod, once it has one."""
        pods = self.lab.get("pods", cluster=C2)["items"]
        last = max(pods, key=lambda p: p["metadata"]["creationTimestamp"])
        return last["status"].get("podIP")

    def node_of(self, address: str) -> str:
        """Where a pod of cluster1 is."""
        pods = self.lab.get("pods", cluster=C1)["items"]
        return next(p["spec"]["nodeName"] for p in pods if p["status"].get("podIP") == address)

    def steady(self) -> list[Process]:
        """Traffic within a cluster and across, of connections that last."""
        for server, port in ((self.two, 7001), (self.three, 7002)):
            self.start(server, "serve-tcp", server, port, "far").ready()
            self.start(server, "serve-udp", server, port + 10, "far").ready()
        return [
            self.start(self.one, "steady-tcp", self.two, 7001, 0.02).ready(),
            self.start(self.one, "steady-tcp", self.three, 7002, 0.02).ready(),
            self.start(self.one, "steady-udp", self.two, 7011, 0.02).ready(),
            self.start(self.one, "steady-udp", self.three, 7012, 0.02).ready(),
        ]


def judge(results: list[dict[str, Any]]) -> float:
    """No connection broke and no datagram was lost; the slowest answer in seconds."""
    for result in results:
        if "rounds" in result:
            assert result["errors"] == [], results
            assert result["rounds"] > 20, results
        else:
            assert result["answered"] == result["sent"], results
    return max(result.get("worst_s", 0.0) for result in results)


def agents(lab: str) -> list[int]:
    return processes(lab, b"/isthmus-agent")


def processes(lab: str, name: bytes) -> list[int]:
    found = []
    for pid in host.processes_of(lab):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.endswith(name) for word in words[:2]):
            found.append(pid)
    return found

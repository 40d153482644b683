"""The agent under test: the real process in the enclosure, told where everything is. Adapter."""

import json
import re
import sys
from typing import Any

import aiohttp

from datapath import map_names
from kind.simulate import shape as layout
from kind.simulate.enclosure import ROOT
from kind.simulate.processes import Process, Usage
from kind.simulate.shape import Shape
from model.kernel_numbers import PIN_DIRECTORY

CLUSTERS = ROOT / "clustermesh"
PINS = ROOT / "bpf" / PIN_DIRECTORY
DEFAULT_HOSTS = 512_000  # what the ipcache holds unless told otherwise
DEFAULT_LB = 65_536
_READY = re.compile(r'event=start step="ready" ms=(\d+)')


def settings(shape: Shape, more: dict[str, str]) -> dict[str, str]:
    """Its flags; it finds the API server as a pod does.

    Maps are as large as the rehearsal needs, and not smaller than by default.
    """
    hosts = shape.clusters * (shape.endpoints + shape.nodes)
    backends = shape.clusters * shape.services * (shape.backends + 1)
    found = {
        "cluster-name": layout.OWN_NAME,
        "cluster-id": str(shape.own_id),
        "max-connected-clusters": str(shape.max_connected),
        "k8s-node-name": layout.OWN_NODE,
        "state-dir": str(ROOT / "agent"),
        "bpf-root": str(ROOT / "bpf"),
        "clustermesh-config": str(CLUSTERS),
        "write-cni-conf-when-ready": str(ROOT / "net.d" / "05-cilium.conflist"),
        "cni-bin-dir": str(ROOT / "bin"),
        "agent-health-port": "0",
        "clustermesh-peer-max-endpoints": str(max(1_000_000, 2 * shape.endpoints)),
    }
    if hosts * 5 // 4 > DEFAULT_HOSTS:
        found["bpf-ipcache-map-max"] = str(hosts * 5 // 4)
    if backends * 5 // 4 > DEFAULT_LB:
        found["bpf-lb-map-max"] = str(backends * 5 // 4)
    return found | more


class Agent:
    """Its process, from outside: log, usage, REST."""

    def __init__(self, flags: dict[str, str]) -> None:
        (ROOT / "net.d").mkdir()
        self.process = Process(
            "agent",
            [sys.executable, "-m", "agent", *(f"--{key}={value}" for key, value in flags.items())],
        )
        self._log = self.process.log.open("r", errors="replace")
        self._ready_clusters: set[str] = set()
        self.ready_ms: int | None = None

    def read_log(self) -> None:
        """Take in what it has logged since; asking its API would cost it time."""
        while line := self._log.readline():
            if "event=remote_ready" in line:
                self._ready_clusters.add(line.partition("cluster=")[2].split()[0])
            elif found := _READY.search(line):
                self.ready_ms = int(found[1])

    @property
    def clusters_ready(self) -> int:
        """How many clusters it has read."""
        return len(self._ready_clusters)

    def usage(self) -> Usage:
        """CPU time and memory so far."""
        return self.process.usage()

    async def get(self, path: str) -> Any:
        """Ask its REST API."""
        connector = aiohttp.UnixConnector(str(ROOT / "agent" / "cilium.sock"))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(f"http://agent/v1/{path}") as response,
        ):
            return json.loads(await response.read())


MAPS = {
    "ipcache": map_names.IPCACHE,
    "ipcache prefixes": map_names.IPCACHE_PREFIXES,
    "services": map_names.SERVICES,
    "backends": map_names.BACKENDS,
}

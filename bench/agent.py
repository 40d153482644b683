"""The agent by itself: start-up and memory, empty and with 10,000 endpoints of another cluster.

The remote endpoints are CiliumEndpoint objects of cluster2, so that they reach the agent of
cluster1 as any others do: API server, clustermesh-apiserver, etcd, watch.
"""

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.figure import Figure
from bench.lab import joined_lab
from kind import story
from kind.lab import find
from kind.lab.topology import Topology
from kube import resources
from kube.config import connect
from kube.port import Client
from model.address import parse_address
from reconcile.tasks import TaskGroup

ENDPOINTS = 10_000
PARALLEL = 16
NODE = "cluster1-worker"
LIMIT_S = 300.0


def measure() -> Iterator[Figure]:
    """Start-up time from the agent's own log; resident memory from /proc."""
    with joined_lab() as (mesh, lab):
        yield Figure("agent.start_ms", _start_ms(mesh), "ms", {"until": "ready"})
        yield Figure("agent.rss_empty_mb", _rss_mb(lab), "MB")
        took = asyncio.run(_fill(mesh))
        start = time.monotonic()
        while (count := _remote_endpoints(mesh)) < ENDPOINTS:
            if time.monotonic() - start > LIMIT_S:
                raise TimeoutError(f"{count} of {ENDPOINTS} endpoints after {LIMIT_S:.0f} s")
            time.sleep(0.5)
        yield Figure(
            "agent.rss_10k_mb",
            _rss_mb(lab),
            "MB",
            {"remote_endpoints": count, "creating_them_s": round(took, 1)},
        )


def _pid(lab: Topology) -> int:
    container = next(
        c for c in find.containers(lab) if c.node.name == NODE and c.container == "cilium-agent"
    )
    return int(container.record.pid)


def _rss_mb(lab: Topology) -> float:
    status = Path(f"/proc/{_pid(lab)}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return round(int(found.group(1)) / 1024, 1)


def _start_ms(mesh: story.Mesh) -> float:
    pod = mesh.agents(story.C1)[NODE]
    log = mesh.kubectl(story.C1, "-n", "kube-system", "logs", pod)
    found = re.findall(r'event=start step="ready" ms=(\d+)', log)
    return float(found[-1])


def _remote_endpoints(mesh: story.Mesh) -> int:
    clusters = mesh.agent(NODE, "status")["cluster-mesh"]["clusters"]
    return int(clusters[0]["num-endpoints"])


async def _fill(mesh: story.Mesh) -> float:
    start = time.monotonic()
    async with await connect(mesh.environment["KUBECONFIG"], story.C2) as api:
        identity = (await api.list(resources.untyped(resources.CILIUM_IDENTITIES)))[0]
        numbers = iter(range(ENDPOINTS))
        async with TaskGroup() as tasks:
            for _ in range(PARALLEL):
                tasks.create_task(_create(api, numbers, int(identity["metadata"]["name"])))
    return time.monotonic() - start


async def _create(api: Client, numbers: Iterator[int], identity: int) -> None:
    kind = resources.untyped(resources.CILIUM_ENDPOINTS)
    for number in numbers:
        await api.create(kind, _endpoint(number, identity), "default")


def _endpoint(number: int, identity: int) -> dict[str, Any]:
    address = str(parse_address("10.2.100.0").offset(number))
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumEndpoint",
        "metadata": {"name": f"bench-{number}", "namespace": "default"},
        "status": {
            "id": number % 60000 + 1,
            "state": "ready",
            "identity": {"id": identity, "labels": []},
            "networking": {"addressing": [{"ipv4": address}], "node": "172.20.2.2"},
        },
    }

"""From a change in cluster2 to its effect in cluster1: the whole control plane, end to end.

*Backend*: the moment before the API server of cluster2 is asked to mark an endpoint ready, to the
moment the backend count stands in the kernel of a node of cluster1 (polled every half millisecond).
*Pod*: the moment before a pod is created in cluster2, to the first TCP connection from a pod of
cluster1; the pod's own start-up is part of it and reported beside it.
"""

import asyncio
import socket
import struct
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bench.figure import Figure, percentile
from bench.lab import joined_lab, pins
from datapath import namespaces, syscall
from datapath import pins as pinned
from kind import story
from kind.lab.topology import Topology
from kube import resources
from kube.config import connect
from kube.port import Client
from model.address import Address, pack, parse_address
from wire.bpf import layouts

CHANGES = 200
PODS = 30
POLL_S = 0.0005
LIMIT_S = 10.0
SERVICES = resources.untyped(resources.SERVICES)
SLICES = resources.untyped(resources.ENDPOINT_SLICES)
RAW_PODS = resources.untyped(resources.PODS)


def measure() -> Iterator[Figure]:
    """Percentiles in milliseconds."""
    with joined_lab() as (mesh, lab):
        uid = mesh.pods(story.C1, "name=x-wing")[0]["metadata"]["uid"].replace("-", "")
        netns = next(Path("/run/netns").glob(f"ist-{lab.name}-p-{uid}*"))
        yield from asyncio.run(_measure(mesh, lab, netns))


async def _measure(mesh: story.Mesh, lab: Topology, netns: Path) -> list[Figure]:
    kubeconfig = mesh.environment["KUBECONFIG"]
    async with (
        await connect(kubeconfig, story.C1) as one,
        await connect(kubeconfig, story.C2) as two,
    ):
        added, removed = await _backends(one, two, lab)
        pod, started = await _pods(two, netns)
    return [
        _figure("propagation.p50_ms", added, 0.5),
        _figure("propagation.p99_ms", added, 0.99),
        _figure("propagation.removed_p50_ms", removed, 0.5),
        _figure("propagation.removed_p99_ms", removed, 0.99),
        _figure("propagation.pod_p50_ms", pod, 0.5),
        _figure("propagation.pod_p99_ms", pod, 0.99),
        _figure("propagation.pod_after_running_p50_ms", started, 0.5),
    ]


def _figure(name: str, samples: list[float], share: float) -> Figure:
    value = round(percentile(samples, share) * 1000, 1)
    worst = round(max(samples) * 1000, 1)
    return Figure(name, value, "ms", {"samples": len(samples), "max": worst})


async def _backends(one: Client, two: Client, lab: Topology) -> tuple[list[float], list[float]]:
    service: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "bench",
            "namespace": "default",
            "annotations": {"service.cilium.io/global": "true"},
        },
        "spec": {"ports": [{"port": 80}]},
    }
    slice_: dict[str, Any] = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "bench-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "bench"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
        "endpoints": [_endpoint(False)],
    }
    made = await one.create(SERVICES, service, "default")
    await two.create(SERVICES, service, "default")
    await two.create(SLICES, slice_, "default")
    fd = syscall.get_pinned(str(pinned.map_pin(pins(lab, "cluster1-worker"), "ist_services")))
    address = pack(parse_address(made["spec"]["clusterIP"]))
    key = layouts.ServiceKey(address, 80, 0, 6, 0).pack()
    added: list[float] = []
    removed: list[float] = []
    for turn in range(2 * CHANGES + 2):
        ready = turn % 2 == 0
        start = time.perf_counter()
        await two.patch(SLICES, "bench-1", {"endpoints": [_endpoint(ready)]}, "default")
        took = await asyncio.to_thread(_until_count, fd, key, int(ready), start)
        if turn > 1:  # the first change creates the frontend
            (added if ready else removed).append(took)
        await asyncio.sleep(0.02)
    return added, removed


def _endpoint(ready: bool) -> dict[str, Any]:
    conditions = {"ready": ready, "serving": ready, "terminating": False}
    return {"addresses": ["10.2.1.250"], "conditions": conditions}


def _until_count(fd: int, key: bytes, count: int, start: float) -> float:
    """When the kernel's table names so many backends, in seconds after ``start``."""
    while True:
        value = syscall.map_lookup(fd, key, layouts.SERVICE_VALUE.size)
        found = layouts.ServiceValue.parse(value).slots if value is not None else 0
        now = time.perf_counter()
        if found == count:
            return now - start
        if now - start > LIMIT_S:
            raise TimeoutError(f"{found} backends after {LIMIT_S:.0f} s, not {count}")
        time.sleep(POLL_S)


async def _pods(two: Client, netns: Path) -> tuple[list[float], list[float]]:
    reached, after_running = [], []
    for number in range(PODS + 1):
        name = f"bench-{number}"
        start = time.perf_counter()
        await two.create(RAW_PODS, _pod(name), "default")
        address = ""
        running = 0.0
        while not running:
            status = (await two.get(RAW_PODS, name, "default")).get("status") or {}
            address = status.get("podIP") or ""
            if address:
                running = time.perf_counter()
            else:
                await asyncio.sleep(0.002)
        end = await asyncio.to_thread(
            namespaces.run_inside, str(netns), partial(_until_connected, parse_address(address))
        )
        if number:
            reached.append(end - start)
            after_running.append(max(0.0, end - running))
        await two.delete(RAW_PODS, name, "default")
    return reached, after_running


def _pod(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"name": "bench"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "web", "image": "echo", "args": ["80"]}],
        },
    }


def _until_connected(address: Address) -> float:
    """Try to connect every few milliseconds; when it worked."""
    deadline = time.perf_counter() + LIMIT_S
    reset = struct.pack("ii", 1, 0)
    while time.perf_counter() < deadline:
        with socket.socket() as attempt:
            attempt.settimeout(0.01)
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            try:
                attempt.connect((str(address), 80))
            except OSError:
                time.sleep(0.002)
                continue
            return time.perf_counter()
    raise TimeoutError(f"{address} is not reached within {LIMIT_S:.0f} s")

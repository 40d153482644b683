"""KVStoreMesh: a cluster of 100,000 keys, written one per put, is copied into the local store.

The store that is copied is filled first; then the real process is started beside an empty local
store, and its time and CPU are taken from its start until every canary of the copy is there.
The second pair of figures is about changes: the process follows while the same keys are written
anew, each by a put of its own.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figure import Figure
from kvstore.etcd import EtcdStore, connect
from kvstore.config import StoreConfig
from kvstore.port import StoreError
from clustermesh_apiserver.etcdinit import _free_port
from model.cluster import Capabilities, ClusterConfig, ClusterId
from wire.etcd import cluster_config_v1, keys

KEYS = 100_000
WRITERS = 64  # puts under way
TICKS = os.sysconf("SC_CLK_TCK")
VALUE = (
    b'{"IP":"10.%d.%d.%d","Mask":null,"HostIP":"192.0.2.11","ID":131%03d,"Key":0,"Metadata":"",'
    b'"K8sNamespace":"namespace-%d","K8sPodName":"deployment-7c9f8d5b6c-abcde"}'
)


def _etcd(directory: Path) -> tuple["subprocess.Popen[bytes]", str]:
    client, peer = (f"http://127.0.0.1:{_free_port()}" for _ in range(2))
    with (directory / "etcd.log").open("ab") as log:
        process = subprocess.Popen(
            ["etcd", "--name=b", f"--data-dir={directory}/data"]
            + [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
            + [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
            + [f"--initial-cluster=b={peer}", "--quota-backend-bytes=8589934592"],
            stdout=log,
            stderr=log,
        )
    return process, client


async def _up(url: str) -> EtcdStore:
    while True:
        try:
            return await connect(StoreConfig((url,)))
        except StoreError:
            await asyncio.sleep(0.05)


async def _fill(store: EtcdStore, generation: int) -> None:
    """One put per key."""
    numbers = iter(range(KEYS))
    prefix = keys.resource_prefix(keys.IP, "far")

    async def write() -> None:
        for n in numbers:
            a, b, c = n >> 16, n >> 8 & 255, n & 255
            value = VALUE % (a, b, c, n % 1000, generation)
            await store.put(f"{prefix}10.{a}.{b}.{c}", value)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(WRITERS):
            tasks.create_task(write())


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _start(directory: Path, far: str, near: str) -> "subprocess.Popen[bytes]":
    mesh = directory / "mesh"
    mesh.mkdir()
    (mesh / "far").write_text(f"endpoints:\n- {far}\n")
    (directory / "near.yaml").write_text(f"endpoints:\n- {near}\n")
    with (directory / "kvstoremesh.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "clustermesh_apiserver", "kvstoremesh"]
            + ["--cluster-name=near", "--cluster-id=1", f"--clustermesh-config={mesh}"]
            + [f"--kvstore-opt=etcd.config={directory}/near.yaml"]
            + [f"--health-port={_free_port()}", f"--api-serve-addr=127.0.0.1:{_free_port()}"],
            stdout=log,
            stderr=log,
        )


async def _copied(near: EtcdStore, resource: str) -> None:
    canary = keys.canary("far", resource, cached=True)
    while await near.get(canary) is None:
        await asyncio.sleep(0.01)


async def _same(far: EtcdStore, near: EtcdStore) -> None:
    """Until every value of the copy is that of the source."""
    wanted = {r.key.rpartition("/")[2]: r.value for r in (await _rows(far, "far", False))}
    while {r.key.rpartition("/")[2]: r.value for r in (await _rows(near, "far", True))} != wanted:
        await asyncio.sleep(0.2)


async def _rows(store: EtcdStore, cluster: str, cached: bool):  # type: ignore[no-untyped-def]
    return (await store.range(keys.resource_prefix(keys.IP, cluster, cached))).rows


async def _measure(directory: Path, far_url: str, near_url: str) -> list[Figure]:
    far, near = await _up(far_url), await _up(near_url)
    try:
        await _fill(far, 1)
        config = ClusterConfig(ClusterId(2), Capabilities(True, False, 255, None))
        await far.put(keys.cluster_config("far"), cluster_config_v1.encode(config))
        await far.put(keys.HEARTBEAT, b"now")
        for resource in keys.REQUIRED:
            await far.put(keys.canary("far", resource), b"now")
        start = time.monotonic()
        process = _start(directory, far_url, near_url)
        try:
            await _copied(near, keys.NODES)
            idle_s, idle_cpu_s = time.monotonic() - start, _cpu_s(process.pid)
            await _copied(near, keys.IP)
            wall_s, cpu_s = time.monotonic() - start, _cpu_s(process.pid)
            await _same(far, near)
        finally:
            process.terminate()
            process.wait()
    finally:
        await far.close()
        await near.close()
    detail = {
        "wall_s": round(wall_s, 2),
        "cpu_s": round(cpu_s, 2),
        "start_s": round(idle_s, 2),
        "start_cpu_s": round(idle_cpu_s, 2),
    }
    return [
        Figure("kvstoremesh.keys_per_s", round(KEYS / wall_s), "keys/s", detail),
        Figure("kvstoremesh.keys_per_cpu_s", round(KEYS / cpu_s), "keys/CPU s", detail),
    ]


def measure() -> Iterator[Figure]:
    """Two stores, one process between them."""
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as name:
        directory = Path(name)
        stores = []
        for which in ("far", "near"):
            (directory / which).mkdir()
            stores.append(_etcd(directory / which))
        try:
            yield from asyncio.run(_measure(directory, stores[0][1], stores[1][1]))
        finally:
            for process, _ in stores:
                process.kill()
                process.wait()

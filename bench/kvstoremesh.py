"""KVStoreMesh: a cluster of 100,000 keys, written one per put, is copied into the local store.

The store that is copied is filled first; then the real process is started beside an empty local
store, and its time and CPU are taken from its start until the copy's canary is there. The second
pair of figures is about changes: the process follows while the same keys are written anew, each by
a put of its own; the writer of this bench is then the slowest of all.
"""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.figure import Figure
from kvstore.config import StoreConfig
from kvstore.etcd import EtcdStore, connect
from kvstore.port import Put, StoreError
from model.cluster import Capabilities, ClusterConfig, ClusterId
from reconcile.tasks import TaskGroup
from wire.etcd import cluster_config_v1, keys

KEYS = 100_000
WRITERS = 64  # puts under way
UP_S = 30.0
TICKS = os.sysconf("SC_CLK_TCK")
VALUE = (
    b'{"IP":"10.%d.%d.%d","Mask":null,"HostIP":"192.0.2.11","ID":131%03d,"Key":0,"Metadata":"",'
    b'"K8sNamespace":"namespace-%d","K8sPodName":"deployment-7c9f8d5b6c-abcde"}'
)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _etcd(directory: Path) -> tuple["subprocess.Popen[bytes]", str]:
    client, peer = (f"http://127.0.0.1:{_free_port()}" for _ in range(2))
    argv = ["etcd", "--name=b", f"--data-dir={directory}/data"]
    argv += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
    argv += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
    argv += [f"--initial-cluster=b={peer}"]
    with (directory / "etcd.log").open("ab") as log:
        return subprocess.Popen(argv, stdout=log, stderr=log), client


async def _up(url: str) -> EtcdStore:
    async with asyncio.timeout(UP_S):
        while True:
            try:
                return await connect(StoreConfig((url,)))
            except StoreError:
                await asyncio.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Run:
    """What a run took, and what was over before its main part."""

    wall_s: float
    cpu_s: float
    before_s: float
    before_cpu_s: float


async def _fill(store: EtcdStore, generation: int) -> None:
    """One put per key."""
    numbers = iter(range(KEYS))
    prefix = keys.resource_prefix(keys.IP, "far")

    async def write() -> None:
        for n in numbers:
            a, b, c = n >> 16, n >> 8 & 255, n & 255
            value = VALUE % (a, b, c, n % 1000, generation)
            await store.put(f"{prefix}10.{a}.{b}.{c}", value)

    async with TaskGroup() as tasks:
        for _ in range(WRITERS):
            tasks.create_task(write())


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _start(directory: Path, far: str, near: str) -> "subprocess.Popen[bytes]":
    mesh = directory / "mesh"
    mesh.mkdir(exist_ok=True)
    (mesh / "far").write_text(f"endpoints:\n- {far}\n")
    (directory / "near.yaml").write_text(f"endpoints:\n- {near}\n")
    argv = [sys.executable, "-m", "clustermesh_apiserver", "kvstoremesh"]
    argv += ["--cluster-name=near", "--cluster-id=1", f"--clustermesh-config={mesh}"]
    argv += [f"--kvstore-opt=etcd.config={directory}/near.yaml"]
    argv += [f"--health-port={_free_port()}", f"--api-serve-addr=127.0.0.1:{_free_port()}"]
    with (directory / "kvstoremesh.log").open("ab") as log:
        return subprocess.Popen(argv, stdout=log, stderr=log)


async def until_there(near: EtcdStore, key: str, value: bytes | None = None) -> None:
    """The key is in the store: at once when it is, else by the watch."""
    start = (await near.status()).revision
    row = await near.get(key)
    if row is not None and value in (None, row.value):
        return
    async for batch in near.watch(key, start + 1, exact=True):
        for event in batch.events:
            if isinstance(event, Put) and value in (None, event.row.value):
                return


async def _check(far: EtcdStore, near: EtcdStore) -> None:
    """Raises ``RuntimeError`` unless the copy is the source, value for value."""
    there = (await far.range(keys.resource_prefix(keys.IP, "far"))).rows
    here = (await near.range(keys.resource_prefix(keys.IP, "far", cached=True))).rows
    if len(there) != KEYS or [r.value for r in here] != [r.value for r in there]:
        raise RuntimeError(f"{len(here)} rows of the copy are not the {len(there)} of the source")


async def _bootstrap(directory: Path, far: EtcdStore, near: EtcdStore, urls: list[str]) -> Run:
    """From the start of the process to the canary."""
    await _fill(far, 1)
    start = time.monotonic()
    process = _start(directory, *urls)
    try:
        await until_there(near, keys.canary("far", keys.NODES, cached=True))
        idle_s, idle_cpu_s = time.monotonic() - start, _cpu_s(process.pid)
        await until_there(near, keys.canary("far", keys.IP, cached=True))
        run = Run(time.monotonic() - start, _cpu_s(process.pid), idle_s, idle_cpu_s)
        await _check(far, near)
        return run
    finally:
        process.terminate()
        process.wait()


async def _changes(directory: Path, far: EtcdStore, near: EtcdStore, urls: list[str]) -> Run:
    """From the first put to the last one's arrival, the process following."""
    process = _start(directory, *urls)
    last = keys.resource_prefix(keys.IP, "far") + "end"
    copy = keys.resource_prefix(keys.IP, "far", cached=True) + "end"
    try:
        await far.put(last, b"0")
        await until_there(near, copy, b"0")
        start, cpu = time.monotonic(), _cpu_s(process.pid)
        await _fill(far, 2)
        written_s = time.monotonic() - start
        await far.put(last, b"1")
        await until_there(near, copy, b"1")
        run = Run(time.monotonic() - start, _cpu_s(process.pid) - cpu, written_s, 0)
        await far.delete(last)
        while await near.get(copy) is not None:  # noqa: ASYNC110 - a figure is not taken here
            await asyncio.sleep(0.01)
        await _check(far, near)
        return run
    finally:
        process.terminate()
        process.wait()


async def _measure(directory: Path, urls: list[str]) -> list[Figure]:
    far, near = await _up(urls[0]), await _up(urls[1])
    try:
        config = ClusterConfig(ClusterId(2), Capabilities(True, False, 255, None))
        await far.put(keys.cluster_config("far"), cluster_config_v1.encode(config))
        await far.put(keys.HEARTBEAT, b"now")
        for resource in keys.REQUIRED:
            await far.put(keys.canary("far", resource), b"now")
        first = await _bootstrap(directory, far, near, urls)
        live = await _changes(directory, far, near, urls)
    finally:
        await far.close()
        await near.close()
    detail = {
        "wall_s": round(first.wall_s, 2),
        "cpu_s": round(first.cpu_s, 2),
        "start_s": round(first.before_s, 2),
        "start_cpu_s": round(first.before_cpu_s, 2),
    }
    changes = {
        "wall_s": round(live.wall_s, 2),
        "cpu_s": round(live.cpu_s, 2),
        "writer_s": round(live.before_s, 2),
    }
    return [
        Figure("kvstoremesh.keys_per_s", round(KEYS / first.wall_s), "keys/s", detail),
        Figure("kvstoremesh.keys_per_cpu_s", round(KEYS / first.cpu_s), "keys/CPU s", detail),
        Figure("kvstoremesh.changes_per_s", round(KEYS / live.wall_s), "keys/s", changes),
        Figure("kvstoremesh.changes_per_cpu_s", round(KEYS / live.cpu_s), "keys/CPU s", changes),
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
            yield from asyncio.run(_measure(directory, [url for _, url in stores]))
        finally:
            for process, _ in stores:
                process.kill()
                process.wait()

"""10,000 pods from Kubernetes objects to etcd: the real clustermesh-apiserver, from its start.

API server and mesh etcd (TLS, users) run already; the CiliumEndpoints are in the API server, which
the process finds by its service account, as in a pod. The time is that from the start of the
process until the canary of addresses is in etcd, which it writes when the last of them is there.
"""

import asyncio
import json
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec

from bench.figure import Figure
from bench.kvstoremesh import until_there
from kind.apiserver.storage import PREFIX
from kind.simulate.control_plane import ControlPlane
from kind.simulate.enclosure import ROOT, enclosed, furnish
from kind.simulate.processes import MeshStore, Pki, Process
from kube import resources
from kvstore.config import StoreConfig
from kvstore.etcd import EtcdStore, connect
from model.address import parse_address
from wire.etcd import keys

ENDPOINTS = 10_000
CLUSTER = "near"
KUBE_ETCD = "http://127.0.0.1:2379"
LIMIT_S = 60.0
BATCH = 500


def measure() -> Iterator[Figure]:
    """Seconds by the clock."""
    with tempfile.TemporaryFile() as output:
        if enclosed("bench.publish", [], stdout=output.fileno()).wait():
            raise RuntimeError("nothing was measured; the error is above")
        output.seek(0)
        found = json.load(output)
    yield Figure("publish.endpoints_10k_s", found.pop("wall_s"), "s", found)


def _endpoint(number: int) -> dict[str, Any]:
    address = str(parse_address("10.2.0.0").offset(number))
    now = "2026-01-01T00:00:00Z"
    name = {"name": f"pod-{number}", "namespace": "default", "uid": str(uuid.UUID(int=number))}
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumEndpoint",
        "metadata": {**name, "creationTimestamp": now, "generation": 1},
        "status": {
            "id": number % 60000 + 1,
            "state": "ready",
            "identity": {"id": 0x20100 + number % 100, "labels": ["k8s:app=x"]},
            "networking": {"addressing": [{"ipv4": address}], "node": "192.0.2.7"},
        },
    }


async def _objects() -> None:
    """Into the API server's own store, thousands at a time: it follows that by its watch."""
    store = await connect(StoreConfig((KUBE_ETCD,)))
    place = f"{PREFIX}cilium.io/ciliumendpoints/default"
    for start in range(0, ENDPOINTS, BATCH):
        rows: dict[bytes, bytes | None] = {
            f"{place}/pod-{n}".encode(): msgspec.json.encode(_endpoint(n))
            for n in range(start, start + BATCH)
        }
        await store.write(rows, {})
    await store.close()


async def _inside() -> dict[str, float]:
    plane = ControlPlane()
    async with await plane.start() as api:
        await plane.furnish(0)
        await _objects()
        kind = resources.untyped(resources.CILIUM_ENDPOINTS)
        async with asyncio.timeout(LIMIT_S):
            while len(await api.list(kind)) < ENDPOINTS:  # noqa: ASYNC110 - nothing tells it
                await asyncio.sleep(0.1)
        server = MeshStore(Pki(), CLUSTER, 32379)
        store = await server.start()
        (ROOT / "etcd.yaml").write_text(server.file(f"admin-{CLUSTER}"))
        async with asyncio.timeout(LIMIT_S):
            plane.mount_service_account()
            return await _publish(store)


async def _publish(store: EtcdStore) -> dict[str, float]:
    start = time.monotonic()
    process = Process(
        "clustermesh-apiserver",
        [
            *(sys.executable, "-m", "clustermesh_apiserver", "clustermesh"),
            *(f"--cluster-name={CLUSTER}", "--cluster-id=2", "--health-port=0"),
            f"--kvstore-opt=etcd.config={ROOT / 'etcd.yaml'}",
        ],
    )
    await until_there(store, keys.cluster_config(CLUSTER))
    up_s = time.monotonic() - start
    await until_there(store, keys.canary(CLUSTER, keys.IP))
    wall_s, usage = time.monotonic() - start, process.usage()
    prefix = keys.resource_prefix(keys.IP, CLUSTER)
    count = (await store.range(prefix, limit=1)).count
    process.end()
    if count != ENDPOINTS:
        raise RuntimeError(f"{count} addresses are published, not {ENDPOINTS}")
    return {
        "wall_s": round(wall_s, 2),
        "process_up_s": round(up_s, 2),
        "cpu_s": round(usage.cpu_s, 2),
        "rss_mb": round(usage.rss_mb, 1),
    }


if __name__ == "__main__":
    furnish(own_run=True)
    print(json.dumps(asyncio.run(_inside())), flush=True)

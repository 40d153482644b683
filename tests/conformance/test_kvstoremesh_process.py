"""The real ``clustermesh-apiserver kvstoremesh`` between two real stores: its pages and its end."""

import asyncio
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from model.cluster import ClusterName
from tests.conformance.test_mesh_store import complete, publisher, rows, running
from tests.conformance.test_remotes import configure
from tests.support.etcd import Etcd, free_port, mesh_etcd
from tests.support.kvstoremesh import until
from wire.etcd import keys

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[2]
C2 = ClusterName("c2")


@pytest.fixture
def far() -> Iterator[Etcd]:
    with mesh_etcd("c2") as found:
        yield found


@pytest.fixture
def near() -> Iterator[Etcd]:
    with mesh_etcd("c1") as found:
        yield found


@dataclass
class Mesh:
    """The process and its ports."""

    directory: Path
    health: int
    api: int
    metrics: int
    process: asyncio.subprocess.Process

    async def page(self, port: int, path: str) -> tuple[int, str]:
        def get() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as reply:
                    return reply.status, reply.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()
            except OSError as error:
                return 0, str(error)

        return await asyncio.to_thread(get)

    async def ready(self) -> bool:
        return (await self.page(self.health, "/readyz"))[0] == 200


@asynccontextmanager
async def kvstoremesh(
    directory: Path, near: Etcd, *more: str, stderr: Any = None
) -> AsyncIterator[Mesh]:
    mesh = directory / "mesh"
    mesh.mkdir(exist_ok=True)
    admin = near.user("admin-c1")
    (directory / "near.yaml").write_text(
        f"endpoints:\n- {near.url}\ntrusted-ca-file: {admin.ca_file}\n"
        f"cert-file: {admin.cert_file}\nkey-file: {admin.key_file}\n"
    )
    ports = [free_port() for _ in range(3)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "clustermesh_apiserver", "kvstoremesh"),
        *("--cluster-name=c1", "--cluster-id=1", f"--clustermesh-config={mesh}"),
        *(f"--kvstore-opt=etcd.config={directory / 'near.yaml'}", f"--health-port={ports[0]}"),
        *(f"--api-serve-addr=127.0.0.1:{ports[1]}", f"--prometheus-serve-addr=:{ports[2]}"),
        *more,
        cwd=ROOT,
        env={**os.environ, "K8S_NODE_NAME": "n1"},
        stderr=stderr,
    )
    try:
        yield Mesh(mesh, *ports, process)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        assert await process.wait() in (0, -signal.SIGKILL)


async def test_pages_of_a_copied_cluster(far: Etcd, near: Etcd, tmp_path: Path) -> None:
    """Not ready before the copy is whole; then status, age and metrics tell of it."""
    writer = publisher(far)
    writer.put(rows())
    # However long it takes until it is seen, it must not be given up before.
    patient = "--per-cluster-ready-timeout=10m"
    async with running(writer), kvstoremesh(tmp_path, near, patient) as mesh:
        configure(mesh.directory, C2, far)

        async def connected() -> bool:
            said = json.loads((await mesh.page(mesh.api, "/v1/cluster"))[1] or "[]")
            return bool(said and said[0]["connected"])

        await until(lambda: up(mesh))
        await until(connected)
        assert not await mesh.ready()
        for resource in keys.RESOURCES:
            writer.complete(resource)
        await until(mesh.ready)
        found = json.loads((await mesh.page(mesh.api, "/v1/cluster"))[1])
        assert [c["name"] for c in found] == ["c2"]
        assert found[0]["ready"] is True
        assert found[0]["num-endpoints"] == 1
        assert found[0]["age-seconds"] >= 0
        metrics = (await mesh.page(mesh.metrics, "/metrics"))[1]
        target = '{source_cluster="c1",source_node_name="n1",target_cluster="c2"}'
        assert f"cilium_kvstoremesh_remote_cluster_readiness_status{target} 1" in metrics
        assert (
            'cilium_kvstoremesh_remote_clusters{source_cluster="c1",source_node_name="n1"} 1'
            in metrics
        )
        asked = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "clustermesh_apiserver", "kvstoremesh-dbg", "status"),
            *("--host", f"127.0.0.1:{mesh.api}"),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        assert b"c2: ready, age of data: " in (await asked.communicate())[0]


async def up(mesh: Mesh) -> bool:
    return (await mesh.page(mesh.api, "/v1/cluster"))[0] == 200


async def test_a_cluster_that_does_not_connect_is_not_waited_for(
    far: Etcd, near: Etcd, tmp_path: Path
) -> None:
    """Ready after the time for one cluster, with the cluster named as the one that is missing."""
    (tmp_path / "mesh").mkdir()
    configure(tmp_path / "mesh", C2, far)
    far.kill()
    async with kvstoremesh(tmp_path, near, "--per-cluster-ready-timeout=2s") as mesh:
        await until(mesh.ready)
        assert "cluster c2: " in (await mesh.page(mesh.health, "/healthz"))[1]


async def test_without_clusters_it_is_ready(near: Etcd, tmp_path: Path) -> None:
    """Nothing to copy is nothing to wait for; asking a process that is gone says so."""
    async with kvstoremesh(tmp_path, near) as mesh:
        await until(mesh.ready)
        assert json.loads((await mesh.page(mesh.api, "/v1/cluster"))[1]) == []
    asked = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "clustermesh_apiserver", "kvstoremesh-dbg", "status"),
        *("--host", f"127.0.0.1:{mesh.api}"),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    said = (await asked.communicate())[1].decode()
    assert asked.returncode == 1
    assert "does kvstoremesh run?" in said


async def test_killed_it_takes_over_its_copy(far: Etcd, near: Etcd, tmp_path: Path) -> None:
    """``kill -9``, and the next process finds everything as it was and writes no row again."""
    writer = publisher(far)
    complete(writer, rows())
    async with running(writer):
        store = await near.store("admin-c1")
        before: list[tuple[str, int]] = []
        for attempt in range(2):
            async with kvstoremesh(tmp_path, near) as mesh:
                configure(mesh.directory, C2, far)
                await until(mesh.ready)
                held = (await store.range(keys.CACHE_PREFIX)).rows
                found = [(row.key, row.mod_revision) for row in held]
                assert len(found) == len(rows())
                assert not attempt or found == before
                before = found
                mesh.process.kill()
                await mesh.process.wait()
        await store.close()

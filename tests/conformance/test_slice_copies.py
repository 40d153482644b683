"""Slices of other clusters' backends, between a real API server and real stores."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster_operator.config import Settings
from cluster_operator.slices import Controller
from kube.client import HttpClient
from kube.resources import ENDPOINT_SLICES, SERVICES, untyped
from kvstore.etcd import EtcdStore
from model.address import parse_address
from model.cluster import Capabilities, ClusterConfig, ClusterId, ClusterName
from model.service import L4, Protocol, ServiceName, SharedService
from reconcile.tasks import TaskGroup
from tests.support.kube import Api
from tests.support.lab_api import lab_api
from tests.support.mesh_store import MeshStore, mesh_store
from wire.etcd import cluster_config_v1, keys, service_v1

WAIT_S = 40.0
C2 = ClusterName("c2")
WEB = ServiceName("default", "web")
GLOBAL, SYNC = "service.cilium.io/global", "service.cilium.io/global-sync-endpoint-slices"
MANAGER = "endpointslice-mesh-controller.cilium.io"


@dataclass
class World:
    """This cluster's API server, and the store of another cluster."""

    kube: HttpClient
    remote: EtcdStore  # as that cluster writes it
    settings: Settings
    api: Api

    async def service(self, **annotations: str) -> None:
        """A headless service; global unless said otherwise."""
        told = {GLOBAL: "true"} | {k.replace("_", "-"): v for k, v in annotations.items()}
        body = {
            "metadata": {"name": "web", "namespace": "default", "annotations": told},
            "spec": {"clusterIP": "None", "ports": [{"name": "http", "port": 80}]},
        }
        await self.kube.create(untyped(SERVICES), body)

    async def annotate(self, key: str, value: str | None) -> None:
        patch = {"metadata": {"annotations": {key: value}}}
        await self.kube.patch(untyped(SERVICES), "web", patch, "default")

    async def hear(self, *hosts: int, name: ServiceName = WEB, **fields: Any) -> None:
        """The other cluster has these backends."""
        ports = {"http": L4(8080, Protocol.TCP)}
        backends = {parse_address(f"10.2.0.{host}"): ports for host in hosts}
        said = SharedService(C2, ClusterId(2), name, backends=backends, **fields)
        await self.remote.put(keys.service(C2, name), service_v1.encode(said))

    async def synced(self) -> None:
        await self.remote.put(keys.canary(C2, keys.SERVICES), b"now")

    async def slices(self) -> list[dict[str, Any]]:
        found = await self.kube.list(untyped(ENDPOINT_SLICES), "default")
        return [s for s in found if s["metadata"]["labels"]["kubernetes.io/service-name"] == "web"]

    async def copied(self) -> list[str]:
        """Addresses in slices of the mesh."""
        return sorted(
            address
            for one in await self.slices()
            if one["metadata"]["labels"].get("endpointslice.kubernetes.io/managed-by") == MANAGER
            for endpoint in one.get("endpoints") or ()
            for address in endpoint["addresses"]
        )

    async def until(self, *hosts: int) -> None:
        wanted = [f"10.2.0.{host}" for host in hosts]
        deadline = asyncio.get_running_loop().time() + WAIT_S
        while (found := await self.copied()) != wanted:
            assert asyncio.get_running_loop().time() < deadline, f"{found}, not {wanted}"
            await asyncio.sleep(0.03)

    async def holds(self, look: Callable[[], Awaitable[Any]]) -> None:
        """What is there stays while everything else has had its turn."""
        before = await look()
        await asyncio.sleep(1.0)  # several gatherings of 50 ms, with nothing left to do
        assert await look() == before


@asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    async with TaskGroup() as tasks:
        task = tasks.create_task(Controller(world.kube, world.settings).run())
        yield
        task.cancel()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[MeshStore]:
    async with mesh_store(tmp_path / "mesh", "c2") as made:
        yield made


@asynccontextmanager
async def world_in(tmp_path: Path, store: MeshStore) -> AsyncIterator[World]:
    """The other cluster has announced itself, and nothing else."""
    directory = tmp_path / "clustermesh"
    directory.mkdir()
    shutil.copy(store.config("remote"), directory / "c2")
    remote = await store.connect("admin-c2")
    config = ClusterConfig(ClusterId(2), Capabilities(synced_canaries=True))
    await remote.put(keys.cluster_config(C2), cluster_config_v1.encode(config))
    await remote.put(keys.HEARTBEAT, b"now")
    async with lab_api(tmp_path) as api, await api.direct() as kube:
        yield World(
            kube,
            remote,
            Settings(
                clustermesh_config=str(directory),
                cluster_name="c1",
                cluster_id=1,
                clustermesh_endpoint_updates_batch_period_s=0.05,
                clustermesh_endpoints_per_slice=2,
            ),
            api,
        )
    await remote.close()


@pytest.fixture
async def world(tmp_path: Path, store: MeshStore) -> AsyncIterator[World]:
    async with world_in(tmp_path, store) as made:
        yield made


async def test_slices_follow_the_other_cluster(world: World) -> None:
    """Backends come, change and go; so does the service, here or there."""
    await world.synced()
    async with running(world):
        await world.hear(1, 2, 3, hostnames={parse_address("10.2.0.1"): "web-0"})
        await world.service()
        await world.until(1, 2, 3)
        first = await world.slices()
        assert sorted(len(one["endpoints"]) for one in first) == [1, 2]
        (named,) = [e for one in first for e in one["endpoints"] if e.get("hostname")]
        assert (named["hostname"], named["addresses"]) == ("web-0", ["10.2.0.1"])
        for one in first:
            assert one["metadata"]["labels"]["multicluster.kubernetes.io/source-cluster"] == "c2"
            assert one["metadata"]["ownerReferences"][0]["kind"] == "Service"
        await world.hear(1, 3, 4)
        await world.until(1, 3, 4)
        await world.remote.delete(keys.service(C2, WEB))
        await world.until()
        await world.hear(5)
        await world.until(5)
        await world.kube.delete(SERVICES, "web", "default")
        await world.until()


async def test_annotations_decide(world: World) -> None:
    """Not global, or told not to: no slices, and those there were go."""
    await world.synced()
    await world.hear(1)
    async with running(world):
        await world.service()
        await world.until(1)
        await world.annotate(SYNC, "false")
        await world.until()
        await world.annotate(SYNC, None)
        await world.until(1)
        await world.annotate(GLOBAL, "false")
        await world.until()


async def test_silence_takes_nothing_away(world: World) -> None:
    """After a restart, slices stay until their cluster has spoken; then the truth is in force."""
    await world.synced()
    await world.hear(1, 2)
    await world.service()
    async with running(world):
        await world.until(1, 2)
        await world.holds(world.slices)  # what stands is not written again
    await world.remote.delete(keys.canary(C2, keys.SERVICES))
    await world.hear(2, 3)
    async with running(world):
        await world.holds(world.copied)
        assert await world.copied() == ["10.2.0.1", "10.2.0.2"]
        await world.synced()
        await world.until(2, 3)


async def test_what_a_cluster_left_behind(world: World) -> None:
    """Disconnected while we run, or while we did not: its slices go, those of others stay."""
    await world.synced()
    await world.hear(1)
    await world.service()
    foreign = {
        "metadata": {
            "name": "web-own",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.0.9"]}],
        "ports": [],
    }
    await world.kube.create(untyped(ENDPOINT_SLICES), foreign)
    file = Path(world.settings.clustermesh_config) / "c2"
    text = file.read_bytes()
    for while_running in (True, False):
        file.write_bytes(text)
        async with running(world):
            await world.until(1)
            if while_running:
                file.unlink()
                await world.until()
        if not while_running:
            file.unlink()
            async with running(world):
                await world.until()
    assert [one["metadata"]["name"] for one in await world.slices()] == ["web-own"]

"""Metrics of the real operator between a real API server and a real store.

The tables are the published lists of Cluster Mesh and of the operator: name, type, labels.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from kube.resources import PODS
from model.cluster import Capabilities, ClusterConfig, ClusterId
from model.service import ServiceName
from tests.conformance.test_slice_copies import C2, World, world_in
from tests.support.lab_api import free_port, stop
from tests.support.mesh_store import MeshStore, mesh_store
from tests.support.metrics_page import Scraped, Wanted, check, parse
from wire.etcd import cluster_config_v1, keys

pytestmark = pytest.mark.root

PREFIX = "cilium_operator_"
MESH = f"{PREFIX}clustermesh_"
OF_MESH: Wanted = {
    "remote_clusters": ("gauge", "source_cluster"),
    "remote_cluster_failures": ("gauge", "source_cluster target_cluster"),
    "remote_cluster_last_failure_ts": ("gauge", "source_cluster target_cluster"),
    "remote_cluster_readiness_status": ("gauge", "source_cluster target_cluster"),
    "global_services": ("gauge", "source_cluster"),
    "global_service_exports": ("gauge", "source_cluster"),
    "remote_cluster_global_services": ("gauge", "source_cluster target_cluster"),
    "remote_cluster_service_exports": ("gauge", "source_cluster target_cluster"),
    "endpoints_added_per_sync": ("histogram", ""),
    "endpoints_removed_per_sync": ("histogram", ""),
    "endpointslices_changed_per_sync": ("histogram", "topology"),
    "endpoint_slice_changes": ("counter", "operation"),
    "endpoint_slice_syncs": ("counter", "result"),
    "endpoints_desired": ("gauge", ""),
    "num_endpoint_slices": ("gauge", ""),
    "desired_endpoint_slices": ("gauge", ""),
}
OF_OPERATOR: Wanted = {
    "identity_gc_entries": ("gauge", "status identity_type"),
    "identity_gc_runs": ("gauge", "outcome identity_type"),
    "identity_gc_latency": ("gauge", "outcome identity_type"),
    "unmanaged_pods": ("gauge", ""),
    "controllers_group_runs_total": ("counter", "status group_name"),
    "kvstore_operations_duration_seconds": ("histogram", "scope kind action outcome"),
    "kvstore_events_queue_seconds": ("histogram", "scope action"),
    "kvstore_quorum_errors_total": ("counter", "error"),
}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[MeshStore]:
    async with mesh_store(tmp_path / "mesh", "c2") as made:
        yield made


@pytest.fixture
async def world(tmp_path: Path, store: MeshStore) -> AsyncIterator[World]:
    async with world_in(tmp_path, store) as made:
        said = Capabilities(synced_canaries=True, service_exports=True)
        config = cluster_config_v1.encode(ClusterConfig(ClusterId(2), said))
        await made.remote.put(keys.cluster_config(C2), config)
        yield made


@pytest.fixture
async def port(world: World) -> AsyncIterator[int]:
    """Where the metrics of a running operator are."""
    place, settings = free_port(), world.settings
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cluster_operator",
        f"--kubeconfig={world.api.kubeconfig}",
        "--operator-api-serve-addr=127.0.0.1:0",
        f"--operator-prometheus-serve-addr=127.0.0.1:{place}",
        "--cluster-name=c1",
        "--cluster-id=1",
        f"--clustermesh-config={settings.clustermesh_config}",
        "--clustermesh-enable-endpoint-sync=true",
        "--clustermesh-enable-mcs-api=true",
        "--clustermesh-endpoint-updates-batch-period=50ms",
        "--clustermesh-endpoints-per-slice=2",
        "--cilium-endpoint-gc-interval=200ms",
        "--identity-gc-interval=200ms",
    )
    try:
        yield place
    finally:
        await stop(process)
    assert process.returncode == 0


async def until(
    port: int, what: str, holds: Callable[[dict[str, Scraped]], bool]
) -> dict[str, Scraped]:
    """The page, once it shows something."""
    text = ""
    async with aiohttp.ClientSession() as http:
        for _ in range(500):
            try:
                async with http.get(f"http://127.0.0.1:{port}/metrics") as answer:
                    text = await answer.text()
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.1)
                continue
            if text and holds(found := parse(text)):
                return found
            await asyncio.sleep(0.1)
    raise AssertionError(f"{what}: {text}")


def value(found: dict[str, Scraped], name: str, **labels: str) -> float:
    return found[name].total(**labels)


async def test_the_operator_has_every_metric(world: World, port: int, store: MeshStore) -> None:
    """Names, types and labels; and what has happened, counted."""
    containers = [{"name": "one", "image": "pause"}]
    meta = {"name": "lost", "namespace": "default"}
    pod = {"metadata": meta, "spec": {"containers": containers}}
    await world.kube.create(PODS, pod)
    await world.kube.patch_status(PODS, "lost", {"phase": "Running"}, "default")
    await world.hear(1, 2, 3)
    await world.hear(9, name=ServiceName("default", "unknown here"))
    await world.synced()
    await world.remote.put(keys.canary(C2, keys.SERVICE_EXPORTS), b"now")
    await world.service()
    await world.until(1, 2, 3)
    here = {"source_cluster": "c1", "target_cluster": "c2"}
    found = await until(
        port,
        "read, copied and collected",
        lambda page: (
            value(page, f"{MESH}remote_cluster_readiness_status", **here) == 1
            and value(page, f"{MESH}num_endpoint_slices") == 2
            and value(page, f"{PREFIX}unmanaged_pods") == 1
            and value(page, f"{PREFIX}identity_gc_runs", outcome="success") > 1
        ),
    )
    check(found, MESH, OF_MESH)
    check(found, PREFIX, OF_OPERATOR)
    assert value(found, f"{MESH}remote_clusters", source_cluster="c1") == 1
    assert value(found, f"{MESH}global_services", source_cluster="c1") == 2
    assert value(found, f"{MESH}remote_cluster_global_services", **here) == 2
    assert value(found, f"{MESH}global_service_exports", source_cluster="c1") == 0
    assert value(found, f"{MESH}endpoints_desired") == 3
    assert value(found, f"{MESH}desired_endpoint_slices") == 2
    assert value(found, f"{MESH}endpoint_slice_changes", operation="create") == 2
    assert value(found, f"{MESH}endpoint_slice_syncs", result="success") >= 1
    assert value(found, f"{MESH}endpoints_added_per_sync") >= 1
    gets = f"{PREFIX}kvstore_operations_duration_seconds"
    assert value(found, gets, scope="services/v1", action="listPrefix", outcome="success") >= 1
    await world.hear(1)
    await world.until(1)
    found = await until(
        port,
        "fewer slices, and that both calls are done",
        lambda page: (
            value(page, f"{MESH}num_endpoint_slices") == 1
            and value(page, f"{MESH}endpoint_slice_changes", operation="delete") >= 1
            and value(page, f"{MESH}endpoint_slice_changes", operation="update") >= 1
        ),
    )
    assert value(found, f"{MESH}endpoints_desired") == 1
    assert value(found, f"{MESH}endpoint_slice_changes", operation="delete") == 1
    assert value(found, f"{MESH}endpoint_slice_changes", operation="update") == 1
    await store.stop()
    lost = await until(
        port,
        "the store is gone",
        lambda page: (
            value(page, f"{MESH}remote_cluster_failures", **here) > 0
            and value(page, f"{MESH}remote_cluster_last_failure_ts", **here) > 0
        ),
    )
    assert value(lost, f"{MESH}remote_cluster_readiness_status", **here) == 0
    assert value(lost, f"{MESH}endpoints_desired") == 1  # silence takes nothing away

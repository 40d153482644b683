"""Metrics and health of the real processes, held against the published lists of Cluster Mesh.

The tables below are those lists: name, type, labels.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.conformance.test_clustermesh_apiserver import EXPECTED, World, populate, world_in
from tests.conformance.test_kvstoremesh_process import C2, kvstoremesh
from tests.conformance.test_mesh_store import complete, publisher, rows, running
from tests.conformance.test_remotes import configure
from tests.support.etcd import Etcd, mesh_etcd
from tests.support.kvstoremesh import until
from tests.support.metrics_page import Wanted, check, parse
from wire.etcd import keys

pytestmark = pytest.mark.root

STORES: Wanted = {
    "bootstrap_seconds": ("gauge", "source_cluster"),
    "kvstore_operations_duration_seconds": ("histogram", "scope kind action outcome"),
    "kvstore_events_queue_seconds": ("histogram", "scope action"),
    "kvstore_quorum_errors_total": ("counter", "error"),
    "kvstore_sync_queue_size": ("gauge", "scope source_cluster"),
    "kvstore_sync_errors_total": ("counter", "scope source_cluster"),
    "kvstore_initial_sync_completed": ("gauge", "scope source_cluster action"),
    "api_limiter_processed_requests_total": ("counter", "api_call outcome return_code"),
    "api_limiter_processing_duration_seconds": ("gauge", "api_call value"),
    "api_limiter_rate_limit": ("gauge", "api_call value"),
    "api_limiter_requests_in_flight": ("gauge", "api_call value"),
    "api_limiter_wait_duration_seconds": ("gauge", "api_call value"),
    "controllers_group_runs_total": ("counter", "status group_name"),
}
COPIES: Wanted = {
    "remote_clusters": ("gauge", "source_cluster source_node_name"),
    "remote_cluster_failures": ("gauge", "source_cluster source_node_name target_cluster"),
    "remote_cluster_last_failure_ts": ("gauge", "source_cluster source_node_name target_cluster"),
    "remote_cluster_readiness_status": ("gauge", "source_cluster source_node_name target_cluster"),
}
APISERVER, KVSTOREMESH = "cilium_clustermesh_apiserver_", "cilium_kvstoremesh_"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_in(tmp_path) as made:
        yield made


@pytest.fixture
def far() -> Iterator[Etcd]:
    with mesh_etcd("c2") as found:
        yield found


@pytest.fixture
def near() -> Iterator[Etcd]:
    with mesh_etcd("c1") as found:
        yield found


async def test_the_publisher_has_every_metric(world: World) -> None:
    """Names, types and labels; and numbers where something has happened."""
    publisher = world.publisher
    await populate(world.kube)
    await publisher.listen("event=ready")
    await world.until(lambda found: found == EXPECTED)
    assert await publisher.page(publisher.health, "/readyz") == (200, "Ready\n")
    assert (await publisher.page(publisher.health, "/healthz"))[0] == 200
    await publisher.page(publisher.metrics, "/metrics")
    # What others can read already is queued until the store has answered.
    found = parse((await publisher.page(publisher.metrics, "/metrics"))[1])
    async with asyncio.timeout(30):
        while found[f"{APISERVER}kvstore_sync_queue_size"].total():
            found = parse((await publisher.page(publisher.metrics, "/metrics"))[1])
    check(found, APISERVER, STORES)

    def total(name: str, **labels: str) -> float:
        return found[APISERVER + name].total(**labels)

    assert total("bootstrap_seconds", source_cluster="c1") > 0
    for kind in ("nodes", "identities", "ip", "services", "serviceexports"):
        for action in ("read", "write") if kind != "serviceexports" else ("write",):
            labels = {"scope": f"{kind}/v1", "action": action, "source_cluster": "c1"}
            assert total("kvstore_initial_sync_completed", **labels) == 1, labels
    written = {"kind": "set", "outcome": "success"}
    duration = "kvstore_operations_duration_seconds"
    assert sum(total(duration, scope=f"{k}/v1", **written) for k in keys.REQUIRED) > 0
    assert total(duration, kind="read", action="listPrefix", outcome="success") > 0
    assert total(duration, scope="leases", action="grant", outcome="success") > 0
    assert total("kvstore_sync_queue_size") == 0
    assert total("kvstore_sync_errors_total") == 0
    assert total("controllers_group_runs_total", status="success", group_name="kvstore-etcd") == 1
    assert total("api_limiter_processed_requests_total", api_call="/readyz", return_code="200") == 1
    assert total("api_limiter_processing_duration_seconds", api_call="/readyz", value="mean") > 0
    assert total("api_limiter_requests_in_flight", api_call="/metrics", value="in-flight") == 1

    await world.store.stop()
    lost = await _until_failure(world)
    assert lost > 0


async def _until_failure(world: World) -> float:
    """Errors of a store that is gone, of every kind that counts them."""
    publisher = world.publisher
    async with asyncio.timeout(60):
        while True:
            found = parse((await publisher.page(publisher.metrics, "/metrics"))[1])
            errors = found[f"{APISERVER}kvstore_sync_errors_total"].total()
            runs = found[f"{APISERVER}controllers_group_runs_total"].total(
                status="failure", group_name="kvstore-etcd"
            )
            quorum = found[f"{APISERVER}kvstore_quorum_errors_total"].total()
            if errors and runs and quorum:
                # A store that is gone makes no restart: it stays ready, and says why.
                assert (await publisher.page(publisher.health, "/readyz"))[0] == 200
                assert "store: " in (await publisher.page(publisher.health, "/healthz"))[1]
                return errors
            await asyncio.sleep(0.1)


async def test_kvstoremesh_has_every_metric(far: Etcd, near: Etcd, tmp_path: Path) -> None:
    """The same, and those of each remote cluster, through a loss of one."""
    writer = publisher(far)
    complete(writer, rows())
    async with running(writer), kvstoremesh(tmp_path, near) as mesh:
        configure(mesh.directory, C2, far)
        await until(mesh.ready)
        assert (await mesh.page(mesh.health, "/readyz")) == (200, "Ready\n")
        assert (await mesh.page(mesh.health, "/healthz")) == (200, "ok\n")

        async def number(name: str, **labels: str) -> float:
            found = parse((await mesh.page(mesh.metrics, "/metrics"))[1])
            return found[KVSTOREMESH + name].total(**labels)

        await mesh.page(mesh.metrics, "/metrics")
        found = parse((await mesh.page(mesh.metrics, "/metrics"))[1])
        check(found, KVSTOREMESH, {**STORES, **COPIES})
        assert await number("bootstrap_seconds", source_cluster="c1") > 0
        assert await number("remote_clusters", source_cluster="c1") == 1
        target = {"source_cluster": "c1", "target_cluster": "c2"}
        assert await number("remote_cluster_readiness_status", **target) == 1
        assert await number("remote_cluster_failures", **target) == 0
        assert await number("remote_cluster_last_failure_ts", **target) == 0
        assert await number("certificate_expiration_timestamp_seconds", **target) > time.time()
        for kind in keys.RESOURCES:
            for action in ("read", "write"):
                labels = {"scope": f"{kind}/v1", "source_cluster": "c2", "action": action}
                assert await number("kvstore_initial_sync_completed", **labels) == 1
        duration = "kvstore_operations_duration_seconds"
        assert await number(duration, scope="ip/v1", kind="read", action="listPrefix") > 0
        assert await number(duration, kind="set", action="transaction", outcome="success") > 0
        connected = {"status": "success", "group_name": "remote-etcd"}
        assert await number("controllers_group_runs_total", **connected) == 1

        store = await far.store("admin-c2")
        await store.put(address_key(rows()), b"changed")
        await store.close()

        async def seen() -> bool:
            return await number("kvstore_events_queue_seconds", scope="ip/v1", action="modify") > 0

        await until(seen)
        far.kill()

        async def lost() -> bool:
            return await number("remote_cluster_readiness_status", **target) == 0

        async def counted() -> bool:
            return await number("kvstore_quorum_errors_total") > 0

        await until(lost)
        await until(counted)
        assert await number("remote_cluster_failures", **target) == 1
        assert await number("remote_cluster_last_failure_ts", **target) > 1_700_000_000
        # What agents read stays, so they are still sent here; the page says what is wrong.
        assert (await mesh.page(mesh.health, "/readyz"))[0] == 200
        assert "cluster c2: " in (await mesh.page(mesh.health, "/healthz"))[1]


def address_key(found: dict[str, bytes]) -> str:
    """The key of an address."""
    return next(k for k in found if k.startswith("cilium/state/ip/v1/default/"))


async def test_log_lines_are_json_and_hold_no_secret(far: Etcd, near: Etcd, tmp_path: Path) -> None:
    """All that a process says at its loudest, through a loss, and no text of a key is in it."""
    writer = publisher(far)
    complete(writer, rows())
    log = tmp_path / "log"
    with log.open("wb") as stream:
        options = ("--log-opt=format=json-ts,level=debug", "--debug=true")
        async with (
            running(writer),
            kvstoremesh(tmp_path, near, *options, stderr=stream) as mesh,
        ):
            configure(mesh.directory, C2, far)
            await until(mesh.ready)
            far.kill()

            async def lost() -> bool:
                return b"remote_lost" in log.read_bytes()

            await until(lost)
    text = log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert {"time", "level", "subsys"} <= set.intersection(*(set(line) for line in lines))
    assert any(line.get("event") == "remote_lost" and line["level"] == "warning" for line in lines)
    assert any(line.get("event") == "ready" for line in lines)
    for directory in (far.directory, near.directory):
        for key in directory.glob("*.key"):
            secret = "".join(key.read_text().splitlines()[1:-1])
            assert secret[:40] not in text
            assert secret[-40:] not in text
    assert "PRIVATE KEY" not in text

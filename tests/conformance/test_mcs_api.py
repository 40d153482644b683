"""Service exports between a real API server and real stores: published, read, made real."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cluster_operator import crds, multicluster, multicluster_crds
from cluster_operator.config import Settings
from cluster_operator.exports import Controller
from cluster_operator.install import install_all
from kube.client import HttpClient
from kube.port import ApiError, PatchKind
from kube.resources import (
    CRDS,
    ENDPOINT_SLICES,
    NAMESPACES,
    SERVICE_EXPORTS,
    SERVICE_IMPORTS,
    SERVICES,
    untyped,
)
from kvstore.etcd import EtcdStore
from model.cluster import Capabilities, ClusterConfig, ClusterId, ClusterName
from model.service import Protocol, ServiceName
from model.service_export import ExportedPort, ExportType, ServiceExport
from reconcile.tasks import TaskGroup
from tests.conformance.test_clustermesh_apiserver import Publisher
from tests.support.lab_api import lab_api
from tests.support.mesh_store import MeshStore, mesh_store
from wire.etcd import cluster_config_v1, keys, service_export_v1

WAIT_S = 40.0
C2 = ClusterName("c2")
SHOP = ServiceName("default", "shop")
OLD, YOUNG = datetime(2020, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)
DERIVED = multicluster.derived_name(SHOP)


@dataclass
class World:
    """This cluster's API server, and the store of another cluster."""

    kube: HttpClient
    remote: EtcdStore  # as that cluster writes it
    settings: Settings

    async def get(self, resource: Any, name: str) -> dict[str, Any]:
        try:
            return await self.kube.get(untyped(resource), name, "default")
        except ApiError as error:
            if not error.not_found:
                raise
            return {}

    async def until(
        self, what: str, look: Callable[[], Awaitable[Any]], timeout_s: float = WAIT_S
    ) -> Any:
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not (found := await look()):
            assert asyncio.get_running_loop().time() < deadline, f"not in {timeout_s} s: {what}"
            await asyncio.sleep(0.03)
        return found

    async def conditions(self, name: str = "shop") -> dict[str, tuple[str, str]]:
        export = await self.get(SERVICE_EXPORTS, name)
        listed = export.get("status", {}).get("conditions", [])
        return {c["type"]: (c["status"], c["reason"]) for c in listed}

    async def export(self, name: str = "shop", **spec: Any) -> None:
        body = {"metadata": {"name": name, "namespace": "default"}, "spec": spec}
        await self.kube.create(untyped(SERVICE_EXPORTS), _kind(body))

    async def service(self, name: str = "shop", **spec: Any) -> None:
        made = {
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        }
        body = {"metadata": {"name": name, "namespace": "default"}, "spec": made | spec}
        await self.kube.create(untyped(SERVICES), body)

    async def hear(self, name: ServiceName = SHOP, created: datetime = OLD, **fields: Any) -> None:
        """The other cluster exports."""
        made = {"ports": (ExportedPort(80, Protocol.TCP, "http"),)} | fields
        export = ServiceExport(C2, name, created, **made)
        await self.remote.put(keys.service_export(C2, name), service_export_v1.encode(export))

    async def withdraw(self, name: ServiceName = SHOP) -> None:
        await self.remote.delete(keys.service_export(C2, name))


def _kind(body: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "multicluster.x-k8s.io/v1alpha1", "kind": "ServiceExport"} | body


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


@pytest.fixture
async def world(tmp_path: Path, store: MeshStore) -> AsyncIterator[World]:
    directory = tmp_path / "clustermesh"
    directory.mkdir()
    shutil.copy(store.config("remote"), directory / "c2")
    remote = await store.connect("admin-c2")
    config = ClusterConfig(ClusterId(2), Capabilities(synced_canaries=True, service_exports=True))
    await remote.put(keys.cluster_config(C2), cluster_config_v1.encode(config))
    await remote.put(keys.HEARTBEAT, b"now")
    async with lab_api(tmp_path) as api, await api.direct() as kube:
        await install_all(kube, 20, (*crds.definitions(), *multicluster_crds.definitions()))
        settings = Settings(clustermesh_config=str(directory), cluster_name="c1", cluster_id=1)
        yield World(kube, remote, settings)
    await remote.close()


async def synced(world: World) -> None:
    await world.remote.put(keys.canary(C2, keys.SERVICE_EXPORTS), b"now")


async def test_an_import_comes_with_the_first_export_and_goes_with_the_last(world: World) -> None:
    """Remote, both, local only, none: the import, its Service, whose it is."""
    await synced(world)
    async with running(world):
        await world.hear()

        async def imported() -> dict[str, Any]:
            found = await world.get(SERVICE_IMPORTS, "shop")
            return found if found.get("spec", {}).get("ips") and found.get("status") else {}

        made = await world.until("imported", imported)
        assert made["spec"]["type"] == "ClusterSetIP"
        assert made["spec"]["ports"] == [{"name": "http", "port": 80, "protocol": "TCP"}]
        assert made["status"] == {"clusters": [{"cluster": "c2"}]}
        annotations = made["metadata"]["annotations"]
        assert annotations["multicluster.kubernetes.io/derived-service"] == DERIVED
        service = await world.get(SERVICES, DERIVED)
        assert service["spec"]["clusterIP"] == made["spec"]["ips"][0]
        assert not service["spec"].get("selector")
        assert service["metadata"]["annotations"]["service.cilium.io/global"] == "true"
        assert service["metadata"]["labels"] == {
            "multicluster.kubernetes.io/service-name": "shop",
            "multicluster.kubernetes.io/source-cluster": "c1",
        }
        assert service["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]

        await world.service()
        await world.export(exportedLabels={"team": "shop"})

        async def of_both() -> bool:
            found = await world.get(SERVICE_IMPORTS, "shop")
            return found["status"]["clusters"] == [{"cluster": "c1"}, {"cluster": "c2"}]

        await world.until("of both", of_both)

        async def selects() -> bool:
            spec = (await world.get(SERVICES, DERIVED))["spec"]
            return (
                spec.get("selector") == {"app": "shop"} and spec["ports"][0]["targetPort"] == 8080
            )

        await world.until("its own pods are behind it", selects)

        async def told() -> bool:
            return await world.conditions() == {
                "Valid": ("True", "Valid"),
                "Ready": ("True", "Exported"),
                "Conflict": ("True", "LabelsConflict"),
            }

        await world.until("told", told)
        await world.withdraw()

        async def agreed() -> bool:
            return await world.conditions() == {
                "Valid": ("True", "Valid"),
                "Ready": ("True", "Exported"),
            }

        await world.until("nobody is left to disagree", agreed)

        async def labelled() -> bool:
            found = await world.get(SERVICE_IMPORTS, "shop")
            return bool(found["metadata"].get("labels") == {"team": "shop"})

        await world.until("its labels count", labelled)
        await world.kube.delete(SERVICE_EXPORTS, "shop", "default")

        async def gone() -> bool:
            return not (
                await world.get(SERVICE_IMPORTS, "shop") or await world.get(SERVICES, DERIVED)
            )

        await world.until("all is gone", gone)


async def test_what_stands_still_is_not_written(world: World) -> None:
    """Once all is in order no request follows another."""
    await synced(world)
    await world.service()
    await world.export()
    await world.hear()
    async with running(world):

        async def ready() -> bool:
            found = await world.get(SERVICE_IMPORTS, "shop")
            return len(found.get("status", {}).get("clusters", [])) == 2

        await world.until("imported", ready)

        async def still() -> bool:
            before = [await world.get(r, n) for r, n in _three()]
            await asyncio.sleep(0.7)
            return [await world.get(r, n) for r, n in _three()] == before

        await world.until("all is in order", still)
        assert await still()


def _three() -> tuple[tuple[Any, str], ...]:
    return (SERVICE_IMPORTS, "shop"), (SERVICES, DERIVED), (SERVICE_EXPORTS, "shop")


async def test_silence_takes_nothing_away(world: World) -> None:
    """An import of a cluster not heard since the start stays; its word that it is gone counts."""
    await synced(world)
    await world.hear()
    async with running(world):
        await world.until("imported", lambda: world.get(SERVICES, DERIVED))

        async def listed() -> bool:
            return bool((await world.get(SERVICE_IMPORTS, "shop")).get("status"))

        await world.until("listed", listed)
    await world.remote.delete(keys.canary(C2, keys.SERVICE_EXPORTS))
    await world.withdraw()
    async with running(world):
        await asyncio.sleep(1.5)
        assert await world.get(SERVICE_IMPORTS, "shop")
        assert await world.get(SERVICES, DERIVED)
        await synced(world)

        async def gone() -> bool:
            return not await world.get(SERVICES, DERIVED)

        await world.until("gone", gone)


async def test_only_where_the_namespace_is(world: World) -> None:
    """It is not made for an import, but an import comes with it."""
    name = ServiceName("later", "shop")
    await synced(world)
    await world.hear(name)
    await world.hear()
    async with running(world):
        await world.until("the other is imported", lambda: world.get(SERVICES, DERIVED))
        assert await world.kube.list(untyped(SERVICE_IMPORTS), "later") == []
        await world.kube.create(untyped(NAMESPACES), {"metadata": {"name": "later"}})
        await world.until("imported", lambda: world.kube.list(untyped(SERVICE_IMPORTS), "later"))


async def test_the_oldest_decides_and_its_type_changes_the_service(world: World) -> None:
    """Headless by the older export: no address; ClusterSetIP once that one is withdrawn."""
    await synced(world)
    await world.hear(type=ExportType.HEADLESS)
    await world.service(ports=[{"name": "http", "port": 80}, {"name": "more", "port": 81}])
    await world.export()
    async with running(world):

        async def headless() -> bool:
            service = await world.get(SERVICES, DERIVED)
            return bool(service) and service["spec"]["clusterIP"] == "None"

        await world.until("headless", headless)

        async def told() -> bool:
            return (await world.conditions()).get("Conflict") == ("True", "TypeConflict")

        await world.until("the conflict is told", told)

        async def unaddressed() -> bool:
            return "ips" not in (await world.get(SERVICE_IMPORTS, "shop"))["spec"]

        await world.until("it has no address", unaddressed)
        await world.withdraw()

        async def addressed() -> bool:
            found = await world.get(SERVICE_IMPORTS, "shop")
            return bool(found["spec"].get("ips")) and found["spec"]["type"] == "ClusterSetIP"

        await world.until("it has an address", addressed)


async def slice_(world: World, name: str, *hosts: int) -> None:
    """What Kubernetes writes of a StatefulSet behind ``shop``."""
    body = {
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "shop"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [f"10.1.0.{h}"], "hostname": f"shop-{h}"} for h in hosts],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }
    await world.kube.patch(
        untyped(ENDPOINT_SLICES),
        name,
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice"} | body,
        "default",
        kind=PatchKind.APPLY,
        field_manager="test",
    )


async def test_pods_of_a_headless_export_keep_their_names(world: World) -> None:
    """Under the Service behind the import; with no selector, so that nobody writes others."""
    await synced(world)
    await world.service(clusterIP="None")
    await slice_(world, "shop-a", 1, 2)
    label = f"kubernetes.io/service-name={DERIVED}"

    async def names() -> list[str]:
        found = await world.kube.list(untyped(ENDPOINT_SLICES), "default", label_selector=label)
        return sorted(e["hostname"] for s in found for e in s.get("endpoints") or ())

    async def become(*wanted: str) -> None:
        async def look() -> bool:
            return await names() == list(wanted)

        await world.until(f"names are {wanted}", look)

    async with running(world):
        await world.export()
        await become("shop-1", "shop-2")
        assert not (await world.get(SERVICES, DERIVED))["spec"].get("selector")
        await slice_(world, "shop-a", 1)
        await slice_(world, "shop-b", 3)
        await become("shop-1", "shop-3")
        await world.kube.delete(ENDPOINT_SLICES, "shop-a", "default")
        await become("shop-3")
    await slice_(world, "shop-b", 4)  # while nobody looks
    async with running(world):
        await become("shop-4")
        await world.kube.delete(SERVICE_EXPORTS, "shop", "default")
        await become()


async def test_endpoints_written_by_hand_are_exported(world: World) -> None:
    """A Service without selector has an address, and who writes its slices says who is behind."""
    await synced(world)
    await world.service(selector=None)
    await slice_(world, "by-hand", 7)
    async with running(world):
        await world.export()
        label = f"kubernetes.io/service-name={DERIVED}"

        async def mirrored() -> list[dict[str, Any]]:
            return await world.kube.list(untyped(ENDPOINT_SLICES), "default", label_selector=label)

        (made,) = await world.until("mirrored", mirrored)
        assert made["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
        assert made["endpoints"][0]["addresses"] == ["10.1.0.7"]
        assert (await world.get(SERVICES, DERIVED))["spec"]["clusterIP"] != "None"


async def test_pods_do_not_serve_what_only_others_export(world: World) -> None:
    """A port of another cluster has no target here."""
    await synced(world)
    https = ExportedPort(443, Protocol.TCP, "https")
    await world.hear(created=YOUNG, ports=(https,))
    await world.service()
    await world.export()
    async with running(world):

        async def ports() -> bool:
            listed = (await world.get(SERVICES, DERIVED)).get("spec", {}).get("ports", [])
            found = {p["port"]: p["targetPort"] for p in listed}
            return found == {80: 8080, 443: multicluster.NOT_EXPORTED}

        await world.until("two ports", ports)


async def test_somebody_elses_service_is_not_touched(world: World) -> None:
    """One that has the name of ours: said in the condition, and left alone."""
    await synced(world)
    await world.service(DERIVED)
    await world.service()
    await world.export()
    async with running(world):

        async def told() -> bool:
            return (await world.conditions()).get("Ready") == ("False", "Failed")

        await world.until("told", told)
        service = await world.get(SERVICES, DERIVED)
        assert "annotations" not in service["metadata"]


async def test_bad_exports_say_why(world: World) -> None:
    """Each in its condition; mended when its Service comes."""
    await synced(world)
    await world.export("none")
    await world.export("far")
    await world.service("far", type="ExternalName", externalName="example.com")
    async with running(world):

        async def told() -> bool:
            return (await world.conditions("none")).get("Valid") == ("False", "NoService") and (
                await world.conditions("far")
            ).get("Valid") == ("False", "InvalidServiceType")

        await world.until("told", told)
        await world.service("none")

        async def mended() -> bool:
            return (await world.conditions("none")).get("Ready") == ("True", "Exported")

        await world.until("mended", mended)


async def test_definitions_of_others_stay(world: World) -> None:
    """A definition that we did not make is not replaced, one of ours that is older is."""
    name = "serviceexports.multicluster.x-k8s.io"
    label = {crds.VERSION_LABEL: None}
    await world.kube.patch(untyped(CRDS), name, {"metadata": {"labels": label}})
    before = await world.kube.get(untyped(CRDS), name)
    await install_all(world.kube, 20, multicluster_crds.definitions())
    assert await world.kube.get(untyped(CRDS), name) == before
    label = {crds.VERSION_LABEL: "0.0.1"}
    await world.kube.patch(untyped(CRDS), name, {"metadata": {"labels": label}})
    await install_all(world.kube, 20, multicluster_crds.definitions())
    after = await world.kube.get(untyped(CRDS), name)
    assert after["metadata"]["labels"][crds.VERSION_LABEL] == multicluster_crds.SCHEMA_VERSION


async def test_exports_are_published(tmp_path: Path) -> None:
    """By the process: capability, canary, and a row for each export that has a Service."""
    async with (
        lab_api(tmp_path) as api,
        mesh_store(tmp_path / "mesh", "c1") as store,
        await api.direct() as kube,
    ):
        await install_all(kube, 20, (*crds.definitions(), *multicluster_crds.definitions()))
        remote = await store.connect("remote")
        world = World(kube, remote, Settings())
        await world.export()
        publisher = Publisher(api, store, "--clustermesh-enable-mcs-api=true")
        await publisher.start()
        key = "cilium/state/serviceexports/v1/c1/default/shop"
        try:
            canary = keys.canary("c1", keys.SERVICE_EXPORTS)
            await world.until("in sync", lambda: remote.get(canary))
            assert await remote.get(key) is None
            config = await remote.get(keys.cluster_config("c1"))
            assert config is not None
            assert b'"serviceExportsEnabled":true' in config.value
            await world.service(sessionAffinity="ClientIP")
            row = await world.until("published", lambda: remote.get(key))
            found = service_export_v1.decode("default/shop", row.value, ClusterName("c1"), key)
            assert found.ports == (ExportedPort(80, Protocol.TCP, "http"),)
            assert found.affinity.value == "ClientIP"
            assert found.affinity_timeout_s == 10800
            await kube.delete(SERVICE_EXPORTS, "shop", "default")

            async def gone() -> bool:
                return await remote.get(key) is None

            await world.until("withdrawn", gone)
        finally:
            await publisher.stop(kill=True)
            await remote.close()


async def test_without_the_kind_nobody_is_kept_waiting(tmp_path: Path) -> None:
    """The canary is written when the cluster has no definition of ServiceExport."""
    async with (
        lab_api(tmp_path) as api,
        mesh_store(tmp_path / "mesh", "c1") as store,
        await api.direct() as kube,
    ):
        await install_all(kube, 20)
        remote = await store.connect("remote")
        publisher = Publisher(api, store, "--clustermesh-enable-mcs-api=true")
        await publisher.start()
        try:
            canary = keys.canary("c1", keys.SERVICE_EXPORTS)
            await World(kube, remote, Settings()).until("in sync", lambda: remote.get(canary))
        finally:
            await publisher.stop(kill=True)
            await remote.close()

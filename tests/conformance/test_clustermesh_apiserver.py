"""The publisher's process between a real API server and a real etcd with TLS."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cluster_operator.install import install_all
from kube.client import HttpClient
from kube.resources import (
    CILIUM_ENDPOINTS,
    CILIUM_IDENTITIES,
    CILIUM_NODES,
    ENDPOINT_SLICES,
    SERVICES,
    untyped,
)
from kvstore.etcd import EtcdStore
from kvstore.port import Delete, PermissionDeniedError, Put
from tests.support.kube import Api
from tests.support.lab_api import free_port, lab_api, stop
from tests.support.mesh_store import ROOT, MeshStore, mesh_store

NODE = "cilium/state/nodes/v1/c1/n1"
IDENTITY = "cilium/state/identities/v1/id/65836"
IP = "cilium/state/ip/v1/default/10.1.0.7"
SHOP = "cilium/state/services/v1/c1/default/shop"
CANARIES = {
    f"cilium/synced/c1/cilium/state/{kind}/v1"
    for kind in ("nodes", "identities", "ip", "services", "serviceexports")
}
WAIT_S = 60


class Publisher:
    """The process."""

    def __init__(self, api: Api, store: MeshStore, *options: str) -> None:
        self._options = options
        self._kubeconfig = api.kubeconfig
        self._config = store.config("admin-c1")
        self.health, self.metrics = free_port(), free_port()
        self.process: asyncio.subprocess.Process | None = None
        self.said: list[str] = []

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "clustermesh_apiserver",
            "clustermesh",
            "--cluster-name=c1",
            "--cluster-id=1",
            f"--kvstore-opt=etcd.config={self._config}",
            "--kvstore-opt=etcd.qps=20",
            f"--health-port={self.health}",
            f"--prometheus-serve-addr=127.0.0.1:{self.metrics}",
            f"--kubeconfig={self._kubeconfig}",
            *self._options,
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )

    async def listen(self, text: str) -> str:
        """Its next line with a text."""
        assert self.process is not None
        assert self.process.stderr is not None
        async with asyncio.timeout(WAIT_S):
            while line := (await self.process.stderr.readline()).decode():
                self.said.append(line)
                if text in line:
                    return line
        raise AssertionError(f"it ended without saying {text}: {''.join(self.said)}")

    async def page(self, port: int, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{port}{path}"
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            return answer.status, await answer.text()

    async def stop(self, *, kill: bool = False) -> None:
        assert self.process is not None
        await stop(self.process, kill=kill)


@dataclass
class World:
    """One cluster: its API, its store, and what publishes."""

    api: Api
    kube: HttpClient
    store: MeshStore
    remote: EtcdStore  # as another cluster reads it
    publisher: Publisher

    async def rows(self) -> dict[str, str]:
        found = await self.remote.range("cilium/state/")
        return {row.key: row.value.decode() for row in found.rows}

    async def until(
        self, claim: Callable[[dict[str, str]], bool], prefix: str = "cilium/state/"
    ) -> dict[str, str]:
        """Wait until the rows another cluster reads fulfil a claim."""
        rows: dict[str, str] = {}
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    found = await self.remote.range(prefix)
                    rows = {row.key: row.value.decode() for row in found.rows}
                    if claim(rows):
                        return rows
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"not in {WAIT_S} s; the rows are {rows}") from None


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_in(tmp_path) as made:
        yield made


@asynccontextmanager
async def world_in(directory: Path) -> AsyncIterator[World]:
    async with (
        lab_api(directory) as api,
        mesh_store(directory / "mesh", "c1") as store,
        await api.direct() as kube,
    ):
        await install_all(kube, WAIT_S)
        publisher = Publisher(api, store)
        remote = await store.connect("remote")
        await publisher.start()
        try:
            yield World(api, kube, store, remote, publisher)
        finally:
            await publisher.stop(kill=True)
            await remote.close()


async def populate(kube: HttpClient) -> None:
    """A node, an identity, a pod's endpoint, and a shared service with that pod behind it."""
    node = {
        "metadata": {"name": "n1"},
        "spec": {
            "addresses": [{"type": "InternalIP", "ip": "192.0.2.1"}],
            "ipam": {"podCIDRs": ["10.1.0.0/24"]},
        },
    }
    labels = {"k8s:app": "shop", "k8s:io.cilium.k8s.policy.cluster": "c1"}
    await kube.create(untyped(CILIUM_NODES), node)
    await kube.create(
        untyped(CILIUM_IDENTITIES), {"metadata": {"name": "65836"}, "security-labels": labels}
    )
    await kube.create(untyped(CILIUM_ENDPOINTS), endpoint("shop-1", "10.1.0.7"))
    await kube.create(untyped(SERVICES), service())
    await kube.create(untyped(ENDPOINT_SLICES), slice_("10.1.0.7"))


def endpoint(name: str, ip: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "status": {
            "id": 1,
            "identity": {"id": 65836, "labels": []},
            "networking": {"addressing": [{"ipv4": ip}], "node": "192.0.2.1"},
        },
    }


def service(name: str = "shop", ip: str = "10.96.4.5", **annotations: str) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "annotations": {"service.cilium.io/global": "true", **annotations},
        },
        "spec": {
            "clusterIP": ip,
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
            "selector": {"app": name},
        },
    }


def slice_(*addresses: str, ready: bool = True) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "shop-a",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "shop"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [a], "conditions": {"ready": ready}} for a in addresses],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }


def backends(rows: dict[str, str]) -> list[str]:
    return sorted(json.loads(rows[SHOP])["backends"]) if SHOP in rows else []


EXPECTED = {
    NODE: (
        '{"Name":"n1","Cluster":"c1","IPAddresses":[{"Type":"InternalIP","IP":"192.0.2.1"}],'
        '"IPv4AllocCIDR":{"IP":"10.1.0.0","Mask":"////AA=="},"IPv4SecondaryAllocCIDRs":null,'
        '"IPv6AllocCIDR":null,"IPv6SecondaryAllocCIDRs":null,"IPv4HealthIP":"",'
        '"IPv6HealthIP":"","IPv4IngressIP":"","IPv6IngressIP":"","ClusterID":1,'
        '"Source":"custom-resource","EncryptionKey":0,"Labels":null,"Annotations":null,'
        '"NodeIdentity":0,"WireguardPubKey":"","BootID":""}'
    ),
    IDENTITY: "k8s:app=shop;k8s:io.cilium.k8s.policy.cluster=c1;",
    IP: (
        '{"IP":"10.1.0.7","Mask":null,"HostIP":"192.0.2.1","ID":65836,"Key":0,"Metadata":"",'
        '"K8sNamespace":"default","K8sPodName":"shop-1"}'
    ),
    SHOP: (
        '{"cluster":"c1","namespace":"default","name":"shop","frontends":{"10.96.4.5":{"http":'
        '{"Protocol":"TCP","Port":80}}},"backends":{"10.1.0.7":{"http":{"Protocol":"TCP",'
        '"Port":8080}}},"hostnames":{},"labels":{},"selector":{"app":"shop"},'
        '"includeExternal":true,"shared":true,"clusterID":1}'
    ),
}


async def test_objects_appear_byte_for_byte(world: World) -> None:
    """What another cluster reads with its read-only certificate, from an empty cluster on."""
    await world.publisher.listen("event=ready")
    assert (await world.publisher.page(world.publisher.health, "/readyz")) == (200, "Ready\n")
    assert await world.rows() == {}
    await populate(world.kube)
    # A service may be read before its endpoints were: what counts is where it comes to rest.
    assert await world.until(lambda rows: rows == EXPECTED) == EXPECTED
    config = await world.remote.get("cilium/cluster-config/c1")
    assert config is not None
    assert config.value == (
        b'{"id":1,"capabilities":{"syncedCanaries":true,"maxConnectedClusters":255,'
        b'"serviceExportsEnabled":false}}'
    )
    assert {r.key for r in (await world.remote.range("cilium/synced/c1/")).rows} == CANARIES
    assert await world.remote.get("cilium/.heartbeat") is not None
    leases = (await world.remote.range("cilium/state/")).rows
    assert all(row.lease for row in leases)


async def test_remote_user_only_reads_this_cluster(world: World) -> None:
    """Another cluster's certificate writes nothing and reads no other cluster's announcement."""
    await world.publisher.listen("event=ready")
    with pytest.raises(PermissionDeniedError):
        await world.remote.put(NODE, b"{}")
    with pytest.raises(PermissionDeniedError):
        await world.remote.get("cilium/cluster-config/c2")


async def test_each_change_follows(world: World) -> None:
    """Readiness, sharing and deletion reach the rows of others."""
    await populate(world.kube)
    await world.until(lambda rows: rows.keys() == EXPECTED.keys())
    slices = untyped(ENDPOINT_SLICES)
    await world.kube.patch(slices, "shop-a", slice_("10.1.0.7", "10.1.0.8"), "default")
    await world.until(lambda rows: backends(rows) == ["10.1.0.7", "10.1.0.8"])
    await world.kube.patch(slices, "shop-a", slice_("10.1.0.7", ready=False), "default")
    await world.until(lambda rows: SHOP in rows and backends(rows) == [])
    for shared in ("false", "true"):
        annotations = {"service.cilium.io/shared": shared}
        change = {"metadata": {"annotations": annotations}}
        await world.kube.patch(untyped(SERVICES), "shop", change, "default")
        await world.until(lambda rows, shared=shared: (SHOP in rows) is (shared == "true"))
    await world.kube.delete(SERVICES, "shop", "default")
    await world.kube.delete(CILIUM_ENDPOINTS, "shop-1", "default")
    await world.kube.delete(CILIUM_IDENTITIES, "65836")
    await world.kube.delete(CILIUM_NODES, "n1")
    await world.until(lambda rows: rows == {})


async def test_kill_and_restart_loses_nothing(world: World) -> None:
    """After ``kill -9`` the rows stay; the next run corrects what changed meanwhile, and no row
    that is right is deleted or emptied on the way."""
    await populate(world.kube)
    await world.kube.create(untyped(CILIUM_ENDPOINTS), endpoint("gone", "10.1.0.99"))
    # With the backend: a service may be read before its endpoints are.
    await world.until(lambda rows: len(rows) == 5 and EXPECTED.items() <= rows.items())
    await world.publisher.stop(kill=True)
    revision = (await world.remote.range("cilium/state/")).revision
    assert len(await world.rows()) == 5
    await world.kube.delete(CILIUM_ENDPOINTS, "gone", "default")
    await world.kube.create(untyped(CILIUM_ENDPOINTS), endpoint("made", "10.1.0.8"))
    await world.publisher.start()
    rows = await world.until(lambda rows: f"{IP[:-1]}8" in rows and f"{IP[:-1]}99" not in rows)
    assert {k: rows[k] for k in EXPECTED} == EXPECTED
    seen: list[Put | Delete] = []
    async for batch in world.remote.watch("cilium/state/", revision + 1):
        seen += batch.events
        if any(isinstance(e, Delete) for e in seen):
            break
    assert [e.key for e in seen if isinstance(e, Delete)] == [f"{IP[:-1]}99"]
    wrong = [
        e for e in seen if isinstance(e, Put) and e.row.value.decode() != EXPECTED.get(e.row.key)
    ]
    assert [e.row.key for e in wrong if isinstance(e, Put)] == [f"{IP[:-1]}8"]


async def test_rows_of_what_cannot_be_read_outlive_a_restart(world: World) -> None:
    """An object turned bad while nobody looked: its last good row stays, under a lease that is
    kept, and goes when the object does; corrected, it is published again."""
    await populate(world.kube)
    await world.until(lambda rows: rows == EXPECTED)
    await world.publisher.stop(kill=True)
    spec = {"addresses": [{"type": "InternalIP", "ip": "nonsense"}]}
    await world.kube.patch(untyped(CILIUM_NODES), "n1", {"spec": spec})
    bad = endpoint("shop-1", "nonsense")
    await world.kube.patch(untyped(CILIUM_ENDPOINTS), "shop-1", bad, "default")
    before = {r.key: r.lease for r in (await world.remote.range("cilium/state/")).rows}
    await world.publisher.start()
    await world.publisher.listen("event=ready")

    async with asyncio.timeout(WAIT_S):
        async for _ in world.remote.watch("cilium/state/", 0):
            now = {r.key: r.lease for r in (await world.remote.range("cilium/state/")).rows}
            if now[NODE] != before[NODE] and now[IP] != before[IP]:
                break
    assert await world.rows() == EXPECTED
    _, health = await world.publisher.page(world.publisher.health, "/healthz")
    assert "CiliumNode n1" in health
    spec = {"addresses": [{"type": "InternalIP", "ip": "192.0.2.77"}]}
    await world.kube.patch(untyped(CILIUM_NODES), "n1", {"spec": spec})
    await world.until(lambda rows: '"192.0.2.77"' in rows[NODE])
    assert (await world.rows())[IP] == EXPECTED[IP]
    await world.kube.delete(CILIUM_ENDPOINTS, "shop-1", "default")
    await world.until(lambda rows: IP not in rows)


async def test_wiped_store_is_filled_again(world: World) -> None:
    """A store that comes back empty, as another etcd, gets everything again."""
    await populate(world.kube)
    await world.until(lambda rows: rows.keys() == EXPECTED.keys())
    await world.store.stop()
    world.store.wipe()
    await world.store.prepare()
    await world.store.start()
    await world.remote.close()
    world.remote = await world.store.connect("remote")
    # A service may be read before its endpoints were: what counts is where it comes to rest.
    assert await world.until(lambda rows: rows == EXPECTED) == EXPECTED
    await world.until(lambda rows: rows.keys() == CANARIES, "cilium/synced/c1/")
    assert await world.remote.get("cilium/cluster-config/c1") is not None


async def test_bad_annotation_is_named_counted_and_harmless(world: World) -> None:
    """One line names object and remedy; the default is used; other services are published."""
    await world.publisher.listen("event=ready")
    bad = service("odd", "10.96.4.6", **{"service.cilium.io/shared": "perhaps"})
    await world.kube.create(untyped(SERVICES), bad)
    line = await world.publisher.listen("event=rejected")
    assert (
        'Service default/odd: annotation service.cilium.io/shared is "perhaps": '
        'use "true" or "false"; "true" is used until then'
    ) in line
    await populate(world.kube)
    rows = await world.until(lambda rows: len(rows) == 5)
    assert "cilium/state/services/v1/c1/default/odd" in rows
    _, metrics = await world.publisher.page(world.publisher.metrics, "/metrics")
    assert (
        "cilium_clustermesh_apiserver_rejected_objects_total"
        '{kind="any",reason="invalid",source_cluster="c1"} 1\n'
    ) in metrics
    _, health = await world.publisher.page(world.publisher.health, "/healthz")
    assert "Service default/odd" in health


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cluster-name=C1", "--cluster-id=1"], 'cluster name "C1" is not valid'),
        (["--cluster-name=" + "a" * 33, "--cluster-id=1"], "has 33 characters: use at most 32"),
        (["--cluster-name=c1", "--cluster-id=0"], "give each cluster its own ID from 1"),
        (["--cluster-name=c1", "--cluster-id=256"], "is out of range: use 1 to 255"),
        (["--cluster-name=default", "--cluster-id=1"], "give each cluster its own name"),
        (["--cluster-name=c1", "--cluster-id=1", "--kvstore-opt=a=b"], '"a" is not known'),
        (
            ["--cluster-name=c1", "--cluster-id=1", "--kvstore-opt=etcd.config=/no/file"],
            "/no/file: cannot be read",
        ),
        (["--cluster-name=c1", "--cluster-id=1", "--kvstore-lease-ttl=1x"], 'duration "1x"'),
    ],
)
async def test_bad_settings_are_one_line_and_exit_1(arguments: list[str], said: str) -> None:
    """The process names the setting and the remedy and ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "clustermesh_apiserver",
        "clustermesh",
        *arguments,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    _, err = await process.communicate()
    assert process.returncode == 1
    (line,) = err.decode().splitlines()
    assert line.startswith("clustermesh-apiserver: ")
    assert said in line

"""What we publish for a set of Kubernetes objects, key by key, by the published format.

Real publisher process, real API server, real etcd with TLS and users. Expected keys and values are
written out here; nothing of ours makes them. A reader that goes about as stock ones do sees it all.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from kube.client import HttpClient
from kube.resources import (
    CILIUM_ENDPOINTS,
    CILIUM_IDENTITIES,
    CILIUM_NODES,
    ENDPOINT_SLICES,
    SERVICES,
    untyped,
)
from kvstore.config import load_store_config
from model.address import parse_address
from model.identity import NumericIdentity
from model.ipcache import EndpointAddress
from reconcile.tasks import TaskGroup
from tests.conformance.test_clustermesh_apiserver import World, world_in
from tests.conformance.test_kvstoremesh_process import C2, kvstoremesh
from tests.conformance.test_mesh_store import complete, publisher, running
from tests.conformance.test_mesh_store import rows as some_rows
from tests.conformance.test_remotes import configure
from tests.support.etcd import Etcd, mesh_etcd
from tests.support.etcd_raw import RawEtcd, message
from tests.support.kvstoremesh import until
from tests.support.reference_reader import kinds, reading
from wire.etcd import ip_v1, keys

pytestmark = pytest.mark.root

GLOBAL = {"service.cilium.io/global": "true"}
PODS = 300


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_in(tmp_path) as made:
        yield made


NODE_OBJECTS: list[dict[str, Any]] = [
    {
        "metadata": {
            "name": "full",
            "labels": {"topology.kubernetes.io/zone": "a"},
            "annotations": {"network.cilium.io/wg-pub-key": "cHVibGlj"},
        },
        "spec": {
            "addresses": [
                {"type": "Hostname", "ip": "full.example"},
                {"type": "InternalIP", "ip": "192.0.2.1"},
                {"type": "InternalIP", "ip": "2001:db8::1"},
                {"type": "ExternalIP", "ip": "198.51.100.7"},
                {"type": "CiliumInternalIP", "ip": "10.1.0.99"},
            ],
            "bootid": "boot-1",
            "encryption": {"key": 3},
            "health": {"ipv4": "10.1.0.98", "ipv6": "fd00:1::98"},
            "ingress": {"ipv4": "10.1.0.97"},
            "ipam": {
                "podCIDRs": ["10.1.0.0/24", "fd00:1::/64", "10.1.128.0/20"],
                "pools": {"allocated": [{"pool": "x", "cidrs": ["10.2.0.0/16"]}]},
            },
        },
    },
    {"metadata": {"name": "bare"}, "spec": {}},
]
NODE_ROWS: dict[str, dict[str, Any]] = {
    "cilium/state/nodes/v1/c1/full": {
        "Name": "full",
        "Cluster": "c1",
        "IPAddresses": [
            {"Type": "InternalIP", "IP": "192.0.2.1"},
            {"Type": "InternalIP", "IP": "2001:db8::1"},
            {"Type": "ExternalIP", "IP": "198.51.100.7"},
            {"Type": "CiliumInternalIP", "IP": "10.1.0.99"},
        ],
        "IPv4AllocCIDR": {"IP": "10.1.0.0", "Mask": "////AA=="},
        "IPv4SecondaryAllocCIDRs": [
            {"IP": "10.1.128.0", "Mask": "///wAA=="},
            {"IP": "10.2.0.0", "Mask": "//8AAA=="},
        ],
        "IPv6AllocCIDR": {"IP": "fd00:1::", "Mask": "//////////8AAAAAAAAAAA=="},
        "IPv6SecondaryAllocCIDRs": None,
        "IPv4HealthIP": "10.1.0.98",
        "IPv6HealthIP": "fd00:1::98",
        "IPv4IngressIP": "10.1.0.97",
        "IPv6IngressIP": "",
        "ClusterID": 1,
        "Source": "custom-resource",
        "EncryptionKey": 3,
        "Labels": {"topology.kubernetes.io/zone": "a"},
        "Annotations": {"network.cilium.io/wg-pub-key": "cHVibGlj"},
        "NodeIdentity": 0,
        "WireguardPubKey": "cHVibGlj",
        "BootID": "boot-1",
    },
    "cilium/state/nodes/v1/c1/bare": {
        "Name": "bare",
        "Cluster": "c1",
        "IPAddresses": None,
        "IPv4AllocCIDR": None,
        "IPv4SecondaryAllocCIDRs": None,
        "IPv6AllocCIDR": None,
        "IPv6SecondaryAllocCIDRs": None,
        "IPv4HealthIP": "",
        "IPv6HealthIP": "",
        "IPv4IngressIP": "",
        "IPv6IngressIP": "",
        "ClusterID": 1,
        "Source": "custom-resource",
        "EncryptionKey": 0,
        "Labels": None,
        "Annotations": None,
        "NodeIdentity": 0,
        "WireguardPubKey": "",
        "BootID": "",
    },
}
CLUSTER_LABEL = "k8s:io.cilium.k8s.policy.cluster"
IDENTITY_OBJECTS: list[dict[str, Any]] = [
    {
        "metadata": {"name": "65836"},
        "security-labels": {
            "k8s:zeta": "",
            "k8s:app": "shop",
            CLUSTER_LABEL: "c1",
            "k8s:io.kubernetes.pod.namespace": "web",
        },
    },
    {"metadata": {"name": "65837"}, "security-labels": {CLUSTER_LABEL: "c1"}},
]
IDENTITY_ROWS = {
    "cilium/state/identities/v1/id/65836": (
        "k8s:app=shop;k8s:io.cilium.k8s.policy.cluster=c1;"
        "k8s:io.kubernetes.pod.namespace=web;k8s:zeta=;"
    ),
    "cilium/state/identities/v1/id/65837": "k8s:io.cilium.k8s.policy.cluster=c1;",
}


def endpoint(name: str, *pairs: dict[str, str], **more: Any) -> dict[str, Any]:
    networking = {"addressing": list(pairs), "node": "192.0.2.1"}
    return {
        "metadata": {"name": name, "namespace": "default"},
        "status": {"id": 1, "networking": networking, **more},
    }


ENDPOINT_OBJECTS = [
    endpoint(
        "both",
        {"ipv4": "10.1.0.7", "ipv6": "fd00:1::7"},
        identity={"id": 65836, "labels": []},
        encryption={"key": 3},
    ),
    endpoint("early", {"ipv4": "10.1.0.8"}),  # it has no identity yet
    endpoint("nowhere", identity={"id": 65836, "labels": []}),
]


def ip_row(ip: str, number: int, pod: str, key: int = 0) -> dict[str, Any]:
    return {
        "IP": ip,
        "Mask": None,
        "HostIP": "192.0.2.1",
        "ID": number,
        "Key": key,
        "Metadata": "",
        "K8sNamespace": "default",
        "K8sPodName": pod,
    }


IP_ROWS = {
    "cilium/state/ip/v1/default/10.1.0.7": ip_row("10.1.0.7", 65836, "both", 3),
    "cilium/state/ip/v1/default/fd00:1::7": ip_row("fd00:1::7", 65836, "both", 3),
    "cilium/state/ip/v1/default/10.1.0.8": ip_row("10.1.0.8", 0, "early"),
}


def service(name: str, spec: dict[str, Any], namespace: str = "default", **notes: str) -> Any:
    annotations = {**GLOBAL, **{f"service.cilium.io/{k}": v for k, v in notes.items()}}
    return {
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": spec,
    }


HTTP = {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}
DNS = {"name": "dns", "port": 53, "targetPort": 5353, "protocol": "UDP"}
SERVICE_OBJECTS = [
    {
        "metadata": {
            "name": "shop",
            "namespace": "default",
            "labels": {"team": "x"},
            "annotations": GLOBAL,
        },
        "spec": {
            "clusterIP": "10.96.4.5",
            "ports": [HTTP, DNS],
            "selector": {"app": "shop"},
        },
    },
    service("pets", {"clusterIP": "None", "ports": [HTTP], "selector": {"app": "pets"}}),
    service("private", {"clusterIP": "10.96.4.6", "ports": [HTTP]}, shared="false"),
    service("local", {"clusterIP": "10.96.4.7", "ports": [HTTP]}, **{"global": "false"}),
    service("kube-scheduler", {"clusterIP": "10.96.4.8", "ports": [HTTP]}),
    service("elsewhere", {"type": "ExternalName", "externalName": "example.com"}),
]


def slice_(name: str, owner: str, endpoints: list[dict[str, Any]], kind: str = "IPv4") -> Any:
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": owner},
        },
        "addressType": kind,
        "endpoints": endpoints,
        "ports": [
            {"name": "http", "port": 8080, "protocol": "TCP"},
            {"name": "dns", "port": 5353, "protocol": "UDP"},
        ],
    }


READY, BROKEN = {"ready": True}, {"ready": False}
SLICE_OBJECTS = [
    slice_(
        "shop-4",
        "shop",
        [
            {"addresses": ["10.1.0.7"], "conditions": READY, "zone": "a"},
            {"addresses": ["10.1.0.8"], "conditions": BROKEN},
        ],
    ),
    slice_("shop-6", "shop", [{"addresses": ["fd00:1::7"], "conditions": READY}], "IPv6"),
    slice_("pets-a", "pets", [{"addresses": ["10.1.0.9"], "hostname": "pets-0"}]),
    slice_("local-a", "local", [{"addresses": ["10.1.0.10"]}]),
    slice_("private-a", "private", [{"addresses": ["10.1.0.11"]}]),
]
FRONT = {"http": {"Protocol": "TCP", "Port": 80}, "dns": {"Protocol": "UDP", "Port": 53}}
BACK = {"http": {"Protocol": "TCP", "Port": 8080}, "dns": {"Protocol": "UDP", "Port": 5353}}
SERVICE_ROWS: dict[str, dict[str, Any]] = {
    "cilium/state/services/v1/c1/default/shop": {
        "cluster": "c1",
        "namespace": "default",
        "name": "shop",
        "frontends": {"10.96.4.5": FRONT},
        "backends": {"10.1.0.7": BACK, "fd00:1::7": BACK},
        "hostnames": {},
        "zones": {"10.1.0.7": {"zone": "a"}},
        "labels": {"team": "x"},
        "selector": {"app": "shop"},
        "includeExternal": True,
        "shared": True,
        "clusterID": 1,
    },
    "cilium/state/services/v1/c1/default/pets": {
        "cluster": "c1",
        "namespace": "default",
        "name": "pets",
        "frontends": {},
        "backends": {"10.1.0.9": BACK},
        "hostnames": {"10.1.0.9": "pets-0"},
        "labels": {},
        "selector": {"app": "pets"},
        "includeExternal": True,
        "shared": True,
        "clusterID": 1,
    },
}
EXPECTED: dict[str, str] = IDENTITY_ROWS | {
    key: json.dumps(value, separators=(",", ":"))
    for key, value in (NODE_ROWS | IP_ROWS | SERVICE_ROWS).items()
}
CANARIES = [
    f"cilium/synced/c1/cilium/state/{kind}/v1"
    for kind in ("identities", "ip", "nodes", "serviceexports", "services")
]


async def populate(kube: HttpClient) -> None:
    for resource, objects in (
        (CILIUM_NODES, NODE_OBJECTS),
        (CILIUM_IDENTITIES, IDENTITY_OBJECTS),
        (CILIUM_ENDPOINTS, ENDPOINT_OBJECTS),
        (SERVICES, SERVICE_OBJECTS),
        (ENDPOINT_SLICES, SLICE_OBJECTS),
    ):
        for body in objects:
            await kube.create(untyped(resource), body)


async def test_objects_become_exactly_these_rows(world: World) -> None:
    """Every key and value, byte for byte: state, announcement, canaries; and their leases."""
    await populate(world.kube)
    rows: dict[str, str] = {}
    # What counts is where it comes to rest: a service may be read before its slices.
    for _ in range(800):
        rows = await world.rows()
        if rows == EXPECTED:
            break
        await asyncio.sleep(0.05)
    for key in rows.keys() | EXPECTED.keys():
        assert rows.get(key) == EXPECTED.get(key), key
    await world.publisher.listen("event=ready")
    admin = await world.store.connect("admin-c1")
    every = (await admin.range("cilium/")).rows
    await admin.close()
    assert sorted(r.key for r in every if not r.key.startswith("cilium/state/")) == [
        "cilium/.heartbeat",
        "cilium/cluster-config/c1",
        *CANARIES,
    ]
    config = next(r.value for r in every if r.key == "cilium/cluster-config/c1")
    assert json.loads(config) == {
        "id": 1,
        "capabilities": {
            "syncedCanaries": True,
            "maxConnectedClusters": 255,
            "serviceExportsEnabled": False,
        },
    }
    written = {r.key: r.mod_revision for r in every}
    create = {r.key: r.create_revision for r in every}
    assert create["cilium/cluster-config/c1"] < min(create[c] for c in CANARIES)
    assert written["cilium/.heartbeat"] > 0
    leases = {r.lease for r in every}
    assert 0 not in leases
    raw = RawEtcd(load_store_config(Path(world.store.config("remote"))))
    for lease in leases:
        # ID 2, TTL 3, granted 4 of the answer, each a varint.
        answer = await raw.call("/etcdserverpb.Lease/LeaseTimeToLive", message([(1, lease)]))
        assert message([(4, 900)]) in answer
    await raw.close()


@pytest.mark.timeout(240)  # half of which a heartbeat may take
async def test_a_stock_reader_sees_all_of_it(world: World) -> None:
    """In its own order of calls, by its own rules, with the read-only certificate; then changes."""
    await populate(world.kube)
    names = [f"many-{n}" for n in range(PODS)]
    async with TaskGroup() as tasks:
        for n, name in enumerate(names):
            pair = {"ipv4": f"10.1.{130 + n // 200}.{n % 200 + 1}"}
            body = endpoint(name, pair, identity={"id": 65836, "labels": []})
            tasks.create_task(world.kube.create(untyped(CILIUM_ENDPOINTS), body))
    await world.publisher.listen("event=ready")
    await world.until(lambda found: len(found) == len(EXPECTED) + PODS)
    config = load_store_config(Path(world.store.config("remote")))
    async with reading(config, "c1") as reader:
        await reader.until(lambda: len(kinds(reader)) == 5, "all types are listed")
        assert reader.refused == []
        assert reader.pages > 5  # one type has two
        assert reader.calls[:2] == ["KV/Range", "connected"] or reader.calls[0] == "KV/Range"
        assert {f"cilium/state/nodes/v1/c1/{n}": v for n, v in reader.rows["nodes"].items()} == (
            NODE_ROWS
        )
        found = {f"cilium/state/services/v1/c1/{n}": v for n, v in reader.rows["services"].items()}
        assert found == SERVICE_ROWS
        assert len(reader.rows["ip"]) == len(IP_ROWS) + PODS
        assert reader.rows["identities"].keys() == {"65836", "65837"}
        assert await reader.try_a_session() == "PERMISSION_DENIED"
        await world.kube.delete(CILIUM_ENDPOINTS, "many-7", "default")
        await reader.until(lambda: len(reader.rows["ip"]) == len(IP_ROWS) + PODS - 1, "it is gone")
        # A writer that does not beat within two minutes is given up.
        await reader.until(lambda: reader.beats > 0, "a heartbeat came", timeout_s=100)
        assert reader.refused == []


@pytest.fixture
def far() -> Iterator[Etcd]:
    with mesh_etcd("c2") as found:
        yield found


@pytest.fixture
def near() -> Iterator[Etcd]:
    with mesh_etcd("c1") as found:
        yield found


async def test_a_stock_agent_reads_our_mirror(far: Etcd, near: Etcd, tmp_path: Path) -> None:
    """The same reader, sent to the local store with the local certificate: the cache's prefixes."""
    rows = some_rows()
    identity = NumericIdentity((2 << 16) + 300)
    for n in range(PODS):
        ip = parse_address(f"10.2.{100 + n // 200}.{n % 200 + 1}")
        value = EndpointAddress(parse_address("192.0.2.2"), identity)
        rows[keys.ip(ip)] = ip_v1.encode(ip, value)
    writer = publisher(far)
    complete(writer, rows)
    beat = await near.store("admin-c1")
    await beat.put("cilium/.heartbeat", b"2026-01-01T00:00:00Z")
    async with running(writer), kvstoremesh(tmp_path, near) as mesh:
        configure(mesh.directory, C2, far)
        await until(mesh.ready)
        async with reading(near.user("local-c1"), "c2") as reader:
            await reader.until(lambda: len(kinds(reader)) == 5, "all types are listed")
            assert reader.announced["capabilities"] == {
                "syncedCanaries": True,
                "cached": True,
                "maxConnectedClusters": 255,
                "serviceExportsEnabled": False,
            }
            learnt = sum(len(found) for found in reader.rows.values())
            assert learnt + len(reader.refused) == len(rows)
            assert len(reader.rows["ip"]) >= PODS
            assert await reader.try_a_session() == "PERMISSION_DENIED"
            gone = keys.ip(parse_address("10.2.100.1"))
            writer.put({gone: None})
            await reader.until(lambda: "10.2.100.1" not in reader.rows["ip"], "it is gone")
    await beat.close()

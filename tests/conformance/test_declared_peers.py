"""The operator's controller of ClusterMeshPeers against a real API server.

No store is read here, so no object gets further than "not connected"; what counts is what is
written for agents, what is left alone, and what each object is told.
"""

import asyncio
import base64
import itertools
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from certs import check
from certs.issue import create_ca, issue
from certs.profiles import REMOTE_SECRET, mesh_profiles
from cluster_operator import peer_crd, peers
from cluster_operator.config import Settings
from cluster_operator.install import install_all
from cluster_operator.peers import PEERS_NAMESPACE, Controller
from kube import connections
from kube.client import HttpClient
from kube.connections import KVSTOREMESH_SECRET, Connected, Connection
from kube.port import ApiError
from kube.resources import (
    CLUSTER_MESH_PEERS,
    DEPLOYMENTS,
    NAMESPACES,
    SECRETS,
    Unstructured,
    untyped,
)
from kvstore.config import parse_store_config
from reconcile.tasks import TaskGroup
from tests.support import rbac
from tests.support.lab_api import lab_api

pytestmark = pytest.mark.root

SPACE = "kube-system"
GUIDE = Path(__file__).parents[2] / "docs/gitops.md"
NOW = datetime.now(UTC)
CA = create_ca(NOW)
PAIR = issue(CA, mesh_profiles("paris")[REMOTE_SECRET], NOW)
MATERIAL = {"ca.crt": CA.certificate, "tls.crt": PAIR.certificate, "tls.key": PAIR.key}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[HttpClient]:
    async with lab_api(tmp_path) as api, await api.connect() as connected:
        await install_all(connected, 20, peer_crd.definitions())
        await connected.create(untyped(NAMESPACES), {"metadata": {"name": PEERS_NAMESPACE}})
        yield connected


@pytest.fixture
async def running(client: HttpClient, tmp_path: Path) -> AsyncIterator[Callable[[], None]]:
    """Starts the controller when called."""
    settings = Settings(cluster_name="paris", cluster_id=1, clustermesh_config=str(tmp_path / "m"))
    async with TaskGroup() as tasks:
        task: list[asyncio.Task[None]] = []
        yield lambda: task.append(tasks.create_task(Controller(client, settings).run()))
        for one in task:
            one.cancel()


async def secret(client: HttpClient, name: str, data: dict[str, bytes], space: str) -> None:
    encoded = {k: base64.b64encode(v).decode() for k, v in data.items()}
    body = {"metadata": {"name": name, "namespace": space}, "data": encoded}
    await client.create(untyped(SECRETS), body)


async def declare(client: HttpClient, name: str, **spec: Any) -> None:
    whole = {"clusterID": 2, "endpoints": ["192.0.2.1:32379"], "secretRef": {"name": "oslo"}}
    left = {key: value for key, value in {**whole, **spec}.items() if value is not None}
    body = {"metadata": {"name": name}, "spec": left}
    await client.create(untyped(CLUSTER_MESH_PEERS), body)


async def told(client: HttpClient, name: str, reason: str) -> str:
    """The message, once the condition has the reason."""

    async def look() -> Unstructured | None:
        found = await client.get(untyped(CLUSTER_MESH_PEERS), name)
        listed = (found.get("status") or {}).get("conditions") or [{}]
        good = listed[0].get("reason") == reason
        seen = listed[0].get("observedGeneration") == found["metadata"]["generation"]
        return listed[0] if good and seen else None

    return str((await until(look))["message"])


async def until(look: Callable[[], Awaitable[Any]], seconds: float = 40) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := await look()):  # noqa: ASYNC110 - others write, over the network
            await asyncio.sleep(0.05)
        return found


async def written(client: HttpClient, good: Callable[[Connected], object]) -> Connected:
    async def look() -> Connected | None:
        found = await connections.read(client, SPACE)
        return found if good(found) else None

    found: Connected = await until(look)
    return found


async def test_an_object_is_a_connection_as_long_as_it_is_there(
    client: HttpClient, running: Callable[[], None]
) -> None:
    """Written as a join writes it; changed with the object; gone with the object."""
    await secret(client, "oslo", MATERIAL, PEERS_NAMESPACE)
    running()
    await declare(client, "oslo", cacheTTL="10m")
    found = await written(client, lambda c: c.ids)
    assert (found.ids, found.declared) == ({"oslo": 2}, {"oslo": "oslo"})
    config = parse_store_config(found.data["oslo"], "oslo")
    assert [t.authority for t in config.targets()] == ["192.0.2.1:32379"]
    assert config.cache_ttl_s == 600
    assert found.data["oslo.etcd-client.key"] == PAIR.key
    assert await told(client, "oslo", "Connecting")
    change = {"spec": {"endpoints": ["192.0.2.7:1"], "cacheTTL": None}}
    await client.patch(untyped(CLUSTER_MESH_PEERS), "oslo", change)
    found = await written(client, lambda c: b"192.0.2.7" in c.data["oslo"])
    assert parse_store_config(found.data["oslo"], "oslo").cache_ttl_s is None
    await client.delete(CLUSTER_MESH_PEERS, "oslo")
    found = await written(client, lambda c: not c.ids)
    assert (found.data, found.declared) == ({}, {})


def documented() -> tuple[list[str], list[dict[str, Any]]]:
    """Of docs/gitops.md: the commands of oslo, and what paris declares."""
    lines = GUIDE.read_text().splitlines()
    commands = [line.strip() for line in lines if line.startswith("    openssl ")]
    begin = lines.index("## Paris, which reads oslo")
    block = itertools.takewhile(lambda line: not line.startswith("## "), lines[begin + 1 :])
    text = textwrap.dedent("\n".join(line for line in block if line.startswith("    ")))
    return commands, list(yaml.safe_load_all(text))


async def test_the_documented_way(
    client: HttpClient, running: Callable[[], None], tmp_path: Path
) -> None:
    """The commands make a certificate that is taken; the objects, with it put in, a connection."""
    commands, (held, peer) = documented()
    (tmp_path / "ca.crt").write_bytes(CA.certificate)
    (tmp_path / "ca.key").write_bytes(CA.key)
    assert len(commands) == 2
    for command in commands:
        process = await asyncio.create_subprocess_exec("bash", "-ec", command, cwd=tmp_path)
        assert await process.wait() == 0
    assert set(held["stringData"]) == set(MATERIAL)
    data = {name: (tmp_path / name).read_bytes() for name in held["stringData"]}
    await secret(client, held["metadata"]["name"], data, held["metadata"]["namespace"])
    await client.create(untyped(CLUSTER_MESH_PEERS), peer)
    running()
    found = await written(client, lambda c: c.ids)
    assert found.ids == {"oslo": 2}
    assert found.data["oslo.etcd-client.crt"] == data["tls.crt"]
    assert await told(client, "oslo", "Connecting")
    assert check.subject(data["tls.crt"])[0] == mesh_profiles("oslo")[REMOTE_SECRET].common_name


async def test_an_object_that_went_unseen_takes_its_connection_along(
    client: HttpClient, running: Callable[[], None]
) -> None:
    """What is marked and has no object goes at the start; what is not marked stays."""
    config = b"endpoints: [https://192.0.2.1:2379]\ntrusted-ca-file: /ca\n"
    await connections.put(client, SPACE, Connection("oslo", 2, config, declared_by="oslo"))
    await connections.put(client, SPACE, Connection("rome", 3, config))
    running()
    found = await written(client, lambda c: "oslo" not in c.ids)
    assert found.ids == {"rome": 3}


async def test_a_bad_object_harms_nothing_else(
    client: HttpClient, running: Callable[[], None]
) -> None:
    """Each is told its field and a remedy, and its good neighbour is connected."""
    await secret(client, "oslo", MATERIAL, PEERS_NAMESPACE)
    await secret(client, "half", {"ca.crt": CA.certificate}, PEERS_NAMESPACE)
    other = issue(CA, mesh_profiles("paris")[REMOTE_SECRET], NOW)
    await secret(client, "mixed", {**MATERIAL, "tls.key": other.key}, PEERS_NAMESPACE)
    await declare(client, "a", clusterID=3, endpoints=["nowhere"])
    await declare(client, "b", clusterID=4, secretRef={"name": "none"})
    await declare(client, "c", clusterID=5, secretRef={"name": "half"})
    await declare(client, "d", clusterID=6, secretRef={"name": "mixed"})
    await declare(client, "e", clusterID=7, secretRef=None)
    await declare(client, "oslo")
    running()
    found = await written(client, lambda c: c.ids)
    assert set(found.ids) == {"oslo"}
    assert "spec.endpoints: " in await told(client, "a", "Invalid")
    assert "isthmus-peers/none does not exist: create" in await told(client, "b", "InvalidSecret")
    assert "has no tls.crt, tls.key: add" in await told(client, "c", "InvalidSecret")
    assert "not the key of tls.crt" in await told(client, "d", "InvalidSecret")
    assert "name a Secret with certificates" in await told(client, "e", "InvalidSecret")
    await secret(client, "none", MATERIAL, PEERS_NAMESPACE)
    await written(client, lambda c: "b" in c.ids)


async def test_a_command_s_connection_is_reported_and_left_alone(
    client: HttpClient, running: Callable[[], None]
) -> None:
    """Until it is parted; and no write of a command takes over an object's connection."""
    await secret(client, "oslo", MATERIAL, PEERS_NAMESPACE)
    config = b"endpoints: [https://192.0.2.9:2379]\ntrusted-ca-file: /ca\n"
    await connections.put(client, SPACE, Connection("oslo", 2, config))
    before = await client.get(untyped(SECRETS), connections.CLUSTERS_SECRET, SPACE)
    running()
    await declare(client, "oslo")
    assert "connected by a command" in await told(client, "oslo", "Conflict")
    after = await client.get(untyped(SECRETS), connections.CLUSTERS_SECRET, SPACE)
    assert before == after
    await client.delete(CLUSTER_MESH_PEERS, "oslo")
    await client.delete(SECRETS, connections.CLUSTERS_SECRET, SPACE)
    await declare(client, "oslo")
    await written(client, lambda c: c.declared)
    with pytest.raises(connections.ClaimedError, match="ClusterMeshPeer oslo"):
        await connections.put(client, SPACE, Connection("oslo", 2, config))


async def test_what_others_do_to_a_connection_is_undone_at_once(
    client: HttpClient, running: Callable[[], None]
) -> None:
    """The Secret is watched: edited, emptied or deleted, what the object says is written again."""
    await secret(client, "oslo", MATERIAL, PEERS_NAMESPACE)
    running()
    await declare(client, "oslo")
    good = (await written(client, lambda c: c.ids)).data["oslo"]

    async def again(since: float) -> None:
        await written(client, lambda c: c.data.get("oslo") == good and c.declared)
        assert asyncio.get_running_loop().time() - since < peers.ROUND_S / 3 * 2

    for data in ({"oslo": base64.b64encode(b"endpoints: []\n").decode()}, {"oslo": None}):
        at = asyncio.get_running_loop().time()
        change = {"data": data}
        await client.patch(untyped(SECRETS), connections.CLUSTERS_SECRET, change, SPACE)
        await again(at)
    at = asyncio.get_running_loop().time()
    await client.delete(SECRETS, connections.CLUSTERS_SECRET, SPACE)
    await again(at)


async def test_copies_are_what_agents_read(client: HttpClient, running: Callable[[], None]) -> None:
    """With KVStoreMesh the cluster's own store is named to agents, the peer to the mirror."""
    await secret(client, "oslo", MATERIAL, PEERS_NAMESPACE)
    containers = [{"name": "kvstoremesh", "image": "x"}]
    labels = {"k8s-app": "clustermesh-apiserver"}
    body = {
        "metadata": {"name": "clustermesh-apiserver", "namespace": SPACE},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
    }
    await client.create(untyped(DEPLOYMENTS), body)
    running()
    await declare(client, "oslo")
    found = await written(client, lambda c: c.ids)
    assert b"clustermesh-apiserver.kube-system.svc" in found.data["oslo"]
    real = await connections.read(client, SPACE, KVSTOREMESH_SECRET)
    assert b"192.0.2.1" in real.data["oslo"]
    assert "oslo.etcd-client.key" in real.data
    await client.delete(CLUSTER_MESH_PEERS, "oslo")
    await written(client, lambda c: not c.ids)
    assert not (await connections.read(client, SPACE, KVSTOREMESH_SECRET)).data


async def test_the_operator_s_roles_cover_what_this_takes(
    client: HttpClient, running: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And reading a Secret that is none of its business is covered by none."""
    await secret(client, "oslo", MATERIAL, PEERS_NAMESPACE)
    with rbac.recorded(monkeypatch) as calls:
        running()
        await declare(client, "oslo")
        await written(client, lambda c: c.ids)
        await told(client, "oslo", "Connecting")
    own = {c for c in calls if c.name != "oslo" or c.resource == "clustermeshpeers/status"}
    own = {c for c in own if (c.verb, c.resource) != ("create", "clustermeshpeers")}
    items = rbac.objects("rbac", namespace=SPACE)
    assert rbac.Call("update", "", "secrets", SPACE, "cilium-clustermesh") not in own
    assert {c.resource for c in own} >= {"secrets", "clustermeshpeers", "clustermeshpeers/status"}
    assert not rbac.refused("cilium-operator", own, items)
    foreign = rbac.Call("get", "", "secrets", SPACE, "somebody-elses")
    assert rbac.refused("cilium-operator", {foreign}, items) == [foreign]


async def test_the_schema_refuses_what_it_can(client: HttpClient) -> None:
    """Before it is stored."""
    bad: list[dict[str, Any]] = [
        {"clusterID": 0},
        {"clusterID": 512},
        {"endpoints": []},
        {"clusterName": "x" * 33},
    ]
    for spec in bad:
        with pytest.raises(ApiError, match="spec"):
            await declare(client, "bad", **spec)

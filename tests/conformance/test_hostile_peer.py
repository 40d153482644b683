"""A peer that lies in one field after another, from a real etcd into the tables."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent import shapes
from agent.mesh_state import MeshState
from agent.remote_inputs import RemoteInputs
from kvstore.allowance import Limits
from kvstore.config import StoreConfig
from kvstore.etcd import EtcdStore
from kvstore.port import Store
from kvstore.remote import Remote
from model.address import parse_address, parse_prefix
from model.cluster import Capabilities, ClusterConfig, ClusterId, ClusterName
from model.local_service import LocalService, MeshSettings
from model.node import INTERNAL_IP, Node, NodeAddress, NodeName
from model.service import L4, Protocol, Selection, ServiceName
from reconcile.tasks import TaskGroup
from tests.conformance.test_mesh_store import running
from tests.support import hostile
from tests.support.etcd import Etcd, when_up
from tests.support.hostile import LIES, Lie
from wire.etcd import cluster_config_v1, keys

pytestmark = pytest.mark.root

BETA, FIRST = ClusterName(hostile.NAME), ClusterName("aardvark")


class Reader:
    """What an agent of ours knows; ``aardvark`` is an honest peer that it has heard."""

    def __init__(self, etcd: Etcd, directory: Path, limits: Limits | None = None) -> None:
        self.mesh = MeshState(
            ClusterName("alpha"), NodeName("n1"), Selection.RANDOM, time.monotonic, 60.0
        )
        self.inputs = RemoteInputs(self.mesh, directory / "ids.json")

        async def connect() -> EtcdStore:
            return await when_up(StoreConfig((etcd.url,)))

        self.session = Remote(BETA, connect, self.inputs, lambda name, config: None, limits=limits)
        self.inputs.status = {BETA: self.session.status}.get
        self._node("alpha", 1, hostile.OUR_NODE, "10.203.1.0/24")
        self._node(FIRST, 3, hostile.THEIR_NODE, "10.210.1.0/24")
        ports = {"http": L4(80, Protocol.TCP)}
        for index, name in enumerate(("web", "api")):
            key = ServiceName("default", name)
            vip = parse_address(hostile.OUR_SERVICE).offset(index)
            made = LocalService(key, {vip: ports}, mesh=MeshSettings(is_global=True))
            self.mesh.services.set_service(key, made)

    def _node(self, cluster: str, number: int, host: str, cidr: str) -> None:
        address = NodeAddress(INTERNAL_IP, parse_address(host))
        name, pods = NodeName("n1"), (parse_prefix(cidr),)
        node = Node(ClusterName(cluster), name, ClusterId(number), (address,), pods)
        self.mesh.nodes.put(node)

    def tables(self) -> dict[str, Any]:
        """Everything that reaches the kernel, or others who ask."""
        return {
            "ipcache": dict(self.mesh.ipcache.items()),
            "services": dict(self.mesh.services.items()),
            "identities": dict(self.mesh.identities.items()),
            "nodes": sorted((n.cluster, n.name) for n in self.mesh.nodes),
        }

    def violations(self) -> dict[str, tuple[int, str]]:
        shape = shapes.remote_cluster(
            self.session.status, dict.fromkeys(keys.RESOURCES, 0), None, self.mesh.violations(BETA)
        )
        return {v["kind"]: (v["count"], v["example"]) for v in shape["violations"]}

    async def until(self, holds: Any, timeout_s: float = 30) -> None:
        async with asyncio.timeout(timeout_s):
            while not holds():  # noqa: ASYNC110 -- many things may make it hold
                await asyncio.sleep(0.01)


async def published(etcd: Etcd, rows: dict[str, bytes]) -> EtcdStore:
    """The store with exactly these rows, announced and complete."""
    store = await when_up(StoreConfig((etcd.url,)))
    await fill(store, rows)
    return store


async def fill(store: Store, rows: dict[str, bytes]) -> None:
    """Exactly these rows, announced and complete."""
    await store.delete("cilium/", prefix=True)
    config = ClusterConfig(ClusterId(hostile.NUMBER), Capabilities(synced_canaries=True))
    await store.put(keys.cluster_config(BETA), cluster_config_v1.encode(config))
    await store.put(keys.HEARTBEAT, b"now")
    for key, value in rows.items():
        await store.put(key, value)
    for resource in keys.REQUIRED:
        await store.put(keys.canary(BETA, resource), b"now")


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.name)
async def test_a_lie_reaches_nothing(etcd: Etcd, tmp_path: Path, lie: Lie) -> None:
    """Told after the truth: the tables stay as they were, it is counted by its kind with an
    example, and the same peer's next honest change works."""
    store = await published(etcd, hostile.HONEST)
    reader = Reader(etcd, tmp_path)
    async with running(reader.session):
        await reader.until(lambda: reader.session.status.ready)
        honest = reader.tables()
        pod = parse_prefix(f"{hostile.POD}/32")
        assert honest["ipcache"][pod].identity == hostile.IDENTITY
        assert reader.violations() == {}
        await store.put(lie.key, lie.value)
        await reader.until(reader.violations)
        assert set(reader.violations()) == {lie.kind}, reader.violations()
        count, example = reader.violations()[lie.kind]
        assert count
        assert example
        assert reader.tables() == honest
        key = f"cilium/state/ip/v1/default/{hostile.POD}"
        await store.put(key, hostile.encoded(hostile.ip(ID=hostile.IDENTITY + 1)))
        await reader.until(lambda: reader.tables()["ipcache"][pod].identity == hostile.IDENTITY + 1)
    await store.close()


async def test_all_lies_at_once_before_the_truth(etcd: Etcd, tmp_path: Path) -> None:
    """Whatever the order of types and keys in the first listing, only the truth remains."""
    truthful = await published(etcd, hostile.HONEST)
    reader = Reader(etcd, tmp_path)
    async with running(reader.session):
        await reader.until(lambda: reader.session.status.ready)
        honest = reader.tables()
    await truthful.close()
    store = await published(etcd, {lie.key: lie.value for lie in LIES} | hostile.HONEST)
    reader = Reader(etcd, tmp_path)
    async with running(reader.session):
        await reader.until(lambda: reader.session.status.ready)
        assert reader.tables() == honest
        # What a liar said goes when it is taken back; the counts stay.
        before = reader.violations()
        for lie in LIES:
            if lie.key not in hostile.HONEST:
                await store.delete(lie.key)
        await reader.until(lambda: not reader.mesh.problems())
        assert reader.tables() == honest
        assert reader.violations() == before
    await store.close()


async def test_an_address_waits_for_its_node(etcd: Etcd, tmp_path: Path) -> None:
    """Told before its node, an address is no lie: it is accepted when the node comes."""
    rows = {k: v for k, v in hostile.HONEST.items() if "/nodes/" not in k}
    store = await published(etcd, rows)
    await store.delete(keys.canary(BETA, keys.NODES))
    reader = Reader(etcd, tmp_path)
    pod = parse_prefix(f"{hostile.POD}/32")
    async with running(reader.session):
        await reader.until(
            lambda: reader.session.status.synced == set(keys.REQUIRED) - {keys.NODES}
        )
        assert pod not in reader.tables()["ipcache"]
        assert reader.violations() == {}
        await store.put(f"{hostile.NODES}m1", hostile.HONEST[f"{hostile.NODES}m1"])
        await store.put(keys.canary(BETA, keys.NODES), b"now")
        await reader.until(lambda: pod in reader.tables()["ipcache"])
        await reader.until(lambda: reader.session.status.ready)
        (row,) = [
            r for f, r in reader.mesh.services.items() if str(f.address) == hostile.OUR_SERVICE
        ]
        assert [str(b.address) for b in row.backends] == [hostile.POD]
        assert reader.violations() == {}
    await store.close()


@contextmanager
def addresses(count: int) -> Iterator[dict[str, bytes]]:
    yield {
        f"{hostile.IPS}10.213.1.{n}": hostile.encoded(hostile.ip(IP=f"10.213.1.{n}"))
        for n in range(10, 10 + count)
    }


async def test_rows_are_bounded(etcd: Etcd, tmp_path: Path) -> None:
    """Beyond the limit nothing is taken or remembered; when rows go, the others get their room."""
    limits = Limits(rows={**Limits().rows, keys.IP: 5}, relist_gap_s=0)
    with addresses(8) as rows:
        store = await published(etcd, {f"{hostile.NODES}m1": encoded_node(), **rows})
        reader = Reader(etcd, tmp_path, limits)

        def known() -> int:
            return sum(
                str(p).startswith("10.213.1.") and p.prefixlen == 32
                for p in reader.tables()["ipcache"]
            )

        async with running(reader.session):
            await reader.until(lambda: reader.session.status.ready)
            assert known() == 5
            assert "more than 5 ip" in reader.violations()["record-ip"][1]
            for key in sorted(rows)[:4]:
                await store.delete(key)
            await reader.until(lambda: known() == 4)
        await store.close()


def encoded_node() -> bytes:
    return hostile.HONEST[f"{hostile.NODES}m1"]


async def test_bytes_are_bounded(etcd: Etcd, tmp_path: Path) -> None:
    """All services of a cluster together have a limit; what no longer fits is refused by name."""
    limits = Limits(all_bytes={keys.SERVICES: 3000})
    values = {
        f"{hostile.SERVICES}default/s{n}": hostile.encoded(
            hostile.service(name=f"s{n}", labels={"a": "x" * 600})
        )
        for n in range(6)
    }
    store = await published(etcd, hostile.HONEST | values)
    reader = Reader(etcd, tmp_path, limits)
    async with running(reader.session):
        await reader.until(lambda: reader.session.status.ready)
        taken = reader.mesh.services.count_shared(BETA)
        assert 0 < taken < 7
        assert "no room" in reader.violations()["record-services"][1]
        for key in values:
            await store.delete(key)
        await store.put(
            f"{hostile.SERVICES}default/web", hostile.encoded(hostile.service(labels={"b": "c"}))
        )
        await reader.until(lambda: reader.mesh.services.count_shared(BETA) == 1)
    await store.close()


async def test_a_flapping_peer_delays_nobody(etcd: Etcd, tmp_path: Path) -> None:
    """Its changes are thinned out to the latest of each key and end in the truth; meanwhile a
    local change and another task of the same loop have their turn between any few of its rows."""
    limits = Limits(rows_per_s=20, burst_rows=20)  # less than any machine writes
    store = await published(etcd, hostile.HONEST)
    reader = Reader(etcd, tmp_path, limits)
    pod = parse_prefix(f"{hostile.POD}/32")
    taken = 0
    original = reader.inputs.on_changes

    def counted(cluster: ClusterName, resource: str, changes: Any) -> None:
        nonlocal taken
        taken += len(changes)
        original(cluster, resource, changes)

    reader.inputs.on_changes = counted  # type: ignore[method-assign]
    between: list[int] = []
    key = f"{hostile.IPS}{hostile.POD}"

    async def others() -> None:
        while True:
            before = taken
            await asyncio.sleep(0)
            between.append(taken - before)

    async with running(reader.session), TaskGroup() as tasks:
        await reader.until(lambda: reader.session.status.ready)
        other = tasks.create_task(others())
        start = taken
        for n in range(1500):
            value = hostile.ip(ID=hostile.IDENTITY + n % 7)
            await store.put(key, hostile.encoded(value))
        last = hostile.IDENTITY + 20
        await store.put(key, hostile.encoded(hostile.ip(ID=last)))
        await reader.until(lambda: reader.tables()["ipcache"][pod].identity == last)
        other.cancel()
        assert reader.session.status.throttled > 0
        assert reader.session.status.late == 0
        assert taken - start < 1500
        assert max(between) <= 256
    await store.close()

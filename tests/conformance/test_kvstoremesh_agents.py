"""Agents that read copies: real etcds with TLS and users on both sides."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kvstore import etcd as client
from kvstore.etcd import EtcdStore
from model.service import ServiceName
from tests.conformance.test_mesh_store import EXPECTED, Learnt, rows, running
from tests.support.etcd import Etcd
from tests.support.kvstoremesh import (
    Pair,
    pair_of_stores,
    until,
)
from tests.support.tcp_proxy import TcpProxy
from wire.etcd import keys

pytestmark = pytest.mark.root


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Two stores, and nothing between them yet."""
    with pair_of_stores(tmp_path / "mesh") as found:
        yield found


async def test_agents_read_the_copy(pair: Pair) -> None:
    """A session with the local user learns the same from the copy as from the cluster itself."""
    writer = pair.said(rows())
    sink = Learnt()
    await pair.beats()
    agent = pair.agent(sink)
    async with pair.copying(writer, agent):
        pair.configure()
        await sink.until(lambda: agent.status.ready)
        assert set(sink.rows) == EXPECTED
        assert agent.status.config is not None
        assert agent.status.config.capabilities.cached
        await until(lambda: bool(agent.status.freshness and agent.status.freshness.connected))


async def test_agents_change_over_to_the_copy(pair: Pair) -> None:
    """An agent that read the cluster itself and now reads the copy loses nothing on the way."""
    writer = pair.said(rows())
    await pair.beats()
    changed_over: list[bool] = []
    sink = Watchful()

    async def either() -> EtcdStore:
        if changed_over:
            return await pair.near.store("local-c1")
        return await door_store(door, pair.far)

    agent = pair.agent(sink, either)
    async with (
        pair.door() as door,
        pair.copying(writer, agent) as copies,
    ):
        pair.configure()
        await until(copies.ready)
        await sink.until(lambda: agent.status.ready)
        changed_over.append(True)
        door.close_door()
        await sink.until(lambda: bool(agent.status.ready and agent.status.freshness))
        assert agent.status.config is not None
        assert agent.status.config.capabilities.cached
        assert set(sink.rows) == EXPECTED
        assert sink.gone == 0


class Watchful(Learnt):
    """Counts what was taken back."""

    gone = 0

    def on_changes(self, cluster, resource, changes):
        self.gone += sum(value is None for _, value in changes)
        super().on_changes(cluster, resource, changes)


async def door_store(door: TcpProxy, etcd: Etcd) -> EtcdStore:
    config = replace(etcd.user("remote"), endpoints=(f"https://127.0.0.1:{door.port}",))
    return await client.connect(config)


async def test_a_copy_that_is_too_old_is_revoked_for_agents(pair: Pair) -> None:
    """The cluster is cut off from its mirror: agents of the copy see the age, take its services
    back after their time, and have them again when it is back. One that starts meanwhile knows
    the age at once."""
    writer = pair.said(rows())
    await pair.beats()
    sink, late = Learnt(), Learnt()
    agent = pair.agent(sink)
    agent.set_policy(100.0)
    service = (keys.SERVICES, ServiceName("ns", "svc"))
    async with (
        pair.door() as door,
        pair.copying(writer, agent),
    ):
        pair.configure(door)
        await sink.until(lambda: agent.status.ready)
        assert set(sink.rows) == EXPECTED
        door.close_door()
        await sink.until(
            lambda: bool(agent.status.freshness and not agent.status.freshness.connected)
        )
        assert agent.status.ready
        assert service in sink.rows
        agent.set_policy(4.0)
        await sink.until(lambda: service not in sink.rows)
        assert set(sink.rows) == EXPECTED - {service}
        assert agent.status.age.revoked
        young = pair.agent(late)
        young.set_policy(4.0)
        async with running(young):
            await late.until(lambda: young.status.ready)
            await late.until(lambda: set(late.rows) == EXPECTED - {service})
            door.open_door()
            for told, session in ((sink, agent), (late, young)):
                await told.until(lambda t=told, s=session: service in t.rows and s.status.ready, 60)
                assert set(told.rows) == EXPECTED


async def test_a_dead_mirror_takes_nothing_with_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its copy runs out with its leases, after agents have noticed its silence: they keep all,
    and read again when it speaks again."""
    monkeypatch.setattr("kvstore.remote.COPY_TIMEOUT_S", 6.0)
    writer = pair.said(rows())
    await pair.beats()
    store = await pair.near.store("admin-c1")
    sink = Learnt()
    agent = pair.agent(sink)
    async with running(writer, agent):
        async with pair.copying():
            pair.configure()
            await sink.until(lambda: agent.status.ready)
        await sink.until(lambda: "waiting for a word of KVStoreMesh" in agent.status.message, 40)
        for lease in {row.lease for row in (await store.range("cilium/")).rows} - {0}:
            await store.revoke(lease)
        assert not (await store.range(keys.CACHE_PREFIX)).rows
        await asyncio.sleep(3)
        assert set(sink.rows) == EXPECTED
        monkeypatch.setattr("kvstore.remote.COPY_TIMEOUT_S", 240.0)
        async with pair.copying():
            await sink.until(lambda: agent.status.ready, 60)
            assert set(sink.rows) == EXPECTED
    await store.close()

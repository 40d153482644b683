"""The stores of the simulated clusters: filled fast, changed one put at a time. Adapter.

One etcd of our own cluster holds the copies that a KVStoreMesh would make of most clusters; some
clusters may have an etcd of their own, which the agent then reads without a mirror in between.
Every key hangs on a lease, 1,000 keys each, as publishers and mirrors have it.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from kind.simulate import shape as layout
from kind.simulate.population import Cluster, Population, Row
from kind.simulate.processes import TXN_OPS, MeshStore, Pki
from kvstore.etcd import EtcdStore
from model.cluster import Capabilities, ClusterConfig, ClusterId
from reconcile.tasks import TaskGroup
from wire.etcd import cluster_config_v1, freshness_v1, keys
from wire.etcd.freshness_v1 import Freshness

LEASE_KEYS = 1000
LEASE_S = 24 * 3600  # nobody prolongs them here
BEAT_S = 30.0
AGE_BEATS = 4  # a mirror tells the age of a copy every two minutes
PARALLEL = 8  # transactions under way
FIRST_PORT = 32379


@dataclass(slots=True)
class Site:
    """A store with what is written there."""

    server: MeshStore
    user: str  # as whom the agent reads it
    cached: bool
    store: EtcdStore
    lease: int = 0
    leased: int = LEASE_KEYS

    async def next_lease(self, count: int) -> int:
        """A lease with room for so many more keys."""
        if self.leased + count > LEASE_KEYS:
            self.lease, self.leased = await self.store.grant(LEASE_S), 0
        self.leased += count
        return self.lease


class Stores:
    """All of them."""

    def __init__(self, population: Population, pki: Pki, direct: int) -> None:
        self._all = population
        self._pki = pki
        self._direct = direct
        self._sites: dict[int, Site] = {}  # by cluster

    async def start(self) -> None:
        """Start the etcds."""
        shape = self._all.shape
        own = MeshStore(self._pki, layout.OWN_NAME, FIRST_PORT)
        mirror = Site(own, f"local-{layout.OWN_NAME}", True, await own.start())
        for cluster in self._all.clusters:
            number = cluster.number
            if number <= self._direct:
                server = MeshStore(self._pki, shape.name(number), FIRST_PORT + 2 * number)
                site = Site(server, "remote", False, await server.start())
                self._sites[number] = site
            else:
                self._sites[number] = mirror

    @property
    def sites(self) -> list[Site]:
        """Every store once."""
        return list({id(site): site for site in self._sites.values()}.values())

    async def close(self) -> None:
        """Drop the connections."""
        for site in self.sites:
            await site.store.close()

    async def beat(self) -> None:
        """Heartbeats of all stores and the age of all copies, until cancelled."""
        turns = itertools.cycle(range(AGE_BEATS))
        while True:
            for site in self.sites:
                await site.store.put(keys.HEARTBEAT, _now())
            turn = next(turns)
            for number, site in self._sites.items():
                if site.cached and number % AGE_BEATS == turn:
                    await site.store.put(*self._freshness(number), site.lease)
            await asyncio.sleep(BEAT_S)

    def _freshness(self, cluster: int) -> tuple[str, bytes]:
        heard = Freshness(_now().decode(), connected=True)
        return keys.freshness(self._all.shape.name(cluster)), freshness_v1.encode(heard)

    async def fill(self, wrote: Callable[[int], None]) -> None:
        """Everything that every cluster says at the start; ``wrote`` is told how many rows."""
        room = asyncio.Semaphore(PARALLEL)

        async def write(site: Site, rows: dict[bytes, bytes | None], lease: int) -> None:
            try:
                await site.store.write(rows, dict.fromkeys(rows, lease))
                wrote(len(rows))
            finally:
                room.release()

        async with TaskGroup() as tasks:
            for cluster in self._all.clusters:
                site = self._sites[cluster.number]
                for rows in self._batches(site, cluster):
                    await room.acquire()
                    lease = await site.next_lease(len(rows))
                    tasks.create_task(write(site, rows, lease))
        for cluster in self._all.clusters:
            await self._announce(self._sites[cluster.number], cluster)

    def _batches(self, site: Site, cluster: Cluster) -> Iterator[dict[bytes, bytes | None]]:
        rows = self._all.rows(cluster)
        size = min(TXN_OPS, LEASE_KEYS)
        while batch := {self._key(site, r).encode(): r.value for r in islice(rows, size)}:
            yield batch

    def _key(self, site: Site, row: Row) -> str:
        cluster = self._all.shape.name(row.cluster)
        return keys.resource_prefix(row.resource, cluster, site.cached) + row.name

    async def _announce(self, site: Site, cluster: Cluster) -> None:
        name = self._all.shape.name(cluster.number)
        capabilities = Capabilities(True, site.cached, self._all.shape.max_connected)
        config = ClusterConfig(ClusterId(cluster.number), capabilities)
        lease = await site.next_lease(len(keys.REQUIRED) + 2)
        rows: dict[bytes, bytes | None] = {
            keys.cluster_config(name).encode(): cluster_config_v1.encode(config)
        }
        for resource in keys.REQUIRED:
            rows[keys.canary(name, resource, site.cached).encode()] = _now()
        if site.cached:
            key, value = self._freshness(cluster.number)
            rows[key.encode()] = value
        await site.store.write(rows, dict.fromkeys(rows, lease))

    async def apply(self, row: Row) -> None:
        """One change, by an operation of its own."""
        site = self._sites[row.cluster]
        key = self._key(site, row)
        if row.value is None:
            await site.store.delete(key)
        else:
            await site.store.put(key, row.value, await site.next_lease(1))

    def write_files(self, directory: Path) -> None:
        """The directory that tells an agent which clusters there are."""
        directory.mkdir()
        for number, site in self._sites.items():
            text = site.server.file(site.user)
            (directory / self._all.shape.name(number)).write_text(text)


def _now() -> bytes:
    return datetime.now(UTC).isoformat(timespec="seconds").encode()

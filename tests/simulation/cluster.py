"""A simulated cluster: its etcd in memory, and the real publisher that fills it."""

import asyncio
import random

from kind.simulate.churn import MIX, Churn
from kind.simulate.population import Cluster, Population, Row
from kvstore.publisher import Publisher
from model.cluster import Capabilities, ClusterConfig, ClusterId
from reconcile.tasks import TaskGroup
from tests.support.fake_store import Contents, FakeEtcd, FakeStore, Link, connect
from wire.etcd import keys

LATENCY_S = 0.01


class Publishing:
    """What one cluster says. ``objects`` is what its API server has: it outlives everything."""

    def __init__(self, population: Population, cluster: Cluster, seed: int) -> None:
        self.number = cluster.number
        self.name = population.shape.name(cluster.number)
        self.etcd = FakeEtcd(1000 * cluster.number)
        self.link = Link(random.Random(seed), LATENCY_S)
        self.saved: Contents | None = None
        self.objects: dict[str, bytes] = {}
        for row in population.rows(cluster):
            self._note(row)
        self._publisher: Publisher | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def runs(self) -> bool:
        """Whether the publisher is there."""
        return self._task is not None

    def start(self, tasks: TaskGroup) -> None:
        """Begin with what the API server has."""
        config = ClusterConfig(ClusterId(self.number), Capabilities(synced_canaries=True))

        async def dial() -> FakeStore:
            return await connect(self.etcd, self.link)

        publisher = self._publisher = Publisher(dial, self.name, config)
        publisher.put(self.objects)
        for resource in keys.RESOURCES:
            publisher.complete(resource)
        self._task = tasks.create_task(publisher.run())

    async def crash(self) -> None:
        """It writes no farewell."""
        task, self._task, self._publisher = self._task, None, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    def happen(self, row: Row) -> None:
        """A change in this cluster."""
        key = self._note(row)
        if self._publisher is not None:
            self._publisher.put({key: self.objects.get(key)})

    def _note(self, row: Row) -> str:
        key = keys.resource_prefix(row.resource, self.name) + row.name
        if row.value is None:
            self.objects.pop(key, None)
        else:
            self.objects[key] = row.value
        return key


class Mesh:
    """All clusters and what happens in them."""

    def __init__(self, population: Population, seed: int) -> None:
        self.population = population
        self.clusters = [
            Publishing(population, cluster, seed + cluster.number)
            for cluster in population.clusters
        ]
        # What is there from the beginning and stays: no agent may ever lose it again.
        self.lasting = dict(population.truth.hosts)
        self._churn = Churn(population, random.Random(seed), MIX)

    def change(self) -> str:
        """Something happens somewhere; what, for people."""
        change = self._churn.next(())
        self.clusters[change.row.cluster - 1].happen(change.row)
        if change.effect is not None and isinstance(change.effect.key, bytes):
            self.lasting.pop(change.effect.key, None)
        return f"{change.kind} {change.row.name} of {change.row.cluster}"

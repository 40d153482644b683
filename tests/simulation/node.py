"""A simulated node: the agent's real reading, deciding and reconciling over a kernel in memory."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from agent.api_server import ApiServer
from agent.known import KnownIdentities
from agent.mesh_state import MeshState
from agent.policies import Policies
from agent.remote_inputs import RemoteInputs
from agent.targets import Routes, Tables
from datapath import encoding
from datapath.routes import Route
from datapath.runtime import Datapath
from kind.simulate import shape as layout
from kind.simulate.population import Population, service_name
from kvstore.config import StoreConfig
from kvstore.config_directory import ConfigDirectory, Directory, RemoteConfig
from kvstore.remotes import Remotes
from model.address import Address, is_host, make_prefix, pack, parse_address
from model.cluster import ClusterId, ClusterName
from model.local_service import LocalService, MeshSettings
from model.node import INTERNAL_IP, Node, NodeAddress, NodeName
from model.service import L4, LoadBalancer, Protocol, Selection, ServiceName
from policy.known import Mode, Options
from policy.table import PolicyTable
from reconcile.loop import Loop
from reconcile.tasks import TaskGroup
from tests.simulation.cluster import LATENCY_S, Mesh
from tests.support.datapath import FakeTable
from tests.support.fake_store import FakeStore, Link, connect
from wire.etcd import identity_v1, keys

DRAIN_S = 30.0


class ServiceTable(FakeTable[Any, LoadBalancer]):
    """A kernel does not know names: a new agent reads rows without them."""

    def forget_names(self) -> None:
        """Its reader is gone, and with it what only the reader knew."""
        for key, row in self.rows.items():
            bare = tuple(
                replace(b, cluster=ClusterName(""), preferred=False, node="") for b in row.backends
            )
            self.rows[key] = replace(row, name=ServiceName("", ""), backends=bare)


class Kernel:
    """The tables, as ``Tables`` asks for them; they outlive the agent."""

    def __init__(self) -> None:
        self.policy: FakeTable[Any, Any] = FakeTable()
        self.host_addresses: FakeTable[Any, Any] = FakeTable()
        self.cidr_rules: FakeTable[Any, Any] = FakeTable()
        self.api_servers: FakeTable[Any, Any] = FakeTable()
        self.endpoints: FakeTable[Any, Any] = FakeTable()
        self.ipcache: FakeTable[Any, Any] = FakeTable()
        self.routes: FakeTable[Any, Any] = FakeTable()
        self.services = ServiceTable()

    @property
    def tables(self) -> tuple[FakeTable[Any, Any], ...]:
        """Those that remote clusters fill."""
        return self.ipcache, self.routes, self.services


class Membership:
    """The configuration directory: which clusters the agent is told to read."""

    def __init__(self) -> None:
        self.clusters: set[int] = set()
        self._changed = asyncio.Event()

    def set(self, clusters: set[int]) -> None:
        """From now on these."""
        self.clusters = set(clusters)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def changes(self) -> AsyncIterator[Directory]:
        """As ``ConfigDirectory`` tells them."""
        while True:
            changed = self._changed
            found = {}
            for number in sorted(self.clusters):
                name = ClusterName(f"sim-{number:03}")
                config = StoreConfig((f"fake://{number}",))
                found[name] = RemoteConfig(name, str(number), config)
            yield Directory(found, ())
            await changed.wait()


class SimulatedNode:
    """One node. ``start`` and ``crash`` as often as you like."""

    def __init__(self, number: int, mesh: Mesh, directory: Path, seed: int) -> None:
        self.number, self._mesh = number, mesh
        self._population: Population = mesh.population
        self._ids_file = directory / f"remote-clusters-{number}.json"
        self._random = random.Random(seed)
        self.kernel = Kernel()
        self.membership = Membership()
        self.membership.set({c.number for c in mesh.clusters})
        self.links = {
            c.number: Link(random.Random(seed + c.number), LATENCY_S) for c in mesh.clusters
        }
        self.learnt: set[int] = set()  # clusters of which everything lasting has been seen here
        self.state: MeshState | None = None
        self.tables: Tables | None = None
        self.remotes: Remotes | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def runs(self) -> bool:
        """Whether the agent is there."""
        return self._task is not None

    def start(self, tasks: TaskGroup) -> None:
        """A new agent on what the kernel has."""
        self._task = tasks.create_task(self._run())

    async def crash(self) -> None:
        """Nothing is tidied."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
        self.kernel.services.forget_names()

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        own, me = ClusterName(f"own-{self.number}"), NodeName("me")
        state = self.state = MeshState(own, me, Selection.RANDOM, clock, DRAIN_S)
        inputs = RemoteInputs(state, self._ids_file)
        remotes = self.remotes = Remotes(
            cast("ConfigDirectory", self.membership),
            inputs,
            own,
            ClusterId(255 - self.number),
            wanted=inputs.types,
            connect=self._connect,
            randomness=self._random,
        )
        inputs.status = remotes.status
        node = _own_node(own, me, self.number)
        far = {layout.OWN_IP.version: lambda node: Route(mtu=1450)}
        routes = Routes(state.ipcache, node.pod_cidrs, (layout.OWN_IP,), far)
        tables = self.tables = Tables(
            cast("Datapath", self.kernel),
            own,
            state.ipcache,
            state.services,
            cast("Any", SimpleNamespace(get=lambda key: None, items=tuple)),
            routes,
            {},
            Policies(
                PolicyTable(Options(Mode.NEVER)),
                state,
                KnownIdentities(),
                tuple,
                lambda namespace, pod: (),
                ApiServer(state, me),
                self._ids_file.with_name("unused.json"),
                clock,
            ),
            {},
            clock,
            self._random.random,
        )
        state.on_prefixes = tables.prefixes_changed
        state.on_frontend = tables.services.mark
        state.nodes.put(node)
        self._restore(inputs, tables)
        loop = Loop(tables.ordered())
        async with TaskGroup() as tasks:
            tasks.create_task(loop.run())
            tasks.create_task(remotes.run())
            tasks.create_task(self._forget_strangers(inputs, remotes))
            tasks.create_task(self._end_drains(state))
            self._tell_services(state)
            tables.services.release()
            for table in tables.ordered():
                table.allow_prune()

    def _restore(self, inputs: RemoteInputs, tables: Tables) -> None:
        inputs.restore(
            list(self.kernel.ipcache.rows.items()), list(self.kernel.services.rows.items())
        )
        tables.services.hold()

    async def _connect(self, config: StoreConfig) -> FakeStore:
        number = int(config.endpoints[0].rpartition("/")[2])
        return await connect(self._mesh.clusters[number - 1].etcd, self.links[number])

    async def _forget_strangers(self, inputs: RemoteInputs, remotes: Remotes) -> None:
        await remotes.configured.wait()
        inputs.configured(remotes.statuses)

    async def _end_drains(self, state: MeshState) -> None:
        while True:
            await asyncio.sleep(1.0)
            state.services.expire()

    def _tell_services(self, state: MeshState) -> None:
        for service in range(self._population.shape.services):
            name = ServiceName(layout.NAMESPACE, service_name(service))
            ports = {layout.PORT_NAME: L4(layout.PORT, Protocol.TCP)}
            mesh = MeshSettings(is_global=True)
            state.services.set_service(
                name, LocalService(name, {_frontend(service): ports}, mesh=mesh)
            )

    def differences(self) -> list[str]:
        """In what the kernel is not what the clusters say; nothing when all is well."""
        shape, truth = self._population.shape, self._population.truth
        members = self.membership.clusters
        kernel = self.kernel
        simulated = {
            prefix: encoding.ipcache_value(row)
            for prefix, row in kernel.ipcache.rows.items()
            if shape.is_simulated(prefix.network_address)
        }
        hosts = {pack(p.network_address): v for p, v in simulated.items() if is_host(p)}
        prefixes = {
            encoding.ipcache_prefix_key(p): v for p, v in simulated.items() if not is_host(p)
        }
        routes = {
            encoding.ipcache_prefix_key(p): b""
            for p in kernel.routes.rows
            if shape.is_simulated(p.network_address)
        }
        wanted = {k: v for k, v in truth.prefixes.items() if _cluster(v) in members}
        return [
            *_compare(
                "ipcache", {k: v for k, v in truth.hosts.items() if _cluster(v) in members}, hosts
            ),
            *_compare("prefixes", wanted, prefixes),
            *_compare("routes", dict.fromkeys(wanted, b""), routes),
            *_compare("services", self._wanted_backends(), self._backends()),
            *_compare("identities", self._wanted_labels(), self._labels()),
            *(
                f"session {name} is {status.state.value}: {status.message}"
                for name, status in (self.remotes.statuses if self.remotes else {}).items()
                if not status.ready
            ),
        ]

    def _wanted_backends(self) -> dict[int, frozenset[Address]]:
        shape, members = self._population.shape, self.membership.clusters
        blocks = {shape.pod_ip(n, 0, 0).packed[:2] for n in members}
        return {
            service: frozenset(a for a in backends if a.packed[:2] in blocks)
            for service, backends in enumerate(self._population.truth.backends)
        }

    def _backends(self) -> dict[int, frozenset[Address]]:
        found: dict[int, frozenset[Address]] = {}
        for service in range(self._population.shape.services):
            rows = self.kernel.services.rows.items()
            row = next((r for f, r in rows if f.address == _frontend(service)), None)
            chosen = row.backends[: row.selectable] if row is not None else ()
            found[service] = frozenset(b.address for b in chosen)
            if row is not None and len(row.backends) > row.selectable:
                found[-service - 1] = frozenset(b.address for b in row.backends)  # still drain
        return found

    def _wanted_labels(self) -> dict[int, str]:
        found = {}
        for cluster in self._mesh.clusters:
            if cluster.number in self.membership.clusters:
                prefix = keys.resource_prefix(keys.IDENTITIES, cluster.name)
                for key, value in cluster.objects.items():
                    if key.startswith(prefix):
                        labels = identity_v1.parse_labels(value.decode())
                        found[int(key.removeprefix(prefix))] = labels.text()
        return found

    def _labels(self) -> dict[int, str]:
        items = self.state.identities.items() if self.state else ()
        return {int(number): labels.text() for number, labels in items}

    def work(self) -> str:
        """What it took: differs as soon as anything in the agent went another way."""
        tables = self.tables.ordered() if self.tables else ()
        return ", ".join(
            f"{t.name} {t.status.rounds}/{t.status.written}/{t.status.removed}" for t in tables
        )

    def lost(self) -> list[str]:
        """Rows that no fault excuses the loss of: what a member has said all along."""
        missing: dict[int, str] = {}
        for key, value in self._mesh.lasting.items():
            address = Address(key)
            if make_prefix(address, 32) not in self.kernel.ipcache.rows:
                missing[_cluster(value)] = str(address)
        self.learnt &= self.membership.clusters
        found = [text for number, text in missing.items() if number in self.learnt]
        # Rows of an earlier membership may linger, and have to go: who speaks is asked as well.
        self.learnt |= {n for n in self.membership.clusters - missing.keys() if self._hears(n)}
        return found

    def _hears(self, number: int) -> bool:
        status = self.remotes.status(ClusterName(f"sim-{number:03}")) if self.remotes else None
        return status is not None and status.ready


def _own_node(own: ClusterName, me: NodeName, number: int) -> Node:
    return Node(
        cluster=own,
        name=me,
        cluster_id=ClusterId(255 - number),
        addresses=(NodeAddress(INTERNAL_IP, layout.OWN_IP),),
        pod_cidrs=(layout.OWN_PODS,),
    )


def _frontend(service: int) -> Address:
    return parse_address(f"172.30.1.{service}")


def _cluster(value: bytes) -> int:
    return encoding.parse_ipcache_value(value).cluster_id


def _compare(name: str, wanted: dict[Any, Any], found: dict[Any, Any]) -> list[str]:
    if wanted == found:
        return []
    missing = [k for k in wanted if k not in found]
    extra = [k for k in found if k not in wanted]
    wrong = [k for k in wanted if k in found and wanted[k] != found[k]]
    some = next(iter((*missing, *extra, *wrong)))
    return [
        f"{name}: {len(missing)} missing, {len(extra)} too many, {len(wrong)} wrong, "
        f"such as {some!r}: {found.get(some)!r}, wanted {wanted.get(some)!r}"
    ]

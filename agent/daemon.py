"""The agent put together: objects by subject, then one tree of tasks. Wiring only.

Start: learn the node, open the datapath (packets already flow by what is pinned), take over
endpoints and the remote clusters' last words, listen, read the API server, and only then write:
a table is never written from half of its inputs.
"""

import logging
import random
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web
from msgspec import structs

from agent import api, upkeep
from agent.cni import Cni
from agent.config import AgentConfig, cluster_id, peer_limits, probe_rules
from agent.delete_queue import drained
from agent.endpoint_store import Endpoint, EndpointStore
from agent.endpoints import Endpoints
from agent.identities import IdentityAllocator, allocatable
from agent.ipam import Pools
from agent.kube_inputs import KubeInputs
from agent.links import DatapathLinks
from agent.mesh_encryption import MeshEncryption, OpenedEncryption
from agent.mesh_state import MeshState
from agent.names import Names, both
from agent.node import Self
from agent.opening import remember_mode
from agent.policy_wiring import PolicyNode
from agent.probing import Prober
from agent.publish import EndpointObjects, NodeObject, PodKey, PublishedEndpoint, WantedEndpoints
from agent.relabel import Relabeller
from agent.remote_inputs import RemoteInputs
from agent.routing import far_routes
from agent.targets import Routes, Tables
from agent.view import Progress, View
from datapath.kernel_thread import KernelThread
from datapath.runtime import Datapath
from kube.client import HttpClient
from kvstore.config_directory import ConfigDirectory
from kvstore.remotes import Remotes
from model.cluster import ClusterId
from model.node import Node, NodeName
from reconcile.loop import Loop
from reconcile.table import Table
from reconcile.tasks import TaskGroup
from wire.k8s.meta import labels_of

log = logging.getLogger("isthmus.agent")

ZONE_LABEL = "topology.kubernetes.io/zone"
GAP_S = 0.01  # between writes to the kernel while changes keep coming: ten cost what one costs


@dataclass(slots=True)
class _Hooks:
    """Ends of wires whose other ends are made later."""

    tables: Tables | None = None
    objects: Table[PodKey, PublishedEndpoint] | None = None
    names: Names | None = None

    def endpoint_changed(self, old: Endpoint | None, new: Endpoint | None) -> None:
        assert self.tables is not None
        self.tables.endpoint_changed(old, new)
        some = new or old
        if self.objects is not None and some is not None and some.pod:
            self.objects.mark((some.namespace, some.pod))
        if self.names is not None and some is not None:
            self.names.endpoint_changed(some.id)

    async def written(self, endpoint: Endpoint) -> None:
        assert self.tables is not None
        await self.tables.written(endpoint)

    async def removed(self, endpoint: Endpoint) -> None:
        assert self.tables is not None
        await self.tables.removed(endpoint)


class Daemon:
    """All parts of one agent."""

    def __init__(
        self,
        config: AgentConfig,
        client: HttpClient,
        me: Self,
        pools: Pools,
        datapath: Datapath,
        links_thread: KernelThread,
        progress: Progress,
        opened: OpenedEncryption,
    ) -> None:
        self.config, self.me, self.datapath, self.progress = config, me, datapath, progress
        own, own_id = config.cluster_name, cluster_id(config)
        clock, draw = time.monotonic, random.random
        hooks = _Hooks()
        state = config.state_dir / "state"
        self.mesh = mesh = MeshState(
            own,
            me.node.name,
            config.bpf_lb_algorithm,
            clock,
            config.clustermesh_backend_drain,
            me.node.labels.get(ZONE_LABEL, ""),
        )
        self.policy = policy = PolicyNode(
            config,
            client,
            mesh,
            me,
            lambda: self.endpoints,
            lambda namespace, pod: self.kube.pod_ports(namespace, pod),
            clock,
        )
        allocator = IdentityAllocator(client, allocatable(own_id, config.max_connected_clusters))
        self.kube = KubeInputs(
            client,
            mesh,
            own_id,
            me.node.name,
            me.ip,
            allocator,
            policy.inputs,
            on_pod=lambda namespace, pod: self._pod_changed(namespace, pod),
            on_own_endpoint=lambda namespace, pod: self.objects.mark((namespace, pod)),
        )
        links = DatapathLinks(datapath, me.routers, links_thread)
        self.endpoints = Endpoints(
            pools, EndpointStore(state), links, hooks, self.kube.identity_of, draw
        )
        self.relabeller = Relabeller(self.endpoints, self.kube.identity_of, draw)
        self.kube.on_api_server = policy.api_server_moved
        self.kube.on_own_labels = self._labelled
        self.kube.on_ports = self._ports_changed
        self.names = hooks.names = policy.names = Names(
            me,
            mesh,
            self.endpoints,
            policy.table,
            lambda namespace, pod: self.kube.pods.store.get((namespace, pod)),
        )
        self._wire_remotes(own_id)
        self.prober = Prober(
            mesh,
            me.node.name,
            probe_rules(config),
            config.clustermesh_probe_nodes,
            state / "data-paths.json",
            clock,
            draw,
        )
        self.tables = hooks.tables = policy.tables = self._datapath_tables()
        self.encryption = MeshEncryption(opened, mesh, me, datapath, self._announce)
        self.tables.encryption = self.encryption.tables
        self.tables.on_prefixes = self.encryption.prefixes_changed
        mesh.nodes.on_node = both(mesh.nodes.on_node, self.names.node_changed)
        self.objects = hooks.objects = self._object_table(client)
        self.node_table = self._node_table(client)
        self.loops = (
            Loop(self.tables.ordered(), GAP_S),
            # The API server's pace must not be the kernel's.
            Loop((self.node_table, self.objects)),
        )
        self.view = View(
            config=config,
            me=me,
            mesh=mesh,
            pools=pools,
            endpoints=self.endpoints,
            allocator=allocator,
            kube=self.kube,
            remotes=self.remotes,
            datapath=datapath,
            tables=self.tables,
            loops=self.loops,
            objects=self._endpoint_objects,
            policies=policy.policies,
            host_addresses=policy.host_addresses,
            names=self.names,
            policy_inputs=policy.inputs,
            prober=self.prober,
            encryption=self.encryption,
            progress=progress,
            server=client.server,
            clock=clock,
        )
        self.cni = Cni(self.endpoints, me.routers, self._not_ready)

    def _labelled(self, labels: dict[str, str]) -> None:
        """Our node has these labels."""
        self.policy.policies.node_labelled(labels)
        if labels != self.me.node.labels:
            self.me = replace(self.me, node=structs.replace(self.me.node, labels=labels))
            self._announce()

    def _announce(self) -> None:
        """What we are has changed: to the API server, and by it to every node of the mesh."""
        opened = self.encryption.opened
        node = opened.announced(self.me.node)
        key = opened.endpoint_key(node)
        if self._wanted_objects.encryption_key != key:
            self._wanted_objects.encryption_key = key
            self.objects.mark_all()
        self._wanted_node[node.name] = node
        self.mesh.nodes.put(node)
        self.node_table.mark(node.name)

    def _wire_remotes(self, own_id: ClusterId) -> None:
        config = self.config
        self.remote_inputs = RemoteInputs(
            self.mesh,
            config.state_dir / "state" / "remote-clusters.json",
            config.clustermesh_service_v2,
        )
        self.remotes = Remotes(
            ConfigDirectory(config.clustermesh_config, config.cluster_name),
            self.remote_inputs,
            config.cluster_name,
            own_id,
            config.max_connected_clusters,
            peer_limits(config),
            self.remote_inputs.types,
            cache_ttl_s=config.clustermesh_cache_ttl,
            node_labels=config.enable_node_selector_labels,
        )
        self.remote_inputs.status = self.remotes.status
        self.policy.policies.before_round = self.remote_inputs.labels.flush

    def _datapath_tables(self) -> Tables:
        me = self.me
        far = {r.version: far_routes(self.config, r, self.datapath.devices) for r in me.routers}
        routes = Routes(self.mesh.ipcache, me.node.pod_cidrs, me.routers, far)
        tables = Tables(
            self.datapath,
            self.config.cluster_name,
            self.mesh.ipcache,
            self.mesh.services,
            self.endpoints,
            routes,
            self.policy.host_addresses,
            self.policy.policies,
            self.policy.api_servers,
            time.monotonic,
            random.random,
        )
        names, mesh = self.names, self.mesh
        mesh.on_prefixes = both(tables.prefixes_changed, names.prefixes_changed)
        mesh.on_frontend = both(tables.services.mark, names.frontend_changed)
        mesh.identities.on_change = both(
            self.policy.policies.identity_changed, names.identity_changed
        )
        return tables

    def _pod_changed(self, namespace: str, pod: str) -> None:
        self.relabeller.mark(namespace, pod)
        self.names.pod_changed(namespace, pod)

    def _object_table(self, client: HttpClient) -> Table[PodKey, PublishedEndpoint]:
        def pod_labels(namespace: str, pod: str) -> dict[str, str]:
            found = self.kube.pods.store.get((namespace, pod))
            return dict(labels_of(found.metadata)) if found else {}

        self._endpoint_objects = EndpointObjects(
            client, self.kube.endpoints, self.me.ip, pod_labels
        )
        self._wanted_objects = WantedEndpoints(
            self.endpoints,
            self.me.ip,
            self.encryption.opened.endpoint_key(self.me.node),
            self.kube.pod_ports,
        )
        return Table(
            "ciliumendpoints",
            self._endpoint_objects,
            self._wanted_objects,
            clock=time.monotonic,
            draw=random.random,
        )

    def _node_table(self, client: HttpClient) -> Table[NodeName, Node]:
        target = NodeObject(
            client,
            self.kube.nodes,
            self.me.node.name,
            self.config.cluster_name,
            cluster_id(self.config),
            self.me.uid,
        )
        wanted = self._wanted_node = {self.me.node.name: self.me.node}
        table = Table("ciliumnode", target, wanted, clock=time.monotonic, draw=random.random)
        self.kube.on_own_node = lambda: table.mark(self.me.node.name)
        return table

    def _ports_changed(self, namespace: str, pod: str) -> None:
        self.policy.policies.ports_changed(namespace, pod)
        self.objects.mark((namespace, pod))

    def _not_ready(self) -> str | None:
        return None if self.progress.ready else self.progress.steps[-1]

    def _step(self, text: str) -> None:
        self.progress.steps.append(text)
        elapsed = time.monotonic() - self.progress.started_s
        log.info('event=start step="%s" ms=%.0f', text, elapsed * 1000)

    async def take_over(self) -> None:
        """What a former life left: on disk, and in the kernel."""
        self._step("taking over endpoints")
        await self.encryption.take_over()
        await self.policy.take_over(self.datapath)
        await self.endpoints.restore()
        self.mesh.nodes.put(self.me.node)
        ipcache = await self.datapath.ipcache.read()
        services = await self.datapath.services.read()
        self.policy.policies.kernel_has(ipcache.values())
        self.remote_inputs.restore(ipcache.items(), services.items())
        # A row of these is made of several inputs, so it waits for all of them.
        for table in self._of_many_inputs():
            table.hold()
        # These two have their one input complete.
        self.tables.host_addresses.allow_prune()
        self.tables.endpoints.allow_prune()

    def _of_many_inputs(self) -> tuple[Table[Any, Any], ...]:
        tables = self.tables
        return tables.policy, tables.ipcache, tables.services, self.objects, self.node_table

    async def run(self) -> None:
        """Until cancelled. What is in the kernel stays as it is."""
        await self.take_over()
        async with AsyncExitStack() as runners, TaskGroup() as tasks:
            for loop in self.loops:
                tasks.create_task(loop.run(), name="tables")
            self._step("working off queued deletions")
            queue = self.config.state_dir / "deleteQueue"
            async with drained(queue, self.endpoints.delete):
                await self._serve(runners)
            tasks.create_task(self.kube.run(), name="kube")
            tasks.create_task(self.remotes.run(), name="remotes")
            tasks.create_task(self._forget_strangers(), name="strangers")
            await self._become_ready()
            tasks.create_task(self.relabeller.run(), name="relabel")
            upkeep.start(tasks, self.view)
            tasks.create_task(self.policy.keep(self.datapath), name="own-addresses")
            self.encryption.start(tasks, self.remotes, self.remote_inputs.heard)
            tasks.create_task(self.remote_inputs.labels.keep(), name="remote-labels")

    async def _serve(self, runners: AsyncExitStack) -> None:
        """REST on the socket, health and metrics on their ports."""
        config = self.config

        async def start(app: web.Application) -> web.AppRunner:
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
            await runner.setup()
            runners.push_async_callback(runner.cleanup)
            return runner

        rest = await start(api.Api(self.view, self.cni).application())
        await web.SockSite(rest, api.unix_socket(config.api_socket)).start()
        if config.agent_health_port:
            runner = await start(api.health_application(self.view))
            await web.TCPSite(runner, "127.0.0.1", config.agent_health_port).start()
        if config.prometheus_serve_addr is not None:
            runner = await start(api.metrics_application(self.view))
            await web.TCPSite(runner, *config.prometheus_serve_addr).start()

    async def _become_ready(self) -> None:
        self._step("reading from the API server")
        await self.kube.synced()
        self._step("writing tables")
        if self.policy.policies.start():
            self.tables.ipcache.release()
            await self.tables.ipcache.attempted(self.tables.ipcache.revision)
        for table in self._of_many_inputs():
            table.release()
        for table in (*self.tables.ordered(), self.objects):
            if table not in self.encryption.tables:
                table.allow_prune()
        for table in self.tables.ordered():
            await table.attempted(table.revision)
        self.relabeller.mark_all()
        progress = self.progress
        progress.ready_s = time.monotonic() - progress.started_s
        remember_mode(self.config)
        self._step("ready")
        self.names.ready.set()
        upkeep.write_cni_file(self.view)

    async def _forget_strangers(self) -> None:
        """Rows of clusters that left the mesh while we were away."""
        await self.remotes.configured.wait()
        self.remote_inputs.configured(self.remotes.statuses)

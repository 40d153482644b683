"""The tables of this node's kernel, from the mesh's, in the order they are written. Adapter."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from agent.endpoint_store import Endpoint
from agent.known import KnownEndpoints, KnownIpcache
from agent.policies import Policies
from agent.policy_tables import AddressesTable, PolicyRowsTable
from agent.routing import Far
from datapath.routes import Route
from datapath.runtime import Datapath
from mesh.ipcache import Claimant, Ipcache, IpClaim
from mesh.service_table import Services
from model.address import Address, Prefix, host_prefix, is_host
from model.cluster import ClusterName
from model.endpoint import EndpointId, LocalEndpoint
from model.identity import NumericIdentity
from model.ipcache import IpcacheEntry, Source
from model.service import Frontend, LoadBalancer
from reconcile.plan import natural
from reconcile.table import Desired, Table

# What is referred to first. Rows are removed in the reverse order.
ORDER = (
    "api-servers",  # what the node always reaches, before it is told what it may reach
    "policy",  # what a pod may do, before it or anybody it is about can be reached
    "cidr-rules",  # which rows are about a pod's or node's address, when they are there
    "host-addresses",  # the router and the node: where packets for neither pod nor peer end
    "endpoints",  # a pod must be deliverable before anything leads to its address
    "wireguard",  # who encrypts for a node, before anything leads to what is behind it
    "wireguard-detour",  # the same on the second device, while keys change
    "encrypt-via",  # which of the two: when it can receive
    "ipsec-states",  # what is received with, and sent with, before anything is marked for it
    "ipsec-policies",  # what is marked leaves by its state
    "ipsec-nodes",  # what is marked, and with which key
    "strict",  # what may not leave in clear text
    "ipcache",  # where an address is, before the host's routes lead packets to the programs
    "routes",  # the host's way to pods, before services choose pods
    "services",  # a frontend leads only to backends that can be reached
)


class Routes:
    """Pod prefixes: our own lead to `ist_host`, those that the ipcache puts behind a node as `far`
    says.

    A prefix of a family that this node has no router of has no way here, whatever peers have.
    """

    def __init__(
        self,
        ipcache: Ipcache,
        own: Iterable[Prefix],
        routers: Iterable[Address],
        far: Mapping[int, Far],
    ) -> None:
        """``far``: by family, as ``routers`` are."""
        self._ipcache = ipcache
        by_version = {router.version: router for router in routers}
        self.own = frozenset(p for p in own if p.version in by_version)
        # Packets inside the node need no room for the tunnel's headers.
        self._near = {v: Route(source=router) for v, router in by_version.items()}
        self._far = far

    def get(self, prefix: Prefix, /) -> Route | None:
        """The wanted route of a prefix."""
        if prefix in self.own:
            return self._near[prefix.version]
        found = self._ipcache.get(prefix)
        return self._route(prefix, found.tunnel_endpoint if found is not None else None)

    def _route(self, prefix: Prefix, node: Address | None) -> Route | None:
        far = None if is_host(prefix) else self._far.get(prefix.version)
        return far(node) if node is not None and far is not None else None

    def items(self) -> Iterator[tuple[Prefix, Route]]:
        """All wanted routes."""
        for prefix in self.own:
            yield prefix, self._near[prefix.version]
        for prefix, found in self._ipcache.items():
            node = None if prefix in self.own else found.tunnel_endpoint
            route = self._route(prefix, node)
            if route is not None:
                yield prefix, route


class Tables:
    """The tables and who is told what changed."""

    def __init__(
        self,
        datapath: Datapath,
        own: ClusterName,
        ipcache: Ipcache,
        services: Services,
        endpoints: Desired[EndpointId, LocalEndpoint],
        routes: Routes,
        host_addresses: Mapping[Address, NumericIdentity],
        policies: Policies,
        api_servers: Mapping[Address, bool],
        clock: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        self._own = own
        self._claims = ipcache
        self.encryption: tuple[Table[Any, Any], ...] = ()  # of what encrypts, if anything does
        self.on_prefixes: Callable[[Sequence[Prefix]], None] = lambda prefixes: None
        addresses = KnownIpcache(ipcache, routes.own, policies.known)
        known_endpoints = KnownEndpoints(endpoints, policies.known)
        self.host_addresses: Table[Address, NumericIdentity] = Table(
            "host-addresses", datapath.host_addresses, host_addresses, clock=clock, draw=draw
        )
        self.endpoints: Table[EndpointId, LocalEndpoint] = Table(
            "endpoints", datapath.endpoints, known_endpoints, clock=clock, draw=draw
        )
        self.ipcache: Table[Prefix, IpcacheEntry] = AddressesTable(
            datapath.ipcache, addresses, policies, clock=clock, draw=draw, order=natural
        )
        self.wanted_api_servers = api_servers
        self.api_servers: Table[Address, bool] = Table(
            "api-servers", datapath.api_servers, api_servers, clock=clock, draw=draw
        )
        self.policy = PolicyRowsTable(datapath.policy, policies, clock=clock, draw=draw)
        self.cidr_rules: Table[Prefix, int] = Table(
            "cidr-rules", datapath.cidr_rules, policies.cidr_rules.rows, clock=clock, draw=draw
        )
        policies.cidr_rules.on_prefix = self.cidr_rules.mark
        self._policies = policies
        policies.known.on_prefix, policies.known.on_endpoint = (
            self.ipcache.mark,
            self.endpoints.mark,
        )
        self.routes: Table[Prefix, Route] = Table(
            "routes", datapath.routes, routes, clock=clock, draw=draw, order=natural
        )
        self.services: Table[Frontend, LoadBalancer] = Table(
            "services", datapath.services, services, clock=clock, draw=draw
        )

    def ordered(self) -> tuple[Table[Any, Any], ...]:
        """The tables in ``ORDER``."""
        every: tuple[Table[Any, Any], ...] = (
            self.api_servers,
            self.policy,
            self.cidr_rules,
            self.host_addresses,
            self.endpoints,
            self.ipcache,
            self.routes,
            self.services,
        )
        by_name = {table.name: table for table in (*every, *self.encryption)}
        return tuple(by_name[name] for name in ORDER if name in by_name)

    def prefixes_changed(self, prefixes: Sequence[Prefix]) -> None:
        """The ipcache's rows of prefixes may differ now, and with them their routes."""
        self.ipcache.mark_each(prefixes)
        self.on_prefixes(prefixes)
        wide = [prefix for prefix in prefixes if prefix[16] != 128]
        if wide:
            self.routes.mark_each(wide)
        # Those inside may be pods' now, or not.
        self.ipcache.mark_each(self._policies.prefixes_changed(prefixes, wide))

    def endpoint_changed(self, old: Endpoint | None, new: Endpoint | None) -> None:
        """Rows of an endpoint may differ now."""
        some = new or old
        assert some is not None
        self._policies.endpoint_changed(old, new)
        if new is None:
            self.policy.mark(some.id)
        self.endpoints.mark(some.id)
        claimant = Claimant(Source.LOCAL, self._own, f"endpoint/{some.id}")
        for address in some.local.addresses:
            if new is None:
                self._claims.drop(host_prefix(address), claimant)
            else:
                claim = IpClaim(IpcacheEntry(new.identity.id), new.namespace, new.pod)
                self._claims.put(host_prefix(address), claimant, claim)

    async def written(self, endpoint: Endpoint) -> None:
        """Wait until an endpoint's rows are in the kernel. Raises ``OSError``."""
        await self._attempted()
        error = self.endpoints.error(endpoint.id)
        for address in endpoint.local.addresses:
            error = error or self.ipcache.error(host_prefix(address))
        if error:
            raise OSError(error)

    async def removed(self, endpoint: Endpoint) -> None:
        """Wait until nothing in the kernel leads to an endpoint; a failing row is tried again."""
        del endpoint
        await self._attempted()

    async def _attempted(self) -> None:
        # Policy first: when it is written, the others may show an identity that was not known.
        for table in (self.policy, self.endpoints, self.ipcache):
            if not table.held:
                await table.attempted(table.revision)

"""Nodes of all clusters → claims about their addresses and pod prefixes. Pure.

A node's pod prefixes lead to it through the tunnel, also for pods nobody has told us of yet; its
own addresses are reached by the underlay, its router address through the tunnel.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from mesh.guard import LocalPrefixes
from mesh.ipcache import Claimant, Ipcache, IpClaim, entry
from model.address import Prefix, host_prefix
from model.cluster import ClusterId, ClusterName
from model.identity import NumericIdentity, ReservedIdentity
from model.ipcache import Source
from model.node import CILIUM_INTERNAL_IP, EXTERNAL_IP, INTERNAL_IP, Node, NodeName

NodeKey: TypeAlias = tuple[ClusterName, NodeName]
_DIRECT = (INTERNAL_IP, EXTERNAL_IP)  # reached by the underlay, never through the tunnel
_REMOTE_NODE = NumericIdentity(ReservedIdentity.REMOTE_NODE)
_HOST = NumericIdentity(ReservedIdentity.HOST)
_WORLD = NumericIdentity(ReservedIdentity.WORLD)


class Nodes:
    """All nodes; feeds the ipcache and the list of our own prefixes."""

    def __init__(
        self,
        own: ClusterName,
        me: NodeName,
        local: LocalPrefixes,
        ipcache: Ipcache,
        on_local_prefixes: Callable[[], None],
    ) -> None:
        """``on_local_prefixes`` is told when peers must be judged again."""
        self._own, self._me = own, me
        self._local, self._ipcache = local, ipcache
        self._on_local_prefixes = on_local_prefixes
        self._nodes: dict[NodeKey, Node] = {}

    def put(self, node: Node) -> None:
        """A node is new or has changed."""
        key = (node.cluster, node.name)
        known = self._nodes.get(key)
        if known == node:
            return
        self._nodes[key] = node
        # New claims before old ones go: what stays the same is never gone in between.
        fresh = dict(self._claims_of(node))
        stale = dict(self._claims_of(known)) if known else {}
        self._local_prefixes(node, known)
        for prefix, claim in fresh.items():
            self._ipcache.put(prefix, self._claimant(key), claim)
        for prefix in stale.keys() - fresh.keys():
            self._ipcache.drop(prefix, self._claimant(key))

    def drop(self, cluster: ClusterName, name: NodeName) -> None:
        """A node is gone."""
        key = (cluster, name)
        node = self._nodes.pop(key, None)
        if node is None:
            return
        for prefix, _ in self._claims_of(node):
            self._ipcache.drop(prefix, self._claimant(key))
        self._local_prefixes(None, node)

    def drop_cluster(self, cluster: ClusterName) -> None:
        """A cluster leaves."""
        for found, name in list(self._nodes):
            if found == cluster:
                self.drop(found, name)

    def get(self, cluster: ClusterName, name: NodeName) -> Node | None:
        """One node."""
        return self._nodes.get((cluster, name))

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def count(self, cluster: ClusterName) -> int:
        """How many nodes a cluster has."""
        return sum(1 for found, _ in self._nodes if found == cluster)

    def _claimant(self, key: NodeKey) -> Claimant:
        cluster, name = key
        if cluster != self._own:
            return Claimant(Source.CLUSTERMESH, cluster, f"node/{name}")
        source = Source.LOCAL if name == self._me else Source.CUSTOM_RESOURCE
        return Claimant(source, cluster, f"node/{name}")

    def _claims_of(self, node: Node) -> Iterable[tuple[Prefix, IpClaim]]:
        mine = (node.cluster, node.name) == (self._own, self._me)
        cluster_id = ClusterId(0) if node.cluster == self._own else node.cluster_id
        key = node.encryption_key
        endpoint = node.tunnel_endpoint()
        identity = _HOST if mine else _REMOTE_NODE
        for address in node.addresses:
            if address.type in (*_DIRECT, CILIUM_INTERNAL_IP):
                tunnel = None if mine or address.type in _DIRECT else endpoint
                row = entry(identity, tunnel, key if tunnel else 0, cluster_id)
                yield host_prefix(address.ip), IpClaim(row, pod=node.name)
        if not mine and endpoint is not None:
            row = entry(_WORLD, endpoint, key, cluster_id)
            for prefix in node.pod_cidrs:
                yield prefix, IpClaim(row, pod=node.name)

    def _local_prefixes(self, node: Node | None, known: Node | None) -> None:
        """Keep the list of our own prefixes; told before anything is judged by it."""
        some = node or known
        if some is None or some.cluster != self._own:
            return
        new = set(node.pod_cidrs) if node else set()
        old = set(known.pod_cidrs) if known else set()
        changed = [self._local.add(p) for p in new - old]
        changed += [self._local.remove(p) for p in old - new]
        if any(changed):
            self._on_local_prefixes()

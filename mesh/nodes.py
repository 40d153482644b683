"""Nodes of all clusters → claims about their addresses and pod prefixes. Pure.

A node's pod prefixes lead to it through the tunnel, also for pods nobody has told us of yet; its
own addresses are reached by the underlay, its router address through the tunnel.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from mesh.guard import NODE_ADDRESS, POD_PREFIX, LocalPrefixes
from mesh.ipcache import Claimant, Ipcache, IpClaim, shared_pod_cidr
from mesh.problems import Problems
from model.address import Prefix, host_prefix
from model.cluster import ClusterId, ClusterName
from model.identity import NumericIdentity, ReservedIdentity
from model.ipcache import IpcacheEntry, Source
from model.node import CILIUM_INTERNAL_IP, EXTERNAL_IP, INTERNAL_IP, Node, NodeName

NodeKey: TypeAlias = tuple[ClusterName, NodeName]
_DIRECT = (INTERNAL_IP, EXTERNAL_IP)  # reached by the underlay, never through the tunnel
_REMOTE_NODE = NumericIdentity(ReservedIdentity.REMOTE_NODE)
_HOST = NumericIdentity(ReservedIdentity.HOST)
# Whose a pod address is, a node does not say; it is no part of the world.
_UNKNOWN = NumericIdentity(ReservedIdentity.UNKNOWN)


class Nodes:
    """All nodes; feeds the ipcache and the list of our own prefixes."""

    def __init__(
        self,
        own: ClusterName,
        me: NodeName,
        local: LocalPrefixes,
        ipcache: Ipcache,
    ) -> None:
        self._own, self._me = own, me
        self._local, self._ipcache = local, ipcache
        self._nodes: dict[ClusterName, dict[NodeName, Node]] = {}  # heard or not
        self._refused: set[NodeKey] = set()
        self.problems: Problems[Prefix] = Problems()  # of our own nodes
        self.on_node: Callable[[NodeKey], None] = lambda key: None  # what ``get`` says may differ
        # Who a node other than this one is.
        self.identity_of: Callable[[Node], NumericIdentity] = lambda node: _REMOTE_NODE

    def put(self, node: Node) -> None:
        """A node is new or has changed."""
        key = (node.cluster, node.name)
        members = self._nodes.setdefault(node.cluster, {})
        known = members.get(node.name)
        if known == node:
            return
        stale = self._heard_prefixes(known)
        members[node.name] = node
        self._local_prefixes(node, known)
        self._refused.discard(key)
        if node.cluster != self._own and not self._local.declare(node):
            self._refused.add(key)
        self._claim(node, stale)
        self.on_node(key)

    def verdict(self, node: Node, heard: bool) -> None:
        """A peer's node is judged otherwise than before, because what is ours has changed."""
        stale = self._heard_prefixes(node)
        if heard:
            self._refused.discard((node.cluster, node.name))
        else:
            self._refused.add((node.cluster, node.name))
        self._claim(node, stale)
        self.on_node((node.cluster, node.name))

    def identities_changed(self, nodes: Iterable[NodeKey]) -> None:
        """``identity_of`` finds something else for these."""
        for cluster, name in nodes:
            node = self._nodes.get(cluster, {}).get(name)
            if node is not None:
                self._claim(node, set())

    def _heard_prefixes(self, node: Node | None) -> set[Prefix]:
        if node is None or (node.cluster, node.name) in self._refused:
            return set()
        return {prefix for prefix, _ in self._claims_of(node, _UNKNOWN)}

    def _heard_claims(self, node: Node | None) -> dict[Prefix, IpClaim]:
        if node is None or (node.cluster, node.name) in self._refused:
            return {}
        mine = (node.cluster, node.name) == (self._own, self._me)
        return dict(self._claims_of(node, _HOST if mine else self.identity_of(node)))

    def _claim(self, node: Node, stale: set[Prefix]) -> None:
        # New claims before old ones go: what stays the same is never gone in between.
        claimant = self._claimant((node.cluster, node.name))
        fresh = self._heard_claims(node)
        self._ipcache.put_all(claimant, fresh.items(), judged=True)
        for prefix in stale - fresh.keys():
            self._ipcache.drop(prefix, claimant)

    def drop(self, cluster: ClusterName, name: NodeName) -> None:
        """A node is gone."""
        key = (cluster, name)
        members = self._nodes.get(cluster, {})
        stale = self._heard_prefixes(members.get(name))
        node = members.pop(name, None)
        if node is None:
            return
        self._refused.discard(key)
        for prefix in stale:
            self._ipcache.drop(prefix, self._claimant(key))
        if cluster != self._own:
            self._local.withdraw(cluster, name)
        self._local_prefixes(None, node)
        self.on_node(key)

    def drop_cluster(self, cluster: ClusterName) -> None:
        """A cluster leaves."""
        for name in self.names(cluster):
            self.drop(cluster, name)
        self._nodes.pop(cluster, None)

    def get(self, cluster: ClusterName, name: NodeName) -> Node | None:
        """One node, unless it is a peer's and says what it may not say."""
        if (cluster, name) in self._refused:
            return None
        return self._nodes.get(cluster, {}).get(name)

    def __iter__(self) -> Iterator[Node]:
        for cluster, members in self._nodes.items():
            for name, node in members.items():
                if (cluster, name) not in self._refused:
                    yield node

    def names(self, cluster: ClusterName) -> list[NodeName]:
        """The nodes of a cluster, heard or not."""
        return list(self._nodes.get(cluster, ()))

    def count(self, cluster: ClusterName) -> int:
        """How many nodes a cluster has that are heard."""
        refused = sum(1 for found, _ in self._refused if found == cluster)
        return len(self._nodes.get(cluster, ())) - refused

    def _claimant(self, key: NodeKey) -> Claimant:
        cluster, name = key
        if cluster != self._own:
            return Claimant(Source.CLUSTERMESH, cluster, f"node/{name}")
        source = Source.LOCAL if name == self._me else Source.CUSTOM_RESOURCE
        return Claimant(source, cluster, f"node/{name}")

    def _claims_of(self, node: Node, identity: NumericIdentity) -> Iterable[tuple[Prefix, IpClaim]]:
        mine = (node.cluster, node.name) == (self._own, self._me)
        cluster_id = ClusterId(0) if node.cluster == self._own else node.cluster_id
        key = node.encryption_key
        endpoint = node.tunnel_endpoint()
        for address in node.addresses:
            if address.type in (*_DIRECT, CILIUM_INTERNAL_IP):
                tunnel = None if mine or address.type in _DIRECT else endpoint
                row = IpcacheEntry(identity, tunnel, 0 if mine else key, cluster_id)
                yield host_prefix(address.ip), IpClaim(row, pod=node.name)
        if not mine and endpoint is not None:
            row = IpcacheEntry(_UNKNOWN, endpoint, key, cluster_id)
            for prefix in node.pod_cidrs:
                yield prefix, IpClaim(row, pod=node.name)

    def _local_prefixes(self, node: Node | None, known: Node | None) -> None:
        """Keep the list of our own prefixes; told before anything is judged by it."""
        some = node or known
        if some is None or some.cluster != self._own:
            return
        new, old = _own_of(node), _own_of(known)
        for prefix, kind in new - old:
            if not self._local.add(prefix, kind) and kind == POD_PREFIX:
                self._judge_shared(prefix)
        for prefix, kind in old - new:
            if not self._local.remove(prefix, kind) and kind == POD_PREFIX:
                self._judge_shared(prefix)

    def _judge_shared(self, prefix: Prefix) -> None:
        """Several nodes of ours have this pod CIDR, or had it. Costs a walk over our nodes."""
        members = self._nodes.get(self._own, {})
        names = [name for name, node in members.items() if prefix in node.pod_cidrs]
        shared = len(names) > 1
        said = (shared_pod_cidr(prefix, self._own, names),) if shared else ()
        self.problems.set(prefix, said)


def _own_of(node: Node | None) -> set[tuple[Prefix, str]]:
    if node is None:
        return set()
    addresses = {(host_prefix(a.ip), NODE_ADDRESS) for a in node.addresses}
    return {(p, POD_PREFIX) for p in node.pod_cidrs} | addresses

"""Nodes of all clusters → which prefix is behind which node, and the addresses of nodes. Pure.

A node's pod prefixes lead to it through the tunnel, also for pods nobody has told us of yet. A peer
is not heard about prefixes that overlap ours.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from mesh.claims import Claims
from mesh.guard import LocalPrefixes
from mesh.ipcache import Claimant, Ipcache, IpClaim, entry
from mesh.problems import Problems
from model.address import Address, Prefix, host_prefix
from model.cluster import ClusterId, ClusterName
from model.identity import NumericIdentity, ReservedIdentity
from model.ipcache import Source
from model.node import CILIUM_INTERNAL_IP, EXTERNAL_IP, INTERNAL_IP, Node, NodeName

NodeKey: TypeAlias = tuple[ClusterName, NodeName]
_DIRECT = (INTERNAL_IP, EXTERNAL_IP)  # reached by the underlay, never through the tunnel
_REMOTE_NODE = NumericIdentity(ReservedIdentity.REMOTE_NODE)
_HOST = NumericIdentity(ReservedIdentity.HOST)
_WORLD = NumericIdentity(ReservedIdentity.WORLD)


@dataclass(frozen=True, slots=True)
class PodPrefix:
    """Who has a pod prefix."""

    cluster: ClusterName
    node: NodeName


class Nodes:
    """All nodes; feeds the ipcache and keeps the table of pod prefixes."""

    def __init__(
        self,
        own: ClusterName,
        me: NodeName,
        local: LocalPrefixes,
        ipcache: Ipcache,
        on_prefix: Callable[[Prefix], None],
        on_local_prefixes: Callable[[], None],
    ) -> None:
        self._own, self._me = own, me
        self._local, self._ipcache = local, ipcache
        self._on_prefix, self._on_local_prefixes = on_prefix, on_local_prefixes
        self._nodes: dict[NodeKey, Node] = {}
        self._prefixes: Claims[Prefix, NodeKey, PodPrefix] = Claims()
        self.problems: Problems[Prefix] = Problems()

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
        for prefix in node.pod_cidrs:
            self._prefixes.put(prefix, key, PodPrefix(node.cluster, node.name))
        for prefix in set(known.pod_cidrs if known else ()) - set(node.pod_cidrs):
            self._prefixes.drop(prefix, key)
        for prefix in {*node.pod_cidrs, *(known.pod_cidrs if known else ())}:
            self._prefix_changed(prefix)

    def drop(self, cluster: ClusterName, name: NodeName) -> None:
        """A node is gone."""
        key = (cluster, name)
        node = self._nodes.pop(key, None)
        if node is None:
            return
        for prefix, _ in self._claims_of(node):
            self._ipcache.drop(prefix, self._claimant(key))
        for prefix in node.pod_cidrs:
            self._prefixes.drop(prefix, key)
        self._local_prefixes(None, node)
        for prefix in node.pod_cidrs:
            self._prefix_changed(prefix)

    def drop_cluster(self, cluster: ClusterName) -> None:
        """A cluster leaves."""
        for found, name in list(self._nodes):
            if found == cluster:
                self.drop(found, name)

    def get(self, cluster: ClusterName, name: NodeName) -> Node | None:
        """One node."""
        return self._nodes.get((cluster, name))

    def all(self) -> Iterator[Node]:
        """Every node, in no order."""
        return iter(self._nodes.values())

    def count(self, cluster: ClusterName) -> int:
        """How many nodes a cluster has."""
        return sum(1 for found, _ in self._nodes if found == cluster)

    def prefix(self, prefix: Prefix) -> PodPrefix | None:
        """Who has a pod prefix; ``None``: nobody who may."""
        return self._decide(prefix)[0]

    def prefixes(self) -> Iterator[tuple[Prefix, PodPrefix]]:
        """All pod prefixes with who has them."""
        for prefix in self._prefixes:
            found = self._decide(prefix)[0]
            if found is not None:
                yield prefix, found

    def recheck_peers(self) -> None:
        """Our own prefixes have changed: every peer's are judged again."""
        for prefix in list(self._prefixes):
            self._prefix_changed(prefix)

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
        for address in node.addresses:
            if address.type not in (*_DIRECT, CILIUM_INTERNAL_IP):
                continue
            tunnel = None if mine or address.type in _DIRECT else endpoint
            identity = _HOST if mine else _REMOTE_NODE
            yield (
                host_prefix(address.ip),
                IpClaim(entry(identity, tunnel, key if tunnel else 0, cluster_id), pod=node.name),
            )
        if not mine and endpoint is not None:
            for prefix in node.pod_cidrs:
                yield prefix, IpClaim(entry(_WORLD, endpoint, key, cluster_id), pod=node.name)

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

    def _decide(self, prefix: Prefix) -> tuple[PodPrefix | None, tuple[str, ...]]:
        pairs = self._prefixes.of(prefix)
        sentences = []
        heard = []
        for key, claim in sorted(pairs, key=lambda p: (p[0][0] != self._own, p[0])):
            ours = self._local.overlap(prefix) if key[0] != self._own else None
            if ours is not None:
                sentences.append(
                    f"node {claim.node} of cluster {claim.cluster} has pod CIDR {prefix}, which "
                    f"overlaps {ours} of this cluster: give the clusters pod CIDRs that do not "
                    "overlap"
                )
                continue
            heard.append(claim)
        sentences += [
            f"pod CIDR {prefix} belongs to node {heard[0].node} of cluster "
            f"{heard[0].cluster} and to node {claim.node} of cluster {claim.cluster}: "
            "give them pod CIDRs that do not overlap"
            for claim in heard[1:]
        ]
        return (heard[0] if heard else None), tuple(sentences)

    def _prefix_changed(self, prefix: Prefix) -> None:
        self.problems.set(prefix, self._decide(prefix)[1])
        self._on_prefix(prefix)


def node_address(node: Node) -> Address | None:
    """Where a node is shown to be."""
    return node.tunnel_endpoint(4) or node.tunnel_endpoint(6)

"""Who the entity ``kube-apiserver`` is: the endpoints of the Service ``default/kubernetes``. Pure.

On this node it is the host, on another node identity 7 in place of a remote node's, and outside of
the cluster an address like a prefix of a rule, with one label more.
"""

from collections.abc import Callable, Collection

from agent.mesh_state import MeshState
from mesh.ipcache import Claimant, IpClaim
from mesh.nodes import NodeKey
from model.address import Address, Prefix, host_prefix
from model.identity import NumericIdentity, ReservedIdentity
from model.ipcache import IpcacheEntry, Source
from model.labels import SOURCE_RESERVED, Label, Labels
from model.node import NodeName

_CLAIM = IpClaim(IpcacheEntry(NumericIdentity(ReservedIdentity.KUBE_APISERVER)), pod="kubernetes")
_CLAIMANT = Claimant(Source.KUBE_APISERVER)
LABEL = Label("kube-apiserver", "", SOURCE_RESERVED)


def also_api_server(labels: Labels) -> Labels:
    """The same with the entity's label."""
    return Labels.of((*labels, LABEL))


class ApiServer:
    """Where it is. ``on_change`` is told that ``judge`` may find something else."""

    def __init__(self, mesh: MeshState, me: NodeName, claims: bool = True) -> None:
        """``claims``: give it identity 7; else its nodes have identities of their own, with the
        entity's label."""
        self._mesh, self._me, self._claims = mesh, me, claims
        self._prefixes: frozenset[Prefix] = frozenset()
        self._claimed: set[Prefix] = set()
        self._stale = False
        self.here = False
        self.outside: frozenset[Prefix] = frozenset()
        self.nodes: frozenset[NodeKey] = frozenset()  # others of our cluster that it runs on
        self.on_change: Callable[[], None] = lambda: None

    def moved(self, addresses: frozenset[Address]) -> None:
        """It has these addresses now."""
        self._prefixes = frozenset(map(host_prefix, addresses))
        self._stale = True
        self.on_change()

    def prefixes_changed(self, prefixes: Collection[Prefix]) -> None:
        """Something else is claimed about addresses: a node may have come or gone."""
        if not self._prefixes.isdisjoint(prefixes):
            self._stale = True
            self.on_change()

    def judge(self) -> bool:
        """Find out whether it is here, on other nodes, or outside; whether that is news."""
        if not self._stale:
            return False
        self._stale = False
        nodes = {
            host_prefix(address.ip): (node.cluster, node.name)
            for node in self._mesh.nodes
            if node.cluster == self._mesh.own
            for address in node.addresses
        }
        before = self.here, self.outside, self.nodes
        me = (self._mesh.own, self._me)
        on_nodes = {prefix: nodes[prefix] for prefix in self._prefixes & nodes.keys()}
        self.here = me in on_nodes.values()
        self.outside = frozenset(self._prefixes - nodes.keys())
        self.nodes = frozenset(on_nodes.values()) - {me}
        if self._claims:
            self._claim({prefix for prefix, key in on_nodes.items() if key != me})
        return before != (self.here, self.outside, self.nodes)

    def _claim(self, others: set[Prefix]) -> None:
        for prefix in others - self._claimed:
            self._mesh.ipcache.put(prefix, _CLAIMANT, _CLAIM)
        for prefix in self._claimed - others:
            self._mesh.ipcache.drop(prefix, _CLAIMANT)
        self._claimed = others

"""The mesh's tables tied together: our own prefixes decide what peers may claim. Pure wiring."""

from collections.abc import Callable, Sequence

from mesh.identities import Identities
from mesh.ipcache import Ipcache
from mesh.nodes import Nodes
from mesh.problems import Tally
from mesh.service_table import Services
from mesh.territory import Territories
from mesh.topology import Place
from model.address import Prefix
from model.cluster import ClusterName
from model.node import NodeName
from model.service import Frontend, Selection


class MeshState:
    """Everything known of the mesh; hooks are set once the kernel's tables exist."""

    def __init__(
        self,
        own: ClusterName,
        me: NodeName,
        selection: Selection,
        clock: Callable[[], float] = float,
        drain_s: float = 0.0,
        zone: str = "",
    ) -> None:
        self.own = own
        self.on_prefixes: Callable[[Sequence[Prefix]], None] = lambda prefixes: None
        self.on_frontend: Callable[[Frontend], None] = lambda frontend: None
        self.local = Territories()
        self.ipcache = Ipcache(self.local, lambda prefixes: self.on_prefixes(prefixes))
        self.services = Services(
            self.local,
            selection,
            lambda found: self.on_frontend(found),
            own,
            clock,
            drain_s,
            Place(me, zone),
        )
        self.identities = Identities(own)
        self.nodes = Nodes(own, me, self.local, self.ipcache)
        self.local.on_prefix = self._recheck
        self.local.on_host = self.ipcache.recheck_host
        self.local.on_verdict = self.nodes.verdict

    def _recheck(self, prefix: Prefix) -> None:
        self.ipcache.recheck(prefix)
        self.services.recheck(prefix)

    def nodes_listed(self, cluster: ClusterName) -> None:
        """A peer has told all its nodes: what they do not declare is refused from now on."""
        if self.local.listed(cluster):
            self.ipcache.recheck_waiting(cluster)
            self.services.recheck_cluster(cluster)

    def forget(self, cluster: ClusterName) -> None:
        """A peer has left; its claims have been withdrawn."""
        self.local.forget(cluster)
        for problems in (self.ipcache.problems, self.services.problems):
            problems.forget(cluster)

    def problem_count(self) -> int:
        """Claims that were not heard since start."""
        return (
            self.local.problems.total
            + self.nodes.problems.total
            + self.ipcache.problems.total
            + self.services.problems.total
        )

    def problems(self) -> list[str]:
        """What is wrong with claims now."""
        found = [s for texts in self.local.problems.current.values() for s in texts]
        found += [s for texts in self.nodes.problems.current.values() for s in texts]
        found += [s for texts in self.ipcache.problems.current.values() for s in texts]
        found += [s for texts in self.services.problems.current.values() for s in texts]
        return [str(sentence) for sentence in found]

    def violations(self, cluster: ClusterName) -> dict[str, Tally]:
        """What a peer said that it may not say, by kind."""
        found: dict[str, Tally] = {}
        for tallies in (
            self.local.problems.violations,
            self.ipcache.problems.violations,
            self.services.problems.violations,
        ):
            for (who, kind), tally in tallies.items():
                if who == cluster:
                    before = found.get(kind)
                    total = tally.total + (before.total if before else 0)
                    found[kind] = Tally(total, tally.example)
        return found

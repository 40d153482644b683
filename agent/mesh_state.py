"""The mesh's tables tied together: our own prefixes decide what peers may claim. Pure wiring."""

from collections.abc import Callable

from mesh.guard import LocalPrefixes
from mesh.identities import Identities
from mesh.ipcache import Ipcache
from mesh.nodes import Nodes
from mesh.service_table import Services
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
    ) -> None:
        self.own = own
        self.on_prefix: Callable[[Prefix], None] = lambda prefix: None
        self.on_frontend: Callable[[Frontend], None] = lambda frontend: None
        self.local = LocalPrefixes()
        self.ipcache = Ipcache(self.local, lambda prefix: self.on_prefix(prefix))
        self.services = Services(
            self.local, selection, lambda found: self.on_frontend(found), own, clock, drain_s
        )
        self.identities = Identities(own)
        self.nodes = Nodes(own, me, self.local, self.ipcache, self._recheck)

    def _recheck(self) -> None:
        self.ipcache.recheck_peers()
        self.services.recheck_peers()

    def problem_count(self) -> int:
        """Claims that were not heard since start."""
        return self.ipcache.problems.total + self.services.problems.total

    def problems(self) -> list[str]:
        """What is wrong with claims now."""
        found = [s for texts in self.ipcache.problems.current.values() for s in texts]
        return found + [s for texts in self.services.problems.current.values() for s in texts]

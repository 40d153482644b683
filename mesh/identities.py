"""Claims about identities → which labels a number stands for. Pure.

Each cluster allocates in its own range, so two claims about one number are a mistake of somebody:
this cluster's own is heard first, then the cluster whose name comes first.
"""

from collections.abc import Callable, Collection, Iterator

from mesh.claims import Claims
from model.cluster import ClusterName
from model.identity import NumericIdentity
from model.labels import Labels


class Identities:
    """The table, kept number by number. ``on_change`` is told every number that may differ."""

    def __init__(self, own: ClusterName) -> None:
        self._claims: Claims[NumericIdentity, ClusterName, Labels] = Claims()
        self._own = own
        self.on_change: Callable[[NumericIdentity], None] = lambda number: None

    def put(self, number: NumericIdentity, cluster: ClusterName, labels: Labels) -> None:
        """Hear a claim."""
        if self._claims.put(number, cluster, labels):
            self.on_change(number)

    def drop(self, number: NumericIdentity, cluster: ClusterName) -> None:
        """A claim is withdrawn."""
        if self._claims.drop(number, cluster):
            self.on_change(number)

    def drop_cluster(self, cluster: ClusterName) -> None:
        """A cluster leaves."""
        for number in self._claims.drop_owners(lambda owner: owner == cluster):
            self.on_change(number)

    def get(self, number: NumericIdentity, /) -> Labels | None:
        """The labels of a number."""
        said = self._claims.of(number)
        if len(said) < 2:
            return said[0].claim if said else None
        return min(said, key=lambda s: (s.owner != self._own, s.owner)).claim

    def items(self) -> Iterator[tuple[NumericIdentity, Labels]]:
        """Every number with its labels."""
        for number in self._claims:
            labels = self.get(number)
            if labels is not None:
                yield number, labels

    def of(
        self, clusters: Collection[ClusterName]
    ) -> dict[ClusterName, dict[NumericIdentity, Labels]]:
        """What some clusters claim; one walk over all, however many they are."""
        found: dict[ClusterName, dict[NumericIdentity, Labels]] = {c: {} for c in clusters}
        for number, said in self._claims.by(found.keys()):
            found[said.owner][number] = said.claim
        return found

    def __len__(self) -> int:
        return len(self._claims)

"""Which backends of a service new connections take, and in what shares. Pure.

The consumer's settings rank the clusters (affinity first, then order). Ranks are taken one after
the other: the next is added only while the taken ones are not enough. Weights share out new
connections among the clusters that were taken; they never add one. Rules: docs/modules/mesh.md.

A cluster is taken or not as a whole, so a choice costs the clusters and not their backends.
"""

from collections import Counter
from collections.abc import Sequence
from math import gcd, lcm

from mesh.pools import Owner, Run
from model.cluster import ClusterName
from model.local_service import MeshSettings
from model.service import Affinity

Rank = tuple[int, int]

# Weights stay below this, so that tables made of them stay exact and their cost bounded.
WEIGHT_LIMIT = 1 << 20


def choose(
    mesh: MeshSettings, own: ClusterName, runs: Sequence[Run], expected: int
) -> tuple[list[Run], tuple[int, ...]]:
    """Clusters whose active backends new connections take, each with the weight of one of its

    backends (no weights: all alike). ``expected``: how many backends this cluster has behind the
    frontend, ready or not, without those that terminate.
    """
    active = [run for run in runs if run.active]
    if not active or not mesh.is_global:
        return active, ()
    if mesh.order or mesh.affinity is not Affinity.NONE:
        active = _taken(mesh, own, active, expected)
    return _weighted(mesh, own, active) if mesh.weights else (active, ())


def is_preferred(mesh: MeshSettings, own: ClusterName, owner: Owner) -> bool:
    """Whether a cluster is of the first rank, where affinity or order make ranks."""
    if mesh.affinity is Affinity.NONE and not mesh.order:
        return False
    return _rank(mesh, own, owner) == _first_rank(mesh, own)


def _name(own: ClusterName, owner: Owner) -> ClusterName:
    return owner.cluster if owner.cluster_id else own


def _rank(mesh: MeshSettings, own: ClusterName, owner: Owner) -> Rank:
    """Lower is better. Clusters that the order does not name share the last place."""
    name = _name(own, owner)
    place = mesh.order.index(name) if name in mesh.order else len(mesh.order)
    match mesh.affinity:
        case Affinity.LOCAL:
            return int(owner.cluster_id != 0), place
        case Affinity.REMOTE:
            return int(owner.cluster_id == 0), place
        case Affinity.NONE:
            return 0, place


def _first_rank(mesh: MeshSettings, own: ClusterName) -> Rank:
    if mesh.affinity is Affinity.LOCAL:
        return 0, mesh.order.index(own) if own in mesh.order else len(mesh.order)
    if mesh.affinity is Affinity.REMOTE and mesh.order[:1] == (own,):
        return 0, 1
    return 0, 0


def _taken(mesh: MeshSettings, own: ClusterName, active: Sequence[Run], expected: int) -> list[Run]:
    """Rank after rank until it is enough.

    A cluster that publishes ready backends only cannot say what share of them that is, so of
    others one backend is enough; of ours it takes the threshold.
    """
    found: dict[Rank, list[Run]] = {}
    for run in active:
        found.setdefault(_rank(mesh, own, run.owner), []).append(run)
    taken: list[Run] = []
    for rank in sorted(found):
        taken += found[rank]
        ready = sum(len(r.active) for r in found[rank] if not r.owner.cluster_id)
        if not ready or ready * 100 >= mesh.threshold_pct * expected:
            break
    return taken


def _weighted(
    mesh: MeshSettings, own: ClusterName, chosen: list[Run]
) -> tuple[list[Run], tuple[int, ...]]:
    """A cluster's weight is shared evenly by its backends.

    A cluster without weight gets nothing while another has some; when none has, all are alike.
    """
    given = dict(mesh.weights)
    counts: Counter[ClusterName] = Counter()
    for run in chosen:
        counts[_name(own, run.owner)] += len(run.active)
    common = lcm(*counts.values())
    each = {c: given.get(c, 0) * common // n for c, n in counts.items() if given.get(c, 0)}
    if not each:
        return chosen, ()
    chosen = [run for run in chosen if _name(own, run.owner) in each]
    if len(set(each.values())) == 1:
        return chosen, ()
    divisor, highest = gcd(*each.values()), max(each.values())
    if highest // divisor < WEIGHT_LIMIT:
        each = {c: w // divisor for c, w in each.items()}
    else:
        each = {c: max(1, w * (WEIGHT_LIMIT - 1) // highest) for c, w in each.items()}
    return chosen, tuple(each[_name(own, run.owner)] for run in chosen)

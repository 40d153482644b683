"""Who is chosen, backend by backend: what the choice by clusters is held against."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import gcd, lcm

from mesh import selection
from mesh.pools import Owner, Run
from mesh.selection import WEIGHT_LIMIT
from model.cluster import ClusterName
from model.local_service import MeshSettings
from model.service import Affinity, Backend, BackendState

Rank = tuple[int, int]


def choose_backends(
    mesh: MeshSettings,
    own: ClusterName,
    backends: Sequence[Backend],
    expected: int,
    shares: Mapping[ClusterName, int] | None = None,
) -> tuple[list[Backend], tuple[int, ...]]:
    """What the product chooses of backends, and the weight of each."""
    runs: dict[Owner, Run] = {}
    for backend in backends:
        owner = Owner(backend.cluster, backend.cluster_id)
        runs.setdefault(owner, Run(owner)).put(backend.address, backend)
    taken, each = selection.choose(mesh, own, list(runs.values()), expected, shares or {})
    if not taken:
        rest = [b for run in runs.values() for b in run.rest if not b.cluster_id]
        return [b for b in rest if b.state is BackendState.TERMINATING], ()
    weights = [w for run, w in zip(taken, each or (), strict=bool(each)) for _ in run.active]
    return [b for run in taken for b in run.active], tuple(weights)


def choose(
    mesh: MeshSettings, own: ClusterName, backends: Sequence[Backend], expected: int
) -> tuple[list[Backend], tuple[int, ...]]:
    """Backends for new connections, and their weights (empty: all alike).

    ``expected``: how many backends this cluster has behind the frontend, ready or not, without
    those that terminate. When none is active anywhere, those of ours that terminate but still
    answer are the last resort.
    """
    active = [b for b in backends if b.state is BackendState.ACTIVE]
    if not active:
        ending = [b for b in backends if b.state is BackendState.TERMINATING and not b.cluster_id]
        return ending, ()
    if not mesh.is_global:
        return active, ()
    if mesh.order or mesh.affinity is not Affinity.NONE:
        active = _taken(mesh, own, active, expected)
    return _weighted(mesh, own, active)


def _name(own: ClusterName, backend: Backend) -> ClusterName:
    return backend.cluster if backend.cluster_id else own


def _rank(mesh: MeshSettings, own: ClusterName, backend: Backend) -> Rank:
    """Lower is better. Clusters that the order does not name share the last place."""
    name = _name(own, backend)
    place = mesh.order.index(name) if name in mesh.order else len(mesh.order)
    match mesh.affinity:
        case Affinity.LOCAL:
            return int(backend.cluster_id != 0), place
        case Affinity.REMOTE:
            return int(backend.cluster_id == 0), place
        case Affinity.NONE:
            return 0, place


def _taken(
    mesh: MeshSettings, own: ClusterName, active: Sequence[Backend], expected: int
) -> list[Backend]:
    """Rank after rank until it is enough.

    A cluster that publishes ready backends only cannot say what share of them that is, so of
    others one backend is enough; of ours it takes the threshold.
    """
    ranks: dict[ClusterName, Rank] = {}
    found: dict[Rank, list[Backend]] = {}
    for backend in active:
        name = _name(own, backend)
        rank = ranks.get(name)
        if rank is None:
            rank = ranks[name] = _rank(mesh, own, backend)
        found.setdefault(rank, []).append(backend)
    taken: list[Backend] = []
    for rank in sorted(found):
        taken += found[rank]
        ready = sum(not b.cluster_id for b in found[rank])
        if not ready or ready * 100 >= mesh.threshold_pct * expected:
            break
    return taken


def _weighted(
    mesh: MeshSettings, own: ClusterName, chosen: list[Backend]
) -> tuple[list[Backend], tuple[int, ...]]:
    """A cluster's weight is shared evenly by its backends.

    A cluster without weight gets nothing while another has some; when none has, all are alike.
    """
    given = dict(mesh.weights)
    counts = Counter(_name(own, b) for b in chosen)
    common = lcm(*counts.values())
    each = {c: given.get(c, 0) * common // n for c, n in counts.items() if given.get(c, 0)}
    if not each:
        return chosen, ()
    chosen = [b for b in chosen if _name(own, b) in each]
    if len(set(each.values())) == 1:
        return chosen, ()
    divisor, highest = gcd(*each.values()), max(each.values())
    if highest // divisor < WEIGHT_LIMIT:
        each = {c: w // divisor for c, w in each.items()}
    else:
        each = {c: max(1, w * (WEIGHT_LIMIT - 1) // highest) for c, w in each.items()}
    return chosen, tuple(each[_name(own, b)] for b in chosen)

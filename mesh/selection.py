"""Which backends of a service new connections take, and in what shares. Pure.

The consumer's settings rank the clusters (affinity first, then order). Ranks are taken one after
the other: the next is added only while the taken ones are not enough. Weights share out new
connections among the clusters that were taken; they never add one. Rules: docs/modules/mesh.md.

Clusters whose data path is down, or returns from that, get less than that (``shares``): nothing,
or a part of what they would get; the rest goes where it would go without them.

A cluster is taken or not as a whole, so a choice costs the clusters and not their backends.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import gcd, lcm
from types import MappingProxyType
from typing import TypeVar

from mesh.pools import Owner, Run
from model.cluster import ClusterName
from model.local_service import MeshSettings
from model.service import Affinity

K = TypeVar("K")
Rank = tuple[int, int]
Chosen = tuple[list[Run], tuple[int, ...]]

# Weights stay below this, so that tables made of them stay exact and their cost bounded.
WEIGHT_LIMIT = 1 << 20


def choose(
    mesh: MeshSettings,
    own: ClusterName,
    runs: Sequence[Run],
    expected: int | Fraction,
    shares: Mapping[ClusterName, int] = MappingProxyType({}),
) -> Chosen:
    """Clusters whose active backends new connections take, each with the weight of one of its

    backends (no weights: all alike). ``expected``: how many backends this cluster has behind the
    frontend, ready or not, without those that terminate. ``shares``: percent of its usual part
    that a remote cluster gets, 100 for who is not named; a cluster with 0 gets nothing unless
    nobody else has a backend.
    """
    active = [run for run in runs if run.active]
    if not active or not mesh.is_global:
        return active, ()
    if not shares or not any(run.owner.cluster in shares for run in active):
        return _usual(mesh, own, active, expected)
    reachable = [run for run in active if shares.get(run.owner.cluster, 100)]
    whole = [run for run in active if run.owner.cluster not in shares]
    usual = _usual(mesh, own, reachable or active, expected)
    if not whole or all(run.owner.cluster not in shares for run in usual[0]):
        return usual
    return _reduced(usual, _usual(mesh, own, whole, expected), shares)


def takes_all(mesh: MeshSettings) -> bool:
    """Whether ``choose`` takes every active backend with equal weights, as long as no cluster gets
    less than its usual part."""
    return not mesh.is_global or not (
        mesh.order or mesh.weights or mesh.affinity is not Affinity.NONE
    )


def _reduced(usual: Chosen, without: Chosen, shares: Mapping[ClusterName, int]) -> Chosen:
    """Each keeps its share of its usual part; what is left over goes as it would without them."""
    parts = {
        run: part * shares.get(run.owner.cluster, 100) / 100 for run, part in _parts(usual).items()
    }
    rest = 1 - sum(parts.values())
    for run, part in _parts(without).items():
        parts[run] = parts.get(run, Fraction(0)) + rest * part
    each = {run: part / len(run.active) for run, part in parts.items()}
    common = lcm(*(weight.denominator for weight in each.values()))
    numbers = _bounded({run: int(weight * common) for run, weight in each.items()})
    runs = sorted(numbers, key=lambda run: run.owner)
    return runs, tuple(numbers[run] for run in runs)


def _parts(chosen: Chosen) -> dict[Run, Fraction]:
    """Of all new connections, the part of each cluster."""
    runs, each = chosen
    weights = [len(run.active) * w for run, w in zip(runs, each or (1,) * len(runs), strict=True)]
    return {run: Fraction(w, sum(weights)) for run, w in zip(runs, weights, strict=True)}


def _usual(
    mesh: MeshSettings, own: ClusterName, active: list[Run], expected: int | Fraction
) -> Chosen:
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


def _taken(
    mesh: MeshSettings, own: ClusterName, active: Sequence[Run], expected: int | Fraction
) -> list[Run]:
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


def _weighted(mesh: MeshSettings, own: ClusterName, chosen: list[Run]) -> Chosen:
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
    each = _bounded(each)
    return chosen, tuple(each[_name(own, run.owner)] for run in chosen)


def _bounded(weights: Mapping[K, int]) -> dict[K, int]:
    """The same proportions in small numbers, to rounding where they do not fit."""
    divisor, highest = gcd(*weights.values()), max(weights.values())
    if highest // divisor < WEIGHT_LIMIT:
        return {key: weight // divisor for key, weight in weights.items()}
    return {key: max(1, w * (WEIGHT_LIMIT - 1) // highest) for key, w in weights.items()}

"""The `isthmus.io/*` annotations of a Service: order, threshold and weights of clusters. Pure.

Like those of Cilium they mean something on global services only, for the cluster whose Service
carries them. A value that is not understood is replaced by the default and told in one sentence.
"""

from dataclasses import replace

from model.cluster import ClusterName, parse_cluster_name
from model.local_service import MeshSettings
from model.service import Affinity
from wire.k8s.meta import ObjectMeta, annotations_of

ORDER = "isthmus.io/affinity-order"
THRESHOLD = "isthmus.io/failover-threshold"
WEIGHTS = "isthmus.io/cluster-weights"
WEIGHT_LIMIT = 10_000


def with_preference(meta: ObjectMeta, mesh: MeshSettings, problems: list[str]) -> MeshSettings:
    """The settings of a global service, with what these annotations add."""
    found = annotations_of(meta)

    def report(name: str, problem: str) -> None:
        problems.append(
            f'Service {meta.namespace}/{meta.name}: annotation {name} is "{found[name]}": {problem}'
        )

    if ORDER in found:
        try:
            mesh = replace(mesh, order=_order(found[ORDER]))
        except ValueError as error:
            report(ORDER, f"{error}; no order is used until then")
    if WEIGHTS in found:
        try:
            mesh = replace(mesh, weights=_weights(found[WEIGHTS]))
        except ValueError as error:
            report(WEIGHTS, f"{error}; all backends are alike until then")
    if THRESHOLD in found:
        try:
            threshold = _threshold(found[THRESHOLD])
        except ValueError as error:
            report(THRESHOLD, f"{error}; the next cluster is used when none is ready until then")
        else:
            mesh = replace(mesh, threshold_pct=threshold)
            if mesh.affinity is not Affinity.LOCAL and not mesh.order:
                report(
                    THRESHOLD,
                    "it has no effect while our cluster does not come before others: use "
                    f'service.cilium.io/affinity "local" or {ORDER} as well',
                )
    return mesh


def _order(text: str) -> tuple[ClusterName, ...]:
    try:
        names = tuple(parse_cluster_name(part.strip()) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f'use names of clusters like "cluster1,cluster3" ({error})') from error
    _once(names)
    return names


def _weights(text: str) -> tuple[tuple[ClusterName, int], ...]:
    advice = 'use clusters with weights like "cluster1=80,cluster2=20"'
    weights = []
    for part in text.split(","):
        name, equals, number = part.partition("=")
        number = number.strip()
        if not equals or not (number.isascii() and number.isdigit() and len(number) <= 5):
            raise ValueError(f'{advice} ("{part.strip()}" is none)')
        try:
            weights.append((parse_cluster_name(name.strip()), int(number)))
        except ValueError as error:
            raise ValueError(f"{advice} ({error})") from error
    _once([name for name, _ in weights])
    highest = max(weight for _, weight in weights)
    if not 0 < highest <= WEIGHT_LIMIT:
        raise ValueError(f"use weights up to {WEIGHT_LIMIT}, one of them above 0")
    # Their order says nothing: written in another one they are the same settings.
    return tuple(sorted(weights))


def _threshold(text: str) -> int:
    number = text.strip().removesuffix("%")
    is_share = text.strip().endswith("%") and number.isascii() and number.isdigit()
    if not is_share or len(number) > 3 or int(number) > 100:
        raise ValueError('use a share from "0%" to "100%"')
    return int(number)


def _once(names: list[ClusterName] | tuple[ClusterName, ...]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"use each cluster once ({twice} is there twice)")

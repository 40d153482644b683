"""250 clusters of 100 nodes and 1,000 pods: what reading them costs one agent, and following them.

The clusters lie in one etcd as a KVStoreMesh copies them. CPU is that of the whole process, from
its start until its kernel holds every row; churn is 325 changes a second for 20 s.
"""

from collections.abc import Iterator

from bench import rehearse
from bench.figure import Figure
from kind.simulate.shape import Shape

SHAPE = Shape(clusters=250, nodes=100, endpoints=1000, identities=100, services=20, backends=2)
CHURN_PER_S, DURATION_S = 325.0, 20.0


def measure() -> Iterator[Figure]:
    """CPU seconds, megabytes, per cent of a core, milliseconds."""
    found = rehearse.report(SHAPE, CHURN_PER_S, DURATION_S)
    start, churn = found.bootstrap, found.churn
    detail = {"in_sync_s": round(start.in_sync_s, 2), "programmed_s": round(start.programmed_s, 2)}
    yield Figure("mesh250.cpu_s", round(start.cpu_s, 2), "CPU s", detail)
    memory = {"after_start": round(start.rss_mb), "peak": round(found.peak_mb)}
    yield Figure("mesh250.rss_mb", found.rss_mb, "MB", memory)
    rate = {"changes_per_s": churn.done_per_s, "seconds": churn.seconds}
    yield Figure("mesh250.churn_core_pct", churn.core_pct, "% of a core", rate)
    times = churn.propagation
    samples = {"samples": times.count, "p50": times.p50_ms, "max": times.max_ms}
    yield Figure("mesh250.propagation_p99_ms", times.p99_ms, "ms", samples)

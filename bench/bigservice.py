"""A service of 5,000 backends of which one comes or goes ten times a second, and who reads it."""

from collections.abc import Iterator

from bench import rehearse
from bench.figure import Figure
from kind.simulate.shape import Shape

SHAPE = Shape(clusters=1, nodes=100, endpoints=11_000, identities=100, services=1, backends=5000)
CHANGES_PER_S, DURATION_S = 10.0, 20.0


def measure() -> Iterator[Figure]:
    """Per cent of a core, of the agent."""
    churn = rehearse.report(SHAPE, CHANGES_PER_S, DURATION_S, services_only=True).churn
    detail = {
        "changes_per_s": churn.done_per_s,
        "p50_ms": churn.propagation.p50_ms,
        "p99_ms": churn.propagation.p99_ms,
    }
    yield Figure("bigservice.reader_core_pct", churn.core_pct, "% of a core", detail)

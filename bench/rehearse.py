"""`isthmus simulate mesh` for the figures of scale; a rehearsal that goes wrong is no figure."""

from kind.simulate.rehearsal import Request
from kind.simulate.report import Report
from kind.simulate.run import rehearse
from kind.simulate.shape import Shape

SEED = 20260101
TIMEOUT_S = 1200.0


def report(
    shape: Shape,
    churn_per_s: float = 0.0,
    duration_s: float = 0.0,
    services_only: bool = False,
) -> Report:
    """Raises ``RuntimeError`` with what was wrong."""
    request = Request(
        shape,
        churn_per_s,
        duration_s,
        SEED,
        services_only=services_only,
        timeout_s=TIMEOUT_S,
    )
    _, found = rehearse(request)
    if found is None:
        raise RuntimeError("the rehearsal was ended before its time")
    if not found.ok:
        raise RuntimeError(found.text())
    return found

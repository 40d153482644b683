"""Affinity local, all local backends unready, then killed: who fails, and for how long."""

from collections.abc import Iterator

from bench.figure import Figure
from bench.lab import joined_lab
from kind import story

ROUNDS = 3


def measure() -> Iterator[Figure]:
    """Failed requests beyond those in flight on killed backends; the time is the median round's."""
    failed = requests = 0
    times = []
    with joined_lab() as (mesh, _):
        mesh.annotate(story.C1, f"{story.AFFINITY}=local")
        mesh.only({story.ONE: True, story.TWO: False})
        for _ in range(ROUNDS):
            step = story.Step(6, "")
            story.fail_over(mesh, step)
            failed += int(step.figures["failed requests"])
            requests += int(step.figures["requests during it"])
            text = next(v for k, v in step.figures.items() if k.startswith("time to fail over"))
            times.append(float(text.split()[0]))
    yield Figure("failover.failed_requests", failed, "requests", {"of": requests, "rounds": ROUNDS})
    yield Figure(
        "failover.time_ms", sorted(times)[len(times) // 2], "ms", {"readiness_probe_period_s": 1}
    )

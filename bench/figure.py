"""One measured figure, and how runs of two set-ups are interleaved to give a ratio."""

import json
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the report: ``name`` is the bench's name, a dot, and what was measured."""

    name: str
    value: float
    unit: str
    detail: Mapping[str, object] = field(default_factory=dict)

    def line(self) -> str:
        """One line of JSON."""
        return json.dumps(
            {"figure": self.name, "value": self.value, "unit": self.unit, "detail": self.detail}
        )


def interleave(runs: int, subjects: Mapping[str, Callable[[], float]]) -> Mapping[str, list[float]]:
    """Measure each subject ``runs`` times in turn, A B A B, so that drift hits all alike.

    One unrecorded round warms caches, neighbours and conntrack.
    """
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    for round_ in range(runs + 1):
        for name, measure in subjects.items():
            value = measure()
            if round_:
                samples[name].append(value)
    return samples


def ratio(name: str, ours: list[float], peer: list[float]) -> Figure:
    """Median of ours over median of the peer's, with the samples behind it."""
    mine, theirs = statistics.median(ours), statistics.median(peer)
    return Figure(
        name,
        round(mine / theirs, 3),
        "ratio",
        {
            "ours_median": round(mine),
            "peer_median": round(theirs),
            "ours": [round(v) for v in ours],
            "peer": [round(v) for v in peer],
        },
    )


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which ``share`` (0..1) of all lie, by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]

"""Panels and their queries.

A panel is a title, a unit and its queries. Every query has the matcher of its dashboard's
variables; `$__rate_interval` is Grafana's. `tests/lab/test_hubble.py` evaluates all of them.
"""

from typing import NamedTuple

RATE = "[$__rate_interval]"


class Panel(NamedTuple):
    """One picture."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]  # PromQL, legend
    kind: str = "timeseries"


class Board(NamedTuple):
    """One file."""

    file: str
    title: str
    source: str  # the metric whose labels fill the variables
    variables: tuple[str, ...]
    panels: tuple[Panel, ...]


def q(query: str, legend: str) -> tuple[str, str]:
    """One line of a panel."""
    return query, legend


def by(metric: str, labels: str, matchers: str = "") -> tuple[str, str]:
    """The rate of a counter by labels; ``%`` stands for the dashboard's matchers."""
    some = f"%,{matchers}" if matchers else "%"
    legend = " ".join(f"{{{{{label}}}}}" for label in labels.split(","))
    return f"sum by ({labels}) (rate({metric}{{{some}}}{RATE}))", legend


def now(metric: str, labels: str, matchers: str = "") -> tuple[str, str]:
    """A gauge by labels."""
    some = f"%,{matchers}" if matchers else "%"
    legend = " ".join(f"{{{{{label}}}}}" for label in labels.split(","))
    return f"sum by ({labels}) ({metric}{{{some}}})", legend


def quantile(share: float, metric: str, labels: str = "") -> tuple[str, str]:
    """Of a histogram."""
    group = f"le,{labels}" if labels else "le"
    legend = " ".join((f"p{share * 100:g}", *(f"{{{{{x}}}}}" for x in labels.split(",") if x)))
    inner = f"sum by ({group}) (rate({metric}_bucket{{%}}{RATE}))"
    return f"histogram_quantile({share}, {inner})", legend


def top(number: int, query: tuple[str, str]) -> tuple[str, str]:
    """The largest."""
    return f"topk({number}, {query[0]})", query[1]


def each_cluster(
    function: str, metric: str, labels: str = "cluster,target_cluster"
) -> tuple[str, str]:
    """One number for each, of what every agent says."""
    legend = " ".join(f"{{{{{label}}}}}" for label in labels.split(","))
    return f"{function} by ({labels}) ({metric}{{%}})", legend


def process(prefix: str) -> tuple[Panel, ...]:
    """CPU and memory of a process."""
    return (
        Panel("CPU", "percentunit", (by(f"{prefix}process_cpu_seconds_total", "cluster,pod"),)),
        Panel("Memory", "bytes", (now(f"{prefix}process_resident_memory_bytes", "cluster,pod"),)),
    )

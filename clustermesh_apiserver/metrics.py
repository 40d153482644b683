"""Prometheus text of what the publisher knows. Pure. Names are those of Cluster Mesh."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

PREFIX = "cilium_clustermesh_apiserver_"


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure with its labels."""

    name: str
    kind: str  # gauge or counter
    help: str
    values: Mapping[tuple[tuple[str, str], ...], float] = field(default_factory=dict)


def escape(text: str) -> str:
    """A label's value as the text format wants it."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def render(metrics: Iterable[Metric], prefix: str = PREFIX) -> str:
    """The page, one block per metric in the given order."""
    lines: list[str] = []
    for metric in metrics:
        name = prefix + metric.name
        lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"]
        for labels, value in metric.values.items():
            text = ",".join(f'{key}="{escape(said)}"' for key, said in labels)
            lines.append(f"{name}{{{text}}} {value:g}" if text else f"{name} {value:g}")
    return "".join(line + "\n" for line in lines)

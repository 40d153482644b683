"""What a rehearsal found, for people and for scripts. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field


@dataclass(slots=True)
class Latency:
    """Percentiles in milliseconds."""

    count: int = 0
    p50_ms: float = 0.0
    p90_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


def latency(samples_s: Sequence[float]) -> Latency:
    """Of seconds, by nearest rank."""
    if not samples_s:
        return Latency()
    ordered = sorted(samples_s)

    def at(share: float) -> float:
        index = min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))
        return round(ordered[index] * 1000, 2)

    return Latency(len(ordered), at(0.5), at(0.9), at(0.99), round(ordered[-1] * 1000, 2))


@dataclass(slots=True)
class Bootstrap:
    """From the start of the agent's process until the kernel holds everything."""

    ready_s: float = 0.0  # as the agent counts: its own cluster is served
    in_sync_s: float = 0.0  # every cluster has been read
    programmed_s: float = 0.0  # and every row is in the kernel
    cpu_s: float = 0.0
    rss_mb: float = 0.0


@dataclass(slots=True)
class ChurnReport:
    """While things changed."""

    asked_per_s: float = 0.0
    done_per_s: float = 0.0
    seconds: float = 0.0
    core_pct: float = 0.0  # of the agent, 100: one processor
    propagation: Latency = field(default_factory=Latency)
    by_kind: dict[str, Latency] = field(default_factory=dict)
    superseded: int = 0


@dataclass(slots=True)
class Report:
    """Everything."""

    seed: int
    shape: Mapping[str, int] = field(default_factory=dict)
    rows: int = 0
    fill_s: float = 0.0
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    churn: ChurnReport = field(default_factory=ChurnReport)
    cpu_s: float = 0.0  # of the agent, from its start to the end
    rss_mb: float = 0.0
    peak_mb: float = 0.0
    maps: dict[str, tuple[int, int]] = field(default_factory=dict)  # rows, room
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """The kernel held the truth and nothing failed."""
        return not self.errors

    def as_json(self) -> str:
        """For scripts."""
        return json.dumps({"ok": self.ok, **asdict(self)}, indent=2)

    def text(self) -> str:
        """For people."""
        return "\n".join(_lines(self))


def _lines(r: Report) -> list[str]:
    shape = ", ".join(f"{count} {name}" for name, count in r.shape.items())
    b, c = r.bootstrap, r.churn
    lines = [
        f"Rehearsal      {shape}; seed {r.seed}",
        f"Stores         {r.rows} rows written in {r.fill_s:.1f} s",
    ]
    if b.programmed_s:
        lines += [
            f"Bootstrap      ready after {b.ready_s:.2f} s, in sync after {b.in_sync_s:.2f} s, "
            f"kernel programmed after {b.programmed_s:.2f} s",
            f"               {b.cpu_s:.2f} s of CPU, {b.rss_mb:.0f} MB",
        ]
    if c.seconds:
        lines += [
            f"Churn          {c.done_per_s:.0f} changes/s for {c.seconds:.0f} s "
            f"({c.asked_per_s:.0f} asked for), {c.core_pct:.1f} % of a core",
            f"Propagation      {_latency(c.propagation)}",
            *(f"  {kind:<15}{_latency(found)}" for kind, found in sorted(c.by_kind.items())),
        ]
    lines.append(
        f"Agent          {r.cpu_s:.2f} s of CPU, {r.rss_mb:.0f} MB, {r.peak_mb:.0f} MB at most"
    )
    lines += [
        f"Map            {name}: {rows} of {room} ({100 * rows / room:.1f} %)"
        for name, (rows, room) in r.maps.items()
    ]
    lines += [f"Warning        {text}" for text in r.warnings]
    lines += [f"Error          {text}" for text in r.errors]
    lines.append(f"Result         {'the kernel holds the truth' if r.ok else 'FAILED'}")
    return lines


def _latency(found: Latency) -> str:
    if not found.count:
        return "nothing measured"
    return (
        f"p50 {found.p50_ms:.1f} ms, p90 {found.p90_ms:.1f} ms, p99 {found.p99_ms:.1f} ms, "
        f"max {found.max_ms:.1f} ms ({found.count})"
    )

"""Prometheus' text form, and the two things that count by themselves. Pure."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPEN_CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
# Seconds, from a call on the loopback to one that hangs.
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One of the events that a sample counts."""

    labels: Mapping[str, str]
    value: float
    time_s: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One line; ``suffix`` is ``_bucket``, ``_sum`` or ``_count`` of a histogram."""

    labels: Mapping[str, str]
    value: float
    suffix: str = ""
    exemplar: Exemplar | None = None  # shown by OpenMetrics only


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with its samples."""

    name: str
    kind: str  # gauge, counter or histogram
    help: str
    samples: tuple[Sample, ...]


def family(
    name: str, kind: str, help_: str, samples: Iterable[tuple[Mapping[str, str], float]]
) -> Family:
    """A gauge or counter of labels and values."""
    return Family(name, kind, help_, tuple(Sample(labels, value) for labels, value in samples))


@dataclass(slots=True)
class Counter:
    """A number for each combination of labels; it only grows."""

    labels: tuple[str, ...]
    values: dict[tuple[str, ...], float] = field(default_factory=dict)

    def declare(self, *labels: str) -> None:
        """Show these labels before the first count, so that a rate sees that one as well."""
        self.values.setdefault(labels, 0)

    def add(self, *labels: str, by: float = 1) -> None:
        """Count; values in the order of ``labels``."""
        self.values[labels] = self.values.get(labels, 0) + by

    def family(self, name: str, help_: str) -> Family:
        """As it stands."""
        found = sorted(self.values.items())
        samples = (Sample(dict(zip(self.labels, k, strict=True)), v) for k, v in found)
        return Family(name, "counter", help_, tuple(samples))


@dataclass(slots=True)
class _Observed:
    counts: list[int]
    sum: float = 0.0


@dataclass(slots=True)
class Histogram:
    """Durations in buckets, for each combination of labels."""

    labels: tuple[str, ...]
    bounds: tuple[float, ...] = BUCKETS_S
    values: dict[tuple[str, ...], _Observed] = field(default_factory=dict)

    def declare(self, *labels: str) -> None:
        """Show these labels before the first value, so that a rate sees that one as well."""
        self._of(labels)

    def observe(self, value: float, *labels: str) -> None:
        """Take one; values in the order of ``labels``."""
        found = self._of(labels)
        found.counts[bisect_left(self.bounds, value)] += 1
        found.sum += value

    def _of(self, labels: tuple[str, ...]) -> _Observed:
        found = self.values.get(labels)
        if found is None:
            found = self.values[labels] = _Observed([0] * (len(self.bounds) + 1))
        return found

    def family(self, name: str, help_: str) -> Family:
        """As it stands; buckets count everything up to their bound."""
        samples: list[Sample] = []
        ends = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        for key, found in sorted(self.values.items(), key=lambda item: item[0]):
            labels = dict(zip(self.labels, key, strict=True))
            sums = list(accumulate(found.counts))
            for end, count in zip(ends, sums, strict=True):
                samples.append(Sample({**labels, "le": end}, count, "_bucket"))
            samples.append(Sample(labels, found.sum, "_sum"))
            samples.append(Sample(labels, sums[-1], "_count"))
        return Family(name, "histogram", help_, tuple(samples))


def render(families: Iterable[Family]) -> str:
    """The page."""
    lines: list[str] = []
    for one in families:
        lines += (f"# HELP {one.name} {one.help}", f"# TYPE {one.name} {one.kind}")
        lines += (_line(one, sample) for sample in one.samples)
    return "\n".join(lines) + "\n"


def render_open(families: Iterable[Family]) -> str:
    """The page as OpenMetrics, with exemplars."""
    lines: list[str] = []
    for one in families:
        name = one.name.removesuffix("_total") if one.kind == "counter" else one.name
        lines += (f"# HELP {name} {one.help}", f"# TYPE {name} {one.kind}")
        for sample in one.samples:
            example = sample.exemplar
            more = (
                f" # {{{_inner(example.labels)}}} {_number(example.value)} {example.time_s:.3f}"
                if example
                else ""
            )
            lines.append(_line(one, sample) + more)
    return "\n".join((*lines, "# EOF")) + "\n"


def _line(one: Family, sample: Sample) -> str:
    inner = _inner(sample.labels)
    labels = f"{{{inner}}}" if inner else ""
    return f"{one.name}{sample.suffix}{labels} {_number(sample.value)}"


def _inner(labels: Mapping[str, str]) -> str:
    return ",".join(f'{k}="{_quoted(v)}"' for k, v in labels.items())


def _quoted(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))

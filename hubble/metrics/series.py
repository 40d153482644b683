"""Counters and durations whose series may end, and whose number is bounded. Pure.

When a table has all the series it may have, what would be another is counted in one whose labels
that have no fixed set of values say ``other``: sums stay true. docs/adr/0206
"""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate

from hubble.metrics.contexts import Pod
from telemetry.metrics import Exemplar, Family, Sample

SERIES_MAX = 20_000  # of one metric
OTHER = "other"
DURATIONS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ENDS = (*(f"{bound:g}" for bound in DURATIONS_S), "+Inf")


class Series:
    """A number that grows."""

    __slots__ = ("exemplar", "value")

    def __init__(self) -> None:
        self.value = 0
        self.exemplar: Exemplar | None = None


class _Observed:
    """Durations in buckets."""

    __slots__ = ("counts", "exemplars", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * len(_ENDS)
        self.sum_s = 0.0
        self.exemplars: dict[int, Exemplar] = {}


class Table:
    """The series of one counter, by the values of ``labels``.

    ``open_labels``: those that others fill, as names, ports and addresses.
    """

    kind = "counter"

    def __init__(
        self,
        name: str,
        help_: str,
        labels: tuple[str, ...],
        open_labels: Iterable[str],
        limit: int = SERIES_MAX,
    ) -> None:
        self.name, self.labels, self._help, self._limit = name, labels, help_, limit
        wanted = frozenset(open_labels)
        self._is_open = tuple(label in wanted for label in labels)
        self._series: dict[tuple[str, ...], Series] = {}
        self._observed: dict[tuple[str, ...], _Observed] = {}
        self._by_pod: dict[Pod, set[tuple[str, ...]]] = {}
        self.overflows = 0  # series that found no room

    def series(self, values: tuple[str, ...], pods: tuple[Pod, ...] = ()) -> Series:
        """The series with these values, or the one for what finds no room."""
        found = self._series.get(values)
        if found is None:
            values = self._room(values, len(self._series), pods)
            found = self._series.setdefault(values, Series())
        return found

    def _room(self, values: tuple[str, ...], count: int, pods: tuple[Pod, ...]) -> tuple[str, ...]:
        if count >= self._limit:
            self.overflows += 1
            pairs = zip(self._is_open, values, strict=True)
            return tuple(OTHER if is_open else value for is_open, value in pairs)
        for pod in pods:
            self._by_pod.setdefault(pod, set()).add(values)
        return values

    def remove(self, pod: Pod) -> None:
        """The series that name it."""
        for values in self._by_pod.pop(pod, ()):
            self._series.pop(values, None)
            self._observed.pop(values, None)

    def names(self, pod: Pod) -> bool:
        """Does a series name it?"""
        return pod in self._by_pod

    def __len__(self) -> int:
        return len(self._series) + len(self._observed)

    def family(self) -> Family:
        """As it stands."""
        samples = (
            Sample(self._pairs(values), found.value, exemplar=found.exemplar)
            for values, found in sorted(self._series.items())
        )
        return Family(self.name, self.kind, self._help, tuple(samples))

    def _pairs(self, values: tuple[str, ...]) -> dict[str, str]:
        return dict(zip(self.labels, values, strict=True))


class Durations(Table):
    """The series of one histogram of seconds."""

    kind = "histogram"

    def observe(
        self,
        seconds: float,
        values: tuple[str, ...],
        pods: tuple[Pod, ...] = (),
        exemplar: Exemplar | None = None,
    ) -> None:
        """Take one."""
        found = self._observed.get(values)
        if found is None:
            values = self._room(values, len(self._observed), pods)
            found = self._observed.setdefault(values, _Observed())
        bucket = bisect_left(DURATIONS_S, seconds)
        found.counts[bucket] += 1
        found.sum_s += seconds
        if exemplar is not None:
            found.exemplars[bucket] = exemplar

    def family(self) -> Family:
        """As it stands; buckets count everything up to their bound."""
        samples: list[Sample] = []
        for values, found in sorted(self._observed.items(), key=lambda item: item[0]):
            pairs = self._pairs(values)
            sums = list(accumulate(found.counts))
            for number, (end, count) in enumerate(zip(_ENDS, sums, strict=True)):
                example = found.exemplars.get(number)
                samples.append(Sample({**pairs, "le": end}, count, "_bucket", example))
            samples.append(Sample(pairs, found.sum_s, "_sum"))
            samples.append(Sample(pairs, sums[-1], "_count"))
        return Family(self.name, self.kind, self._help, tuple(samples))

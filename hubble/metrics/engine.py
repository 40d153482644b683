"""From records to numbers: what each counts is found out once for all that are alike. Pure.

A record's key (``record_keys``) leads to the series it counts in; only a key that is new is decoded
and shown to the plugins. What was learnt is forgotten when a name changes, as far as labels come
from names. Records without a key (a proxy's, unusual packets), and all of them where a filter looks
at what no key holds, are decoded one by one.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from hubble.filters import compile_filters
from hubble.filters_fields import Predicate
from hubble.metrics.contexts import Pod
from hubble.metrics.options import Metric
from hubble.metrics.plugins import Plugin
from hubble.metrics.plugins_l7 import PLUGINS
from hubble.metrics.record_keys import Key, keyer
from hubble.metrics.series import SERIES_MAX, Series, Table
from hubble.ring import Entry, is_flow
from telemetry.metrics import Family, family
from wire.hubble import flow_pb2 as f

KEYS_MAX = 1 << 16
_BY_KEY = frozenset(  # fields of filters that see nothing but what a key holds
    (
        "source_ip",
        "source_pod",
        "source_label",
        "source_identity",
        "source_workload",
        "source_cluster_name",
        "destination_ip",
        "destination_pod",
        "destination_label",
        "destination_identity",
        "destination_workload",
        "destination_cluster_name",
        "verdict",
        "event_type",
        "protocol",
        "reply",
        "node_name",
        "node_labels",
        "ip_version",
        "traffic_direction",
        "drop_reason_desc",
    )
)


class _Counting:
    """A plugin and the flows that it counts."""

    def __init__(self, metric: Metric, limit: int) -> None:
        self.plugin: Plugin = PLUGINS[metric.name](metric, limit)
        self._wanted: Predicate | None = compile_filters(metric.include, metric.exclude)
        fields = {
            descriptor.name
            for one in (*metric.include, *metric.exclude)
            for descriptor, _ in one.ListFields()
        }
        self.by_key = fields <= _BY_KEY
        self.by_names = bool(fields or self.plugin.context.labels or self.plugin.needs_names)

    def series(self, flow: f.Flow) -> Iterable[Series]:
        if self._wanted is None or self._wanted(flow):
            return self.plugin.series(flow)
        return ()

    def measure(self, flow: f.Flow) -> None:
        if self._wanted is None or self._wanted(flow):
            self.plugin.measure(flow)


class _Learnt:
    """How many records of a key came since they were added up, and where they count."""

    __slots__ = ("number", "series")

    def __init__(self, series: tuple[Series, ...]) -> None:
        self.number, self.series = 0, series


class _Group:
    """Plugins whose labels come from the same fields of a record."""

    def __init__(self, counting: Sequence[_Counting], with_names: bool) -> None:
        self.counting, self.with_names = counting, with_names
        self.key = keyer(with_names)
        self.learnt: dict[Key, _Learnt] = {}

    def add_up(self) -> None:
        for found in self.learnt.values():
            if found.number:
                for series in found.series:
                    series.value += found.number
                found.number = 0

    def forget(self) -> None:
        self.add_up()
        self.learnt = {}


class Engine:
    """Counts for a list of metrics. ``revision`` is another when a name has changed."""

    def __init__(
        self,
        decode: Callable[[Entry], object],
        revision: Callable[[], object],
        limit: int = SERIES_MAX,
    ) -> None:
        self._decode, self._revision, self._limit = decode, revision, limit
        self._seen_revision: object = None
        self._all: dict[str, _Counting] = {}
        self._groups: list[_Group] = []
        self._singly: list[_Counting] = []
        self.decoded = 0  # flows, ever

    def configure(self, metrics: Iterable[Metric]) -> None:
        """Count these from now on. What is asked for as before goes on with its numbers."""
        for group in self._groups:
            group.add_up()
        wanted = {}
        for metric in metrics:
            made = _Counting(metric, self._limit)
            known = self._all.get(metric.name)
            if known is not None and known.plugin.metric.options == metric.options:
                made.plugin = known.plugin
                made.plugin.metric = metric
            wanted[metric.name] = made
        self._all = wanted
        self._singly = [one for one in wanted.values() if not one.by_key]
        keyed = [one for one in wanted.values() if one.by_key]
        named, plain = [c for c in keyed if c.by_names], [c for c in keyed if not c.by_names]
        self._groups = [
            _Group(counting, with_names)
            for counting, with_names in ((plain, False), (named, True))
            if counting
        ]

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that are counted."""
        return tuple(self._all)

    def take(self, entries: Iterable[Entry]) -> None:
        """Count these."""
        revision = self._revision()
        if revision != self._seen_revision:
            self._seen_revision = revision
            self._forget(with_names_only=True)
        groups, singly = self._groups, self._singly
        for entry in entries:
            record = entry[2]
            flow: f.Flow | None = None
            for group in groups:
                key = group.key(record)
                if key is None:
                    flow = flow or self._flow(entry)
                    self._count(group.counting, flow)
                    continue
                found = group.learnt.get(key)
                if found is None:
                    flow = flow or self._flow(entry)
                    found = self._learn(group, key, flow)
                found.number += 1
            if singly:
                self._count(singly, flow or self._flow(entry))

    def _flow(self, entry: Entry) -> f.Flow | None:
        if not is_flow(entry.record):
            return None
        self.decoded += 1
        found = self._decode(entry)
        return found if isinstance(found, f.Flow) else None

    def _learn(self, group: _Group, key: Key, flow: f.Flow | None) -> _Learnt:
        series = [s for one in group.counting for s in one.series(flow)] if flow else ()
        if len(group.learnt) >= KEYS_MAX:
            group.forget()
        found = group.learnt[key] = _Learnt(tuple(series))
        return found

    def _count(self, counting: Iterable[_Counting], flow: f.Flow | None) -> None:
        if flow is None:
            return
        for one in counting:
            for series in one.series(flow):
                series.value += 1
            one.measure(flow)

    def _forget(self, *, with_names_only: bool) -> None:
        for group in self._groups:
            if group.with_names or not with_names_only:
                group.forget()

    def remove(self, pods: Iterable[Pod]) -> None:
        """These pods are gone: their series end."""
        self._forget(with_names_only=False)
        for pod in pods:
            for table in self._tables():
                table.remove(pod)

    def knows(self, pod: Pod) -> bool:
        """Does a series name it?"""
        return any(table.names(pod) for table in self._tables())

    def _tables(self) -> Iterator[Table]:
        for one in self._all.values():
            yield from one.plugin.tables

    def families(self) -> list[Family]:
        """All as they stand."""
        for group in self._groups:
            group.add_up()
        tables = list(self._tables())
        overflows = [({"metric": table.name}, table.overflows) for table in tables]
        return [
            *(table.family() for table in tables),
            family(
                "hubble_metrics_series_overflows_total",
                "counter",
                "Series that found no room: what they would count is in one with the labels other",
                overflows,
            ),
        ]

"""Metrics of packets and connections: what each counts of a flow. Pure.

A plugin says which series a flow counts in (``series``), each once. Names, labels and their values
are Hubble's (docs/modules/hubble-metrics.md), with two corrections: ICMPv6 is of its own family,
and a denied packet is one drop, though two events tell of it (docs/adr/0206).
"""

from collections.abc import Iterable

from hubble.icmp_names import icmp_text
from hubble.metrics.contexts import Context, Pod
from hubble.metrics.options import Metric
from hubble.metrics.series import SERIES_MAX, Durations, Series, Table
from wire.hubble import flow_pb2 as f

EVENT_DROP, EVENT_CAPTURE, EVENT_TRACE, EVENT_VERDICT, EVENT_L7 = 1, 3, 4, 5, 129
_EVENTS_L4 = frozenset((EVENT_DROP, EVENT_CAPTURE, EVENT_TRACE, EVENT_VERDICT))
_L7_NAMES = {"dns": "DNS", "http": "HTTP", "kafka": "Kafka"}
_FORWARDED = frozenset((f.FORWARDED, f.REDIRECTED))
_HOST = 1
_WORLD = ("reserved:world", "reserved:world-ipv4", "reserved:world-ipv6")
_MATCHES = ("none", "l3-only", "l3-l4", "l4-only", "all", "l3-proto", "proto-only")


def l7_name(flow: f.Flow) -> str:
    """Of its record: ``DNS``, ``HTTP``, ``Kafka``; empty: another."""
    return _L7_NAMES.get(flow.l7.WhichOneof("record") or "", "")


def protocol(flow: f.Flow) -> str:
    """The highest that is known."""
    if flow.event_type.type == EVENT_L7:
        return l7_name(flow) or "Unknown L7"
    if flow.event_type.type in _EVENTS_L4:
        return flow.l4.WhichOneof("protocol") or "Unknown L4"
    return "Unknown flow"


def port(flow: f.Flow) -> str:
    """The destination's; ``0``: the protocol has none."""
    found = flow.l4.WhichOneof("protocol")
    if found in ("TCP", "UDP", "SCTP"):
        return str(getattr(flow.l4, found).destination_port)
    return "0"


class Plugin:
    """One metric of the list."""

    needs_names = False  # also without context labels
    swaps = False  # answers are counted as their requests

    def __init__(self, metric: Metric, limit: int = SERIES_MAX) -> None:
        self.metric = metric
        self.context = Context(metric)
        self.tables: list[Table] = []
        self._limit = limit

    def series(self, flow: f.Flow) -> Iterable[Series]:
        """Where the flow counts."""
        return ()

    def measure(self, flow: f.Flow) -> None:
        """Durations of a flow of a proxy; asked once for each."""

    def counter(
        self, name: str, help_: str, *labels: str, open_labels: Iterable[str] = ()
    ) -> Table:
        """A table of this plugin; labels of the context come first."""
        return self._table(Table, name, help_, labels, open_labels)

    def durations(
        self, name: str, help_: str, *labels: str, open_labels: Iterable[str] = ()
    ) -> Durations:
        """A histogram of this plugin."""
        found = self._table(Durations, name, help_, labels, open_labels)
        assert isinstance(found, Durations)
        return found

    def _table(
        self,
        kind: type[Table],
        name: str,
        help_: str,
        labels: tuple[str, ...],
        open_labels: Iterable[str],
    ) -> Table:
        ours = self.context.labels
        table = kind(f"hubble_{name}", help_, (*ours, *labels), (*ours, *open_labels), self._limit)
        self.tables.append(table)
        return table

    def of(self, table: Table, flow: f.Flow, *values: str) -> Series:
        """The series of the flow's context and these values."""
        context, pods = self.of_context(flow)
        return table.series((*context, *values), pods)

    def of_context(self, flow: f.Flow) -> tuple[tuple[str, ...], tuple[Pod, ...]]:
        """The flow's context labels and the pods that they name."""
        swapped = self.swaps
        return (
            self.context.values(flow, swapped=swapped),
            self.context.pods(flow, swapped=swapped),
        )


class Drop(Plugin):
    """Every dropped packet and every refused request, once."""

    def __init__(self, metric: Metric, limit: int = SERIES_MAX) -> None:
        super().__init__(metric, limit)
        self._drops = self.counter("drop_total", "Drops", "reason", "protocol")

    def series(self, flow: f.Flow) -> Iterable[Series]:
        if flow.verdict == f.DROPPED and flow.event_type.type != EVENT_VERDICT:
            reason = _reason(flow)
            yield self.of(self._drops, flow, reason, protocol(flow))


def _reason(flow: f.Flow) -> str:
    number = flow.drop_reason_desc
    return f.DropReason.Name(number) if number in f.DropReason.values() else str(number)


class Flow(Plugin):
    """Every flow."""

    def __init__(self, metric: Metric, limit: int = SERIES_MAX) -> None:
        super().__init__(metric, limit)
        labels = ("protocol", "type", "subtype", "verdict")
        self._flows = self.counter("flows_processed_total", "Flows", *labels)

    def series(self, flow: f.Flow) -> Iterable[Series]:
        kind, subtype = _type(flow)
        verdict = f.Verdict.Name(flow.verdict)
        yield self.of(self._flows, flow, protocol(flow), kind, subtype, verdict)


def _type(flow: f.Flow) -> tuple[str, str]:
    kind = flow.event_type.type
    if kind == EVENT_L7:
        return "L7", l7_name(flow)
    if kind == EVENT_TRACE:
        point = f.TraceObservationPoint.Name(flow.trace_observation_point)
        return "Trace", point.lower().replace("_", "-")
    words = {EVENT_DROP: "Drop", EVENT_CAPTURE: "Capture", EVENT_VERDICT: "PolicyVerdict"}
    return (words[kind], "") if kind in words else ("Unknown", str(kind))


class FlowsToWorld(Plugin):
    """Flows that leave the mesh."""

    needs_names = True

    def __init__(self, metric: Metric, limit: int = SERIES_MAX) -> None:
        super().__init__(metric, limit)
        self._any_drop, self._syn_only = metric.has("any-drop"), metric.has("syn-only")
        self._with_port = metric.has("port")
        labels = ("protocol", "verdict", *(("port",) if self._with_port else ()))
        self._flows = self.counter(
            "flows_to_world_total", "Flows to the world", *labels, open_labels=("port",)
        )

    def series(self, flow: f.Flow) -> Iterable[Series]:
        if self._counts(flow):
            more = (port(flow),) if self._with_port else ()
            verdict = f.Verdict.Name(flow.verdict)
            yield self.of(self._flows, flow, protocol(flow), verdict, *more)

    def _counts(self, flow: f.Flow) -> bool:
        if not any(label in _WORLD for label in flow.destination.labels):
            return False
        if not flow.HasField("event_type") or flow.l4.WhichOneof("protocol") is None:
            return False
        if flow.verdict == f.DROPPED:
            if not self._any_drop and flow.drop_reason_desc != f.POLICY_DENIED:
                return False
        elif flow.verdict == f.FORWARDED and flow.is_reply.value:
            return False
        flags = flow.l4.TCP.flags
        return not (self._syn_only and (not flags.SYN or flags.ACK))


class Icmp(Plugin):
    """ICMP by type."""

    def __init__(self, metric: Metric, limit: int = SERIES_MAX) -> None:
        super().__init__(metric, limit)
        self._messages = self.counter(
            "icmp_total", "ICMP messages", "family", "type", open_labels=("type",)
        )

    def series(self, flow: f.Flow) -> Iterable[Series]:
        found = flow.l4.WhichOneof("protocol")
        if found == "ICMPv4":
            icmp, version = flow.l4.ICMPv4, 4
            text = icmp_text(version, icmp.type, icmp.code)
        elif found == "ICMPv6":
            version = 6
            text = icmp_text(version, flow.l4.ICMPv6.type, flow.l4.ICMPv6.code)
        else:
            return
        yield self.of(self._messages, flow, f"IPv{version}", text)


class Policy(Plugin):
    """What policy decided of connections and requests."""

    needs_names = True

    def __init__(self, metric: Metric, limit: int = SERIES_MAX) -> None:
        super().__init__(metric, limit)
        labels = ("direction", "match", "action")
        self._verdicts = self.counter("policy_verdicts_total", "Verdicts of policy", *labels)

    def series(self, flow: f.Flow) -> Iterable[Series]:
        kind = flow.event_type.type
        if kind == EVENT_VERDICT and flow.source.identity != _HOST:
            number = flow.policy_match_type
            match = _MATCHES[number] if number < len(_MATCHES) else str(number)
        elif kind == EVENT_L7:
            match = f"l7/{l7_name(flow).lower()}"
        else:
            return
        direction = f.TrafficDirection.Name(flow.traffic_direction).lower()
        action = f.Verdict.Name(flow.verdict).lower()
        yield self.of(self._verdicts, flow, direction, match, action)


class PortDistribution(Plugin):
    """Where requests go."""

    def __init__(self, metric: Metric, limit: int = SERIES_MAX) -> None:
        super().__init__(metric, limit)
        self._ports = self.counter(
            "port_distribution_total",
            "Flows by destination port",
            *("protocol", "port"),
            open_labels=("port",),
        )

    def series(self, flow: f.Flow) -> Iterable[Series]:
        found = flow.l4.WhichOneof("protocol")
        if found is None or flow.verdict not in _FORWARDED:
            return
        if flow.HasField("is_reply") and not flow.is_reply.value:
            yield self.of(self._ports, flow, found, port(flow))


class Tcp(Plugin):
    """Beginnings and ends of connections."""

    def __init__(self, metric: Metric, limit: int = SERIES_MAX) -> None:
        super().__init__(metric, limit)
        self._flags = self.counter("tcp_flags_total", "TCP flags", "flag", "family")

    def series(self, flow: f.Flow) -> Iterable[Series]:
        if flow.verdict not in _FORWARDED or not flow.l4.TCP.HasField("flags"):
            return
        flags = flow.l4.TCP.flags
        family = f.IPVersion.Name(flow.IP.ipVersion)
        syn = "SYN-ACK" if flags.ACK else "SYN"
        for is_set, text in ((flags.FIN, "FIN"), (flags.SYN, syn), (flags.RST, "RST")):
            if is_set:
                yield self.of(self._flags, flow, text, family)

"""Metrics of what proxies tell: requests, answers, questions of DNS. Pure."""

from collections.abc import Iterable
from typing import Final

from hubble.l7 import DNS_ERRORS
from hubble.metrics.options import Metric
from hubble.metrics.plugins import (
    Drop,
    Flow,
    FlowsToWorld,
    Icmp,
    Plugin,
    Policy,
    PortDistribution,
    Tcp,
)
from hubble.metrics.series import SERIES_MAX, Series, Table
from telemetry.metrics import Exemplar
from wire.hubble import flow_pb2 as f

_REPORTERS = {f.EGRESS: "client", f.INGRESS: "server"}
# Three texts differ from those of a flow's summary.
_RCODES = DNS_ERRORS | {
    0: "No Error",
    9: "Not Authorized",
    11: "DSO-TYPE Not Implemented",
    23: "Bad/missing Server Cookie",
}


def _reporter(flow: f.Flow) -> str:
    return _REPORTERS.get(flow.traffic_direction, "unknown")


class Dns(Plugin):
    """Questions and answers."""

    def __init__(self, metric: Metric, limit: int = SERIES_MAX) -> None:
        super().__init__(metric, limit)
        self._with_query = metric.has("query")
        self._ignore_aaaa = metric.has("ignoreaaaa")
        query = ("query",) if self._with_query else ()
        labels = ("rcode", "qtypes", "ips_returned", *query)
        open_ = {"open_labels": ("query", "qtypes", "ips_returned", "type")}
        self._queries = self.counter("dns_queries_total", "DNS queries", *labels, **open_)
        self._responses = self.counter("dns_responses_total", "DNS responses", *labels, **open_)
        self._types = self.counter(
            "dns_response_types_total",
            "Records of DNS responses by type",
            *("type", "qtypes", *query),
            **open_,
        )

    def series(self, flow: f.Flow) -> Iterable[Series]:
        if not flow.l7.HasField("dns"):
            return
        dns = flow.l7.dns
        if self._ignore_aaaa and list(dns.qtypes) == ["AAAA"]:
            return
        qtypes, query = ",".join(dns.qtypes), (dns.query,) if self._with_query else ()
        told = (qtypes, str(len(dns.ips)), *query)
        if flow.verdict == f.DROPPED:
            yield self.of(self._queries, flow, "Policy denied", *told)
        elif not flow.is_reply.value:
            yield self.of(self._queries, flow, "", *told)
        else:
            yield self.of(self._responses, flow, _RCODES.get(dns.rcode, ""), *told)
            for kind in dns.rrtypes:
                yield self.of(self._types, flow, kind, qtypes, *query)


class _Http(Plugin):
    def __init__(self, metric: Metric, limit: int = SERIES_MAX) -> None:
        super().__init__(metric, limit)
        self._with_exemplars = metric.has("exemplars")
        self._durations = self.durations(
            "http_request_duration_seconds",
            "How long requests took",
            *("method", "reporter"),
            open_labels=("method",),
        )

    def messages(self, what: str, *labels: str) -> Table:
        """The counter of requests or responses."""
        open_labels = ("method", "protocol", "status")
        return self.counter(f"http_{what}_total", f"HTTP {what}", *labels, open_labels=open_labels)

    def of_message(self, table: Table, flow: f.Flow, *values: str) -> Series:
        """The series of the flow, with its trace as an example."""
        found = self.of(table, flow, *values)
        found.exemplar = self._exemplar(flow, 1) or found.exemplar
        return found

    def _exemplar(self, flow: f.Flow, value: float) -> Exemplar | None:
        trace = flow.trace_context.parent.trace_id
        if not self._with_exemplars or not trace:
            return None
        time_s = flow.time.seconds + flow.time.nanos / 1e9
        return Exemplar({"traceID": trace}, value, time_s)

    def measure(self, flow: f.Flow) -> None:
        if flow.l7.HasField("http") and flow.l7.type == f.RESPONSE:
            seconds = flow.l7.latency_ns / 1e9
            context, pods = self.of_context(flow)
            values = (*context, flow.l7.http.method, _reporter(flow))
            self._durations.observe(seconds, values, pods, self._exemplar(flow, seconds))


class HttpV1(_Http):
    """Requests and responses, each as it went."""

    def __init__(self, metric: Metric, limit: int = SERIES_MAX) -> None:
        super().__init__(metric, limit)
        self._requests = self.messages("requests", "method", "protocol", "reporter")
        self._responses = self.messages("responses", "method", "protocol", "status", "reporter")

    def series(self, flow: f.Flow) -> Iterable[Series]:
        if not flow.l7.HasField("http"):
            return
        http, reporter = flow.l7.http, _reporter(flow)
        if flow.l7.type == f.REQUEST:
            yield self.of_message(self._requests, flow, http.method, http.protocol, reporter)
        elif flow.l7.type == f.RESPONSE:
            values = (http.method, http.protocol, str(http.code), reporter)
            yield self.of_message(self._responses, flow, *values)


class HttpV2(_Http):
    """Responses, told as the requests that they answer."""

    swaps = True

    def __init__(self, metric: Metric, limit: int = SERIES_MAX) -> None:
        super().__init__(metric, limit)
        self._requests = self.messages("requests", "method", "protocol", "status", "reporter")

    def series(self, flow: f.Flow) -> Iterable[Series]:
        if not flow.l7.HasField("http") or flow.l7.type != f.RESPONSE:
            return
        http = flow.l7.http
        values = (http.method, http.protocol, str(http.code), _reporter(flow))
        yield self.of_message(self._requests, flow, *values)


class Kafka(Plugin):
    """Requests to Kafka."""

    def __init__(self, metric: Metric, limit: int = SERIES_MAX) -> None:
        super().__init__(metric, limit)
        open_labels = ("topic", "api_key", "error_code")
        self._requests = self.counter(
            "kafka_requests_total",
            "Kafka requests",
            *("topic", "api_key", "error_code", "reporter"),
            open_labels=open_labels,
        )
        self._durations = self.durations(
            "kafka_request_duration_seconds",
            "How long Kafka requests took",
            *("topic", "api_key", "reporter"),
            open_labels=open_labels,
        )

    def series(self, flow: f.Flow) -> Iterable[Series]:
        if flow.l7.HasField("kafka") and flow.l7.type == f.REQUEST:
            kafka = flow.l7.kafka
            values = (kafka.topic, kafka.api_key, str(kafka.error_code), _reporter(flow))
            yield self.of(self._requests, flow, *values)

    def measure(self, flow: f.Flow) -> None:
        if flow.l7.HasField("kafka") and flow.l7.type == f.REQUEST:
            kafka = flow.l7.kafka
            context, pods = self.of_context(flow)
            values = (*context, kafka.topic, kafka.api_key, _reporter(flow))
            self._durations.observe(flow.l7.latency_ns / 1e9, values, pods)


PLUGINS: Final[dict[str, type[Plugin]]] = {
    "dns": Dns,
    "drop": Drop,
    "flow": Flow,
    "flows-to-world": FlowsToWorld,
    "http": HttpV1,
    "httpV2": HttpV2,
    "icmp": Icmp,
    "kafka": Kafka,
    "policy": Policy,
    "port-distribution": PortDistribution,
    "tcp": Tcp,
}

"""What each field of a FlowFilter means (one function a field). Pure.

``PREDICATES`` maps the field's name to what makes a predicate of its values, any of which may hold.
A value without meaning raises ``FilterError``. Numbers of enums are checked by the caller.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit

import re2

from hubble import patterns
from hubble.patterns import FilterError
from wire.hubble import flow_pb2

Flow: TypeAlias = flow_pb2.Flow
Predicate: TypeAlias = Callable[[Flow], bool]
Maker: TypeAlias = Callable[[Sequence[Any]], Predicate]  # values of the field's own type

_STATUS: Final = re2.compile(r"^[1-5][0-9]{2}$")
_STATUS_PREFIX: Final = re2.compile(r"^[1-5][0-9]?\+$")
_FLAGS: Final = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "NS")
_PROTOCOLS: Final[Mapping[str, tuple[str, ...]]] = {
    "icmp": ("ICMPv4", "ICMPv6"),
    "icmpv4": ("ICMPv4",),
    "icmpv6": ("ICMPv6",),
    "tcp": ("TCP",),
    "udp": ("UDP",),
    "sctp": ("SCTP",),
    "vrrp": ("VRRP",),
    "igmp": ("IGMP",),
}
_RECORDS: Final = frozenset(("dns", "http", "kafka"))


def _equal(read: Callable[[Flow], object]) -> Maker:
    def make(values: Sequence[Any]) -> Predicate:
        wanted = frozenset(values)
        return lambda flow: read(flow) in wanted

    return make


def _any_text(
    what: str, matcher: Callable[[str, str], patterns.Text], read: Callable[[Flow], str]
) -> Maker:
    def make(values: Sequence[str]) -> Predicate:
        matchers = [matcher(value, what) for value in values]

        def holds(flow: Flow) -> bool:
            text = read(flow)
            return bool(text) and any(matches(text) for matches in matchers)

        return holds

    return make


def _namespaced(what: str, read: Callable[[Flow], tuple[str, str]]) -> Maker:
    def make(values: Sequence[str]) -> Predicate:
        matchers = [patterns.namespaced(value, what) for value in values]

        def holds(flow: Flow) -> bool:
            namespace, name = read(flow)
            return any(fits(namespace, name) for fits in matchers)

        return holds

    return make


def _names(what: str, read: Callable[[Flow], Sequence[str]]) -> Maker:
    def make(values: Sequence[str]) -> Predicate:
        matchers = [patterns.fqdn(value, what) for value in values]
        return lambda flow: any(matches(name) for name in read(flow) for matches in matchers)

    return make


def _labels(what: str, read: Callable[[Flow], Sequence[str]]) -> Maker:
    def make(values: Sequence[str]) -> Predicate:
        selectors = [patterns.labels(value, what) for value in values]

        def holds(flow: Flow) -> bool:
            its = tuple(read(flow))
            return any(selects(its) for selects in selectors)

        return holds

    return make


def _workloads(read: Callable[[Flow], Sequence[flow_pb2.Workload]]) -> Maker:
    def make(values: Sequence[flow_pb2.Workload]) -> Predicate:
        wanted = [(value.name, value.kind) for value in values]
        return lambda flow: any(
            (not name or its.name == name) and (not kind or its.kind == kind)
            for its in read(flow)
            for name, kind in wanted
        )

    return make


def _clusters(what: str, read: Callable[[Flow], str]) -> Maker:
    def make(values: Sequence[str]) -> Predicate:
        if "" in values:
            raise FilterError(f"{what}: a cluster's name must not be empty")
        return _equal(read)(values)

    return make


def _port(flow: Flow, side: str) -> int | None:
    kind = flow.l4.WhichOneof("protocol")
    if kind not in ("TCP", "UDP", "SCTP"):
        return None
    return int(getattr(getattr(flow.l4, kind), side))


def _ports(what: str, side: str) -> Maker:
    def make(values: Sequence[str]) -> Predicate:
        for value in values:
            if not (value.isascii() and value.isdigit() and int(value[:6]) <= 65535):
                raise FilterError(f"{what} {value!r}: not a number from 0 to 65535")
        wanted = frozenset(int(value) for value in values)
        return lambda flow: _port(flow, side) in wanted

    return make


def _protocols(values: Sequence[str]) -> Predicate:
    layers: set[str] = set()
    records: set[str] = set()
    for value in values:
        name = value.lower()
        if name in _RECORDS:
            records.add(name)
        elif name in _PROTOCOLS:
            layers.update(_PROTOCOLS[name])
        else:
            known = ", ".join(sorted((*_PROTOCOLS, *_RECORDS)))
            raise FilterError(f"unknown protocol {value!r}; known: {known}")
    return lambda flow: (
        flow.l4.WhichOneof("protocol") in layers or flow.l7.WhichOneof("record") in records
    )


def _event_types(values: Sequence[flow_pb2.EventTypeFilter]) -> Predicate:
    wanted = [(value.type, value.sub_type if value.match_sub_type else None) for value in values]

    def holds(flow: Flow) -> bool:
        its = flow.event_type
        return any(
            (not kind or its.type == kind) and (sub is None or its.sub_type == sub)
            for kind, sub in wanted
        )

    return holds


def _reply(values: Sequence[bool]) -> Predicate:
    wanted = frozenset(values)

    def holds(flow: Flow) -> bool:
        if flow.HasField("is_reply"):
            return flow.is_reply.value in wanted
        return flow.verdict == flow_pb2.Verdict.DROPPED and False in wanted

    return holds


def _drop_reasons(values: Sequence[int]) -> Predicate:
    wanted = frozenset(values)
    return lambda flow: flow.verdict == flow_pb2.Verdict.DROPPED and flow.drop_reason_desc in wanted


def _tcp_flags(values: Sequence[flow_pb2.TCPFlags]) -> Predicate:
    wanted = [tuple(flag for flag in _FLAGS if getattr(value, flag)) for value in values]

    def holds(flow: Flow) -> bool:
        if flow.l4.WhichOneof("protocol") != "TCP" or not flow.l4.TCP.HasField("flags"):
            return False
        its = flow.l4.TCP.flags
        return any(all(getattr(its, flag) for flag in flags) for flags in wanted)

    return holds


def _status(values: Sequence[str]) -> Predicate:
    exact, prefixes = set(), []
    for value in values:
        if _STATUS.search(value):
            exact.add(value)
        elif _STATUS_PREFIX.search(value):
            prefixes.append(value[:-1])
        else:
            raise FilterError(f"http_status_code {value!r}: not like 404, 40+ or 4+")
    starts = tuple(prefixes)

    def holds(flow: Flow) -> bool:
        code = str(flow.l7.http.code)
        return code != "0" and (code in exact or code.startswith(starts))

    return holds


def _methods(values: Sequence[str]) -> Predicate:
    wanted = frozenset(value.upper() for value in values)
    return lambda flow: flow.l7.HasField("http") and flow.l7.http.method.upper() in wanted


def _path(url: str) -> str:
    try:
        return unquote(urlsplit(url).path)
    except ValueError:
        return ""


def _http_text(what: str, read: Callable[[flow_pb2.HTTP], str]) -> Maker:
    def make(values: Sequence[str]) -> Predicate:
        matchers = [patterns.regex(value, what) for value in values]

        def holds(flow: Flow) -> bool:
            if not flow.l7.HasField("http"):
                return False
            text = read(flow.l7.http)
            return any(matches(text) for matches in matchers)

        return holds

    return make


def _headers(values: Sequence[flow_pb2.HTTPHeader]) -> Predicate:
    wanted = frozenset((value.key, value.value) for value in values)
    return lambda flow: any((its.key, its.value) in wanted for its in flow.l7.http.headers)


def _interfaces(values: Sequence[flow_pb2.NetworkInterface]) -> Predicate:
    wanted = [(value.index, value.name) for value in values]

    def holds(flow: Flow) -> bool:
        if not flow.HasField("interface"):
            return False
        its = flow.interface
        return any(
            (not index or its.index == index) and (not name or its.name == name)
            for index, name in wanted
        )

    return holds


def _dns_query(values: Sequence[str]) -> Predicate:
    matchers = [patterns.regex(value, "dns_query") for value in values]
    return lambda flow: (
        flow.l7.HasField("dns") and any(matches(flow.l7.dns.query) for matches in matchers)
    )


PREDICATES: Final[Mapping[str, Maker]] = {
    "uuid": _equal(lambda flow: flow.uuid),
    "source_ip": _any_text("source_ip", patterns.address, lambda flow: flow.IP.source),
    "source_ip_xlated": _any_text(
        "source_ip_xlated", patterns.address, lambda flow: flow.IP.source_xlated
    ),
    "destination_ip": _any_text(
        "destination_ip", patterns.address, lambda flow: flow.IP.destination
    ),
    "source_pod": _namespaced(
        "source_pod", lambda flow: (flow.source.namespace, flow.source.pod_name)
    ),
    "destination_pod": _namespaced(
        "destination_pod", lambda flow: (flow.destination.namespace, flow.destination.pod_name)
    ),
    "source_service": _namespaced(
        "source_service", lambda flow: (flow.source_service.namespace, flow.source_service.name)
    ),
    "destination_service": _namespaced(
        "destination_service",
        lambda flow: (flow.destination_service.namespace, flow.destination_service.name),
    ),
    "source_fqdn": _names("source_fqdn", lambda flow: flow.source_names),
    "destination_fqdn": _names("destination_fqdn", lambda flow: flow.destination_names),
    "source_label": _labels("source_label", lambda flow: flow.source.labels),
    "destination_label": _labels("destination_label", lambda flow: flow.destination.labels),
    "node_labels": _labels("node_labels", lambda flow: flow.node_labels),
    "source_identity": _equal(lambda flow: flow.source.identity),
    "destination_identity": _equal(lambda flow: flow.destination.identity),
    "source_workload": _workloads(lambda flow: flow.source.workloads),
    "destination_workload": _workloads(lambda flow: flow.destination.workloads),
    "source_cluster_name": _clusters("source_cluster_name", lambda flow: flow.source.cluster_name),
    "destination_cluster_name": _clusters(
        "destination_cluster_name", lambda flow: flow.destination.cluster_name
    ),
    "node_name": _any_text("node_name", patterns.node, lambda flow: flow.node_name),
    "event_type": _event_types,
    "verdict": _equal(lambda flow: flow.verdict),
    "drop_reason_desc": _drop_reasons,
    "reply": _reply,
    "encrypted": _equal(lambda flow: flow.IP.encrypted),
    "protocol": _protocols,
    "source_port": _ports("source_port", "source_port"),
    "destination_port": _ports("destination_port", "destination_port"),
    "ip_version": _equal(lambda flow: flow.IP.ipVersion),
    "tcp_flags": _tcp_flags,
    "traffic_direction": _equal(lambda flow: flow.traffic_direction),
    "http_status_code": _status,
    "http_method": _methods,
    "http_path": _http_text("http_path", lambda http: _path(http.url)),
    "http_url": _http_text("http_url", lambda http: http.url),
    "http_header": _headers,
    "dns_query": _dns_query,
    "trace_id": _equal(lambda flow: flow.trace_context.parent.trace_id),
    "ip_trace_id": _equal(lambda flow: flow.ip_trace_id.trace_id),
    "interface": _interfaces,
}

"""Flows as lines of text, as ``hubble observe`` prints them. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from cli.hubble_flags import IDENTITIES, POINTS, TRANSLATIONS
from wire.bpf.drop_texts import drop_text
from wire.hubble import flow_pb2, observer_pb2, relay_pb2

Flow = flow_pb2.Flow
Response = observer_pb2.GetFlowsResponse

_RESERVED: Final = {number: name for name, number in IDENTITIES.items()}
_MATCHES: Final = ("none", "L3-Only", "L3-L4", "L4-Only", "all", "L3-Proto", "Proto-Only")
_NAMES_MAX: Final = 10  # of nodes in one line
_RED, _GREEN, _YELLOW, _MAGENTA, _CYAN = 31, 32, 33, 35, 36
_VERDICT_COLOURS: Final = {
    "FORWARDED": _GREEN,
    "ALLOWED": _GREEN,
    "DROPPED": _RED,
    "ERROR": _RED,
    "DENIED": _RED,
    "AUDIT": _YELLOW,
    "AUDITED": _YELLOW,
    "TRACED": _YELLOW,
    "TRANSLATED": _YELLOW,
}
_VERDICTS: Final = {number: name for name, number in flow_pb2.Verdict.items()}
_STATES: Final = {
    relay_pb2.NodeState.NODE_UNAVAILABLE: "unavailable",
    relay_pb2.NodeState.NODE_CONNECTED: "connected",
    relay_pb2.NodeState.NODE_GONE: "gone",
}


@dataclass(frozen=True, slots=True)
class Look:
    """How lines look."""

    time: Callable[[Timestamp], str]
    node_names: bool = False
    policy_names: bool = False
    translate: bool = True  # addresses into names
    colour: bool = False


def safe(text: str) -> str:
    """Control characters made visible: names are given by strangers."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _paint(text: str, colour: int, look: Look) -> str:
    if not look.colour or not text:
        return text
    return f"\x1b[{colour}m{text}\x1b[0m"


def _ports(flow: Flow) -> tuple[str, str]:
    l4 = flow.l4
    kind = l4.WhichOneof("protocol")
    if kind not in ("TCP", "UDP", "SCTP"):
        return "", ""
    layer = getattr(l4, kind)
    return str(layer.source_port or ""), str(layer.destination_port or "")


def _name(endpoint: flow_pb2.Endpoint, service: flow_pb2.Service | None) -> str:
    """``namespace/name`` of the pod, or else of the service; empty: neither is known."""
    name, namespace = endpoint.pod_name, endpoint.namespace
    if service is not None:
        name, namespace = name or service.name, service.namespace or namespace
    return f"{namespace}/{name}" if name and namespace else name


def _host(name: str, address: str, port: str, look: Look) -> str:
    name = safe(name or (f"[{address}]" if port and ":" in address else address))
    if look.colour:
        name, port = _paint(name, _CYAN, look), _paint(port, _YELLOW, look)
    return f"{name}:{port}" if port else name


def ends(flow: Flow, look: Look) -> tuple[str, str]:
    """Source and destination as they are named."""
    if not flow.HasField("IP"):
        ethernet = flow.ethernet
        return (
            _paint(safe(ethernet.source), _CYAN, look),
            _paint(safe(ethernet.destination), _CYAN, look),
        )
    left = right = ""
    if look.translate:
        service = flow.source_service if flow.HasField("source_service") else None
        left = _name(flow.source, service) or ",".join(flow.source_names)
        service = flow.destination_service if flow.HasField("destination_service") else None
        right = _name(flow.destination, service) or ",".join(flow.destination_names)
    ip, (left_port, right_port) = flow.IP, _ports(flow)
    return (
        _host(left, ip.source, left_port, look),
        _host(right, ip.destination, right_port, look),
    )


def identity(number: int) -> str:
    """``(world)`` or ``(ID:21001)``."""
    return f"({_RESERVED[number]})" if number in _RESERVED else f"(ID:{number})"


def _l7_type(flow: Flow) -> str:
    kind = {1: "request", 2: "response", 3: "sample"}.get(flow.l7.type, "unknown")
    match flow.l7.WhichOneof("record"):
        case "http":
            return f"http-{kind}"
        case "dns":
            return f"dns-{kind} {safe(flow.l7.dns.observation_source)}".rstrip()
        case "kafka":
            return f"kafka-{kind}"
    return f"l7-{kind}"


def event_type(flow: Flow) -> str:
    """The column TYPE."""
    kind = flow.event_type
    sub = kind.sub_type
    match kind.type:
        case 1:
            return drop_text(sub)
        case 3:
            return flow_pb2.DebugCapturePoint.Name(flow.debug_capture_point)
        case 4:
            return POINTS[sub] if 0 <= sub < len(POINTS) else str(sub)
        case 5:
            number = flow.policy_match_type
            match_text = _MATCHES[number] if number < len(_MATCHES) else "unknown"
            direction = flow_pb2.TrafficDirection.Name(flow.traffic_direction)
            return f"policy-verdict:{match_text} {direction}"
        case 7:
            point = flow.sock_xlate_point
            if 1 <= point <= len(TRANSLATIONS):
                return TRANSLATIONS[point - 1]
            return flow_pb2.SocketTranslationPoint.Name(point)
        case 129:
            return _l7_type(flow)
    return "UNKNOWN"


def verdict(flow: Flow, look: Look) -> str:
    """The column VERDICT."""
    number = flow.verdict
    name = _VERDICTS.get(number) or str(number)
    if flow.event_type.type != 5:
        return _paint(name, _VERDICT_COLOURS.get(name, 0), look)
    judged = {
        "FORWARDED": "ALLOWED",
        "REDIRECTED": "ALLOWED",
        "DROPPED": "DENIED",
        "ERROR": "DENIED",
        "AUDIT": "AUDITED",
    }.get(name, name)
    shown = _paint(judged, _VERDICT_COLOURS.get(judged, 0), look)
    policies = _policies(flow) if look.policy_names else ""
    return f"{shown} BY {policies}" if policies else shown


def _policies(flow: Flow) -> str:
    if flow.traffic_direction == flow_pb2.TrafficDirection.INGRESS:
        lists = (*flow.ingress_allowed_by, *flow.ingress_denied_by)
    else:
        lists = (*flow.egress_allowed_by, *flow.egress_denied_by)
    return safe(", ".join(f"{p.name} ({p.kind})" for p in lists if p.name and p.kind))


def summary(flow: Flow, look: Look) -> str:
    """What stands in parentheses."""
    text = safe(flow.Summary)
    if flow.ip_trace_id.trace_id:
        text = f"IP Trace ID: {flow.ip_trace_id.trace_id}; {text}"
    if flow.auth_type:
        name = flow_pb2.AuthType.Name(flow.auth_type)
        text += f"; Auth: {_paint(name, _RED if 'FAIL' in name else _GREEN, look)}"
    return text


def compact(answer: Response, look: Look) -> str:
    """A flow on one line, the client on the left."""
    flow = answer.flow
    left, right = ends(flow, look)
    left_id, right_id = identity(flow.source.identity), identity(flow.destination.identity)
    if look.colour:
        left_id, right_id = _paint(left_id, _MAGENTA, look), _paint(right_id, _MAGENTA, look)
    arrow = "<>"
    if flow.HasField("is_reply"):
        arrow = "->"
        if flow.is_reply.value:
            left, right, left_id, right_id, arrow = right, left, right_id, left_id, "<-"
    node = f" [{safe(answer.node_name)}]" if look.node_names else ""
    return (
        f"{look.time(answer.time)}{node}: {left} {left_id} {arrow} {right} {right_id} "
        f"{event_type(flow)} {verdict(flow, look)} ({summary(flow, look)})"
    )


def columns(answer: Response, look: Look) -> list[str]:
    """TIMESTAMP, (NODE), SOURCE, DESTINATION, TYPE, VERDICT, SUMMARY."""
    flow, node = answer.flow, [safe(answer.node_name)] if look.node_names else []
    rest = [event_type(flow), verdict(flow, look), summary(flow, look)]
    return [look.time(answer.time), *node, *ends(flow, look), *rest]


def headings(look: Look) -> list[str]:
    """Of the columns."""
    node = ["NODE"] if look.node_names else []
    return ["TIMESTAMP", *node, "SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY"]


def as_dict(names: list[str], values: list[str]) -> str:
    """One ``NAME: value`` per line."""
    return "\n".join(f"{name:>11}: {value}" for name, value in zip(names, values, strict=True))


def _loss_parts(event: flow_pb2.LostEvent, look: Look) -> tuple[str, str]:
    source = flow_pb2.LostEventSource.Name(event.source)
    span = ""
    if event.HasField("first") or event.HasField("last"):
        span = f" (first: {look.time(event.first)}, last: {look.time(event.last)})"
    return source, span


def compact_loss(answer: Response, look: Look) -> str:
    """A loss on one line."""
    event = answer.lost_events
    source, span = _loss_parts(event, look)
    node = f" [{safe(answer.node_name)}]" if look.node_names else ""
    return (
        f"{look.time(answer.time)}{node} EVENTS LOST: {source} CPU({event.cpu.value}) "
        f"{event.num_events_lost}{span}"
    )


def loss_columns(answer: Response, look: Look) -> list[str]:
    """A loss in the columns of a flow."""
    event = answer.lost_events
    source, span = _loss_parts(event, look)
    node = [safe(answer.node_name)] if look.node_names else []
    text = f"CPU({event.cpu.value}) - {event.num_events_lost}{span}"
    return [look.time(answer.time), *node, source, "-", "EVENTS LOST", "-", text]


def node_names(names: list[str]) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(safe(name) for name in names[:_NAMES_MAX])
    more = len(names) - _NAMES_MAX
    return f"{shown} (and {more} more)" if more > 0 else shown


def node_status(answer: Response, look: Look) -> str:
    """What a relay says of its nodes, for people."""
    status, names = answer.node_status, list(answer.node_status.node_names)
    begin = f"{look.time(answer.time)} [{safe(answer.node_name)}]:"
    if status.state_change == relay_pb2.NodeState.NODE_ERROR:
        text = safe(status.message).replace('"', '\\"')
        return f'{begin} Error "{text}" on {len(names)} nodes: {node_names(names)}'
    state = _STATES.get(status.state_change, "in an unknown state")
    return f"{begin} {len(names)} nodes are {state}: {node_names(names)}"

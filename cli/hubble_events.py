"""Agent and debug events as text. Pure."""

from typing import TypeAlias

from cli.hubble_text import Look, safe
from wire.hubble import flow_pb2, observer_pb2

Response: TypeAlias = observer_pb2.GetAgentEventsResponse | observer_pb2.GetDebugEventsResponse


def _labels(labels: list[str]) -> str:
    return f"[{' '.join(labels)}]"


def _regenerated(event: flow_pb2.EndpointRegenNotification) -> str:
    error = f", error: {event.error}" if event.error else ""
    return f"id: {event.id}, labels: {_labels(list(event.labels))}{error}"


def _endpoint(event: flow_pb2.EndpointUpdateNotification) -> str:
    parts = [f"id: {event.id}"]
    parts += [f"namespace: {event.namespace}"] if event.namespace else []
    parts += [f"pod name: {event.pod_name}"] if event.pod_name else []
    return ", ".join(parts)


def _ipcache(event: flow_pb2.IPCacheNotification) -> str:
    parts = [f"cidr: {event.cidr}", f"identity: {event.identity}"]
    if event.HasField("old_identity"):
        parts.append(f"old identity: {event.old_identity.value}")
    parts += [f"host ip: {event.host_ip}"] if event.host_ip else []
    parts += [f"old host ip: {event.old_host_ip}"] if event.old_host_ip else []
    return ", ".join([*parts, f"encrypt key: {event.encrypt_key}"])


def _address(address: flow_pb2.ServiceUpsertNotificationAddr) -> str:
    host = f"[{address.ip}]" if ":" in address.ip else address.ip
    return f"{host}:{address.port}"


def _service(event: flow_pb2.ServiceUpsertNotification) -> str:
    backends = ",".join(_address(backend) for backend in event.backend_addresses)
    return (
        f"id: {event.id}, frontend: {_address(event.frontend_address)}, backends: [{backends}], "
        f"type: {event.type}, traffic policy: {event.ext_traffic_policy}, "
        f"namespace: {event.namespace}, name: {event.name}"
    )


def details(event: flow_pb2.AgentEvent, look: Look) -> str:
    """What happened, in words."""
    match event.WhichOneof("notification"):
        case "agent_start":
            return f"start time: {look.time(event.agent_start.time)}"
        case "policy_update":
            update = event.policy_update
            labels = _labels(list(update.labels))
            return f"labels: {labels}, revision: {update.revision}, count: {update.rule_count}"
        case "endpoint_regenerate":
            return _regenerated(event.endpoint_regenerate)
        case "endpoint_update":
            return _endpoint(event.endpoint_update)
        case "ipcache_update":
            return _ipcache(event.ipcache_update)
        case "service_upsert":
            return _service(event.service_upsert)
        case "service_delete":
            return f"id: {event.service_delete.id}"
        case "unknown":
            return f"type: {event.unknown.type}, notification: {event.unknown.notification}"
    return "UNKNOWN"


def _from(event: flow_pb2.DebugEvent) -> str:
    source = event.source
    if not event.HasField("source"):
        return "N/A"
    name = "/".join(part for part in (source.namespace, source.pod_name) if part)
    return safe(f"{name} (ID: {source.ID})" if name else f"ID: {source.ID}")


def _mark(event: flow_pb2.DebugEvent) -> str:
    return f"{event.hash.value:#x}" if event.HasField("hash") else "N/A"


def _cpu(event: flow_pb2.DebugEvent) -> str:
    return f"{event.cpu.value:02d}" if event.HasField("cpu") else "N/A"


def _node(answer: Response, look: Look) -> list[str]:
    return [safe(answer.node_name)] if look.node_names else []


def compact(answer: Response, look: Look) -> str:
    """An event on one line."""
    begin = "".join([look.time(answer.time), *(f" [{node}]" for node in _node(answer, look))])
    if isinstance(answer, observer_pb2.GetAgentEventsResponse):
        event = answer.agent_event
        kind = flow_pb2.AgentEventType.Name(event.type)
        return f"{begin}: {kind} ({safe(details(event, look))})"
    debug = answer.debug_event
    kind = flow_pb2.DebugEventType.Name(debug.type)
    return (
        f"{begin}: {_from(debug)} {kind} MARK: {_mark(debug)} CPU: {_cpu(debug)} "
        f"({safe(debug.message)})"
    )


def fields(answer: Response, look: Look) -> tuple[list[str], list[str]]:
    """Names and values, for the format dict."""
    node = _node(answer, look)
    names = ["TIMESTAMP", *(["NODE"] if node else []), "TYPE"]
    values = [look.time(answer.time), *node]
    if isinstance(answer, observer_pb2.GetAgentEventsResponse):
        event = answer.agent_event
        kind = flow_pb2.AgentEventType.Name(event.type)
        return [*names, "DETAILS"], [*values, kind, safe(details(event, look))]
    debug = answer.debug_event
    rest = [_from(debug), _mark(debug), _cpu(debug), safe(debug.message) or "N/A"]
    kind = flow_pb2.DebugEventType.Name(debug.type)
    return [*names, "FROM", "MARK", "CPU", "MESSAGE"], [*values, kind, *rest]


def table_row(answer: Response, look: Look) -> tuple[list[str], list[str]]:
    """Headings and values, for the format table."""
    if isinstance(answer, observer_pb2.GetAgentEventsResponse):
        return fields(answer, look)
    node = _node(answer, look)
    debug = answer.debug_event
    names = ["TIMESTAMP", *(["NODE"] if node else []), "FROM", "TYPE", "CPU/MARK", "MESSAGE"]
    kind = flow_pb2.DebugEventType.Name(debug.type)
    rest = [_from(debug), kind, f"{_cpu(debug)} {_mark(debug)}", safe(debug.message) or "N/A"]
    return names, [look.time(answer.time), *node, *rest]

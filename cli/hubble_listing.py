"""Nodes, namespaces and peers as text. Pure."""

from typing import Final

from google.protobuf import descriptor_pb2

from cli import output
from cli.hubble_text import safe
from cli.hubble_times import duration
from wire.hubble import observer_pb2, peer_pb2, relay_pb2

_STATES: Final = {
    relay_pb2.NodeState.NODE_CONNECTED: "Connected",
    relay_pb2.NodeState.NODE_UNAVAILABLE: "Unavailable",
    relay_pb2.NodeState.NODE_GONE: "Gone",
    relay_pb2.NodeState.NODE_ERROR: "Error",
}


def _node(node: observer_pb2.Node, wide: bool) -> list[str]:
    uptime_s = node.uptime_ns // 10**9
    flows = "N/A"
    if node.max_flows:
        share = f"{100 * node.num_flows / node.max_flows:.2f}"
        flows = f"{node.num_flows}/{node.max_flows} ({share:>6}%)"
    rate = f"{node.seen_flows / (node.uptime_ns / 1e9):.2f}" if node.uptime_ns else "N/A"
    row = [
        safe(node.name),
        _STATES.get(node.state, "Unknown"),
        duration(uptime_s) if node.uptime_ns else "N/A",
        rate,
        flows,
    ]
    if wide:
        tls = "Enabled" if node.tls.enabled else "Disabled"
        row += [safe(node.version) or "N/A", safe(node.address) or "N/A", tls]
    return row


def nodes(answer: observer_pb2.GetNodesResponse, *, wide: bool) -> str:
    """One line a node, by name."""
    head = ["NAME", "STATUS", "AGE", "FLOWS/S", "CURRENT/MAX-FLOWS"]
    head += ["VERSION", "ADDRESS", "TLS"] if wide else []
    rows = [_node(node, wide) for node in sorted(answer.nodes, key=lambda node: node.name)]
    return output.table([head, *rows])


def namespaces(answer: observer_pb2.GetNamespacesResponse, *, wide: bool) -> str:
    """One line a namespace."""
    rows = [[safe(one.namespace), safe(one.cluster)] for one in answer.namespaces]
    table = [["NAMESPACE", "CLUSTER"], *rows]
    return output.table(table if wide else [row[:1] for row in table])


def peer(told: peer_pb2.ChangeNotification) -> str:
    """One change."""
    kind = peer_pb2.ChangeNotificationType.Name(told.type)
    tls = f" (TLS.ServerName: {safe(told.tls.server_name)})" if told.HasField("tls") else ""
    return f"{kind:<12} {safe(told.address)} {safe(told.name)}{tls}"


def described(file: descriptor_pb2.FileDescriptorProto) -> list[str]:
    """Services with their methods, and messages with their fields."""
    lines = []
    for service in file.service:
        lines.append(f"service {safe(file.package)}.{safe(service.name)}")
        for one in service.method:
            ways = ("stream " if one.client_streaming else "", "stream " * one.server_streaming)
            ends = one.input_type.removeprefix("."), one.output_type.removeprefix(".")
            text = f"{one.name}({ways[0]}{ends[0]}) returns ({ways[1]}{ends[1]})"
            lines.append(f"  {safe(text)}")
    for message in file.message_type:
        lines.append(f"message {safe(file.package)}.{safe(message.name)}")
        lines += [f"  {field.number} {safe(field.name)}" for field in message.field]
    return lines

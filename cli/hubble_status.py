"""The numbers of an observer or relay as text. Pure."""

from collections import Counter
from collections.abc import Iterable

from cli import output
from cli.hubble_text import safe
from cli.hubble_times import duration
from wire.hubble import observer_pb2, relay_pb2

Status = observer_pb2.ServerStatusResponse


def _rate(status: Status) -> float | None:
    if status.flows_rate > 0:
        return status.flows_rate
    return status.seen_flows / (status.uptime_ns / 1e9) if status.uptime_ns else None


def _by_cluster(nodes: Iterable[observer_pb2.Node]) -> list[str]:
    """How many nodes of each cluster can be asked; nothing for one cluster alone."""
    every, well = Counter[str](), Counter[str]()
    for node in nodes:
        cluster = node.name.rpartition("/")[0] or "default"
        every[cluster] += 1
        well[cluster] += node.state == relay_pb2.NodeState.NODE_CONNECTED
    if len(every) < 2:
        return []
    return [f"  {safe(name)}: {well[name]}/{number}" for name, number in sorted(every.items())]


def _compact(status: Status, target: str, serving: bool, nodes: Iterable[observer_pb2.Node]) -> str:
    share = 100 * status.num_flows / status.max_flows if status.max_flows else 0.0
    rate = _rate(status)
    lines = [
        f"Healthcheck (via {target}): {'Ok' if serving else 'Not serving'}",
        f"Current/Max Flows: {status.num_flows:,}/{status.max_flows:,} ({share:.2f}%)",
        f"Flows/s: {'N/A' if rate is None else f'{rate:.2f}'}",
    ]
    if status.HasField("num_connected_nodes"):
        connected, away = status.num_connected_nodes.value, status.num_unavailable_nodes.value
        lines.append(f"Connected Nodes: {connected}/{connected + away}")
        lines += _by_cluster(nodes)
    if status.num_unavailable_nodes.value:
        lines.append(f"Unavailable Nodes: {status.num_unavailable_nodes.value}")
        lines += [f"  - {safe(name)}" for name in status.unavailable_nodes]
        more = status.num_unavailable_nodes.value - len(status.unavailable_nodes)
        if more > 0:
            lines.append(f"  and {more} more...")
    return "\n".join(lines)


def _columns(status: Status) -> dict[str, str]:
    def nodes(name: str) -> str:
        return str(getattr(status, name).value) if status.HasField(name) else "N/A"

    return {
        "NUM FLOWS": f"{status.num_flows:,}",
        "MAX FLOWS": f"{status.max_flows:,}",
        "SEEN FLOWS": f"{status.seen_flows:,}",
        "FLOWS PER SECOND": f"{status.flows_rate:.2f}" if status.flows_rate > 0 else "N/A",
        "UPTIME": duration(status.uptime_ns // 10**9),
        "NUM CONNECTED NODES": nodes("num_connected_nodes"),
        "NUM UNAVAILABLE NODES": nodes("num_unavailable_nodes"),
        "VERSION": safe(status.version),
    }


def text(
    status: Status,
    how: str,
    target: str,
    serving: bool,
    nodes: Iterable[observer_pb2.Node] = (),
) -> str:
    """In the format ``compact`` (with a relay's ``nodes``), ``dict`` or ``table``."""
    if how == "compact":
        return _compact(status, target, serving, nodes)
    columns = _columns(status)
    if how == "table":
        return output.table([list(columns), list(columns.values())])
    names = [name.replace("UNAVAILABLE NODES", "UNAVAIL. NODES") for name in columns]
    width = max(len(name) for name in names)
    return "\n".join(
        f"{name:>{width}}: {value}" for name, value in zip(names, columns.values(), strict=True)
    )

"""Flows of one connection on one line, as its source and as its destination saw it. Pure.

Flows belong together when protocol, addresses and ports are the same, replies turned round. The
view of a side is what the node saw on which that side's pod lives, also when the nodes are of
different clusters; who asks a relay sees both. A side that nobody saw is said to be unseen: its
node was not asked, keeps no such flows any more, or the packets never came.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from cli import hubble_text
from cli.hubble_text import Look, safe
from wire.hubble import flow_pb2, observer_pb2

Response = observer_pb2.GetFlowsResponse

_V: Final = flow_pb2.Verdict
# The verdict that tells most of a side, first.
_GRAVITY: Final = (_V.DROPPED, _V.ERROR, _V.AUDIT, _V.REDIRECTED, _V.FORWARDED)
_TRANSLATION: Final = 7  # without the client's port, so of no connection


class Key(NamedTuple):
    """A connection, as its client opened it."""

    protocol: str
    client: str
    client_port: int
    server: str
    server_port: int

    def turned(self) -> "Key":
        """The same the other way round."""
        return Key(self.protocol, self.server, self.server_port, self.client, self.client_port)


@dataclass
class View:
    """What was seen at one side."""

    nodes: dict[str, None] = field(default_factory=dict)  # ordered
    kinds: dict[str, None] = field(default_factory=dict)  # places, and reasons of drops
    verdict: int | None = None
    flows: int = 0

    def add(self, answer: Response) -> None:
        """One more flow."""
        flow = answer.flow
        self.nodes[answer.node_name] = None
        self.kinds[hubble_text.event_type(flow)] = None
        self.flows += 1
        if self.verdict is None or _gravity(flow.verdict) < _gravity(self.verdict):
            self.verdict = flow.verdict

    def text(self) -> str:
        """``west/node-1 FORWARDED (from-endpoint, to-overlay; 3 flows)``."""
        if not self.flows:
            return "unseen"
        nodes, kinds = safe(", ".join(self.nodes)), ", ".join(self.kinds)
        count = f"{self.flows} flow{'s' if self.flows > 1 else ''}"
        return f"{nodes} {_V.Name(self.verdict or 0)} ({kinds}; {count})"

    def data(self) -> dict[str, object] | None:
        """For JSON; ``None``: unseen."""
        if not self.flows:
            return None
        return {
            "nodes": list(self.nodes),
            "verdict": _V.Name(self.verdict or 0),
            "seen": list(self.kinds),
            "flows": self.flows,
        }


def _gravity(verdict: int) -> int:
    return _GRAVITY.index(verdict) if verdict in _GRAVITY else len(_GRAVITY)


@dataclass
class Connection:
    """A connection and its two views."""

    key: Key
    first: Response  # the first flow, for its names
    turned: bool  # that flow went from the server to the client
    source: View = field(default_factory=View)
    destination: View = field(default_factory=View)


def _key(flow: flow_pb2.Flow) -> Key | None:
    if not flow.HasField("IP") or flow.event_type.type == _TRANSLATION:
        return None
    kind = flow.l4.WhichOneof("protocol") or ""
    ports = (0, 0)
    if kind in ("TCP", "UDP", "SCTP"):
        layer = getattr(flow.l4, kind)
        ports = (layer.source_port, layer.destination_port)
    return Key(kind, flow.IP.source, ports[0], flow.IP.destination, ports[1])


class Joiner:
    """Takes flows in any order and puts connections together."""

    def __init__(self) -> None:
        self._connections: dict[Key, Connection] = {}

    def add(self, answer: Response) -> None:
        """A flow; what is of no connection is left out."""
        flow = answer.flow
        key = _key(flow)
        if key is None:
            return
        turned = flow.is_reply.value
        if not flow.HasField("is_reply") and key.turned() in self._connections:
            turned = True  # a drop does not say which way it went
        if turned:
            key = key.turned()
        known = self._connections.get(key)
        if known is None:
            known = self._connections[key] = Connection(key, answer, turned)
        client, server = flow.source, flow.destination
        if turned:
            client, server = server, client
        if client.ID:
            known.source.add(answer)
        if server.ID:
            known.destination.add(answer)

    def connections(self) -> Iterable[Connection]:
        """In the order in which they were first seen."""
        return self._connections.values()


def line(connection: Connection, look: Look) -> str:
    """One connection."""
    answer = connection.first
    flow = answer.flow
    left, right = hubble_text.ends(flow, look)
    left_id, right_id = flow.source.identity, flow.destination.identity
    if connection.turned:
        left, right, left_id, right_id = right, left, right_id, left_id
    return (
        f"{look.time(answer.time)}: {left} {hubble_text.identity(left_id)} -> {right} "
        f"{hubble_text.identity(right_id)} {connection.key.protocol or 'IP'} "
        f"source: {connection.source.text()} destination: {connection.destination.text()}"
    )


def data(connection: Connection) -> dict[str, object]:
    """One connection for JSON."""
    flow, key = connection.first.flow, connection.key
    ends = (flow.source, flow.destination)
    client, server = reversed(ends) if connection.turned else ends
    return {
        "protocol": key.protocol,
        "source": _end(client, key.client, key.client_port, connection.source),
        "destination": _end(server, key.server, key.server_port, connection.destination),
    }


def _end(endpoint: flow_pb2.Endpoint, ip: str, port: int, view: View) -> dict[str, object]:
    return {
        "ip": ip,
        "port": port,
        "identity": endpoint.identity,
        "namespace": endpoint.namespace,
        "pod_name": endpoint.pod_name,
        "cluster_name": endpoint.cluster_name,
        "view": view.data(),
    }

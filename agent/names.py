"""The names this agent knows, as a stream for the node's Hubble (`wire/names.py`). Pure wiring.

A reader gets all that is, then the keys that changed, each with its value of the moment it is sent:
a slow one misses values, never the last. Nothing is kept for it but keys. docs/adr/0172.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from agent.endpoint_store import Endpoint
from agent.endpoints import Endpoints
from agent.mesh_state import MeshState
from agent.node import Self
from mesh.nodes import NodeKey
from model.address import Prefix, is_host
from model.endpoint import EndpointId
from model.identity import NumericIdentity
from model.service import Frontend
from policy.selectors import cidr_labels
from policy.table import PolicyTable
from wire import names as wire
from wire.k8s.pod import Pod
from wire.k8s.workload import workload_of

CHUNK_LINES = 500
GAP_S = 0.05  # between two looks at what changed
HEARTBEAT_S = 10.0  # an empty line: who is gone is noticed
_LOCAL_IDENTITIES = range(1 << 24, 2 << 24)  # of prefixes: only this node knows them
Key = tuple[str, Any]
K = TypeVar("K")


def both(first: Callable[[K], None], second: Callable[[K], None]) -> Callable[[K], None]:
    """Tell two what one tells."""

    def tell(key: K) -> None:
        first(key)
        second(key)

    return tell


class _Reader:
    """One open stream: what it is yet to be told."""

    def __init__(self) -> None:
        self.dirty: dict[Key, None] = {}
        self.changed = asyncio.Event()
        self.rules: set[int] = set()  # told


class Names:
    """Marks what changes, and reads it when it is sent."""

    def __init__(
        self,
        me: Self,
        mesh: MeshState,
        endpoints: Endpoints,
        rules: PolicyTable,
        pod: Callable[[str, str], Pod | None],
    ) -> None:
        """``pod`` finds a pod of this node by namespace and name."""
        self._me, self._mesh, self._endpoints, self._rules = me, mesh, endpoints, rules
        self._pod = pod
        self._started_ns = time.time_ns()
        self._readers: set[_Reader] = set()
        self.ready = asyncio.Event()  # every input has spoken: nothing is said before
        self._revision = 0  # of the rules

    def _mark(self, key: Key) -> None:
        for reader in self._readers:
            reader.dirty[key] = None
            reader.changed.set()

    def node_changed(self, key: NodeKey) -> None:
        """A node of the mesh."""
        self._mark(("node", key))

    def endpoint_changed(self, number: EndpointId) -> None:
        """A pod of this node."""
        self._mark(("endpoint", number))

    def pod_changed(self, namespace: str, pod: str) -> None:
        """The API server told of a pod of this node; no name: of all of the namespace."""
        if self._readers:
            for endpoint in self._endpoints:
                if endpoint.namespace == namespace and pod in ("", endpoint.pod):
                    self.endpoint_changed(endpoint.id)

    def identity_changed(self, number: NumericIdentity) -> None:
        """What a number stands for."""
        self._mark(("identity", number))

    def prefixes_changed(self, prefixes: Sequence[Prefix]) -> None:
        """Whose addresses are."""
        if self._readers:
            for prefix in prefixes:
                self._mark(("prefix", prefix))

    def frontend_changed(self, frontend: Frontend) -> None:
        """A service's address."""
        self._mark(("frontend", frontend))

    def rules_changed(self, revision: int) -> None:
        """Some policy; all of them are in this revision now."""
        self._revision = revision
        self._mark(("rules", None))

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Chunks of whole lines, without end."""
        await self.ready.wait()
        reader = _Reader()
        self._readers.add(reader)
        try:
            me = self._me.node
            labels = tuple(f"{k}={v}" for k, v in sorted(me.labels.items()))
            yield wire.encode(wire.Self(me.cluster, me.name, labels, self._started_ns))
            for chunk in self._chunks(reader, self._all()):
                yield chunk
            yield wire.encode(wire.Synced())
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        await reader.changed.wait()
                except TimeoutError:
                    yield b"\n"
                    continue
                reader.changed.clear()
                keys, reader.dirty = reader.dirty, {}
                for chunk in self._chunks(reader, iter(keys)):
                    yield chunk
                await asyncio.sleep(GAP_S)
        finally:
            self._readers.discard(reader)

    def _all(self) -> Iterator[Key]:
        yield "rules", None
        # Lists: the tables change while a reader takes its time.
        yield from [("node", (node.cluster, node.name)) for node in self._mesh.nodes]
        yield from [("endpoint", endpoint.id) for endpoint in self._endpoints]
        yield from [("identity", number) for number, _ in self._mesh.identities.items()]
        yield from [("prefix", prefix) for prefix, _ in self._mesh.ipcache.winners()]
        yield from [("frontend", frontend) for frontend, _ in self._mesh.services.items()]

    def _chunks(self, reader: _Reader, keys: Iterable[Key]) -> Iterator[bytes]:
        lines: list[bytes] = []
        for key in keys:
            lines += map(wire.encode, self._lines(reader, key))
            if len(lines) >= CHUNK_LINES:
                yield b"".join(lines)
                lines = []
        if lines:
            yield b"".join(lines)

    def _lines(self, reader: _Reader, key: Key) -> Iterator[wire.Line]:
        table, name = key
        if table == "node":
            node = self._mesh.nodes.get(*name)
            address = node.tunnel_endpoint() if node else None
            yield wire.NodeLine(name[0], name[1], str(address or ""), gone=address is None)
        elif table == "endpoint":
            endpoint = self._endpoints.endpoint(name)
            yield self._endpoint(endpoint) if endpoint else wire.EndpointLine(name, gone=True)
        elif table == "identity":
            labels = self._mesh.identities.get(name)
            texts = tuple(labels.strings()) if labels else ()
            yield wire.IdentityLine(name, texts, gone=labels is None)
        elif table == "prefix":
            yield from self._prefix(name)
        elif table == "frontend":
            found = self._mesh.services.get(name)
            place = str(name.address), name.port, int(name.protocol)
            if found is None:
                yield wire.FrontendLine(*place, gone=True)
            else:
                yield wire.FrontendLine(*place, found.name.namespace, found.name.name)
        else:
            yield from self._rule_lines(reader)

    def _endpoint(self, endpoint: Endpoint) -> wire.EndpointLine:
        pod = self._pod(endpoint.namespace, endpoint.pod)
        workload = workload_of(pod) if pod else None
        return wire.EndpointLine(
            endpoint.id,
            tuple(map(str, endpoint.local.addresses)),
            endpoint.identity.id,
            endpoint.namespace,
            endpoint.pod,
            tuple(endpoint.identity.labels.strings()),
            wire.Workload(*workload) if workload else None,
        )

    def _prefix(self, prefix: Prefix) -> Iterator[wire.Line]:
        winner = self._mesh.ipcache.winner(prefix)
        text = str(prefix)
        if winner is None:
            yield wire.PrefixLine(text, gone=True)
            return
        claim, row = winner.claim, winner.claim.entry
        if row.identity in _LOCAL_IDENTITIES:
            labels = tuple(cidr_labels(prefix).strings())
            yield wire.IdentityLine(row.identity, labels)
        host = str(row.tunnel_endpoint) if row.tunnel_endpoint is not None else ""
        # Nodes make claims as well, without a namespace.
        pod = (claim.namespace, claim.pod) if claim.namespace and is_host(prefix) else ("", "")
        yield wire.PrefixLine(text, row.identity, *pod, host)

    def _rule_lines(self, reader: _Reader) -> Iterator[wire.Line]:
        now = dict(self._rules.numbered())
        for number in reader.rules - now.keys():
            yield wire.RuleLine(number, gone=True)
        for number in sorted(now.keys() - reader.rules):
            rule = now[number]
            who = rule.origin.kind, rule.origin.namespace, rule.origin.name
            yield wire.RuleLine(number, *who, rule.labels, self._revision, log=rule.log)
        reader.rules = set(now)

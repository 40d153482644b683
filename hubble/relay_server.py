"""The observer of all nodes: asks each and merges what they say. Adapter."""

import asyncio
import time
from collections.abc import Mapping
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from hubble import fieldmask, filters
from hubble.observer_server import API_VERSION, mask_of, parse_request
from hubble.patterns import FilterError
from hubble.relay_merge import Merger
from hubble.relay_pool import Node, Pool
from hubble.rpc import Code, RpcError
from hubble.rpc_client import Answer
from hubble.rpc_server import Call, Handler
from reconcile.tasks import TaskGroup
from wire.hubble import observer_pb2, relay_pb2

M = TypeVar("M", bound=Message)
Request = observer_pb2.GetFlowsRequest
Response = observer_pb2.GetFlowsResponse
State = relay_pb2.NodeState

WAIT_FOLLOW_S: Final = 0.2  # for the slower nodes, when flows are followed
WAIT_S: Final = 5.0  # when all that there is was asked for: order matters more
ASK_TIMEOUT_S: Final = 5.0
SILENCE_S: Final = 20.0  # a filter that lets little through makes a node search for long
_RECOLLECT_S: Final = 2.0  # new nodes join a follow stream within this time
_HELD_MAX: Final = 2048  # answers of a node that is ahead of others
_TICK_S: Final = 0.05
_TOGETHER_S: Final = 0.2  # nodes that fail alike within this time are told together
_NAMES_MAX: Final = 10  # of unavailable nodes in the status


class Relay:
    """Serves ``observer.Observer`` for the nodes of the pool."""

    def __init__(self, pool: Pool, name: str, version: str) -> None:
        self._pool, self._name, self._version = pool, name, version

    def handlers(self) -> dict[str, Handler]:
        """What it serves, by path."""
        return {
            "/observer.Observer/GetFlows": self._get_flows,
            "/observer.Observer/GetNodes": self._get_nodes,
            "/observer.Observer/GetNamespaces": self._get_namespaces,
            "/observer.Observer/ServerStatus": self._server_status,
            "/observer.Observer/GetAgentEvents": _not_here,
            "/observer.Observer/GetDebugEvents": _not_here,
        }

    def is_serving(self) -> bool:
        """The peer service speaks, and at least one node can be asked."""
        return self._pool.is_informed and bool(self._pool.connected())

    async def _get_flows(self, call: Call) -> None:
        data = await call.request()
        request = parse_request(Request, data)
        try:
            filters.compile_filters(request.whitelist, request.blacklist)
            mask_of(request)
        except (FilterError, fieldmask.FieldMaskError, DecodeError) as error:
            raise RpcError(Code.INVALID_ARGUMENT, str(error)) from None
        if request.first and request.follow:
            raise RpcError(Code.INVALID_ARGUMENT, "first cannot be specified with follow")
        self._greet(call)
        await _Flows(self._pool, self._name, call, request, data).run()

    def _greet(self, call: Call) -> None:
        call.answer({"hubble-relay-version": API_VERSION})

    async def _ask_all(self, call: Call, path: str, kind: type[M]) -> Mapping[str, M | RpcError]:
        """The answers of all connected nodes, or why there is none."""
        answers: dict[str, M | RpcError] = {}

        async def ask(node: Node) -> None:
            assert node.channel is not None
            try:
                data = await node.channel.unary(path, b"", ASK_TIMEOUT_S, passed_on(call))
                answers[node.name] = kind.FromString(data)
            except RpcError as error:
                answers[node.name] = error
            except DecodeError as error:
                answers[node.name] = RpcError(Code.INTERNAL, str(error))

        async with TaskGroup() as group:
            for node in self._pool.connected():
                group.create_task(ask(node))
        return answers

    async def _server_status(self, call: Call) -> None:
        kind = observer_pb2.ServerStatusResponse
        answers = await self._ask_all(call, "/observer.Observer/ServerStatus", kind)
        total = kind(version=self._version)
        well = {name: one for name, one in answers.items() if not isinstance(one, RpcError)}
        for one in well.values():
            total.num_flows += one.num_flows
            total.max_flows += one.max_flows
            total.seen_flows += one.seen_flows
            total.flows_rate += one.flows_rate
            total.uptime_ns = max(total.uptime_ns, one.uptime_ns)
        away = sorted(self._pool.nodes.keys() - well.keys())
        total.num_connected_nodes.value = len(well)
        total.num_unavailable_nodes.value = len(away)
        total.unavailable_nodes.extend(away[:_NAMES_MAX])
        self._greet(call)
        await call.send(total.SerializeToString())

    async def _get_nodes(self, call: Call) -> None:
        kind = observer_pb2.ServerStatusResponse
        answers = await self._ask_all(call, "/observer.Observer/ServerStatus", kind)
        listing = observer_pb2.GetNodesResponse()
        for name, node in sorted(self._pool.nodes.items()):
            one = listing.nodes.add(name=name, address=node.peer.address)
            one.tls.enabled = node.peer.server_name is not None
            one.tls.server_name = node.peer.server_name or ""
            status = answers.get(name)
            if status is None:
                one.state = State.NODE_UNAVAILABLE
            elif isinstance(status, RpcError):
                one.state = State.NODE_ERROR
            else:
                one.state = State.NODE_CONNECTED
                one.version, one.uptime_ns = status.version, status.uptime_ns
                one.num_flows, one.max_flows = status.num_flows, status.max_flows
                one.seen_flows = status.seen_flows
        self._greet(call)
        await call.send(listing.SerializeToString())

    async def _get_namespaces(self, call: Call) -> None:
        kind = observer_pb2.GetNamespacesResponse
        answers = await self._ask_all(call, "/observer.Observer/GetNamespaces", kind)
        found = {
            (one.cluster, one.namespace)
            for answer in answers.values()
            if not isinstance(answer, RpcError)
            for one in answer.namespaces
        }
        union = kind()
        for cluster, namespace in sorted(found):
            union.namespaces.add(cluster=cluster, namespace=namespace)
        self._greet(call)
        await call.send(union.SerializeToString())


async def _not_here(call: Call) -> None:
    raise RpcError(Code.UNIMPLEMENTED, "ask the observer of a node: a relay has no such events")


def passed_on(call: Call) -> dict[str, str]:
    """What the caller said of itself, for the nodes."""
    token = call.headers.get("authorization")
    return {"authorization": token} if token else {}


class _Flows:
    """One GetFlows over all nodes."""

    def __init__(self, pool: Pool, name: str, call: Call, request: Request, data: bytes) -> None:
        self._pool, self._name, self._call = pool, name, call
        self._request, self._data = request, data
        self._merger = Merger(WAIT_FOLLOW_S if request.follow else WAIT_S)
        self._reading: set[str] = set()
        self._told: dict[str, float] = {}  # errors of late, by node and text
        self._failed: dict[str, tuple[float, list[str]]] = {}  # by text: since when, which nodes
        self._statuses: list[bytes] = []
        self._room = asyncio.Event()
        self._arrived = asyncio.Event()

    async def run(self) -> None:
        """Until all nodes have said all, or for ever; ``RpcError`` when the caller is gone."""
        connected = sorted(node.name for node in self._pool.connected())
        away = sorted(self._pool.nodes.keys() - set(connected))
        if connected:
            self._say(State.NODE_CONNECTED, connected)
        if away:
            self._say(State.NODE_UNAVAILABLE, away)
        gone: BaseException | None = None  # before 3.11.4 what except* raises comes out in a group
        try:
            async with TaskGroup() as group:
                self._collect(group, self._data)
                await (self._follow(group) if self._request.follow else self._finish())
        except* RpcError as errors:  # of the caller's stream; those of nodes are told in it
            gone = errors.exceptions[0]
        if gone is not None:
            raise RpcError(Code.CANCELLED, str(gone))

    async def _finish(self) -> None:
        while self._reading or len(self._merger) or self._statuses or self._failed:
            await self._send()
            if self._reading or len(self._merger):
                await self._wait()

    async def _follow(self, group: TaskGroup) -> None:
        looked_s = time.monotonic()
        while True:
            await self._send()
            await self._wait()
            if time.monotonic() - looked_s >= _RECOLLECT_S:
                looked_s = time.monotonic()
                self._collect(group, self._later())

    def _later(self) -> bytes:
        """For nodes that join: what comes from now on."""
        request = Request()
        request.CopyFrom(self._request)
        request.number = 0
        request.ClearField("since")
        return request.SerializeToString()

    def _collect(self, group: TaskGroup, data: bytes) -> None:
        for node in self._pool.connected():
            if node.name not in self._reading:
                self._reading.add(node.name)
                self._merger.open(node.name, time.monotonic())
                group.create_task(self._read(node, data))

    async def _read(self, node: Node, data: bytes) -> None:
        assert node.channel is not None
        try:
            path = "/observer.Observer/GetFlows"
            async with node.channel.call(path, data, passed_on(self._call)) as answer:
                while messages := await self._taken(answer):
                    now = time.monotonic(), time.time_ns()
                    self._merger.push(node.name, messages, *now)
                    self._arrived.set()
                    while self._merger.held(node.name) > _HELD_MAX:
                        self._room.clear()
                        await self._room.wait()
        except TimeoutError:
            self._fail(node.name, f"no answer within {SILENCE_S:g} s")
        except RpcError as error:
            self._fail(node.name, error.message)
        except ValueError as error:
            self._fail(node.name, f"garbage: {error}")
        finally:
            self._reading.discard(node.name)
            self._merger.close(node.name)
            self._arrived.set()

    async def _taken(self, answer: Answer) -> list[bytes]:
        """What a node says next. Who is asked for what there is has a time to say it in."""
        async with asyncio.timeout(None if self._request.follow else SILENCE_S):
            return await answer.take()

    def _fail(self, name: str, message: str) -> None:
        now_s = time.monotonic()
        key = f"{name} {message}"
        if now_s - self._told.get(key, float("-inf")) >= 10:
            self._told[key] = now_s
            self._failed.setdefault(message, (now_s, []))[1].append(name)

    def _say_failed(self) -> None:
        """What has waited for others, or for none any more."""
        now_s = time.monotonic()
        for message, (since_s, names) in tuple(self._failed.items()):
            if not self._reading or now_s - since_s >= _TOGETHER_S:
                del self._failed[message]
                self._say(State.NODE_ERROR, sorted(names), message)

    def _say(self, state: "relay_pb2.NodeState", names: list[str], message: str = "") -> None:
        answer = Response(node_name=self._name)
        answer.node_status.state_change = state
        answer.node_status.node_names.extend(names)
        answer.node_status.message = message
        answer.time.FromNanoseconds(time.time_ns())
        self._statuses.append(answer.SerializeToString())

    async def _wait(self) -> None:
        """For more, or for the time when what is held may go."""
        self._arrived.clear()
        try:
            is_due = len(self._merger) or self._failed
            async with asyncio.timeout(_TICK_S if is_due else _RECOLLECT_S):
                await self._arrived.wait()
        except TimeoutError:
            return

    async def _send(self) -> None:
        self._say_failed()
        ready = [*self._statuses, *self._merger.pop(time.monotonic())]
        self._statuses = []
        self._room.set()
        if ready:
            await self._call.send(*ready)

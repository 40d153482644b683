"""What the UI's front end asks for, made of what a relay says: events, status, notices. Adapter.

A viewer's events are one follow stream of flows of the relay. While the relay is away the streams
wait, say so, and go on where they were.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from hubble.rpc import Code, RpcError
from hubble.rpc_client import Channel
from hubble.ui.cards import Cards, is_shown
from reconcile.tasks import TaskGroup
from wire.hubble import flow_pb2, notifications_pb2, observer_pb2, status_pb2
from wire.hubble import ui_pb2 as ui

LAST: Final = 10_000  # flows of each node to begin with
FLUSH_S: Final = 0.05
FLOWS_MAX: Final = 500  # of one answer
STATUS_S: Final = 5.0
ASK_TIMEOUT_S: Final = 10.0
RETRY_S: Final = 1.0
_AWAY: Final = (Code.UNAVAILABLE, Code.CANCELLED)
_FLOW_EVENTS: Final = frozenset(
    (
        ui.EventType.FLOW,
        ui.EventType.FLOWS,
        ui.EventType.SERVICE_STATE,
        ui.EventType.SERVICE_LINK_STATE,
    )
)
M = TypeVar("M", bound=Message)
Answers = ui.GetEventsResponse
Control = ui.GetControlStreamResponse
Queue: TypeAlias = "asyncio.Queue[flow_pb2.Flow | Answers]"


@dataclass(frozen=True, slots=True)
class Settings:
    """Of the backend."""

    last: int = LAST
    since: Timestamp | None = None  # instead of the last


def flows_request(asked: ui.GetEventsRequest, settings: Settings) -> observer_pb2.GetFlowsRequest:
    """The flows that events are made of; ``RpcError`` (INVALID_ARGUMENT)."""
    request = observer_pb2.GetFlowsRequest(follow=True)
    for given, kept in ((asked.whitelist, request.whitelist), (asked.blacklist, request.blacklist)):
        for one in given:
            if one.WhichOneof("filter") != "flow_filter":
                raise RpcError(
                    Code.INVALID_ARGUMENT, "filters of services are not known: filter flows"
                )
            kept.append(one.flow_filter)
    since = asked.since if asked.HasField("since") else settings.since
    if since is not None:
        request.since.CopyFrom(since)
    else:
        request.number = settings.last
    return request


def _state(*, connected: bool) -> notifications_pb2.Notification:
    found = notifications_pb2.Notification()
    found.conn_state.relay_connected = connected
    found.conn_state.relay_reconnecting = not connected
    return found


class Backend:
    """Asks one relay for any number of viewers."""

    def __init__(
        self, connect: Callable[[], Awaitable[Channel]], settings: Settings | None = None
    ) -> None:
        """``connect``: a new channel to the relay; ``RpcError``."""
        self._connect, self._settings = connect, settings or Settings()
        self._channel: Channel | None = None
        self._connecting = asyncio.Lock()

    async def _open(self) -> Channel:
        async with self._connecting:
            if self._channel is None or not self._channel.is_open:
                self._channel = await self._connect()
            return self._channel

    def close(self) -> None:
        """End what is under way."""
        if self._channel is not None:
            self._channel.close()

    async def _ask(self, method: str, kind: type[M]) -> M:
        channel = await self._open()
        return kind.FromString(
            await channel.unary(f"/observer.Observer/{method}", b"", ASK_TIMEOUT_S)
        )

    async def status(self) -> status_pb2.GetStatusResponse:
        """Of relay and nodes; ``RpcError``."""
        status = await self._ask("ServerStatus", observer_pb2.ServerStatusResponse)
        nodes = await self._ask("GetNodes", observer_pb2.GetNodesResponse)
        answer = status_pb2.GetStatusResponse(nodes=nodes, server_status=status)
        for version in sorted({node.version for node in nodes.nodes if node.version}):
            answer.versions.add(name="hubble", version=version)
        uptime_s = status.uptime_ns / 1e9
        answer.flows.per_second = status.flows_rate or (
            status.seen_flows / uptime_s if uptime_s else 0
        )
        return answer

    async def events(
        self, asked: ui.GetEventsRequest, send: Callable[[Answers], Awaitable[None]]
    ) -> None:
        """Send what a viewer asked for, until it goes (cancelled); ``RpcError``."""
        wanted = frozenset(asked.event_types)
        if not wanted:
            raise RpcError(Code.INVALID_ARGUMENT, "event_types: none are asked for")
        request = flows_request(asked, self._settings)
        queue: Queue = asyncio.Queue(2 * FLOWS_MAX)
        failed: RpcError | None = None  # before 3.11.4 what except* raises comes out in a group
        try:
            async with TaskGroup() as tasks:
                if wanted & _FLOW_EVENTS:
                    tasks.create_task(self._read(request, queue))
                if ui.EventType.STATUS in wanted:
                    tasks.create_task(self._statuses(queue))
                if ui.EventType.K8S_NAMESPACE_STATE in wanted:
                    tasks.create_task(self._namespaces(queue))
                cards = Cards()
                while True:
                    flows, others = await _gather(queue)
                    if flows:
                        await send(_answer(flows, wanted, cards))
                    for one in others:
                        await send(one)
        except* RpcError as errors:
            failed = _first(errors)
        if failed is not None:
            raise failed

    async def _read(self, request: observer_pb2.GetFlowsRequest, queue: Queue) -> None:
        """Flows into the queue; after a loss of the relay those since then."""
        while True:
            try:
                channel = await self._open()
                data = request.SerializeToString()
                async with channel.call("/observer.Observer/GetFlows", data) as answer:
                    while messages := await answer.take():
                        for message in messages:
                            found = observer_pb2.GetFlowsResponse.FromString(message)
                            if found.HasField("flow") and is_shown(found.flow):
                                await queue.put(found.flow)
                                at_ns = found.flow.time.ToNanoseconds() + 1
                                request.since.FromNanoseconds(at_ns)
            except RpcError as error:
                if error.code not in _AWAY:
                    raise
            await asyncio.sleep(RETRY_S)

    async def _statuses(self, queue: Queue) -> None:
        while True:
            with contextlib.suppress(RpcError):
                answer = Answers()
                answer.events.add().notification.status.CopyFrom(await self.status())
                answer.timestamp.FromNanoseconds(time.time_ns())
                await queue.put(answer)
            await asyncio.sleep(STATUS_S)

    async def _namespaces(self, queue: Queue) -> None:
        known: set[str] | None = None
        while True:
            with contextlib.suppress(RpcError):
                found = await self._names()
                answer = Answers()
                for state in _changes(known, found):
                    answer.events.add().namespace_state.CopyFrom(state)
                known = found
                if answer.events:
                    await queue.put(answer)
            await asyncio.sleep(STATUS_S)

    async def _names(self) -> set[str]:
        """Namespaces with traffic, of all clusters: the UI tells no clusters apart."""
        answer = await self._ask("GetNamespaces", observer_pb2.GetNamespacesResponse)
        return {one.namespace for one in answer.namespaces if one.namespace}

    async def control(self, send: Callable[[Control], Awaitable[None]]) -> None:
        """Send namespaces and how the relay is, until the viewer goes (cancelled)."""
        known: set[str] | None = None
        connected: bool | None = None
        while True:
            try:
                status, found = await self.status(), await self._names()
            except RpcError:
                if connected is not False:
                    connected = False
                    await send(Control(notification=_state(connected=False)))
                await asyncio.sleep(RETRY_S)
                continue
            if not connected:
                connected = True
                await send(Control(notification=_state(connected=True)))
            states = _changes(known, found)
            if states or known is None:
                known = found
                await send(Control(namespaces=Control.NamespaceStates(namespaces=states)))
            await send(Control(notification=notifications_pb2.Notification(status=status)))
            await asyncio.sleep(STATUS_S)


def _first(errors: BaseExceptionGroup[RpcError]) -> RpcError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, RpcError)
    return error


def _changes(known: set[str] | None, found: set[str]) -> list[ui.NamespaceState]:
    change = ui.StateChange
    appeared = change.EXISTS if known is None else change.ADDED
    states = [(name, appeared) for name in sorted(found - (known or set()))]
    states += [(name, change.DELETED) for name in sorted((known or set()) - found)]
    return [
        ui.NamespaceState(namespace=ui.NamespaceDescriptor(id=name, name=name), type=kind)
        for name, kind in states
    ]


def _answer(flows: list[flow_pb2.Flow], wanted: frozenset[int], cards: Cards) -> Answers:
    answer = Answers(node=flows[-1].node_name)
    answer.timestamp.CopyFrom(flows[-1].time)
    if ui.EventType.FLOWS in wanted:
        answer.events.add().flows.flows.extend(flows)
    elif ui.EventType.FLOW in wanted:
        for flow in flows:
            answer.events.add().flow.CopyFrom(flow)
    services, links = cards.take(flows)
    if ui.EventType.SERVICE_LINK_STATE in wanted:
        for link in links:
            answer.events.add().service_link_state.CopyFrom(link)
    if ui.EventType.SERVICE_STATE in wanted:
        for service in services:
            answer.events.add().service_state.CopyFrom(service)
    return answer


async def _gather(
    queue: Queue,
) -> tuple[list[flow_pb2.Flow], list[Answers]]:
    """What comes within a short time, not more than one answer's worth."""
    taken = [await queue.get()]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FLUSH_S):
            while len(taken) < FLOWS_MAX:
                taken.append(await queue.get())
    return _parted(taken)


def _parted(
    taken: Iterable[flow_pb2.Flow | Answers],
) -> tuple[list[flow_pb2.Flow], list[Answers]]:
    flows: list[flow_pb2.Flow] = []
    others: list[Answers] = []
    for one in taken:
        if isinstance(one, flow_pb2.Flow):
            flows.append(one)
        else:
            others.append(one)
    return flows, others

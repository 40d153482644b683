"""The services of a node's observer: ``observer.Observer`` and ``peer.Peer``. Adapter.

``handlers`` gives the handlers by path for ``hubble.rpc_server.Server``; ``standard_services`` adds
health and reflection. What a caller asks wrongly ends its call with INVALID_ARGUMENT before
anything is sent. A flow is decoded once for all its readers while it is recent.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar

from google.protobuf import unknown_fields
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from hubble import fieldmask, filters
from hubble.patterns import FilterError
from hubble.peers import Peer, PeerTable, changes
from hubble.query import QueryError, Span, span_of
from hubble.reading import Reader, Reading
from hubble.ring import RECORD_AGENT, RECORD_LOST, Entry
from hubble.rpc import Code, RpcError
from hubble.rpc_server import Call, Handler
from hubble.source import Source
from wire.hubble import flow_pb2, observer_pb2, peer_pb2

READERS_MAX: Final = 4096  # streams of events at the same time
API_VERSION: Final = "1.19.0"  # of the API that we speak; clients compare minors
_RECENT_MAX: Final = 2048  # flows and answers kept: what followers share
_RECORD_DEBUG: Final = 2
_FLOW_TYPES: Final = frozenset((1, 3, 4, 5, 7, 129))
# The mask that the hubble command 1.19 sends for its text formats forgets what these formats show
# (cilium/cilium#46672); who sends exactly it gets the rest too.
_DEFAULT_MASK: Final = frozenset(
    [
        "time",
        "verdict",
        "ethernet",
        "IP",
        "l4",
        "source.identity",
        "source.namespace",
        "source.pod_name",
        "destination.identity",
        "destination.namespace",
        "destination.pod_name",
        "Type",
        "node_name",
        "l7",
        "event_type",
        "source_service",
        "destination_service",
        "is_reply",
        "Summary",
        "ip_trace_id",
    ]
)
_FORGOTTEN: Final = [
    "policy_match_type",
    "traffic_direction",
    "auth_type",
    "sock_xlate_point",
    "debug_capture_point",
    "source_names",
    "destination_names",
    "egress_allowed_by",
    "ingress_allowed_by",
    "egress_denied_by",
    "ingress_denied_by",
]

M = TypeVar("M", bound=Message)
T = TypeVar("T")


def parse_request(kind: type[M], data: bytes) -> M:
    """The request; ``RpcError`` (INVALID_ARGUMENT)."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        name = kind.DESCRIPTOR.full_name
        raise RpcError(Code.INVALID_ARGUMENT, f"not {name}: {error}") from None


def mask_of(request: observer_pb2.GetFlowsRequest) -> fieldmask.Tree | None:
    """The fields wanted; ``None``: all. ``FieldMaskError``, ``DecodeError``."""
    paths = list(request.field_mask.paths)
    if not paths:  # clients up to 1.18 send it in a place that is reserved now
        unknown = unknown_fields.UnknownFieldSet(request.experimental)
        for place in range(len(unknown)):
            data = unknown[place].data
            if unknown[place].field_number == 1 and isinstance(data, bytes):
                paths = list(FieldMask.FromString(data).paths)
    if frozenset(paths) == _DEFAULT_MASK:
        paths += _FORGOTTEN
    return fieldmask.parse(paths)


class _Recent(Generic[T]):
    """What is made of records, once for those who read them soon after each other."""

    def __init__(self, make: Callable[[Entry], T]) -> None:
        self._make = make
        self._kept: list[tuple[int, T] | None] = [None] * _RECENT_MAX

    def get(self, entry: Entry) -> T:
        """Not to be changed by the caller."""
        place = entry.number % _RECENT_MAX
        kept = self._kept[place]
        if kept is None or kept[0] != entry.number:
            kept = self._kept[place] = entry.number, self._make(entry)
        return kept[1]


def flow_answer(flow: flow_pb2.Flow) -> bytes:
    """A GetFlowsResponse with the flow, its time and node."""
    time = flow.time.SerializeToString() if flow.HasField("time") else None
    return _wire_answer(flow.SerializeToString(), flow.node_name, time)


def _wire_answer(flow: bytes, node_name: str, time: bytes | None) -> bytes:
    # Fields by hand: to put the flow into the answer would copy all of it.
    answer = _FLOW_TAG + _varint(len(flow)) + flow + _node_name(node_name)
    return answer if time is None else answer + _TIME_TAG + _varint(len(time)) + time


@functools.lru_cache(maxsize=1024)
def _node_name(name: str) -> bytes:
    return observer_pb2.GetFlowsResponse(node_name=name).SerializeToString()


def _tag(field: str) -> bytes:
    """What stands before a message's length in a GetFlowsResponse."""
    number = observer_pb2.GetFlowsResponse.DESCRIPTOR.fields_by_name[field].number
    return _varint(number << 3 | 2)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_FLOW_TAG: Final = _tag("flow")
_TIME_TAG: Final = _tag("time")


class Observer:
    """The observer of one node."""

    def __init__(self, source: Source, peers: PeerTable, version: str) -> None:
        self._source = source
        self._peers = peers
        self._version = version
        self._answers = _Recent(self._answer)
        self._flows = _Recent(self._flow)  # of those that a filter has seen
        self._started_ns = time.monotonic_ns()
        self._readers = 0

    def handlers(self) -> dict[str, Handler]:
        """What it serves, by path."""
        return {
            "/observer.Observer/GetFlows": self._get_flows,
            "/observer.Observer/GetAgentEvents": self._get_agent_events,
            "/observer.Observer/GetDebugEvents": self._get_debug_events,
            "/observer.Observer/GetNodes": self._get_nodes,
            "/observer.Observer/GetNamespaces": self._get_namespaces,
            "/observer.Observer/ServerStatus": self._server_status,
            "/peer.Peer/Notify": self._notify,
        }

    async def _read(self, call: Call, reading: Reading) -> None:
        if self._readers >= READERS_MAX:
            raise RpcError(
                Code.RESOURCE_EXHAUSTED, f"{READERS_MAX} readers are connected; try again later"
            )
        self._readers += 1
        try:
            self._greet(call)
            await Reader(self._source, reading, call).run()
        finally:
            self._readers -= 1

    def _greet(self, call: Call) -> None:
        call.answer({"hubble-server-version": API_VERSION})

    async def _get_flows(self, call: Call) -> None:
        request = parse_request(observer_pb2.GetFlowsRequest, await call.request())
        try:
            reading = self._flow_reading(request)
        except (FilterError, fieldmask.FieldMaskError, QueryError, DecodeError) as error:
            raise RpcError(Code.INVALID_ARGUMENT, str(error)) from None
        await self._read(call, reading)

    def _flow_reading(self, request: observer_pb2.GetFlowsRequest) -> Reading:
        passes = filters.compile_filters(request.whitelist, request.blacklist)
        types, mask = filters.event_types(request.whitelist), mask_of(request)

        def read(entry: Entry) -> bytes | None:
            if passes is None and mask is None:
                return self._answers.get(entry)
            flow = self._flows.get(entry)
            if flow is None or (passes is not None and not passes(flow)):
                return None
            if mask is None:
                return self._answers.get(entry)
            masked = flow_pb2.Flow()
            masked.CopyFrom(flow)
            fieldmask.keep(masked, mask)
            return flow_answer(masked)

        def lost(event: flow_pb2.LostEvent, time_ns: int) -> bytes:
            answer = observer_pb2.GetFlowsResponse(
                lost_events=event, node_name=self._source.node_name
            )
            answer.time.FromNanoseconds(time_ns)
            return answer.SerializeToString()

        types = _FLOW_TYPES if types is None else types
        return Reading(_span(request), types, read, lost, has_filter=passes is not None)

    def _answer(self, entry: Entry) -> bytes | None:
        """With all fields; ``None``: no flow."""
        flow = self._source.wire(entry)
        if flow is None:
            return None
        time = Timestamp(seconds=entry.time_ns // 10**9, nanos=entry.time_ns % 10**9)
        return _wire_answer(flow, self._source.node_name, time.SerializeToString())

    def _flow(self, entry: Entry) -> flow_pb2.Flow | None:
        answer = self._answers.get(entry)
        return None if answer is None else observer_pb2.GetFlowsResponse.FromString(answer).flow

    async def _get_agent_events(self, call: Call) -> None:
        request = parse_request(observer_pb2.GetAgentEventsRequest, await call.request())

        def read(entry: Entry) -> bytes | None:
            event = self._source.decode(entry)
            if not isinstance(event, flow_pb2.AgentEvent):
                return None
            answer = observer_pb2.GetAgentEventsResponse(
                agent_event=event, node_name=self._source.node_name
            )
            answer.time.FromNanoseconds(entry.time_ns)
            return answer.SerializeToString()

        await self._read(call, _events_reading(request, RECORD_AGENT, read))

    async def _get_debug_events(self, call: Call) -> None:
        request = parse_request(observer_pb2.GetDebugEventsRequest, await call.request())

        def read(entry: Entry) -> bytes | None:
            event = self._source.decode(entry)
            if not isinstance(event, flow_pb2.DebugEvent):
                return None
            answer = observer_pb2.GetDebugEventsResponse(
                debug_event=event, node_name=self._source.node_name
            )
            answer.time.FromNanoseconds(entry.time_ns)
            return answer.SerializeToString()

        await self._read(call, _events_reading(request, _RECORD_DEBUG, read))

    async def _get_nodes(self, call: Call) -> None:
        raise RpcError(Code.UNIMPLEMENTED, "GetNodes: ask a relay; an observer knows its own node")

    async def _get_namespaces(self, call: Call) -> None:
        parse_request(observer_pb2.GetNamespacesRequest, await call.request())
        self._greet(call)
        answer = observer_pb2.GetNamespacesResponse()
        for cluster, namespace in sorted(set(self._source.namespaces())):
            answer.namespaces.add(cluster=cluster, namespace=namespace)
        await call.send(answer.SerializeToString())

    async def _server_status(self, call: Call) -> None:
        parse_request(observer_pb2.ServerStatusRequest, await call.request())
        self._greet(call)
        ring = self._source.ring
        answer = observer_pb2.ServerStatusResponse(
            num_flows=len(ring),
            max_flows=ring.capacity,
            seen_flows=ring.flows_seen,
            uptime_ns=time.monotonic_ns() - self._started_ns,
            version=self._version,
            flows_rate=ring.flows_rate(time.time_ns()),
        )
        await call.send(answer.SerializeToString())

    async def _notify(self, call: Call) -> None:
        parse_request(peer_pb2.NotifyRequest, await call.request())
        changed = asyncio.Event()
        forget = self._peers.watch(changed.set)
        known: Mapping[str, Peer] = {}
        try:
            self._greet(call)
            while True:
                changed.clear()
                now = self._peers.peers
                await call.send(*(told.SerializeToString() for told in changes(known, now)))
                known = now
                await changed.wait()
        finally:
            forget()


def _span(
    request: observer_pb2.GetFlowsRequest
    | observer_pb2.GetAgentEventsRequest
    | observer_pb2.GetDebugEventsRequest,
) -> Span:
    return span_of(
        number=request.number,
        first=request.first,
        follow=request.follow,
        since=request.since if request.HasField("since") else None,
        until=request.until if request.HasField("until") else None,
    )


def _events_reading(
    request: observer_pb2.GetAgentEventsRequest | observer_pb2.GetDebugEventsRequest,
    kind: int,
    read: Callable[[Entry], bytes | None],
) -> Reading:
    try:
        span = _span(request)
    except QueryError as error:
        raise RpcError(Code.INVALID_ARGUMENT, str(error)) from None
    return Reading(span, frozenset((kind, RECORD_LOST)), read, lambda _event, _time: None)

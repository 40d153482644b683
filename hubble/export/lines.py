"""Events as lines of JSON: ``observer.ExportEvent``, masked, and flows counted together. Pure."""

from collections.abc import Iterable, Iterator

import msgspec

from hubble import fieldmask
from hubble.export.settings import Export
from hubble.source import Message
from wire.hubble import flow_pb2 as f
from wire.hubble import observer_pb2
from wire.hubble.as_json import as_dict

KEYS_MAX = 1 << 16  # flows that are counted together; one more, and all so far are written
_encode = msgspec.json.Encoder().encode


class Lines:
    """Of one export. What passed its filters goes in; what is to be written comes out."""

    def __init__(self, export: Export, node: str) -> None:
        self._node = node  # for what is no flow
        self._mask = fieldmask.parse(export.mask)
        self._by = fieldmask.parse(export.aggregate)
        self._sums: dict[bytes, f.Flow] = {}
        self.counts_together = self._by is not None and export.interval_s > 0

    def put(self, message: Message, time_ns: int) -> Iterable[bytes]:
        """The lines that follow from it, each with its end."""
        if not isinstance(message, f.Flow):
            return (self._other(message, time_ns),)
        if not self.counts_together:
            if self._mask is not None:
                copy = f.Flow()
                copy.CopyFrom(message)
                fieldmask.keep(copy, self._mask)
                message = copy
            return (_line(_event(message)),)
        self._add(message)
        return tuple(self.flush()) if len(self._sums) >= KEYS_MAX else ()

    def flush(self) -> Iterator[bytes]:
        """Lines for what was counted together."""
        sums, self._sums = self._sums, {}
        return (_line(_event(flow)) for flow in sums.values())

    def _add(self, flow: f.Flow) -> None:
        assert self._by is not None
        kept = f.Flow()
        kept.CopyFrom(flow)
        fieldmask.keep(kept, self._by)
        kept.ClearField("time")
        key = kept.SerializeToString(deterministic=True)
        found = self._sums.get(key)
        if found is None:
            found = self._sums[key] = kept
            found.time.CopyFrom(flow.time)
            found.node_name = flow.node_name
        sums = found.aggregate
        if flow.traffic_direction == f.INGRESS:
            sums.ingress_flow_count += 1
        elif flow.traffic_direction == f.EGRESS:
            sums.egress_flow_count += 1
        else:
            sums.unknown_direction_flow_count += 1

    def _other(self, message: Message, time_ns: int) -> bytes:
        event = observer_pb2.ExportEvent(node_name=self._node)
        event.time.FromNanoseconds(time_ns)
        if isinstance(message, f.LostEvent):
            event.lost_events.CopyFrom(message)
        elif isinstance(message, f.AgentEvent):
            event.agent_event.CopyFrom(message)
        elif isinstance(message, f.DebugEvent):
            event.debug_event.CopyFrom(message)
        return _line(event)


def _event(flow: f.Flow) -> observer_pb2.ExportEvent:
    """Time and node beside the flow are the flow's own, as far as it has them."""
    event = observer_pb2.ExportEvent(flow=flow, node_name=flow.node_name)
    if flow.HasField("time"):
        event.time.CopyFrom(flow.time)
    return event


def _line(event: observer_pb2.ExportEvent) -> bytes:
    return _encode(as_dict(event)) + b"\n"

"""Flows that differ in nothing but their ports, time and number are decoded once. Pure.

Most events of a node are of few pairs of pods. The first event of a kind between two ends is read
field by field; the others begin as a copy of that flow. What depends on ports or time is not in
the copy. A change of names drops all.
"""

from typing import Final, NamedTuple

from hubble import packet
from hubble.names import Names
from hubble.packet import Addresses
from wire.bpf import layouts as w
from wire.hubble import flow_pb2 as f

_KEPT_MAX: Final = 1 << 12
_HEADER: Final = w.EVENT_HEADER.size
_CAPTURE_AT: Final = 12  # in the header
_SIZES: Final = {  # of what stands before the packet, by the record's first byte
    int(w.EventType.EVENT_DROP): w.DROP_EVENT.size,
    int(w.EventType.EVENT_TRACE): w.TRACE_EVENT.size,
    int(w.EventType.EVENT_POLICY_VERDICT): w.POLICY_VERDICT_EVENT.size,
}
_OWN: Final = (  # of each event, never of a template
    "time",
    "uuid",
    "source_service",
    "destination_service",
    "source_names",
    "destination_names",
)


class Likeness(NamedTuple):
    """What decides about all of an event's flow but what is its own."""

    key: bytes
    addresses: Addresses


def likeness(record: bytes) -> Likeness | None:
    """``None``: this record is decoded by itself."""
    size = _SIZES.get(record[0])
    if size is None or len(record) < size:
        return None
    capture = record[_CAPTURE_AT] | record[_CAPTURE_AT + 1] << 8
    found = packet.likeness(record[size : size + capture])
    if found is None:
        return None
    return Likeness(record[:4] + record[_HEADER:size] + found[0], found[1])


class Templates:
    """Flows in their wire form by likeness; they hold as long as the names do."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._kept: dict[bytes, bytes] = {}
        self._revision = -1

    def get(self, alike: Likeness, at_ns: int) -> f.Flow | None:
        """A flow for an event of that time, without what is its own but with its ports."""
        if self._names.changed_ns > at_ns:  # names were others at that time
            return None
        if self._revision != self._names.revision:
            return None
        kept = self._kept.get(alike.key)
        if kept is None:
            return None
        flow = f.Flow.FromString(kept)
        packet.set_ports(flow, alike.addresses)
        return flow

    def keep(self, alike: Likeness, flow: f.Flow, at_ns: int) -> None:
        """What events that are alike will begin with."""
        names = self._names
        if names.changed_ns > at_ns:
            return
        if self._revision != names.revision or len(self._kept) >= _KEPT_MAX:
            self.drop()
            self._revision = names.revision
        template = f.Flow()
        template.CopyFrom(flow)
        for name in _OWN:
            template.ClearField(name)
        packet.set_ports(template, packet.NOT_IP._replace(protocol=alike.addresses.protocol))
        self._kept[alike.key] = template.SerializeToString()

    def drop(self) -> None:
        """Something changed that is not among the names."""
        self._kept = {}

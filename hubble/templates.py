"""Flows that differ in nothing but their ports, time and number are decoded once. Pure.

Most events of a node are of few pairs of pods. The first event of a kind between two ends is read
field by field; what the others share with it is kept in wire form, and what is an event's own is
put behind that: parsers join the fields of a message wherever they stand (ADR 0262). No field
stands in both, so that none has to join inner ones. A change of names drops all.
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
    "l4",
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


class Template(NamedTuple):
    """What flows that are alike have in common."""

    wire: bytes
    l4: f.Layer4  # with the ports of one of them
    source: int  # number of the pod, if it is of this node
    destination: int


class Templates:
    """By likeness; they hold as long as the names do."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._kept: dict[bytes, Template] = {}
        self._revision = -1

    def get(self, alike: Likeness, at_ns: int) -> Template | None:
        """For an event of that time."""
        if self._names.changed_ns > at_ns:  # names were others at that time
            return None
        if self._revision != self._names.revision:
            return None
        return self._kept.get(alike.key)

    def keep(self, alike: Likeness, flow: f.Flow, at_ns: int) -> None:
        """What events that are alike will share."""
        names = self._names
        if names.changed_ns > at_ns:
            return
        if self._revision != names.revision or len(self._kept) >= _KEPT_MAX:
            self.drop()
            self._revision = names.revision
        shared = f.Flow()
        shared.CopyFrom(flow)
        for name in _OWN:
            shared.ClearField(name)
        l4 = f.Layer4()
        l4.CopyFrom(flow.l4)
        ids = flow.source.ID, flow.destination.ID
        self._kept[alike.key] = Template(shared.SerializeToString(), l4, *ids)

    def drop(self) -> None:
        """Something changed that is not among the names."""
        self._kept = {}

"""What the observer reads from: a ring of records and what knows to decode them. Pure."""

from collections.abc import Iterable
from typing import Protocol, TypeAlias

from hubble.ring import Entry, Ring
from wire.hubble import flow_pb2

Message: TypeAlias = flow_pb2.Flow | flow_pb2.LostEvent | flow_pb2.AgentEvent | flow_pb2.DebugEvent


class Source(Protocol):
    """The events of one node. Decoding is pure for the names known at that moment."""

    @property
    def ring(self) -> Ring:
        """The records."""

    @property
    def node_name(self) -> str:
        """``<cluster>/<node>``."""

    def decode(self, entry: Entry) -> Message | None:
        """What the record tells; ``None`` when it cannot be read."""

    def wire(self, entry: Entry) -> bytes | None:
        """A flow in wire form: sooner made than the message; ``None``: no flow, or not readable."""

    def namespaces(self) -> Iterable[tuple[str, str]]:
        """(cluster, namespace) of the flows of the last hour."""

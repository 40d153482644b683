"""What an agent tells of names: lines of JSON, first all that is, then what changes. Pure.

Served by the agent at `/v1/names` of its socket, read by the node's Hubble. A line is one value of
one table, or says that it is gone; `synced` stands after the last line of the beginning. Keys that
a reader does not know it passes over; a later version may add kinds of lines.
"""

from collections.abc import Iterator
from typing import TypeVar

import msgspec

PATH = "/v1/names"


class _Line(msgspec.Struct, tag_field="kind", omit_defaults=True, frozen=True):
    """One line."""


class Self(_Line, tag="self", frozen=True):
    """The node that this is."""

    cluster: str
    node: str
    labels: tuple[str, ...] = ()  # of the Node, ``key=value``
    started_ns: int = 0  # when the agent began, since 1970


class Workload(msgspec.Struct, omit_defaults=True, frozen=True):
    """What a pod is a copy of."""

    name: str
    kind: str


class NodeLine(_Line, tag="node", frozen=True):
    """A node of the mesh. Key: ``cluster`` and ``name``."""

    cluster: str
    name: str
    address: str = ""
    gone: bool = False


class EndpointLine(_Line, tag="endpoint", frozen=True):
    """A pod of this node. Key: ``id``."""

    id: int
    addresses: tuple[str, ...] = ()
    identity: int = 0
    namespace: str = ""
    pod: str = ""
    labels: tuple[str, ...] = ()  # ``source:key=value``
    workload: Workload | None = None
    gone: bool = False


class IdentityLine(_Line, tag="identity", frozen=True):
    """What a number stands for. Key: ``id``."""

    id: int
    labels: tuple[str, ...] = ()
    gone: bool = False


class PrefixLine(_Line, tag="prefix", frozen=True):
    """Whose addresses are. Key: ``prefix``, with its length unless it is one address."""

    prefix: str
    identity: int = 0
    namespace: str = ""
    pod: str = ""
    host: str = ""  # of the node behind which they are
    gone: bool = False


class FrontendLine(_Line, tag="frontend", frozen=True):
    """A service's address. Key: address, port, protocol."""

    address: str
    port: int
    protocol: int
    namespace: str = ""
    name: str = ""
    gone: bool = False


class RuleLine(_Line, tag="rule", frozen=True):
    """A policy that rows of the kernel refer to. Key: ``number``."""

    number: int
    policy: str = ""  # kind of the object
    namespace: str = ""
    name: str = ""
    labels: tuple[str, ...] = ()
    revision: int = 0
    gone: bool = False
    log: str = ""  # what the policy's author wants told of its verdicts


class Synced(_Line, tag="synced", frozen=True):
    """All that is has been told."""


Line = Self | NodeLine | EndpointLine | IdentityLine | PrefixLine | FrontendLine | RuleLine | Synced
L = TypeVar("L", bound=Line)

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def encode(line: Line) -> bytes:
    """One line with its end."""
    return _ENCODER.encode(line) + b"\n"


def decode(lines: bytes) -> Iterator[Line]:
    """Whole lines. Of a kind not known here: passed over. ``ValueError``: it is no line at all."""
    for text in lines.splitlines():
        if not text:  # says that the agent lives
            continue
        try:
            yield _DECODER.decode(text)
        except msgspec.ValidationError:
            if not isinstance(msgspec.json.decode(text), dict):
                raise

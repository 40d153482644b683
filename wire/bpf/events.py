"""Messages of the programs about packets: bytes to fields. Pure.

Layouts are Cilium's monitor's (`bpf/lib/abi/events.h`), without the time at the end, which the
reader of the ring takes off.
"""

from collections.abc import Callable
from typing import NamedTuple

from wire.bpf import layouts as w

_DIRECTION = int(w.VerdictBits.VERDICT_DIRECTION_MASK)
_MATCH_SHIFT = int(w.VerdictBits.VERDICT_MATCH_SHIFT)
_AUDITED = int(w.VerdictBits.VERDICT_AUDITED)
_VERDICT_IP6 = int(w.VerdictBits.VERDICT_IP6)
_ENCRYPTED = int(w.TraceReason.REASON_ENCRYPTED)
_IP6 = int(w.TraceBits.TRACE_IP6)
_NO_ORIGINAL = bytes(16)


class Header(NamedTuple):
    """What every message begins with."""

    type: int
    subtype: int
    endpoint: int  # number of the endpoint that it happened to; 0: none
    hash: int
    length: int  # bytes of the packet
    capture: int  # bytes of it in ``packet``
    version: int


class Drop(NamedTuple):
    """A packet was dropped."""

    header: Header
    reason: int
    source_identity: int
    destination_identity: int
    destination_endpoint: int  # 0: it was on its way out
    line: int
    file: int
    ifindex: int
    packet: bytes  # its beginning


class PolicyVerdict(NamedTuple):
    """Policy was asked about the first packet of a connection, or denied one."""

    header: Header
    remote_identity: int
    reason: int  # 0: it passes
    direction: int  # ``TrafficDirection``
    match: int  # ``PolicyMatch``
    audited: bool
    protocol: int
    port: int  # ICMP: the type
    rule: int  # index of the deciding rule; 0: none
    is_ip6: bool
    packet: bytes


class Trace(NamedTuple):
    """A packet passed a point of observation."""

    header: Header
    point: int  # ``TracePoint``
    reason: int  # ``TraceReason``
    encrypted: bool
    source_identity: int
    destination_identity: int
    destination_endpoint: int
    ifindex: int
    original: bytes  # source address before ours, 4 or 16 bytes; empty: it is the packet's
    packet: bytes


class Translation(NamedTuple):
    """A service's address gave way to a backend's, or came back in its first answer."""

    point: int  # ``TranslationPoint``
    destination: bytes  # 4 or 16 bytes; whom the client speaks with, also of an answer
    destination_port: int
    cookie: int  # of the socket; 0: not known
    cgroup: int  # 0: not known
    protocol: int  # IP's number; 0: another than TCP and UDP
    is_ip6: bool
    source: bytes
    source_port: int
    endpoint: int  # the client's; 0: the node
    source_identity: int


Event = Drop | PolicyVerdict | Trace | Translation


def parse(record: bytes) -> Event | None:
    """One record; ``None``: of a type not known here. ``ValueError`` when it is cut short."""
    kind = record[0] if record else 0
    found = _PARSERS.get(kind)
    if found is None:
        return None
    size, parser = found
    if len(record) < size:
        raise ValueError(f"event of type {kind} has {len(record)} bytes and needs {size}")
    return parser(record)


def _drop(record: bytes) -> Drop:
    row = w.DropEvent(*w.DROP_EVENT.unpack_from(record))
    header = Header(*w.EVENT_HEADER.unpack_from(record))
    return Drop(
        header,
        header.subtype,
        row.source_identity,
        row.destination_identity,
        row.destination_endpoint,
        row.line,
        row.file,
        row.ifindex,
        record[w.DROP_EVENT.size : w.DROP_EVENT.size + header.capture],
    )


def _verdict(record: bytes) -> PolicyVerdict:
    row = w.PolicyVerdictEvent(*w.POLICY_VERDICT_EVENT.unpack_from(record))
    header = Header(*w.EVENT_HEADER.unpack_from(record))
    return PolicyVerdict(
        header,
        row.remote_identity,
        -row.verdict,
        row.flags & _DIRECTION,
        row.flags >> _MATCH_SHIFT & 7,
        bool(row.flags & _AUDITED),
        row.protocol,
        row.port,
        row.rule_high << 16 | row.rule,
        bool(row.flags & _VERDICT_IP6),
        record[w.POLICY_VERDICT_EVENT.size : w.POLICY_VERDICT_EVENT.size + header.capture],
    )


def _trace(record: bytes) -> Trace:
    row = w.TraceEvent(*w.TRACE_EVENT.unpack_from(record))
    header = Header(*w.EVENT_HEADER.unpack_from(record))
    original = b""
    if row.original != _NO_ORIGINAL:
        original = row.original if row.flags & _IP6 else row.original[:4]
    return Trace(
        header,
        header.subtype,
        row.reason & ~_ENCRYPTED,
        bool(row.reason & _ENCRYPTED),
        row.source_identity,
        row.destination_identity,
        row.destination_endpoint,
        row.ifindex,
        original,
        record[w.TRACE_EVENT.size : w.TRACE_EVENT.size + header.capture],
    )


def _translation(record: bytes) -> Translation:
    row = w.TranslationEvent.parse(record[: w.TRANSLATION_EVENT.size])
    is_ip6 = bool(row.flags & _IP6)
    size = 16 if is_ip6 else 4
    return Translation(
        row.point,
        row.destination[:size],
        row.destination_port,
        row.cookie,
        row.cgroup,
        {1: 6, 2: 17}.get(row.protocol, 0),
        is_ip6,
        row.source[:size],
        row.source_port,
        row.endpoint,
        row.source_identity,
    )


_PARSERS: dict[int, tuple[int, Callable[[bytes], Event]]] = {
    w.EventType.EVENT_DROP: (w.DROP_EVENT.size, _drop),
    w.EventType.EVENT_TRACE: (w.TRACE_EVENT.size, _trace),
    w.EventType.EVENT_POLICY_VERDICT: (w.POLICY_VERDICT_EVENT.size, _verdict),
    w.EventType.EVENT_TRANSLATION: (w.TRANSLATION_EVENT.size, _translation),
}

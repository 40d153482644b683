"""What of a raw record decides where it counts. Pure.

Records with the same key are decoded once: the key holds every field that a flow's labels come
from, and none that differ from packet to packet. The destination port counts only where it is not
an answer's, whose port is its client's choice. A packet of another form than the usual (options,
fragments, cut short, other protocols) has no key and is decoded by itself. docs/adr/0206
"""

import struct
import sys
from collections.abc import Callable
from typing import Any

from wire.bpf import layouts as w

Key = tuple[Any, ...]
_TCP, _UDP, _ICMP4, _ICMP6 = 6, 17, 1, 58
_ETHERNET, _IP4, _IP6 = 14, 20, 40
_REASON_AT = 26  # of a trace
_REPLY = int(w.TraceReason.REASON_REPLY)
_CAPTURE_AT = 12 if sys.byteorder == "little" else 13  # bytes of the packet; they are under 256
_Fields = dict[int, str]  # by offset, struct's letters
_Layout = tuple[int, Callable[[bytes], Key]]  # bytes of the packet that it needs, reading

_TRACE, _DROP = int(w.EventType.EVENT_TRACE), int(w.EventType.EVENT_DROP)
_VERDICT, _TRANSLATION = int(w.EventType.EVENT_POLICY_VERDICT), int(w.EventType.EVENT_TRANSLATION)
_PACKET_AT = {
    _TRACE: w.TRACE_EVENT.size,
    _DROP: w.DROP_EVENT.size,
    _VERDICT: w.POLICY_VERDICT_EVENT.size,
}
# Offsets in the records of `bpf/lib/abi/events.h`: what every metric needs, and what names need:
# number of the endpoint, identities, the far endpoint, an address before translation.
_ALWAYS: dict[int, _Fields] = {
    _TRACE: {0: "2s", _REASON_AT: "B"},
    _DROP: {0: "2s"},
    _VERDICT: {0: "2s", 20: "i", 27: "B"},
    _TRANSLATION: {0: "2s", 36: "2s"},
}
_NAMES: dict[int, _Fields] = {
    _TRACE: {2: "H", 16: "8s", 24: "H", 27: "B", 32: "16s"},
    _DROP: {2: "H", 16: "12s"},
    _VERDICT: {2: "H", 16: "I"},
    _TRANSLATION: {2: "18s", 38: "16s", 56: "6s"},
}


def _struct(fields: _Fields) -> struct.Struct:
    text, at = "=", 0
    for offset in sorted(fields):
        text += f"{offset - at}x{fields[offset]}" if offset > at else fields[offset]
        at = offset + struct.calcsize("=" + fields[offset])
    return struct.Struct(text)


def _transport(protocol: int, at: int, with_port: bool) -> tuple[_Fields, int]:
    """Fields of the header at this offset, and how many bytes of it there must be."""
    if protocol in (_ICMP4, _ICMP6):
        return {at: "2s"}, 8
    port: _Fields = {at + 2: "2s"} if with_port else {}
    return (port | {at + 13: "B"}, 20) if protocol == _TCP else (port, 8)


class _Form:
    """Records of a type whose packet is of one family."""

    def __init__(self, kind: int, is_ip6: bool, with_names: bool) -> None:
        at = _PACKET_AT[kind]
        ip = at + _ETHERNET
        self.protocol_at = ip + (6 if is_ip6 else 9)
        self.fragment_at = 0 if is_ip6 else ip + 6
        addresses = {ip + 8: "32s"} if is_ip6 else {ip + 12: "8s"}
        fields = _ALWAYS[kind] | {at + 12: "B", self.protocol_at: "B"}
        if with_names:
            fields |= _NAMES[kind] | addresses
        upper = ip + (_IP6 if is_ip6 else _IP4)

        def layouts(with_port: bool) -> dict[int, _Layout]:
            found: dict[int, _Layout] = {}
            for protocol in (_TCP, _UDP, _ICMP6 if is_ip6 else _ICMP4):
                more, size = _transport(protocol, upper, with_port)
                found[protocol] = (upper - at + size, _struct(fields | more).unpack_from)
            return found

        self.asking = layouts(kind != _DROP or with_names)
        self.replies = layouts(False)
        self.reason_at = _REASON_AT if kind == _TRACE else 0


def keyer(with_names: bool) -> Callable[[bytes], Key | None]:
    """The function from a record to its key. ``with_names``: labels tell who it was."""
    forms: dict[int, dict[bytes, _Form]] = {}
    for kind in _PACKET_AT:
        v4, v6 = _Form(kind, False, with_names), _Form(kind, True, with_names)
        # What stands behind the Ethernet addresses: the type, version and length of IP's header.
        by_begin = {b"\x08\x00\x45": v4}
        by_begin |= {bytes((0x86, 0xDD, 0x60 | more)): v6 for more in range(16)}
        forms[kind] = by_begin
    begins = {kind: slice(at + 12, at + 15) for kind, at in _PACKET_AT.items()}
    translation = _struct(_ALWAYS[_TRANSLATION] | (_NAMES[_TRANSLATION] if with_names else {}))

    def key(record: bytes) -> Key | None:
        kind = record[0]
        by_begin = forms.get(kind)
        if by_begin is None:
            if kind == _TRANSLATION and len(record) >= w.TRANSLATION_EVENT.size:
                return translation.unpack_from(record)
            return None
        form = by_begin.get(record[begins[kind]])
        if form is None:
            return None
        try:
            at = form.fragment_at
            if at and (record[at] & 0x1F or record[at + 1]):
                return None
            at = form.reason_at
            is_reply = at and record[at] & 0x7F == _REPLY
            found = (form.replies if is_reply else form.asking).get(record[form.protocol_at])
            if found is None or record[_CAPTURE_AT] < found[0]:
                return None
            return found[1](record)
        except (IndexError, struct.error):
            return None

    return key

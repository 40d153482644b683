"""Messages of the programs about packets, read from the ring they write them to. Adapter.

The ring is mapped into memory: the kernel moves the producer's position, we move the consumer's.
Both count bytes from the beginning of time. Every record has a header of 8 bytes: its length with
two flags on top, and a page number that matters to the kernel only. docs/adr/0148.
"""

import mmap
import select
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from datapath.kernel_table import KernelTable
from wire.bpf import layouts as w

_BUSY, _DISCARD = 1 << 31, 1 << 30
_HEADER = 8
_POSITION = struct.Struct("=Q")
_LENGTH = struct.Struct("=I")
_DIRECTION = int(w.VerdictBits.VERDICT_DIRECTION_MASK)


class Header(NamedTuple):
    """What every message begins with."""

    type: int
    subtype: int
    endpoint: int  # number of the endpoint that it happened to; 0: none
    hash: int
    length: int  # bytes of the packet
    capture: int  # bytes of it in ``packet``
    version: int


@dataclass(frozen=True, slots=True)
class Drop:
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


@dataclass(frozen=True, slots=True)
class PolicyVerdict:
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


def parse(record: bytes) -> Drop | PolicyVerdict | None:
    """One record; ``None``: of a type not known here. ``ValueError`` when it is cut short."""
    kind = record[0] if record else 0
    codec = {
        int(w.EventType.EVENT_DROP): w.DROP_EVENT,
        int(w.EventType.EVENT_POLICY_VERDICT): w.POLICY_VERDICT_EVENT,
    }.get(kind)
    if codec is None:
        return None
    if len(record) < codec.size:
        raise ValueError(f"event of type {kind} has {len(record)} bytes and needs {codec.size}")
    return _drop(record) if kind == w.EventType.EVENT_DROP else _verdict(record)


def _drop(record: bytes) -> Drop:
    row = w.DropEvent.parse(record[: w.DROP_EVENT.size])
    header = Header(*w.EVENT_HEADER.unpack(row.header))
    return Drop(
        header,
        header.subtype,
        row.source_identity,
        row.destination_identity,
        row.destination_endpoint,
        row.line,
        row.file,
        row.ifindex,
        record[w.DROP_EVENT.size :][: header.capture],
    )


def _verdict(record: bytes) -> PolicyVerdict:
    row = w.PolicyVerdictEvent.parse(record[: w.POLICY_VERDICT_EVENT.size])
    header = Header(*w.EVENT_HEADER.unpack(row.header))
    return PolicyVerdict(
        header,
        row.remote_identity,
        -row.verdict,
        row.flags & _DIRECTION,
        row.flags >> w.VerdictBits.VERDICT_MATCH_SHIFT & 7,
        bool(row.flags & w.VerdictBits.VERDICT_AUDITED),
        row.protocol,
        row.port,
        row.rule_high << 16 | row.rule,
        bool(row.flags & w.VerdictBits.VERDICT_IP6),
        record[w.POLICY_VERDICT_EVENT.size :][: header.capture],
    )


class EventReader:
    """The only reader of a ring: what it takes, nobody else sees. Blocking."""

    def __init__(self, ring: KernelTable, lost: KernelTable) -> None:
        self._lost = lost
        self._size = ring.max_entries
        page = mmap.PAGESIZE
        self._consumer = mmap.mmap(ring.fd, page, mmap.MAP_SHARED, offset=0)
        # Behind the producer's page the kernel maps the data twice, so that no record is in pieces.
        self._data = mmap.mmap(
            ring.fd, page + 2 * self._size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
        )
        self._poll = select.epoll()
        self._poll.register(ring.fd, select.EPOLLIN)

    def read(self, limit: int = 4096) -> Iterator[bytes]:
        """Records that are there, oldest first; up to ``limit``."""
        (at,) = _POSITION.unpack_from(self._consumer)
        for _ in range(limit):
            if at >= _POSITION.unpack_from(self._data)[0]:
                return
            start = mmap.PAGESIZE + (at & self._size - 1)
            (length,) = _LENGTH.unpack_from(self._data, start)
            if length & _BUSY:  # reserved and not written yet
                return
            size = length & ~_DISCARD
            record = self._data[start + _HEADER : start + _HEADER + size]
            at += _HEADER + -(-size // 8) * 8
            _POSITION.pack_into(self._consumer, 0, at)
            if not length & _DISCARD:
                yield record

    def wait(self, timeout_s: float) -> bool:
        """Wait until there is something to read; false when the time is over."""
        return bool(self._poll.poll(timeout_s))

    def lost(self) -> dict[w.EventType, int]:
        """How many messages of each type found no room, ever."""
        found: dict[w.EventType, int] = {}
        for kind in (w.EventType.EVENT_DROP, w.EventType.EVENT_POLICY_VERDICT):
            value = self._lost.get(struct.pack("=I", kind)) or b""
            found[kind] = sum(number for (number,) in struct.iter_unpack("=Q", value))
        return found

    def close(self) -> None:
        """Release the memory; the ring stays."""
        self._poll.close()
        self._consumer.close()
        self._data.close()

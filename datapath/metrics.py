"""The counters of the programs, summed over CPUs. Adapter; blocking."""

import struct
from dataclasses import dataclass

from datapath import encoding as e
from datapath.kernel_table import KernelTable

_FORWARDED = 0  # REASON_FORWARDED


@dataclass(frozen=True, slots=True)
class Counter:
    """Packets that left the programs at one place, with one verdict."""

    reason: int  # 0: forwarded; otherwise a drop reason
    direction: int
    file: int
    line: int
    packets: int
    bytes: int


def read_metrics(drops: KernelTable, forwarded: KernelTable) -> list[Counter]:
    """Every counter, ordered by reason, direction, file and line; those at zero are left out."""
    found = []
    for key, value in drops.rows():
        k = e.MetricsKey.parse(key)
        found.append(Counter(k.reason, k.direction, k.file, k.line, *_sums(value)))
    for key, value in forwarded.rows():
        packets, size = _sums(value)
        if packets:
            found.append(Counter(_FORWARDED, e.parse_number_key(key), 0, 0, packets, size))
    return sorted(found, key=lambda c: (c.reason, c.direction, c.file, c.line))


def _sums(value: bytes) -> tuple[int, int]:
    """Packets and bytes over all CPUs."""
    pairs = list(struct.iter_unpack("=QQ", value))
    return sum(packets for packets, _ in pairs), sum(size for _, size in pairs)

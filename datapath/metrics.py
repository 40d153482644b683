"""The counters of the programs, summed over CPUs. Adapter; blocking."""

import struct
from dataclasses import dataclass

from datapath import encoding as e
from datapath.kernel_table import KernelTable


@dataclass(frozen=True, slots=True)
class Counter:
    """Packets that left the programs at one place, with one verdict."""

    reason: int  # 0: forwarded; otherwise a drop reason
    direction: int
    file: int
    line: int
    packets: int
    bytes: int


def read_metrics(table: KernelTable) -> list[Counter]:
    """Every counter, ordered by reason, direction, file and line."""
    found = []
    for key, value in table.rows():
        k = e.parse_metrics_key(key)
        pairs = list(struct.iter_unpack("=QQ", value))
        packets, size = sum(p for p, _ in pairs), sum(b for _, b in pairs)
        found.append(Counter(k.reason, k.direction, k.file, k.line, packets, size))
    return sorted(found, key=lambda c: (c.reason, c.direction, c.file, c.line))

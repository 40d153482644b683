"""Which row of a computed policy map decides about a packet, said as plainly as possible."""

from collections.abc import Mapping
from dataclasses import dataclass

from model.policy_map import FULL_BITS, PROTOCOL_BITS, Direction, PolicyEntry, PolicyKey

Rows = Mapping[PolicyKey, PolicyEntry]


@dataclass(frozen=True)
class Decision:
    """``row`` is ``None`` when none matches, which denies."""

    row: PolicyKey | None
    entry: PolicyEntry | None

    @property
    def passes(self) -> bool:
        return self.entry is not None and not forbids(self.entry)

    @property
    def audited(self) -> bool:
        return self.passes and self.entry is not None and self.entry.deny


def forbids(entry: PolicyEntry) -> bool:
    return entry.deny and not entry.audit


def covers(row: PolicyKey, protocol: int, port: int) -> bool:
    if row.bits == 0:
        return True
    if row.protocol != protocol:
        return False
    free = FULL_BITS - max(row.bits, PROTOCOL_BITS)
    return row.port >> free == port >> free


def decide(rows: Rows, identity: int, direction: Direction, protocol: int, port: int) -> Decision:
    """The deciding row for one packet."""

    def longest(of: int) -> PolicyKey | None:
        found = [
            row
            for row in rows
            if (row.identity, row.direction) == (of, direction) and covers(row, protocol, port)
        ]
        return max(found, key=lambda row: row.bits, default=None)

    named, anybody = longest(identity), longest(0)
    found = [row for row in (named, anybody) if row is not None]
    if not found:
        return Decision(None, None)

    # Who forbids; who would; who says more; who names the identity.
    def rank(row: PolicyKey) -> tuple[bool, bool, int, bool]:
        entry = rows[row]
        return forbids(entry), entry.deny, row.bits, row is named

    best = max(found, key=rank)
    return Decision(best, rows[best])

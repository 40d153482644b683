"""Computed policy rows ↔ rows of bytes of an endpoint's trie. Pure.

Layouts are those of `bpf/lib/abi/policy.h`.
"""

from dataclasses import dataclass

from model.policy_map import Direction, PolicyEntry, PolicyKey
from wire.bpf import layouts

KEY_BYTES = layouts.POLICY_KEY.size
VALUE_BYTES = layouts.POLICY_VALUE.size
ROWS_MAX = int(layouts.PolicyLimits.POLICY_ROWS_MAX)
_STATIC_BITS = int(layouts.PolicyBits.POLICY_STATIC_BITS)
_DENY = int(layouts.PolicyFlags.POLICY_DENY)
_AUDIT = int(layouts.PolicyFlags.POLICY_AUDIT)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a row has matched since it was written."""

    packets: int = 0
    bytes: int = 0


def key(row: PolicyKey) -> bytes:
    """Key of the trie."""
    identity, direction, protocol, port, bits = row
    return layouts.PolicyKey(
        _STATIC_BITS + bits, identity, int(direction is Direction.EGRESS), protocol, port
    ).pack()


def parse_key(data: bytes) -> PolicyKey:
    """Inverse of ``key``."""
    length, identity, egress, protocol, port = layouts.PolicyKey.parse(data)
    return PolicyKey(identity, Direction(egress), protocol, port, length - _STATIC_BITS)


def value(row: PolicyKey, entry: PolicyEntry, traffic: Traffic = Traffic()) -> bytes:
    """Value of the trie. The bits of its key stand in it, since a lookup does not tell them."""
    flags = _DENY * entry.deny | _AUDIT * entry.audit
    return layouts.PolicyValue(entry.rule, flags, row.bits, traffic.packets, traffic.bytes).pack()


def parse_value(data: bytes) -> tuple[PolicyEntry, Traffic]:
    """Inverse of ``value``."""
    rule, flags, _, packets, size = layouts.PolicyValue.parse(data)
    entry = PolicyEntry(bool(flags & _DENY), bool(flags & _AUDIT), rule)
    return entry, Traffic(packets, size)

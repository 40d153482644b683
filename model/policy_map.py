"""The computed policy map of one endpoint: what the datapath looks up per packet. Pure.

A key names a remote identity, a direction and a block of (protocol, port); the entry says what
happens to packets that match. `policy/` computes rows, `datapath/` writes them, and their lookup
in the kernel follows `lookup` of the oracle in `policy/`.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

ANY_IDENTITY = 0
UNKNOWN_IDENTITY = (1 << 32) - 1  # stands for whom nobody has told us about yet
PROTOCOL_BITS = 8
FULL_BITS = 24


class Direction(IntEnum):
    """As seen from the endpoint that owns the map."""

    INGRESS = 0
    EGRESS = 1


class PolicyKey(NamedTuple):
    """What packets an entry is for.

    ``bits`` is how many bits of (protocol, port) must be equal: 0 any protocol, 8 one protocol
    with all its ports, 9 to 23 an aligned block of ports, 24 one port. Bits behind are zero.
    ICMP keeps its type in ``port``. ``identity`` 0 is anybody; rows of ``UNKNOWN_IDENTITY`` are for
    addresses that a cluster owns and has not told whose they are, which meet no other row.
    """

    identity: int
    direction: Direction
    protocol: int = 0
    port: int = 0
    bits: int = 0


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """What happens to packets of a key.

    ``rule`` is the index of the deciding rule in the endpoint's rule list, as verdict events
    carry it (0: none, made by us). ``audit``: a packet that this entry denies passes and is
    reported as audited; with ``deny`` False it stands for default deny in audit, and any other
    entry comes before it.
    """

    deny: bool = False
    audit: bool = False
    rule: int = 0

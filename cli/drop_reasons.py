"""Names for the numbers in the datapath's counters. Pure.

The numbers are those of `bpf/lib/abi/reasons.h` and `metrics.h`; a test compares them.
"""

REASONS = {
    0: "Forwarded",
    132: "Invalid source ip",
    133: "Policy denied",
    134: "Malformed packet",
    135: "CT: truncated or invalid header",
    136: "Fragmentation needed",
    137: "CT: unknown L4 protocol",
    139: "Unsupported L3 protocol",
    140: "Missed tail call",
    141: "Error writing to packet",
    142: "Unknown L4 protocol",
    147: "No tunnel key",
    151: "Stale or unroutable IP",
    153: "Error while correcting L3 checksum",
    154: "Error while correcting L4 checksum",
    155: "CT: map insertion failed",
    156: "Invalid IPv6 extension header",
    157: "IP fragmentation not supported",
    158: "Service backend not found",
    159: "Unsupported protocol for a service",
    160: "No tunnel endpoint",
    164: "Host unreachable",
    166: "Unsupported L2 protocol",
    169: "FIB lookup failed",
    170: "Tunnel traffic from a pod",
    171: "Invalid identity",
    172: "Unknown sender",
    181: "Policy denied by a deny rule",
    196: "TTL exceeded",
    203: "No policy program",
}

DIRECTIONS = {1: "INGRESS", 2: "EGRESS", 3: "SERVICE"}

FILES = {
    1: "from_container.bpf.c",
    2: "from_overlay.bpf.c",
    3: "from_host.bpf.c",
    4: "parse.h",
    5: "conntrack.h",
    6: "service.h",
    7: "nat.h",
    8: "icmp_error.h",
    9: "forward.h",
    10: "deliver.h",
    11: "neighbour.h",
    12: "act.h",
}


def reason(number: int) -> str:
    """Why a packet was dropped, or that it was not."""
    return REASONS.get(number, f"Unknown ({number})")


def direction(number: int) -> str:
    """Which way it went."""
    return DIRECTIONS.get(number, "UNKNOWN")


def file(number: int) -> str:
    """Where in the code it was counted; empty for none."""
    return FILES.get(number, str(number) if number else "")

"""Words for the numbers in the datapath's counters. Pure."""

from wire.bpf.layouts import DropReason, SourceFile, TrafficDirection

R = DropReason
_REASONS: dict[int, str] = {
    R.REASON_FORWARDED: "Forwarded",
    R.DROP_INVALID_SOURCE_IP: "Invalid source ip",
    R.DROP_POLICY_DENIED: "Policy denied",
    R.DROP_MALFORMED: "Malformed packet",
    R.DROP_CT_TRUNCATED: "CT: truncated header",
    R.DROP_FRAGMENTATION_NEEDED: "Fragmentation needed",
    R.DROP_CT_UNKNOWN_L4: "CT: unknown L4 protocol",
    R.DROP_UNSUPPORTED_L3: "Unsupported L3 protocol",
    R.DROP_MISSED_TAIL_CALL: "Missed tail call",
    R.DROP_WRITE_FAILED: "Error writing to packet",
    R.DROP_UNKNOWN_L4: "Unknown L4 protocol",
    R.DROP_NO_TUNNEL_KEY: "No tunnel key",
    R.DROP_UNKNOWN_RECEIVER: "Unknown L3 target address",
    R.DROP_UNROUTABLE_IP: "Stale or unroutable IP",
    R.DROP_L3_CHECKSUM: "Error correcting L3 checksum",
    R.DROP_L4_CHECKSUM: "Error correcting L4 checksum",
    R.DROP_CT_INSERT_FAILED: "CT: insertion failed",
    R.DROP_INVALID_EXTENSION_HEADER: "Invalid IPv6 extension header",
    R.DROP_FRAGMENT_UNSUPPORTED: "IP fragments not supported",
    R.DROP_NO_BACKEND: "Service without backend",
    R.DROP_UNSUPPORTED_SERVICE_PROTOCOL: "Unsupported service protocol",
    R.DROP_NO_TUNNEL_ENDPOINT: "No tunnel endpoint",
    R.DROP_HOST_UNREACHABLE: "Host unreachable",
    R.DROP_UNSUPPORTED_L2: "Unsupported L2 protocol",
    R.DROP_FIB_LOOKUP_FAILED: "FIB lookup failed",
    R.DROP_TUNNEL_FROM_POD: "Tunnel traffic from a pod",
    R.DROP_INVALID_IDENTITY: "Invalid identity",
    R.DROP_UNKNOWN_SENDER: "Unknown sender",
    R.DROP_FIRST_FRAGMENT_UNKNOWN: "First fragment not found",
    R.DROP_POLICY_DENY_RULE: "Policy denied by deny rule",
    R.DROP_NO_NODE_ID: "No node ID found",
    R.DROP_UNENCRYPTED: "Traffic is unencrypted",
    R.DROP_TTL_EXCEEDED: "TTL exceeded",
    R.DROP_NO_POLICY_PROGRAM: "No policy program",
}


def reason(number: int) -> str:
    """Why a packet was dropped, or that it was not."""
    return _REASONS.get(number) or f"Unknown ({number})"


def direction(number: int) -> str:
    """``INGRESS``, ``EGRESS`` or ``SERVICE``."""
    try:
        return TrafficDirection(number).name.removeprefix("DIRECTION_")
    except ValueError:
        return "UNKNOWN"


def file(number: int) -> str:
    """The part of the programs that counted; empty for none."""
    try:
        name = SourceFile(number).name.removeprefix("SOURCE_")
    except ValueError:
        return str(number)
    return "" if name == "NONE" else name.lower()

"""What ICMP messages are called in a flow's summary. Pure."""

_UNREACHABLE4 = (
    "Net",
    "Host",
    "Protocol",
    "Port",
    "FragmentationNeeded",
    "SourceRoutingFailed",
    "NetUnknown",
    "HostUnknown",
    "SourceIsolated",
    "NetAdminProhibited",
    "HostAdminProhibited",
    "NetTOS",
    "HostTOS",
    "CommAdminProhibited",
    "HostPrecedence",
    "PrecedenceCutoff",
)
_UNREACHABLE6 = (
    "NoRouteToDst",
    "AdminProhibited",
    "BeyondScopeOfSrc",
    "AddressUnreachable",
    "PortUnreachable",
    "SrcAddressFailedPolicy",
    "RejectRouteToDst",
)

# Type: name, and the names of its codes if it has any.
ICMP4: dict[int, tuple[str, tuple[str, ...]]] = {
    0: ("EchoReply", ()),
    3: ("DestinationUnreachable", _UNREACHABLE4),
    4: ("SourceQuench", ()),
    5: ("Redirect", ("Net", "Host", "TOS+Net", "TOS+Host")),
    8: ("EchoRequest", ()),
    9: ("RouterAdvertisement", ()),
    10: ("RouterSolicitation", ()),
    11: ("TimeExceeded", ("TTLExceeded", "FragmentReassemblyTimeExceeded")),
    12: ("ParameterProblem", ("PointerIndicatesError", "MissingOption", "BadLength")),
    13: ("TimestampRequest", ()),
    14: ("TimestampReply", ()),
    15: ("InfoRequest", ()),
    16: ("InfoReply", ()),
    17: ("AddressMaskRequest", ()),
    18: ("AddressMaskReply", ()),
}
ICMP6: dict[int, tuple[str, tuple[str, ...]]] = {
    1: ("DestinationUnreachable", _UNREACHABLE6),
    2: ("PacketTooBig", ()),
    3: ("TimeExceeded", ("HopLimitExceeded", "FragmentReassemblyTimeExceeded")),
    4: (
        "ParameterProblem",
        ("ErroneousHeaderField", "UnrecognizedNextHeader", "UnrecognizedIPv6Option"),
    ),
    128: ("EchoRequest", ()),
    129: ("EchoReply", ()),
    133: ("RouterSolicitation", ()),
    134: ("RouterAdvertisement", ()),
    135: ("NeighborSolicitation", ()),
    136: ("NeighborAdvertisement", ()),
    137: ("Redirect", ()),
}


def icmp_text(version: int, kind: int, code: int) -> str:
    """``EchoRequest``, ``DestinationUnreachable(Port)``; what has no name keeps its numbers."""
    found = (ICMP4 if version == 4 else ICMP6).get(kind)
    if found is None:
        return f"{kind}({code})"
    name, codes = found
    if not codes:
        return name if code == 0 else f"{name}(Code: {code})"
    return f"{name}({codes[code]})" if code < len(codes) else f"{name}(Code: {code})"

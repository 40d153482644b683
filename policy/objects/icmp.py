"""Names of ICMP types, by family. Pure."""

from policy.objects.notes import Node
from policy.rules import PortRange

ICMP, ICMPV6 = 1, 58
MAX_FIELDS = 40

V4 = {
    "EchoReply": 0,
    "DestinationUnreachable": 3,
    "Redirect": 5,
    "Echo": 8,
    "EchoRequest": 8,
    "RouterAdvertisement": 9,
    "RouterSelection": 10,
    "TimeExceeded": 11,
    "ParameterProblem": 12,
    "Timestamp": 13,
    "TimestampReply": 14,
    "Photuris": 40,
    "ExtendedEchoRequest": 42,
    "ExtendedEchoReply": 43,
}
V6 = {
    "DestinationUnreachable": 1,
    "PacketTooBig": 2,
    "TimeExceeded": 3,
    "ParameterProblem": 4,
    "EchoRequest": 128,
    "EchoReply": 129,
    "MulticastListenerQuery": 130,
    "MulticastListenerReport": 131,
    "MulticastListenerDone": 132,
    "RouterSolicitation": 133,
    "RouterAdvertisement": 134,
    "NeighborSolicitation": 135,
    "NeighborAdvertisement": 136,
    "RedirectMessage": 137,
    "RouterRenumbering": 138,
    "ICMPNodeInformationQuery": 139,
    "ICMPNodeInformationResponse": 140,
    "InverseNeighborDiscoverySolicitation": 141,
    "InverseNeighborDiscoveryAdvertisement": 142,
    "HomeAgentAddressDiscoveryRequest": 144,
    "HomeAgentAddressDiscoveryReply": 145,
    "MobilePrefixSolicitation": 146,
    "MobilePrefixAdvertisement": 147,
    "DuplicateAddressRequestCodeSuffix": 157,
    "DuplicateAddressConfirmationCodeSuffix": 158,
    "ExtendedEchoRequest": 160,
    "ExtendedEchoReply": 161,
}
FAMILIES = {"IPv4": (ICMP, V4), "IPv6": (ICMPV6, V6)}


def types(node: Node) -> tuple[PortRange, ...]:
    """``icmps``: the types, each in the place of a port."""
    out: list[PortRange] = []
    for item in node.items():
        found = item.fields(("fields",))
        fields = found["fields"].items() if "fields" in found else []
        if len(fields) > MAX_FIELDS:
            found["fields"].error(f"{len(fields)} fields: at most {MAX_FIELDS}; use several items")
        out += [r for f in fields if (r := _type(f)) is not None]
    return tuple(out)


def _type(node: Node) -> PortRange | None:
    found = node.fields(("family", "type"))
    family = found["family"].one_of(FAMILIES) if "family" in found else "IPv4"
    if "type" not in found:
        node.error("type is missing")
        return None
    if not family:
        return None
    protocol, names = FAMILIES[family]
    number = _number(found["type"], names, family)
    if number is None:
        return None
    if number == 0:
        # As the map of Cilium has it: zero in the place of the port is any.
        found["type"].warn(f"type 0 opens or denies every ICMP type of {family}")
        return PortRange(protocol)
    return PortRange(protocol, number, number)


def _number(node: Node, names: dict[str, int], family: str) -> int | None:
    if not isinstance(node.value, str):
        return node.number(0, 255)
    text = node.value
    if text.isascii() and text.isdigit() and len(text) <= 3 and int(text) <= 255:
        return int(text)
    if text not in names:
        node.error(f"{text[:80]!r} is no ICMP type of {family}: use a number or a name like Echo")
        return None
    return names[text]

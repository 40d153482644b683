"""``toPorts``: items of ports with what is ruled above them. Pure."""

from dataclasses import dataclass

from model.policy_map import Direction
from policy.objects import layer7, ports
from policy.objects.notes import Node
from policy.rules import PortRange

DENY_FIELDS = ("ports",)
ALLOW_FIELDS = ("ports", "rules", "terminatingTLS", "originatingTLS", "serverNames", "listener")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rule stands, as far as its port items have to know."""

    direction: Direction
    deny: bool
    on_nodes: bool
    l7_proxy: bool


@dataclass(frozen=True, slots=True)
class Item:
    """The ports of one item, and which of its fields are not enforced."""

    ports: tuple[PortRange, ...]
    unenforced: str = ""


def read(node: Node, place: Place) -> Item:
    """One item."""
    found = node.fields(DENY_FIELDS if place.deny else ALLOW_FIELDS)
    ranges = ports.read(found["ports"]) if "ports" in found else ()
    if not ranges and ("ports" not in found or found["ports"].value == []):
        node.warn("names no ports: it matches nothing")
    kind = layer7.rules(found["rules"]) if "rules" in found else ""
    if kind:
        _check(found["rules"], kind, ranges, place)
    return Item(ranges, ", ".join(_unenforced(found, kind, place)))


def _unenforced(found: dict[str, Node], kind: str, place: Place) -> list[str]:
    names = []
    if kind:
        names.append(f"{kind} rules")
        found["rules"].unenforced(f"{kind} rules: traffic to these ports is denied")
    for name in ("terminatingTLS", "originatingTLS"):
        if name in found:
            layer7.tls(found[name])
            names.append(name)
    if "serverNames" in found:
        given = found["serverNames"].texts()
        if not all(given):
            found["serverNames"].error("has an empty name")
        if kind and "terminatingTLS" not in found:
            found["serverNames"].error(f"with {kind} rules needs terminatingTLS")
        names += ["serverNames"] if given else []
    if "listener" in found:
        layer7.listener(found["listener"])
        if place.direction is Direction.INGRESS:
            found["listener"].error("a listener is not allowed on ingress")
        if kind:
            found["listener"].error(f"cannot be combined with {kind} rules")
        names.append("listener")
    for name in names:
        if name in found:
            found[name].unenforced(f"{name}: traffic to these ports is denied")
    return names


def _check(node: Node, kind: str, ranges: tuple[PortRange, ...], place: Place) -> None:
    ingress = place.direction is Direction.INGRESS
    if not place.l7_proxy:
        node.error(f"{kind} rules need the setting enable-l7-proxy")
    if place.on_nodes and ingress:
        node.error("L7 policy is not supported on host ingress yet")
    elif place.on_nodes and kind != "dns":
        node.error("L7 policy for egress of hosts is supported for dns only")
    if kind == "dns":
        if ingress:
            node.error("dns rules are allowed on egress only")
        if any(r.first < r.last and not (r.first == 0 and r.last == 65535) for r in ranges):
            node.error("dns rules cannot be on a range of ports")
    elif any(r.protocol != ports.TCP for r in ranges):
        node.error(f"{kind} rules need protocol TCP on every port")
    if any(r.first == 0 and not r.name for r in ranges):
        node.error(f"{kind} rules cannot be on port 0, which is all ports")

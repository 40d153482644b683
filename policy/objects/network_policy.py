"""NetworkPolicy of Kubernetes, converted as Cilium converts it. Pure."""

from model.policy_map import Direction
from policy.objects import cidr, ports
from policy.objects.cilium import Spec
from policy.objects.notes import Node
from policy.objects.selectors import Scope, in_namespace, kubernetes_key, parse
from policy.rules import DirectionRule, Peer, PortRange, Selector

_TYPES = ("Ingress", "Egress")
_PEER_LIST = {Direction.INGRESS: "from", Direction.EGRESS: "to"}


def read(node: Node, scope: Scope) -> Spec:
    """The spec; what is wrong is noted."""
    found = node.fields(("podSelector", "policyTypes", "ingress", "egress"))
    own = parse(found["podSelector"], kubernetes_key) if "podSelector" in found else Selector()
    subject = Selector((in_namespace(scope.namespace), *own.requirements))
    types = _types(found.get("policyTypes"))
    rules: list[DirectionRule] = []
    ruled: set[Direction] = set()
    for direction in Direction:
        name = direction.name.lower()
        items = found[name].items() if name in found else []
        rules += [_rule(item, direction, scope) for item in items]
        if items or _isolated(direction, types):
            ruled.add(direction)
        if items and types and name.capitalize() not in types:
            found[name].warn(f"is enforced although policyTypes does not name {name.capitalize()}")
    return Spec(subject, False, tuple(rules), frozenset(ruled))


def _types(node: Node | None) -> tuple[str, ...]:
    found = [item.one_of(_TYPES) for item in node.items()] if node else []
    return tuple(name for name in found if name)


def _isolated(direction: Direction, types: tuple[str, ...]) -> bool:
    """Default deny of a direction that has no rules."""
    if direction is Direction.INGRESS:
        return "Ingress" in types or "Egress" not in types
    return "Egress" in types


def _rule(node: Node, direction: Direction, scope: Scope) -> DirectionRule:
    name = _PEER_LIST[direction]
    found = node.fields((name, "ports"))
    items = found["ports"].items() if "ports" in found else []
    ranges = tuple(r for item in items for r in _port(item)) if items else None
    return DirectionRule(direction, peers=_peers(found.get(name), scope, bool(items)), ports=ranges)


def _peers(node: Node | None, scope: Scope, with_ports: bool) -> tuple[Peer, ...] | None:
    """``None`` for everybody: there is no list, or nothing in it."""
    items = node.items() if node else []
    found: list[Peer] = []
    anybody = not items
    for item in items:
        peer = _peer(item, scope)
        if peer is not None:
            found.append(peer)
        elif item.value == {}:
            item.warn("names nobody: an API server refuses it")
            anybody = anybody or with_ports
    return None if anybody else tuple(found)


def _peer(node: Node, scope: Scope) -> Peer | None:
    found = node.fields(("podSelector", "namespaceSelector", "ipBlock"))
    if "ipBlock" not in found:
        if not found:
            return None
        return scope.pods(found.get("podSelector"), found.get("namespaceSelector"))
    if len(found) > 1:
        node.error("ipBlock cannot be combined with podSelector or namespaceSelector")
        return None
    inner = found["ipBlock"].fields(("cidr", "except"))
    if "cidr" not in inner:
        found["ipBlock"].error("cidr is missing")
        return None
    return cidr.block(inner["cidr"], inner.get("except"))


def _port(node: Node) -> tuple[PortRange, ...]:
    found = node.fields(("port", "endPort", "protocol"))
    protocol = found["protocol"].one_of(("TCP", "UDP", "SCTP")) if "protocol" in found else "TCP"
    if not protocol:
        return ()
    end = found["endPort"].number(0, ports.MAX_PORT) if "endPort" in found else None
    protocols = ports.PROTOCOLS[protocol]
    if "port" not in found:
        if end is not None:
            node.error("endPort needs port")
        elif "protocol" not in found:
            node.warn("is every port of TCP, and nothing of UDP and SCTP")
        return tuple(PortRange(p) for p in protocols)
    given = found["port"]
    if isinstance(given.value, str):
        if ports.is_name(given.value) and end is not None:
            node.warn("an API server refuses endPort with the name of a port")
        return ports.port(given, given.value, end, protocols)
    value = given.number(0, ports.MAX_PORT)
    return () if value is None else ports.port(given, str(value), end, protocols)

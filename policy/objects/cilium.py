"""CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy: one ``spec`` to one rule. Pure."""

from dataclasses import dataclass

from model.policy_map import Direction
from policy.objects import icmp, peers, port_items
from policy.objects.notes import Node
from policy.objects.selectors import Scope, names_init, parse
from policy.rules import DirectionRule, PortRange, Selector

_LISTS = (
    ("ingress", Direction.INGRESS, False),
    ("ingressDeny", Direction.INGRESS, True),
    ("egress", Direction.EGRESS, False),
    ("egressDeny", Direction.EGRESS, True),
)
_FIELDS = (
    "endpointSelector",
    "nodeSelector",
    "enableDefaultDeny",
    "labels",
    "description",
    "log",
    *(name for name, _, _ in _LISTS),
)
ORIGIN_LABELS = "k8s:io.cilium.k8s.policy."
_AUTHENTICATION = ("disabled", "required", "test-always-fail")
# Who a rule is about was not said, and no ports either: it says nothing.
_NOBODY: tuple[Selector, ...] = ()


@dataclass(frozen=True, slots=True)
class Spec:
    """What one spec says. ``subject`` is all that may be meant, when it was not readable."""

    subject: Selector
    on_nodes: bool
    rules: tuple[DirectionRule, ...]
    default_deny: frozenset[Direction]
    labels: tuple[str, ...] = ()
    log: str = ""


def read(node: Node, scope: Scope) -> Spec:
    """One spec; what is wrong is noted."""
    found = node.fields(_FIELDS)
    subject, on_nodes = _subject(node, found, scope)
    scope = Scope(scope.namespace, scope.settings, names_init(subject))
    rules: list[DirectionRule] = []
    ruled: set[Direction] = set()
    for name, direction, deny in _LISTS:
        place = port_items.Place(direction, deny, on_nodes, scope.settings.l7_proxy)
        items = found[name].items() if name in found else []
        if items:
            ruled.add(direction)
        for item in items:
            rules += _rule(item, place, scope)
    switched = found if scope.settings.non_default_deny else {}
    default_deny = frozenset(d for d in ruled if _enforced(switched, d))
    _warn(node, found, ruled, default_deny)
    if "description" in found:
        found["description"].text()
    log = ""
    if "log" in found and "value" in (said := found["log"].fields(("value",))):
        log = said["value"].text()
    labels = _labels(found.get("labels"))
    return Spec(subject, on_nodes, tuple(rules), default_deny, labels, log)


def _subject(node: Node, found: dict[str, Node], scope: Scope) -> tuple[Selector, bool]:
    ours, nodes = found.get("endpointSelector"), found.get("nodeSelector")
    if nodes and scope.namespace:
        nodes.error("rule cannot have nodeSelector: use a CiliumClusterwideNetworkPolicy")
    elif (ours is None) == (nodes is None):
        node.error("needs exactly one of endpointSelector, nodeSelector")
    if nodes and not ours and not scope.namespace:
        return parse(nodes), True
    if ours:
        return scope.subject(ours), False
    return scope.subject(Node({}, node.path, node.notes)), False


def _flags(found: dict[str, Node]) -> dict[str, Node]:
    given = found.get("enableDefaultDeny")
    return given.fields(("ingress", "egress")) if given else {}


def _enforced(found: dict[str, Node], direction: Direction) -> bool:
    given = _flags_quietly(found).get(direction.name.lower())
    return given is not False


def _flags_quietly(found: dict[str, Node]) -> dict[str, object]:
    given = found.get("enableDefaultDeny")
    return given.value if given and isinstance(given.value, dict) else {}


def _warn(
    node: Node, found: dict[str, Node], ruled: set[Direction], default_deny: frozenset[Direction]
) -> None:
    for name, flag in _flags(found).items():
        direction = Direction[name.upper()]
        if flag.flag() and direction not in ruled:
            flag.warn(f"has no effect: there is no rule for {name}")
    for direction in sorted(default_deny):
        name = direction.name.lower()
        if name not in found or found[name].value == []:
            node.warn(
                f"denies only, and so denies all other {name} too: add an allow rule, or set "
                f"enableDefaultDeny.{name} to false"
            )
    if not ruled:
        node.warn("has no rule for any direction: it changes nothing")


def _rule(node: Node, place: port_items.Place, scope: Scope) -> list[DirectionRule]:
    about = peers.fields(place.direction, place.deny)
    known = (*about, "toPorts", "icmps", *(() if place.deny else ("authentication",)))
    found = node.fields(known)
    who = peers.read(node, found, place.direction, scope)
    items = _port_items(node, found, place)
    unenforced = _authentication(found.get("authentication"))
    rules = []
    if who.required:
        rules.append(DirectionRule(place.direction, True, who.required))
    if who.who is None and items is None:
        node.warn("names nobody and no ports: it matches nothing")
        return [*rules, DirectionRule(place.direction, place.deny, _NOBODY)]
    for item in _together(items):
        ranges, reasons = (None, "") if item is None else (item.ports, item.unenforced)
        reason = ", ".join(r for r in (who.unenforced, unenforced, reasons) if r)
        literal = who.or_anybody and ranges is not None and not place.deny
        said = DirectionRule(place.direction, place.deny, who.who, ranges, reason, literal)
        rules.append(said)
    return rules


def _together(items: list[port_items.Item] | None) -> list[port_items.Item | None]:
    """Items that say nothing but ports are one."""
    if items is None:
        return [None]
    plain: tuple[PortRange, ...] = ()
    for item in items:
        plain += () if item.unenforced else item.ports
    special = [item for item in items if item.unenforced]
    return [port_items.Item(plain), *special] if plain or not special else [*special]


def _port_items(
    node: Node, found: dict[str, Node], place: port_items.Place
) -> list[port_items.Item] | None:
    """``None`` for no restriction."""
    given, types = found.get("toPorts"), found.get("icmps")
    read = [port_items.read(item, place) for item in given.items()] if given else []
    ranges = icmp.types(types) if types else ()
    if given and given.value and types and types.value:
        node.error("icmps and toPorts cannot be combined: write a rule for each")
    if types and types.value:
        return [port_items.Item(ranges)]
    return read or None


def _authentication(node: Node | None) -> str:
    if node is None:
        return ""
    found = node.fields(("mode",))
    if "mode" not in found:
        node.error("mode is missing")
        return ""
    mode = found["mode"].one_of(_AUTHENTICATION)
    if mode in ("", "disabled"):
        return ""
    node.unenforced(f"authentication {mode}: what needs it is denied")
    return f"authentication {mode}"


def _labels(node: Node | None) -> tuple[str, ...]:
    """Those that were written; what says where a rule comes from is not theirs to say."""
    out = []
    for item in node.items() if node else ():
        found = item.fields(("key", "value", "source"))
        if "key" not in found:
            item.error("key is missing")
            continue
        value = found["value"].text() if "value" in found else ""
        source = found["source"].text() if "source" in found else "unspec"
        text = f"{source}:{found['key'].text()}" + (f"={value}" if value else "")
        if text.startswith(ORIGIN_LABELS):
            found["key"].warn("is left out: it says which object a rule comes from")
        else:
            out.append(text)
    return tuple(out)

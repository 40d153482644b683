"""The peers of one rule: who it is about. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field

from model.policy_map import Direction
from policy.objects import cidr, entities
from policy.objects.layer7 import names
from policy.objects.notes import Node
from policy.objects.selectors import REMOTE_NODE, Scope, complement, parse
from policy.rules import Peer, Selector, ServicePeer

PREFIX = {Direction.INGRESS: "from", Direction.EGRESS: "to"}
COMMON = ("Endpoints", "CIDR", "CIDRSet", "Entities", "Nodes", "Groups", "Requires")
_EMPTY = "{} is empty, not absent: it names nobody"
_ALONE = ("Endpoints", "CIDR", "CIDRSet", "Entities", "Nodes", "Groups", "Services", "FQDNs")


@dataclass(frozen=True, slots=True)
class Peers:
    """``who`` None: nobody was named. ``required``: whom ``from/toRequires`` shuts out.

    ``or_anybody``: if they turn out to be nobody, the ports are open to anybody.
    """

    who: tuple[Peer, ...] | None
    or_anybody: bool = False
    unenforced: str = ""
    required: tuple[Peer, ...] = ()


@dataclass(slots=True)
class _Gathered:
    lists: list[tuple[Peer, ...]] = field(default_factory=list)
    unenforced: list[str] = field(default_factory=list)
    required: list[Peer] = field(default_factory=list)


def fields(direction: Direction, deny: bool) -> tuple[str, ...]:
    """Names of the fields that are about peers."""
    known = [PREFIX[direction] + name for name in COMMON]
    if direction is Direction.EGRESS:
        known += ["toServices"] if deny else ["toServices", "toFQDNs"]
    return tuple(known)


def read(node: Node, found: dict[str, Node], direction: Direction, scope: Scope) -> Peers:
    """All peers of a rule. Only one kind of them may be used in a rule."""
    prefix, gathered = PREFIX[direction], _Gathered()
    for name, reader in _READERS.items():
        if (given := found.get(prefix + name)) is not None:
            if given.value == []:
                node.warn(_EMPTY.format(prefix + name))
            reader(given, scope, gathered)
    used = [prefix + n for n in _ALONE if (g := found.get(prefix + n)) is not None and g.value]
    if len(used) > 1:
        node.error(f"combining {used[0]} and {used[1]} is not supported yet: write a rule for each")
    who = tuple(p for peers in gathered.lists for p in peers) if gathered.lists else None
    services = used == ["toServices"] and scope.settings.upstream_readings
    return Peers(who, services, ", ".join(gathered.unenforced), tuple(gathered.required))


def _endpoints(node: Node, scope: Scope, out: _Gathered) -> None:
    out.lists.append(tuple(scope.peer(item) for item in node.items()))


def _cidr(node: Node, scope: Scope, out: _Gathered) -> None:
    out.lists.append(cidr.plain(node))


def _cidr_set(node: Node, scope: Scope, out: _Gathered) -> None:
    out.lists.append(cidr.sets(node))


def _entities(node: Node, scope: Scope, out: _Gathered) -> None:
    found = [entities.selectors(item, scope.settings.cluster) for item in node.items()]
    out.lists.append(tuple(selector for each in found for selector in each))


def _nodes(node: Node, scope: Scope, out: _Gathered) -> None:
    items = node.items()
    if items and not scope.settings.node_selectors:
        node.error("needs the setting enable-node-selector-labels")
    selectors = [Selector((*parse(item).requirements, REMOTE_NODE)) for item in items]
    out.lists.append(tuple(selectors))


def _groups(node: Node, scope: Scope, out: _Gathered) -> None:
    items = node.items()
    aws = ("labels", "securityGroupsIds", "securityGroupsNames", "region")
    for item in items:
        if (cloud := item.fields(("aws",)).get("aws")) is not None:
            cloud.fields(aws)
    if items:
        node.unenforced("groups of clouds are not resolved: the rule is about nobody")
        out.unenforced.append(node.path.rpartition(".")[2])
    out.lists.append(())


def _requires(node: Node, scope: Scope, out: _Gathered) -> None:
    """A requirement is no peer: it shuts out the pods that do not meet it."""
    items = node.items()
    if items:
        node.warn("is deprecated: put the labels into the endpoint selectors themselves")
    for item in items:
        out.required += complement(scope.peer(item, requirement=True))
    if not scope.settings.upstream_readings:
        out.lists.append(())


def _services(node: Node, scope: Scope, out: _Gathered) -> None:
    items = node.items()
    if not items and scope.settings.upstream_readings:
        return
    out.lists.append(tuple(p for item in items if (p := _service(item)) is not None))


def _service(node: Node) -> ServicePeer | None:
    found = node.fields(("k8sService", "k8sServiceSelector"))
    if len(found) != 1:
        node.error("needs exactly one of k8sService, k8sServiceSelector")
        return None
    if (named := found.get("k8sService")) is not None:
        inner = named.fields(("serviceName", "namespace"))
        name, namespace = _text(inner.get("serviceName")), _text(inner.get("namespace"))
        if not name:
            named.error("serviceName is missing")
            return None
        return ServicePeer(namespace, name)
    chosen = found["k8sServiceSelector"]
    inner = chosen.fields(("selector", "namespace"))
    if "selector" not in inner:
        chosen.error("selector is missing")
        return None
    return ServicePeer(_text(inner.get("namespace")), selector=parse(inner["selector"]))


def _text(node: Node | None) -> str:
    return node.text() if node else ""


def _fqdns(node: Node, scope: Scope, out: _Gathered) -> None:
    items = node.items()
    if not items:
        if not scope.settings.upstream_readings:
            out.lists.append(())
        return
    for item in items:
        names(item)
    node.unenforced("names are not resolved yet: the rule is about nobody")
    out.unenforced.append("toFQDNs")
    out.lists.append(())


_READERS: dict[str, Callable[[Node, Scope, _Gathered], None]] = {
    "Endpoints": _endpoints,
    "CIDR": _cidr,
    "CIDRSet": _cidr_set,
    "Entities": _entities,
    "Nodes": _nodes,
    "Groups": _groups,
    "Requires": _requires,
    "Services": _services,
    "FQDNs": _fqdns,
}

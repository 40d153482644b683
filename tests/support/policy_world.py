"""A small world of identities, and what a reading of policy objects allows in it.

Every packet is judged by walking all rules: nothing is computed before, nothing is merged. Named
ports are those of the web pod; services do not exist.
"""

from collections.abc import Sequence

from model.address import parse_prefix
from model.policy_map import Direction
from policy.objects.read import Kind, Reading, Source, read
from policy.objects.settings import Settings
from policy.rules import (
    CidrPeer,
    DirectionRule,
    Operator,
    Peer,
    PolicyRule,
    PortRange,
    Requirement,
    Selector,
)

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132, "ICMP": 1, "ICMPv6": 58}
NAMED = {"http": (6, 8080)}


USUAL = Settings()


def _pod(name: str, namespace: str = "default", cluster: str = "default", **more: str) -> set[str]:
    return {
        f"k8s:io.kubernetes.pod.namespace={namespace}",
        f"k8s:io.cilium.k8s.policy.cluster={cluster}",
        f"k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name={namespace}",
        *(f"k8s:{k}={v}" for k, v in ({"app": name} | more).items()),
    }


# The peers of the reference's cases by their short names.
PEERS: dict[str, set[str]] = {
    "W": _pod("web"),
    "C": _pod("client"),
    "O": _pod("other"),
    "X": _pod("client", "other") | {"k8s:io.cilium.k8s.namespace.labels.team=x"},
    "D": {
        "k8s:io.kubernetes.pod.namespace=kube-system",
        "k8s:k8s-app=kube-dns",
        "k8s:io.cilium.k8s.policy.cluster=default",
    },
    "R": _pod("client", cluster="c2"),
    "H": {"reserved:host="},
    "N": {"reserved:remote-node="},
    "K": {"reserved:remote-node=", "reserved:kube-apiserver="},
    "KX": {"reserved:kube-apiserver=", "reserved:world=", "cidr:203.0.113.7/32="},
    "Wd": {"reserved:world="},
    "P3": {"reserved:world=", "cidr:192.0.2.3/32="},
    "P24": {"reserved:world=", "cidr:192.0.2.0/24="},
    "T8": {"reserved:world=", "cidr:10.0.0.0/8="},
    "T12": {"reserved:world=", "cidr:10.96.0.0/12="},
    "T16": {"reserved:world=", "cidr:10.97.0.0/16="},
    "health": {"reserved:health="},
    "init": {"reserved:init="},
    "V6": {"reserved:world="},
}


def _values(labels: set[str], requirement: Requirement) -> list[str]:
    found = []
    for label in labels:
        source, _, rest = label.partition(":")
        key, _, value = rest.partition("=")
        if key == requirement.key and requirement.source in ("any", source):
            found.append(value)
    return found


def selects(selector: Selector, labels: set[str]) -> bool:
    """All requirements hold."""

    def holds(requirement: Requirement) -> bool:
        values = _values(labels, requirement)
        match requirement.operator:
            case Operator.IN:
                return any(v in requirement.values for v in values)
            case Operator.NOT_IN:
                return not any(v in requirement.values for v in values)
            case Operator.EXISTS:
                return bool(values)
            case Operator.DOES_NOT_EXIST:
                return not values

    return all(holds(r) for r in selector.requirements)


def is_peer(peer: Peer, labels: set[str]) -> bool:
    """Whether one peer of a rule is that identity."""
    if isinstance(peer, Selector):
        return selects(peer, labels)
    if not isinstance(peer, CidrPeer) or "reserved:world=" not in labels:
        return False
    cidrs = [label[5:-1] for label in labels if label.startswith("cidr:")]
    own = [parse_prefix(c) for c in cidrs] or [parse_prefix("0.0.0.0/0")]
    return any(peer.prefix.covers(o) for o in own) and not any(
        hole.covers(o) for hole in peer.excepts for o in own
    )


def _on_port(ranges: Sequence[PortRange] | None, protocol: int, port: int) -> bool:
    if ranges is None:
        return True
    return any(
        r.protocol == protocol
        and ((protocol, port) == NAMED.get(r.name) if r.name else r.first <= port <= r.last)
        for r in ranges
    )


def _hit(rule: DirectionRule, labels: set[str], protocol: int, port: int) -> bool:
    who = rule.peers is None or any(is_peer(p, labels) for p in rule.peers)
    return who and _on_port(rule.ports, protocol, port)


def verdict(
    rules: Sequence[PolicyRule], subject: str, direction: Direction, peer: str, packet: str
) -> str:
    """``allow``, ``deny`` (by a deny rule) or ``drop`` (by default deny), for ``80/TCP``."""
    number, _, name = packet.partition("/")
    protocol, port, labels = PROTOCOLS[name or "TCP"], int(number), PEERS[peer]
    mine = [r for r in rules if not r.on_nodes and selects(r.subject, PEERS[subject])]
    if any(r.closed for r in mine):
        return "closed"
    hits = [
        d
        for r in mine
        for d in r.rules
        if d.direction is direction and _hit(d, labels, protocol, port)
    ]
    if any(d.deny for d in hits):
        return "deny"
    if direction is Direction.INGRESS and peer == "H":
        return "allow"
    if any(not d.unenforced for d in hits):
        return "allow"
    return "drop" if any(direction in r.default_deny for r in mine) else "allow"


def cnp(spec: object, settings: Settings = USUAL, namespace: str = "default") -> Reading:
    """A CiliumNetworkPolicy."""
    return read(Source(Kind.CILIUM, namespace, "p", spec), settings)


def ccnp(spec: object, settings: Settings = USUAL) -> Reading:
    """A CiliumClusterwideNetworkPolicy."""
    return read(Source(Kind.CLUSTERWIDE, "", "p", spec), settings)


def knp(spec: object, settings: Settings = USUAL) -> Reading:
    """A NetworkPolicy."""
    return read(Source(Kind.NETWORK_POLICY, "default", "p", spec), settings)

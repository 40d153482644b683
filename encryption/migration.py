"""Change of the kind of encryption on a live mesh: what nodes are set to, and who may move. Pure.

A node is set to a *stance*: the kind it sends with, and perhaps a second kind that it accepts. A
mesh goes from one kind to another by neighbouring stances, of which any two get along: first every
node accepts the new kind too (*prepare*), then every node sends with it and still accepts the old
one (*switch*), then the old one goes (*retire*). Between two steps stands a proof, of what agents
say of themselves and of each other. Taking a migration back is going to the other kind, by the same
rules. Clear text is a kind that every node always accepts. See docs/adr/0198.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from encryption import ipsec_keys
from model.node import Node

PROVEN_S = 180.0  # so long ago both ends have answered one another at most
IPSEC_KEY_ANNOTATION = "network.isthmus.io/ipsec-key"  # of nodes that accept IPsec, and send not


class Kind(Enum):
    """With what packets between nodes are encrypted."""

    OFF = "off"
    WIREGUARD = "wireguard"
    IPSEC = "ipsec"


@dataclass(frozen=True, slots=True)
class Stance:
    """What a node is set to."""

    sends: Kind
    accepts: Kind = Kind.OFF  # besides; OFF: nothing

    @property
    def kinds(self) -> frozenset[Kind]:
        """What it can decrypt."""
        return frozenset({self.sends, self.accepts}) - {Kind.OFF}

    def __str__(self) -> str:
        also = f", accepts {self.accepts.value} too" if self.accepts is not Kind.OFF else ""
        return f"sends {self.sends.value}{also}"


def ipsec_key(node: Node) -> int:
    """The key of IPsec that a node receives with; 0: none that could be one."""
    text = node.annotations.get(IPSEC_KEY_ANNOTATION, "")
    number = int(text) if text.isascii() and text.isdigit() else node.encryption_key
    return number if number in ipsec_keys.KEY_IDS else 0


def received_by(node: Node) -> frozenset[Kind]:
    """What a node says it can decrypt."""
    found = {Kind.WIREGUARD} if node.wireguard_public_key else set()
    return frozenset(found | ({Kind.IPSEC} if ipsec_key(node) else set()))


def sent_with(stance: Stance, received: Collection[Kind]) -> Kind:
    """With what a node of this stance sends to one that can decrypt ``received``.

    Where there is no common kind WireGuard has no peer, and what is sent is dropped.
    """
    if stance.sends is Kind.OFF:
        return Kind.OFF
    for kind in (stance.sends, stance.accepts):
        if kind in received:
            return kind
    return Kind.WIREGUARD if Kind.WIREGUARD in stance.kinds else Kind.OFF


def next_stance(now: Stance, target: Kind) -> Stance | None:
    """One step towards sending with ``target`` and nothing else; ``None``: there already."""
    if now.sends is target:
        return None if now.accepts is Kind.OFF else Stance(target)
    if now.accepts is target:
        return Stance(target, now.sends)
    if now.accepts is Kind.OFF:
        return Stance(now.sends, target)
    return Stance(now.sends)  # a third kind goes first


def distance(now: Stance, target: Kind) -> int:
    """Steps until there."""
    count, at = 0, next_stance(now, target)
    while at is not None:
        count, at = count + 1, next_stance(at, target)
    return count


@dataclass(frozen=True, slots=True)
class Report:
    """What one agent says. Nodes are named CLUSTER/NODE."""

    stance: Stance  # that it runs, whatever its settings say by now
    sends: Mapping[str, Kind] = field(default_factory=dict)  # to every other node that it knows
    # Kinds that cannot be used with a node yet, with the reason.
    unready: Mapping[Kind, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Move:
    """A step that has been proven: these clusters may take it."""

    clusters: tuple[str, ...]
    to: Stance


@dataclass(frozen=True, slots=True)
class Wait:
    """What stands against the next step, a sentence each; empty: nothing, and all is done."""

    reasons: tuple[str, ...]


def decide(
    target: Kind,
    stances: Mapping[str, Stance],
    nodes: Collection[str],
    reports: Mapping[str, Report],
) -> Move | Wait:
    """The next step of a mesh.

    ``stances``: of clusters, as their settings say. ``nodes``: all that exist, heard or not.
    """
    reasons = list(_strays(stances, nodes, reports))
    left = {name: distance(stance, target) for name, stance in stances.items()}
    most = max(left.values(), default=0)
    if not most or reasons:
        return Wait(tuple(reasons))
    # Whoever is farthest goes first: the others took their step on a proof that holds for it.
    now = next(stances[name] for name in sorted(left) if left[name] == most)
    step = next_stance(now, target)
    assert step is not None
    reasons = list(_unproven(now, step, nodes, reports))
    if reasons:
        return Wait(tuple(reasons))
    movers = (name for name in sorted(left) if stances[name] == now)
    return Move(tuple(movers), step)


def _strays(
    stances: Mapping[str, Stance], nodes: Collection[str], reports: Mapping[str, Report]
) -> Iterator[str]:
    """Nodes that are silent, strangers, or not yet what their cluster is set to."""
    for name in sorted(nodes):
        report = reports.get(name)
        if report is None:
            yield f"node {name} does not answer: bring it back, or delete its Node object"
            continue
        wanted = stances[name.partition("/")[0]]
        if report.stance != wanted:
            yield (
                f"node {name} {report.stance}, its settings say {wanted}: "
                "its agent starts again when they reach it"
            )
        for other in sorted(nodes):
            if other != name and other not in report.sends:
                yield f"node {name} has not heard of node {other}"
    strangers = {other for report in reports.values() for other in report.sends} - set(nodes)
    for name in sorted(strangers):
        cluster = name.partition("/")[0]
        if cluster in stances:
            yield f"node {name} is known to others and has no Node object: it is about to go"
        else:
            yield f"cluster {cluster} is in the mesh, too: name its context with --also"


def _unproven(
    now: Stance, step: Stance, nodes: Collection[str], reports: Mapping[str, Report]
) -> Iterator[str]:
    """Pairs that would lose packets by a step."""
    if step.sends is not now.sends and step.sends is not Kind.OFF:
        for name in sorted(nodes):
            for other, why in sorted(reports[name].unready.get(step.sends, {}).items()):
                if other in nodes:
                    yield f"node {name} is not ready for {step.sends.value} with {other}: {why}"
    for kind in now.kinds - step.kinds:
        for name in sorted(nodes):
            for other, used in sorted(reports[name].sends.items()):
                if used is kind:
                    yield f"node {name} still sends to {other} with {kind.value}"

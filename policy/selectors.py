"""Whether labels are selected, and which prefix an identity of addresses stands for. Pure."""

from functools import lru_cache

from model.address import Prefix, parse_prefix
from model.identity import ReservedIdentity
from model.labels import SOURCE_RESERVED, Label, Labels
from policy.rules import ANY_SOURCE, CidrPeer, Operator, Requirement, Selector

SOURCE_CIDR = "cidr"


def holds(requirement: Requirement, labels: Labels) -> bool:
    """Whether the condition is met; a missing key meets `NotIn` and `DoesNotExist`."""
    values = [
        label.value
        for label in labels
        if label.key == requirement.key and requirement.source in (ANY_SOURCE, label.source)
    ]
    match requirement.operator:
        case Operator.IN:
            return any(value in requirement.values for value in values)
        case Operator.NOT_IN:
            return not any(value in requirement.values for value in values)
        case Operator.EXISTS:
            return bool(values)
        case Operator.DOES_NOT_EXIST:
            return not values


def selects(selector: Selector, labels: Labels) -> bool:
    """Whether every condition is met."""
    return all(holds(requirement, labels) for requirement in selector.requirements)


def cidr_labels(prefix: Prefix) -> Labels:
    """The labels of the local identity that stands for the addresses of ``prefix``."""
    text = str(prefix).replace(":", "-")
    if text.startswith("-"):
        text = "0" + text
    text = text.replace("-/", "-0/")
    world = ReservedIdentity.WORLD.name.lower()
    return Labels.of([Label(text, "", SOURCE_CIDR), Label(world, "", SOURCE_RESERVED)])


@lru_cache(maxsize=65536)
def _prefix(text: str) -> Prefix | None:
    try:
        return parse_prefix(text.replace("-", ":"))
    except ValueError:
        return None


def prefix_of(labels: Labels) -> Prefix | None:
    """The prefix of an identity that stands for addresses; ``None``: it stands for something else.

    Pods and nodes have no such label, so no CIDR rule ever selects them.
    """
    return next((_prefix(label.key) for label in labels if label.source == SOURCE_CIDR), None)


def inside(peer: CidrPeer, prefix: Prefix) -> bool:
    """Whether ``prefix`` lies in the peer and in none of its exceptions.

    A family never lies in the other, though ``::/0`` has room for the addresses that are mapped.
    """
    return (
        peer.prefix.version == prefix.version
        and peer.prefix.covers(prefix)
        and not any(hole.covers(prefix) for hole in peer.excepts)
    )

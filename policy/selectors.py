"""Whether labels are selected, and which prefix an identity of addresses stands for. Pure."""

from functools import lru_cache

from model.address import Prefix, parse_prefix
from model.identity import ReservedIdentity
from model.labels import SOURCE_RESERVED, Label, Labels
from policy.rules import ANY_SOURCE, CidrPeer, Operator, Requirement, Selector

SOURCE_CIDR = "cidr"
SOURCE_INNER = "inner"  # of this source: what only prefixes select, and no selector of labels


def holds(requirement: Requirement, labels: Labels) -> bool:
    """Whether the condition is met; a missing key meets `NotIn` and `DoesNotExist`."""
    key, source = requirement.key, requirement.source
    values = [
        label.value
        for label in labels.items
        if label.key == key and source in (ANY_SOURCE, label.source)
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
    world = ReservedIdentity.WORLD.name.lower()
    return Labels.of([_label(prefix, SOURCE_CIDR), Label(world, "", SOURCE_RESERVED)])


def inner_labels(prefix: Prefix) -> Labels:
    """The labels of the number that stands for pods and nodes with addresses in ``prefix``."""
    return Labels.of([_label(prefix, SOURCE_INNER)])


def _label(prefix: Prefix, source: str) -> Label:
    text = str(prefix).replace(":", "-")
    if text.startswith("-"):
        text = "0" + text
    return Label(text.replace("-/", "-0/"), "", source)


@lru_cache(maxsize=65536)
def _prefix(text: str) -> Prefix | None:
    try:
        return parse_prefix(text.replace("-", ":"))
    except ValueError:
        return None


def prefix_of(labels: Labels) -> Prefix | None:
    """The prefix of a number that stands for addresses; ``None``: it stands for something else.

    Pods and nodes have no such label: whether a CIDR rule selects them is a matter of their
    addresses, and of the setting (``policy.known.CidrMode``).
    """
    for label in labels.items:
        if label.source in (SOURCE_CIDR, SOURCE_INNER):
            return _prefix(label.key)
    return None


def is_inner(labels: Labels) -> bool:
    """Whether the number stands for pods and nodes by their addresses, beside their identity."""
    return SOURCE_INNER in [label.source for label in labels.items]


def inside(peer: CidrPeer, prefix: Prefix) -> bool:
    """Whether ``prefix`` lies in the peer and in none of its exceptions.

    A family never lies in the other, though ``::/0`` has room for the addresses that are mapped.
    """
    return (
        peer.prefix.version == prefix.version
        and peer.prefix.covers(prefix)
        and not any(hole.covers(prefix) for hole in peer.excepts)
    )

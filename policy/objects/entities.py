"""Entities as selectors on reserved labels. Pure."""

from model.address import parse_prefix
from model.labels import CLUSTER_LABEL, SOURCE_K8S, SOURCE_RESERVED
from policy.objects.notes import Node
from policy.rules import CidrPeer, Operator, Requirement, Selector

_WORLDS = ("world", "world-ipv4", "world-ipv6")
_FAMILIES = {"world-ipv4": parse_prefix("0.0.0.0/0"), "world-ipv6": parse_prefix("::/0")}
_IN_CLUSTER = (
    "host",
    "remote-node",
    "init",
    "ingress",
    "health",
    "unmanaged",
    "kube-apiserver",
)
ENTITIES = ("all", "cluster", "none", *_WORLDS, *_IN_CLUSTER)


def reserved(name: str) -> Selector:
    """What carries that reserved label; by label, for a number stands for several."""
    return Selector((Requirement(name, Operator.EXISTS, (), SOURCE_RESERVED),))


def selectors(node: Node, cluster: str) -> tuple[Selector | CidrPeer, ...]:
    """Of one entity: one of them matches. An unknown name is noted."""
    name = node.one_of(ENTITIES)
    match name:
        case "" | "none":
            return ()
        case "all":
            return (Selector(),)
        case "world":
            return tuple(reserved(world) for world in _WORLDS)
        case "world-ipv4" | "world-ipv6":
            # With one family the world is called so, and its addresses tell which it is.
            return reserved(name), CidrPeer(_FAMILIES[name])
        case "cluster":
            own = Requirement(CLUSTER_LABEL, Operator.IN, (cluster,), SOURCE_K8S)
            return *(reserved(role) for role in _IN_CLUSTER), Selector((own,))
        case _:
            return (reserved(name),)

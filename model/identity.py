"""Security identities: a number on the wire that stands for a set of labels. Pure."""

from dataclasses import dataclass
from enum import IntEnum
from typing import NewType

from model.labels import Labels

NumericIdentity = NewType("NumericIdentity", int)


class ReservedIdentity(IntEnum):
    """Numbers with a fixed meaning in every cluster; the datapath knows them too."""

    UNKNOWN = 0
    HOST = 1
    WORLD = 2
    UNMANAGED = 3
    HEALTH = 4
    INIT = 5
    REMOTE_NODE = 6
    KUBE_APISERVER = 7
    INGRESS = 8
    WORLD_IPV4 = 9
    WORLD_IPV6 = 10


RESERVED_NAMES = {i: f"reserved:{i.name.lower().replace('_', '-')}" for i in ReservedIdentity}


@dataclass(frozen=True, slots=True)
class Identity:
    """A number with the labels it stands for."""

    id: NumericIdentity
    labels: Labels

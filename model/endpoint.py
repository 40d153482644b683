"""A pod's attachment to this node. Pure."""

from dataclasses import dataclass
from enum import Enum
from typing import NewType

from model.address import Address
from model.identity import NumericIdentity

EndpointId = NewType("EndpointId", int)  # 1..65535, unique on a node


class EndpointState(Enum):
    """Life of an endpoint; words as in CiliumEndpoint."""

    WAITING_FOR_IDENTITY = "waiting-for-identity"
    REGENERATING = "regenerating"
    RESTORING = "restoring"
    READY = "ready"
    DISCONNECTING = "disconnecting"
    DISCONNECTED = "disconnected"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """What the datapath must know of a pod on this node."""

    id: EndpointId
    identity: NumericIdentity
    ifindex: int  # of the host end
    interface: str  # name of the host end, lxc...
    mac: bytes  # of the pod's end, 6 bytes
    host_mac: bytes  # of the host end, 6 bytes
    addresses: tuple[Address, ...]

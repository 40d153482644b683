"""Policy rules after parsing: what every kind of policy object becomes. Pure.

The reader of an object (`wire/k8s/`) has resolved all that depends on the object alone: implied
namespaces, entities, default deny, conversions of NetworkPolicy. What depends on the cluster
(identities, services, CIDR groups, named ports) is left to the computation.
"""

from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from model.address import Prefix
from model.policy_map import Direction

ANY_SOURCE = "any"


class Operator(StrEnum):
    """How a requirement compares the value of its key."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class Requirement(msgspec.Struct, frozen=True, gc=False):
    """One condition on the labels of an identity.

    ``source`` is the label's source (``k8s``, ``reserved``, ``cidrgroup``, ...) or ``any``.
    `In` with several values is an OR; `NotIn` and `DoesNotExist` hold when the key is absent.
    """

    key: str
    operator: Operator
    values: tuple[str, ...] = ()
    source: str = ANY_SOURCE


class Selector(msgspec.Struct, frozen=True, gc=False):
    """All requirements hold (AND). No requirements: every identity."""

    requirements: tuple[Requirement, ...] = ()


@dataclass(frozen=True, slots=True)
class CidrPeer:
    """Addresses outside of the cluster in ``prefix`` but in none of ``excepts``."""

    prefix: Prefix
    excepts: tuple[Prefix, ...] = ()


@dataclass(frozen=True, slots=True)
class CidrGroupPeer:
    """Addresses of the CIDR groups that ``selector`` matches (by name, or by their labels)."""

    name: str = ""
    selector: Selector | None = None
    excepts: tuple[Prefix, ...] = ()


@dataclass(frozen=True, slots=True)
class ServicePeer:
    """Backends of services: by name, or by a selector on the services' labels.

    An empty ``namespace`` means any. A service with a selector stands for the pods it selects,
    one without for its endpoint addresses.
    """

    namespace: str = ""
    name: str = ""
    selector: Selector | None = None


Peer = Selector | CidrPeer | CidrGroupPeer | ServicePeer


@dataclass(frozen=True, slots=True)
class PortRange:
    """One protocol's ports ``first`` to ``last``, a named port, or ICMP types.

    ``protocol`` is the IP protocol number; ANY has been written out as TCP, UDP and SCTP.
    ``name`` is set for a named port, which is resolved when the rule is computed (``last`` then
    is the requested end, or 0). All ports of a protocol: 0 to 65535.
    """

    protocol: int
    first: int = 0
    last: int = 65535
    name: str = ""


@dataclass(frozen=True, slots=True)
class DirectionRule:
    """Peers AND ports, in one direction.

    ``peers`` None: anybody; empty: nobody. ``ports`` None: every protocol and port; empty: none.
    ``unenforced`` names fields that are understood but not enforced yet (L7, FQDN): an allow rule
    with it allows nothing, and the ports it names are denied to its peers. ``or_anybody``: peers
    that stand for nothing at all (services that are not there) are anybody, as Cilium reads it.
    """

    direction: Direction
    deny: bool = False
    peers: tuple[Peer, ...] | None = None
    ports: tuple[PortRange, ...] | None = None
    unenforced: str = ""
    or_anybody: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """The object a rule comes from, as people name it; ``index`` counts rules in the object."""

    kind: str
    namespace: str
    name: str
    index: int = 0

    def __str__(self) -> str:
        place = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {place}" + (f" [{self.index}]" if self.index else "")


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One rule of one object: a subject and what it may exchange with whom.

    ``on_nodes``: the subject is the host endpoint of nodes with these labels, not pods.
    ``default_deny`` holds the directions in which this rule starts default deny. ``audit``: what
    only this rule's deny or default deny forbids passes and is reported. ``closed``: the object
    is invalid; the endpoints it may select are shut in both directions.
    """

    origin: Origin
    subject: Selector
    rules: tuple[DirectionRule, ...] = ()
    default_deny: frozenset[Direction] = field(default_factory=frozenset)
    on_nodes: bool = False
    audit: bool = False
    closed: bool = False
    labels: tuple[str, ...] = ()
    log: str = ""  # what its author wants told beside its verdicts

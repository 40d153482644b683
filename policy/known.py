"""What the computation must know beside the rules: groups, services, named ports, modes. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from model.address import Prefix
from model.labels import Labels
from model.policy_map import Direction
from policy.cidr_modes import CidrMode, cidr_mode
from policy.rules import CidrGroupPeer, CidrPeer, Peer, Selector, ServicePeer
from policy.selectors import selects


class Mode(StrEnum):
    """Which endpoints are enforced: those some rule selects, all, or none."""

    DEFAULT = "default"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of a node.

    ``allow_localhost``: the node may reach its pods (kubelet probes). ``audit``: what would be
    forbidden passes; the rules themselves are read so, and the modes follow. ``cidr_modes``: whom
    rules of prefixes select by address although they are of the mesh.
    """

    mode: Mode = Mode.DEFAULT
    allow_localhost: bool = True
    audit: bool = False
    cidr_modes: frozenset[CidrMode] = frozenset()

    def selected_by(self, identity: int, address: Prefix | None) -> Prefix | None:
        """The address, if rules of prefixes select who has this identity by it."""
        return address if cidr_mode(identity) in self.cidr_modes else None


@dataclass(frozen=True, slots=True)
class Subject:
    """What decides an endpoint's policy: equal subjects share one map's content.

    ``ports`` are the named ports of its containers: (name, protocol, number). ``is_host``: the
    node itself; its ``labels`` are those of the node.
    """

    labels: Labels
    ports: tuple[tuple[str, int, int], ...] = ()
    is_host: bool = False


@dataclass(frozen=True, slots=True)
class CidrGroup:
    """A CiliumCIDRGroup. Its labels have the source ``cidrgroup``."""

    prefixes: tuple[Prefix, ...] = ()
    labels: Labels = field(default_factory=Labels)


@dataclass(frozen=True, slots=True)
class PolicyService:
    """What a service stands for: the pods of ``pods``, or, without a selector, ``addresses``."""

    labels: Labels = field(default_factory=Labels)
    pods: Selector | None = None
    addresses: tuple[Prefix, ...] = ()


@dataclass(slots=True)
class Known:
    """The cluster as the rules see it. ``pod_ports`` hold the numbers that pods give a name."""

    groups: dict[str, CidrGroup] = field(default_factory=dict)
    services: dict[tuple[str, str], PolicyService] = field(default_factory=dict)
    pod_ports: dict[tuple[str, int], set[int]] = field(default_factory=dict)

    def expand(self, peer: Peer) -> Iterator[Selector | CidrPeer]:
        """A peer as selectors and prefixes; nothing if what it names is not there."""
        match peer:
            case CidrGroupPeer():
                for prefix in self._group_prefixes(peer):
                    yield CidrPeer(prefix, peer.excepts)
            case ServicePeer():
                yield from self._backends(peer)
            case _:
                yield peer

    def _group_prefixes(self, peer: CidrGroupPeer) -> Iterator[Prefix]:
        for name, group in self.groups.items():
            if name == peer.name or (
                peer.selector is not None and selects(peer.selector, group.labels)
            ):
                yield from group.prefixes

    def _backends(self, peer: ServicePeer) -> Iterator[Selector | CidrPeer]:
        for (namespace, name), service in self.services.items():
            if peer.namespace not in ("", namespace):
                continue
            if name == peer.name or (
                peer.selector is not None and selects(peer.selector, service.labels)
            ):
                if service.pods is not None:
                    yield service.pods
                else:
                    yield from (CidrPeer(prefix) for prefix in service.addresses)

    def port_number(
        self, subject: Subject, direction: Direction, name: str, protocol: int
    ) -> int | None:
        """A port's number: of the subject's own on ingress, of all pods on egress if they agree."""
        name = name.lower()
        if direction is Direction.INGRESS:
            own = {n for label, p, n in subject.ports if (label.lower(), p) == (name, protocol)}
        else:
            own = self.pod_ports.get((name, protocol), set())
        return next(iter(own)) if len(own) == 1 else None

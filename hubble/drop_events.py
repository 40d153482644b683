"""Which drops are worth an event of Kubernetes, and its words. Pure.

A drop becomes an event of the pod of this node that it happened to, unless the same two addresses
had one shortly before. More than so many a second are counted and not told.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from wire.hubble import flow_pb2 as f

REASON: Final = "PacketDrop"
_PAIRS_MAX: Final = 1 << 14  # of addresses that are remembered
_POLICY: Final = frozenset((f.DropReason.POLICY_DENIED, f.DropReason.POLICY_DENY))
_DROP, _VERDICT = 1, 5  # types of events


def reasons(text: str) -> frozenset[int]:
    """Names of drop reasons, with blanks or commas between. ``ValueError`` names the unknown."""
    found = set()
    for name in text.replace(",", " ").split():
        if name.upper() not in f.DropReason.keys():  # noqa: SIM118
            raise ValueError(f'"{name}" is no reason: write names such as policy_denied')
        found.add(f.DropReason.Value(name.upper()))
    return frozenset(found)


USUAL: Final = reasons("auth_required policy_denied")


@dataclass(frozen=True, slots=True)
class Settings:
    """What is told."""

    interval_s: float = 120.0  # between two of the same source and destination
    reasons: frozenset[int] = USUAL
    extended: bool = False  # with the names of the policies that denied it
    rate: int = 1  # of events in a second; 0: all


class Note(NamedTuple):
    """An event of a pod."""

    namespace: str
    pod: str
    message: str


class DropEvents:
    """Picks the notes of a node."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._second, self._in_second = -1, 0
        self.counts: Counter[str] = Counter()  # told, repeated, limited

    @property
    def types(self) -> frozenset[int]:
        """Of records that may be worth one."""
        return frozenset((_DROP, _VERDICT)) if self._settings.extended else frozenset((_DROP,))

    def take(self, flow: f.Flow, now_s: float) -> Note | None:
        """The note of a drop, if it is to be told."""
        reason = flow.drop_reason_desc
        if flow.verdict != f.Verdict.DROPPED or reason not in self._settings.reasons:
            return None
        # Only what tells of a verdict names policies; of a denied packet there are both.
        from_verdict = self._settings.extended and reason in _POLICY
        if flow.event_type.type != (_VERDICT if from_verdict else _DROP):
            return None
        incoming = flow.traffic_direction == f.TrafficDirection.INGRESS
        own, peer = (flow.destination, flow.source) if incoming else (flow.source, flow.destination)
        if not (own.ID and own.pod_name):
            return None
        if not self._may(flow.IP.source, flow.IP.destination, now_s):
            return None
        self.counts["told"] += 1
        address = flow.IP.source if incoming else flow.IP.destination
        ways = ("Incoming", "from") if incoming else ("Outgoing", "to")
        name = f.DropReason.Name(reason).lower()
        text = f"{ways[0]} packet dropped ({name}) {ways[1]} {_peer(peer, address)}{_port(flow)}"
        return Note(own.namespace, own.pod_name, text + self._policies(flow))

    def _may(self, source: str, destination: str, now_s: float) -> bool:
        """The pair had none for a while, and the second has room."""
        pair = source, destination
        while self._told and next(iter(self._told.values())) <= now_s - self._settings.interval_s:
            self._told.popitem(last=False)
        if pair in self._told:
            self.counts["repeated"] += 1
            return False
        if self._second != int(now_s):
            self._second, self._in_second = int(now_s), 0
        if self._settings.rate and self._in_second >= self._settings.rate:
            self.counts["limited"] += 1
            return False
        self._in_second += 1
        self._told[pair] = now_s
        if len(self._told) > _PAIRS_MAX:
            self._told.popitem(last=False)
        return True

    def _policies(self, flow: f.Flow) -> str:
        if not self._settings.extended:
            return ""
        names = [_policy(one) for one in (*flow.ingress_denied_by, *flow.egress_denied_by)]
        return f" denied by {', '.join(names)}" if names else ""


def _policy(policy: f.Policy) -> str:
    return "/".join(part for part in (policy.namespace, policy.name) if part)


def _peer(endpoint: f.Endpoint, address: str) -> str:
    if endpoint.pod_name:
        return f"{endpoint.namespace}/{endpoint.pod_name} ({address})"
    name = _reserved(endpoint.labels)
    return f"{name} ({address})" if name else address


def _reserved(labels: Iterable[str]) -> str:
    prefix = "reserved:"
    return next((one.removeprefix(prefix) for one in labels if one.startswith(prefix)), "")


def _port(flow: f.Flow) -> str:
    layer = flow.l4.WhichOneof("protocol")
    if layer in ("TCP", "UDP", "SCTP"):
        return f" {layer}/{getattr(flow.l4, layer).destination_port}"
    return f" {layer}" if layer else ""

"""Who talks to whom, put together from flows. Pure.

``Traffic`` takes flows of any number of nodes and clusters; ``Traffic.map`` groups their ends into
cards, by workload, service or identity, and counts what went between them. Whose workload a pod is
only its own node knows, so ends are grouped when all flows are in. Replies count for what they say
of requests (latency, status, bytes), not as connections of their own.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

from hubble.names import WORLD
from wire.hubble import flow_pb2 as f

By: TypeAlias = Literal["workload", "service", "identity"]

ENDS_MAX: Final = 1 << 16  # pairs of ends; what comes after that is counted as left out
_COOKIES_MAX: Final = 1 << 14
_WORLD: Final = "reserved:world"
_RESERVED: Final = "reserved:"
_CIDR: Final = "cidr:"
_NAME_KEYS: Final = ("app", "name", "functionName", "k8s-app")
_REMOVED: Final = ("k8s:", "io.kubernetes.pod.", "app.kubernetes.io/")
ANSWERS: Final = (
    f.SOCK_XLATE_POINT_PRE_DIRECTION_REV,
    f.SOCK_XLATE_POINT_POST_DIRECTION_REV,
)
_L4: Final = {"TCP": "TCP", "UDP": "UDP", "SCTP": "SCTP", "ICMPv4": "ICMP_V4", "ICMPv6": "ICMP_V6"}


class End(NamedTuple):
    """One side of a flow."""

    kind: str  # pod, world, or the name of another reserved identity
    cluster: str
    namespace: str
    name: str  # of the pod, or what is known of an address outside
    identity: int


class LinkKey(NamedTuple):
    """What is told apart between two ends."""

    source: End
    destination: End
    protocol: str
    port: int  # of the destination; 0: there are none


@dataclass
class Counts:
    """What was seen of a link."""

    verdicts: Counter[str] = field(default_factory=Counter)
    drop_reasons: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)  # of HTTP
    flows: int = 0
    bytes: int = 0  # as answers' headers tell
    latencies: int = 0
    latency_sum_ns: int = 0
    latency_min_ns: int = 0
    latency_max_ns: int = 0
    is_encrypted: bool = False
    auth_type: int = 0

    def took(self, latency_ns: int) -> None:
        """A request was answered."""
        least = self.latency_min_ns if self.latencies else latency_ns
        self.latency_min_ns = min(least, latency_ns)
        self.latency_max_ns = max(self.latency_max_ns, latency_ns)
        self.latency_sum_ns += latency_ns
        self.latencies += 1

    def add(self, other: "Counts") -> None:
        """What was seen of another."""
        self.verdicts += other.verdicts
        self.drop_reasons += other.drop_reasons
        self.statuses += other.statuses
        self.flows += other.flows
        self.bytes += other.bytes
        if other.latencies:
            least = min(self.latency_min_ns, other.latency_min_ns)
            self.latency_min_ns = least if self.latencies else other.latency_min_ns
            self.latency_max_ns = max(self.latency_max_ns, other.latency_max_ns)
            self.latency_sum_ns += other.latency_sum_ns
            self.latencies += other.latencies
        self.is_encrypted |= other.is_encrypted
        self.auth_type = other.auth_type or self.auth_type


@dataclass
class Card:
    """A node of the map."""

    id: str
    name: str
    kind: str
    cluster: str = ""
    namespace: str = ""
    identities: set[int] = field(default_factory=set)
    pods: set[str] = field(default_factory=set)
    workloads: set[tuple[str, str]] = field(default_factory=set)  # kind, name
    services: set[str] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)
    dns_names: set[str] = field(default_factory=set)


@dataclass
class Link:
    """Between two cards, to one port."""

    source: str
    destination: str
    protocol: str
    port: int
    counts: Counts = field(default_factory=Counts)

    @property
    def id(self) -> str:
        """As the UI has it."""
        return f"{self.source} {self.protocol} {self.destination}:{self.port}"


@dataclass
class Map:
    """All cards and links, in order."""

    cards: list[Card]
    links: list[Link]
    left_out: int = 0  # flows for which there was no room


@dataclass
class _Facts:
    labels: set[str] = field(default_factory=set)
    workload: tuple[str, str] | None = None
    services: set[str] = field(default_factory=set)
    dns_names: set[str] = field(default_factory=set)


class Traffic:
    """Flows, counted."""

    def __init__(self) -> None:
        self._links: dict[LinkKey, Counts] = {}
        self._facts: dict[End, _Facts] = {}
        # The service that a socket asked for, until its backend is told.
        self._asked: OrderedDict[tuple[str, int], str] = OrderedDict()
        self._left_out = 0

    def add(self, flow: f.Flow) -> None:
        """Count it. Flows that name no two ends tell nothing."""
        if flow.Type == f.SOCK:
            self._translation(flow)
            return
        layer = flow.l4.WhichOneof("protocol")
        if layer is None or not (flow.HasField("source") and flow.HasField("destination")):
            return
        source, destination = self._ends(flow)
        ports = getattr(flow.l4, layer)
        is_reply = flow.is_reply.value
        if is_reply:
            source, destination = destination, source
        port = getattr(ports, "source_port" if is_reply else "destination_port", 0)
        key = LinkKey(source, destination, _L4.get(layer, layer.upper()), port)
        counts = self._links.get(key)
        if counts is None:
            if len(self._links) >= ENDS_MAX:
                self._left_out += 1
                return
            counts = self._links[key] = Counts()
        _count(counts, flow, is_reply)

    def _ends(self, flow: f.Flow) -> tuple[End, End]:
        observer = flow.node_name.partition("/")[0]
        found = []
        for endpoint, names, service in (
            (flow.source, flow.source_names, flow.source_service),
            (flow.destination, flow.destination_names, flow.destination_service),
        ):
            end = _end(endpoint, names, observer)
            facts = self._facts.setdefault(end, _Facts())
            facts.labels.update(endpoint.labels)
            facts.dns_names.update(names)
            if endpoint.workloads:
                facts.workload = endpoint.workloads[0].kind, endpoint.workloads[0].name
            if service.name:
                facts.services.add(f"{service.namespace}/{service.name}")
            found.append(end)
        return found[0], found[1]

    def _translation(self, flow: f.Flow) -> None:
        """A socket's: the service it asks for, then the backend that it gets."""
        if flow.sock_xlate_point in ANSWERS:
            return
        key = flow.node_name, flow.socket_cookie
        if flow.verdict == f.TRACED and flow.destination_service.name:
            service = flow.destination_service
            self._asked[key] = f"{service.namespace}/{service.name}"
            if len(self._asked) > _COOKIES_MAX:
                self._asked.popitem(last=False)
        elif flow.verdict == f.TRANSLATED and key in self._asked:
            observer = flow.node_name.partition("/")[0]
            end = _end(flow.destination, flow.destination_names, observer)
            self._facts.setdefault(end, _Facts()).services.add(self._asked.pop(key))

    def map(self, by: By) -> Map:
        """As it stands."""
        cards: dict[str, Card] = {}
        links: dict[tuple[str, str, str, int], Link] = {}
        for key, counts in self._links.items():
            ids = [self._card(cards, end, by) for end in (key.source, key.destination)]
            place = ids[0], ids[1], key.protocol, key.port
            link = links.get(place)
            if link is None:
                link = links[place] = Link(*place)
            link.counts.add(counts)
        return Map(
            sorted(cards.values(), key=lambda card: card.id),
            sorted(links.values(), key=lambda link: link.id),
            self._left_out,
        )

    def _card(self, cards: dict[str, Card], end: End, by: By) -> str:
        facts = self._facts[end]
        id_, name = _grouped(end, facts, by)
        card = cards.get(id_)
        if card is None:
            card = cards[id_] = Card(id_, name, end.kind, end.cluster, end.namespace)
        card.identities.add(end.identity)
        card.labels |= facts.labels
        card.dns_names |= facts.dns_names
        card.services |= facts.services
        if end.kind == "pod" and end.name:
            card.pods.add(end.name)
        if facts.workload is not None:
            card.workloads.add(facts.workload)
        return id_


def _count(counts: Counts, flow: f.Flow, is_reply: bool) -> None:
    if flow.HasField("l7"):
        if flow.l7.latency_ns:
            counts.took(flow.l7.latency_ns)
        if flow.l7.http.code:
            counts.statuses[flow.l7.http.code] += 1
        for header in flow.l7.http.headers if is_reply else ():
            if header.key.lower() == "content-length" and header.value.isascii():
                counts.bytes += int(header.value) if header.value.isdigit() else 0
    counts.is_encrypted |= flow.IP.encrypted
    if is_reply:
        return
    counts.flows += 1
    counts.verdicts[f.Verdict.Name(flow.verdict)] += 1
    counts.auth_type = flow.auth_type or counts.auth_type
    if flow.verdict == f.DROPPED:
        counts.drop_reasons[f.DropReason.Name(flow.drop_reason_desc)] += 1


def _end(endpoint: f.Endpoint, names: Iterable[str], observer: str) -> End:
    if endpoint.pod_name:
        return End(
            "pod", endpoint.cluster_name, endpoint.namespace, endpoint.pod_name, endpoint.identity
        )
    labels = list(endpoint.labels)
    cidr = next((label[len(_CIDR) :] for label in labels if label.startswith(_CIDR)), "")
    if cidr or _WORLD in labels or endpoint.identity == WORLD:
        return End("world", "", "", next(iter(names), "") or cidr, endpoint.identity)
    reserved = next((x[len(_RESERVED) :] for x in labels if x.startswith(_RESERVED)), "")
    if reserved:
        cluster = observer if reserved in ("host", "health") else ""
        return End(reserved, cluster, "", "", endpoint.identity)
    if not labels and not endpoint.identity:
        return End("unknown", "", "", "", 0)
    return End("pod", endpoint.cluster_name, endpoint.namespace, "", endpoint.identity)


def app_name(labels: Iterable[str]) -> str:
    """The value of the first label that names an application; empty: none does."""
    for label in sorted(labels):
        key, _, value = label.partition("=")
        for part in _REMOVED:
            key = key.replace(part, "")
        if key in _NAME_KEYS:
            return value
    return ""


def _grouped(end: End, facts: _Facts, by: By) -> tuple[str, str]:
    """ID and name of the card that an end belongs to."""
    if end.kind != "pod":
        name = end.name or end.kind
        return "/".join(part for part in (end.cluster, end.kind, end.name) if part), name
    name = app_name(facts.labels) or end.name or str(end.identity)
    if by == "identity":
        return f"{end.cluster}/{end.identity}" if end.cluster else str(end.identity), name
    if by == "service" and facts.services:
        service = min(facts.services)
        return f"{end.cluster}/service/{service}", service.partition("/")[2]
    if facts.workload is not None:
        name = facts.workload[1]
    return "/".join(part for part in (end.cluster, end.namespace, name) if part), name

"""Policy objects by the whole way of the agent: read, computed, compiled, looked up.

Every answer is checked against the oracle on the way. Outside addresses get the identity of the
longest prefix that the rules want, as the ipcache would give it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from model.address import Prefix, host_prefix, parse_address, parse_prefix
from model.labels import Label, Labels
from model.policy_map import Direction, PolicyEntry
from policy.known import CidrGroup, Known, Options, PolicyService, Subject
from policy.objects import cidr_group
from policy.objects.read import Kind, Reading, Source, read
from policy.objects.settings import Settings
from policy.oracle import Packet, Verdict, lookup, verdict
from policy.selectors import cidr_labels, inner_labels
from policy.table import PolicyTable
from policy.wanted import inner
from tests.support.policy_world import PEERS, PROTOCOLS, USUAL

WORDS = {
    Verdict.ALLOWED: "allow",
    Verdict.AUDITED: "audit",
    Verdict.DROPPED: "drop",
    Verdict.DENIED: "deny",
}
# Where the peers that are no pods and no nodes live.
ADDRESSES = {
    "Wd": "198.51.100.9",
    "P3": "192.0.2.3",
    "P24": "192.0.2.77",
    "T8": "10.1.1.1",
    "T12": "10.100.0.1",
    "T16": "10.97.0.1",
    "KX": "203.0.113.7",
    "V6": "2001:db8::7",
}
# And those that are: of `policy-cidr-match-mode` only.
PODS = {"C": "10.2.0.31", "O": "10.2.0.32", "X": "10.2.0.33", "R": "10.2.0.34", "D": "10.2.0.35"}
NODES = {"N": "192.0.2.129", "K": "192.0.2.130", "H": "192.0.2.1"}
NUMBERS = {"H": 1, "N": 6, "K": 7, "health": 4, "init": 5}
PORTS = (("http", 6, 8080),)
_LOCAL = 1 << 24


def labels_of(texts: Iterable[str]) -> Labels:
    """``source:key=value``."""
    found = []
    for text in texts:
        source, _, rest = text.partition(":")
        key, _, value = rest.partition("=")
        found.append(Label(key, value, source))
    return Labels.of(found)


def cnp(spec: object, name: str = "p", **more: object) -> Source:
    """A CiliumNetworkPolicy of namespace ``default``."""
    return Source(Kind.CILIUM, "default", name, spec, **more)  # type: ignore[arg-type]


def ccnp(spec: object, name: str = "cp", **more: object) -> Source:
    """A clusterwide one."""
    return Source(Kind.CLUSTERWIDE, "", name, spec, **more)  # type: ignore[arg-type]


def knp(spec: object, name: str = "kp", **more: object) -> Source:
    """A NetworkPolicy of namespace ``default``."""
    return Source(Kind.NETWORK_POLICY, "default", name, spec, **more)  # type: ignore[arg-type]


@dataclass
class Engine:
    """A node with the objects in force. ``subject`` is a peer's name, or ``node`` for the node."""

    objects: Iterable[Source]
    settings: Settings = USUAL
    options: Options = Options()
    services: Mapping[tuple[str, str], PolicyService] = field(default_factory=dict)
    groups: Mapping[str, list[str]] = field(default_factory=dict)
    pod_ports: Mapping[tuple[str, int], set[int]] = field(default_factory=dict)
    subject: str = "W"
    node_labels: Mapping[str, str] = field(default_factory=dict)
    group_labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.readings: list[Reading] = [read(source, self.settings) for source in self.objects]
        self.table = PolicyTable(self.options)
        self.numbers: dict[str, int] = {}
        self._labels: dict[int, Labels] = {}
        for key, service in self.services.items():
            self.table.put_service(*key, service)
        for name, prefixes in self.groups.items():
            labels = self.group_labels.get(name, {})
            group = cidr_group.read(name, labels, {"externalCIDRs": prefixes})
            self.table.put_group(name, CidrGroup(group.prefixes, group.labels))
        for (name, protocol), numbers in self.pod_ports.items():
            self.table.put_port_name(name, protocol, numbers)
        for index, reading in enumerate(self.readings):
            self.table.put_object(index, reading.rules)
        self._name_everyone()
        self.table.put_endpoint("e", self._subject())
        self.table.compute()

    @property
    def known(self) -> Known:
        """What the table knows."""
        return self.table.known

    def _subject(self) -> Subject:
        if self.subject == "node":
            own = Label("host", "", "reserved")
            return Subject(Labels.of([own, *Labels.k8s(self.node_labels)]), is_host=True)
        return Subject(labels_of(PEERS[self.subject]), PORTS)

    def _name_everyone(self) -> None:
        pods = [name for name in PEERS if name not in ADDRESSES and name not in NUMBERS]
        for number, name in enumerate(sorted(pods), 1001):
            elsewhere = 2 << 16 if name == "R" else 0
            self._put(name, number + elsewhere, labels_of(PEERS[name]))
        for name, number in NUMBERS.items():
            self._put(name, number, labels_of(PEERS[name]))
        self._name_prefixes()

    def _name_prefixes(self) -> None:
        wanted = sorted(self.table.prefixes() | {parse_prefix(f"{ADDRESSES['KX']}/32")})
        self.prefixes = {prefix: _LOCAL + 1 + n for n, prefix in enumerate(wanted)}
        for prefix, number in self.prefixes.items() if self.options.cidr_modes else ():
            self.table.put_identity(inner(number), inner_labels(prefix))
        for name, address in ADDRESSES.items():
            longest = self._around(address)
            if longest is None:
                self._put(name, 2, labels_of({"reserved:world="}))
                continue
            more = [Label("kube-apiserver", "", "reserved")] if name == "KX" else []
            labels = Labels.of([*cidr_labels(longest), *more])
            self._put(name, self.prefixes[longest], labels)

    def _around(self, address: str) -> Prefix | None:
        own = host_prefix(parse_address(address))
        around = [p for p in self.prefixes if p.covers(own)]
        return max(around, key=lambda p: p.length) if around else None

    def _by_address(self, name: str) -> tuple[Prefix | None, int | None]:
        """A pod's or node's address where it counts, and the number of what rules say of it."""
        address = (PODS | NODES).get(name, "")
        own = host_prefix(parse_address(address)) if address else None
        own = self.options.selected_by(self.numbers[name], own)
        around = self._around(address) if own is not None else None
        return own, inner(self.prefixes[around]) if around is not None else None

    def look_up(
        self, name: str, way: Direction, protocol: int, port: int
    ) -> tuple[Verdict, PolicyEntry | None]:
        """As the programs do."""
        beside = self._by_address(name)[1]
        return lookup(self.table.rows("e"), way, self.numbers[name], protocol, port, beside)

    def add(self, name: str, number: int, labels: Labels) -> None:
        """One more peer, after the start."""
        self._put(name, number, labels)
        self.table.compute()

    def _put(self, name: str, number: int, labels: Labels) -> None:
        self.numbers[name], self._labels[number] = number, labels
        self.table.put_identity(number, labels)

    def say(self, packets: str) -> str:
        """Verdicts on ``C`` (from C to port 80/TCP), ``C:8/ICMP``, ``>D:53/UDP`` (to D)."""
        return " ".join(self._one(word) for word in packets.split())

    def _one(self, word: str) -> str:
        where, _, packet = word.partition(":")
        way = Direction.EGRESS if where.startswith(">") else Direction.INGRESS
        port, _, name = (packet or "80/TCP").partition("/")
        who, protocol = where.lstrip(">"), PROTOCOLS[name or "TCP"]
        identity, (address, beside) = self.numbers[who], self._by_address(who)
        found, entry = self.look_up(who, way, protocol, int(port))
        meant = verdict(
            self.known,
            self.table.rules(),
            self._subject(),
            way,
            Packet(identity, self._labels[identity], protocol, int(port), address),
            self.options,
        )
        # What audit forbids to labels and another rule allows to the address passes untold.
        untold = beside is not None and (found, meant.verdict) == (Verdict.ALLOWED, Verdict.AUDITED)
        assert found is meant.verdict or untold, (word, found, meant)
        if found is Verdict.DENIED:
            assert entry is not None, word
            assert self.table.rule(entry.rule) is not None, word
        return WORDS[found]

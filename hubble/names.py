"""What numbers and addresses of events are called. Pure.

Fed with the lines of an agent (``wire.names``). Each answer is for the time of an event, since that
is read later than it happened. When the agent comes back, what it does not tell again is gone.
"""

import ipaddress
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from hubble.history import History
from model.identity import RESERVED_NAMES, ReservedIdentity
from model.labels import CLUSTER_LABEL
from wire.names import (
    EndpointLine,
    FrontendLine,
    IdentityLine,
    Line,
    NodeLine,
    PrefixLine,
    Self,
    Synced,
)

WORLD = int(ReservedIdentity.WORLD)
_CLUSTER = f"k8s:{CLUSTER_LABEL}="
_CIDR = "cidr:"
_RESERVED: dict[int, tuple[str, ...]] = {
    int(number): (text,) for number, text in RESERVED_NAMES.items() if number
}
_RESERVED[int(ReservedIdentity.KUBE_APISERVER)] = (
    "reserved:kube-apiserver",
    "reserved:remote-node",
)


class Local(NamedTuple):
    """A pod of this node."""

    id: int
    identity: int
    namespace: str
    pod: str
    labels: tuple[str, ...]
    cluster: str
    workload: tuple[str, str] | None  # name, kind


class Labelled(NamedTuple):
    """An identity."""

    labels: tuple[str, ...]
    cluster: str


class Known(NamedTuple):
    """An address somewhere."""

    identity: int
    namespace: str
    pod: str


class Policy(NamedTuple):
    """The object of a rule."""

    kind: str
    namespace: str
    name: str
    labels: tuple[str, ...]
    revision: int
    log: str = ""


Prefix = tuple[int, int]  # length, and the bits in it


def packed(text: str) -> bytes:
    """An address as packets have it. ``ValueError`` when it is none."""
    return ipaddress.ip_address(text).packed


def cluster_of(labels: tuple[str, ...]) -> str:
    """The cluster that labels name."""
    for label in labels:
        if label.startswith(_CLUSTER):
            return label[len(_CLUSTER) :]
    return ""


def shown(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Sorted; of several CIDRs the longest."""
    cidrs = [label for label in labels if label.startswith(_CIDR)]
    if len(cidrs) > 1:
        longest = max(cidrs, key=lambda label: int(label.rpartition("/")[2] or 0))
        labels = tuple(label for label in labels if label not in cidrs or label == longest)
    return tuple(sorted(labels))


class Names:
    """All tables."""

    def __init__(self) -> None:
        self.self = Self("default", "")
        self.synced = False
        self.revision = 0  # grows with every change
        self.changed_ns = 0  # when that was last
        self._endpoints: History[int, EndpointLine] = History()
        self._locals: History[bytes, Local] = History()
        self._identities: History[int, Labelled] = History()
        self._addresses: History[bytes, Known] = History()
        self._prefixes: History[tuple[int, int, int], Known] = History()  # bits of the family first
        self._lengths: dict[int, list[int]] = {32: [], 128: []}
        self._frontends: History[tuple[bytes, int, int], tuple[str, str]] = History()
        self._rules: History[int, Policy] = History()
        self._nodes: History[tuple[str, str], str] = History()
        self._unseen: set[tuple[str, Hashable]] = set()
        # Told of a pod that has an address (true), or has one less: namespace, name.
        self.on_pod: Callable[[tuple[str, str], bool], None] = lambda pod, present: None

    def _tables(self) -> dict[str, History[Any, Any]]:
        return {
            "endpoint": self._endpoints,
            "local": self._locals,
            "identity": self._identities,
            "address": self._addresses,
            "prefix": self._prefixes,
            "frontend": self._frontends,
            "rule": self._rules,
            "node": self._nodes,
        }

    def begin(self) -> None:
        """An agent begins to tell. What was known stays until it has told all."""
        self.synced = False
        self._unseen = {(name, key) for name, t in self._tables().items() for key in t}

    def apply(self, line: Line, at_ns: int) -> None:
        """One line, which is true since ``at_ns``. ``ValueError``: it makes no sense."""
        self.revision += 1
        self.changed_ns = at_ns
        if isinstance(line, Self):
            self.self = line
        elif isinstance(line, Synced):
            self._end(at_ns)
        elif isinstance(line, NodeLine):
            address = None if line.gone else line.address
            self._put("node", self._nodes, (line.cluster, line.name), address, at_ns)
        elif isinstance(line, EndpointLine):
            self._endpoint(line, at_ns)
        elif isinstance(line, IdentityLine):
            labels = shown(line.labels)
            found = None if line.gone else Labelled(labels, cluster_of(labels))
            self._put("identity", self._identities, line.id, found, at_ns)
        elif isinstance(line, PrefixLine):
            self._prefix(line, at_ns)
        elif isinstance(line, FrontendLine):
            key = (packed(line.address), line.port, line.protocol)
            name = None if line.gone else (line.namespace, line.name)
            self._put("frontend", self._frontends, key, name, at_ns)
        else:
            who = line.policy, line.namespace, line.name
            rule = Policy(*who, line.labels, line.revision, line.log)
            self._put("rule", self._rules, line.number, None if line.gone else rule, at_ns)

    def _put(self, name: str, table: History[Any, Any], key: Any, value: Any, at_ns: int) -> None:
        self._unseen.discard((name, key))
        if name in ("local", "address"):
            for found, present in ((table.now(key), False), (value, True)):
                if found is not None and found.pod:
                    self.on_pod((found.namespace, found.pod), present)
        table.put(key, value, at_ns)

    def _end(self, at_ns: int) -> None:
        tables = self._tables()
        for name, key in tuple(self._unseen):
            self._put(name, tables[name], key, None, at_ns)
        self.synced = True

    def _endpoint(self, line: EndpointLine, at_ns: int) -> None:
        addresses = {packed(text) for text in line.addresses}
        before = self._endpoints.get(line.id, at_ns)
        if before is not None:
            for address in {packed(text) for text in before.addresses} - addresses:
                owner = self._locals.get(address, at_ns)
                if owner is not None and owner.id == line.id:
                    self._put("local", self._locals, address, None, at_ns)
        self._put("endpoint", self._endpoints, line.id, None if line.gone else line, at_ns)
        if line.gone:
            return
        workload = (line.workload.name, line.workload.kind) if line.workload else None
        labels = shown(line.labels)
        found = Local(
            line.id, line.identity, line.namespace, line.pod, labels, cluster_of(labels), workload
        )
        for address in addresses:
            self._put("local", self._locals, address, found, at_ns)

    def _prefix(self, line: PrefixLine, at_ns: int) -> None:
        found = None if line.gone else Known(line.identity, line.namespace, line.pod)
        network = ipaddress.ip_network(line.prefix)
        bits = network.max_prefixlen
        if network.prefixlen == bits:
            address = network.network_address.packed
            self._put("address", self._addresses, address, found, at_ns)
            return
        lengths = self._lengths[bits]
        if network.prefixlen not in lengths:
            lengths.append(network.prefixlen)
            lengths.sort(reverse=True)
        value = int(network.network_address) >> bits - network.prefixlen
        self._put("prefix", self._prefixes, (bits, network.prefixlen, value), found, at_ns)

    def forget(self, before_ns: int) -> None:
        """No event is older than this any more."""
        for table in self._tables().values():
            table.forget(before_ns)

    def local(self, address: bytes, at_ns: int) -> Local | None:
        """The pod of this node with that address."""
        return self._locals.get(address, at_ns)

    def endpoint(self, number: int, at_ns: int) -> EndpointLine | None:
        """The pod of this node with that number."""
        return self._endpoints.get(number, at_ns)

    def known(self, address: bytes, at_ns: int) -> Known | None:
        """Whose address it is, by the longest prefix; ``None``: nobody's that we know of."""
        found = self._addresses.get(address, at_ns)
        if found is not None:
            return found
        bits = 8 * len(address)
        number = int.from_bytes(address, "big")
        for length in self._lengths[bits]:
            found = self._prefixes.get((bits, length, number >> bits - length), at_ns)
            if found is not None:
                return found
        return None

    def identity(self, number: int, at_ns: int) -> Labelled:
        """What a number stands for; no labels: not known."""
        found = self._identities.get(number, at_ns)
        if found is not None and found.labels:
            return found
        return Labelled(_RESERVED.get(number, ()), "")

    def service(
        self, address: bytes, port: int, protocol: int, at_ns: int
    ) -> tuple[str, str] | None:
        """Namespace and name of the service with that address."""
        return self._frontends.get((address, port, protocol), at_ns)

    def rule(self, number: int, at_ns: int) -> Policy | None:
        """The policy of a rule."""
        return self._rules.get(number, at_ns) if number else None

    def nodes(self) -> dict[tuple[str, str], str]:
        """Addresses of the mesh's nodes, by cluster and name."""
        return {key: address for key in self._nodes if (address := self._nodes.now(key))}

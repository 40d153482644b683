"""Everything a node's computation follows from, as plain JSON and back. Pure.

An agent tells it (`GET /v1/policy/facts`); whoever has it can compute, explain and try out other
rules without the agent.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from model.address import Prefix, parse_prefix
from model.labels import Label, Labels
from model.policy_map import Direction
from policy.cidr_modes import CidrMode
from policy.known import CidrGroup, Known, Mode, Options, PolicyService, Subject
from policy.objects.read import Kind, Reading, Source, read
from policy.objects.settings import Settings
from policy.rules import Operator, PolicyRule, Requirement, Selector
from policy.table import PolicyTable

TCP = 6
_SETTINGS = (
    "cluster",
    "default_local_cluster",
    "upstream_readings",
    "invalid_open",
    "invalid_closes_nodes",
    "audit",
    "non_default_deny",
    "node_selectors",
    "l7_proxy",
)


@dataclass(frozen=True, slots=True)
class EndpointFact:
    """A pod of the node, as policy sees it. ``closed``: why its map is shut, or empty."""

    namespace: str
    pod: str
    identity: int
    subject: Subject
    addresses: tuple[str, ...] = ()
    closed: str = ""

    @property
    def name(self) -> str:
        """As people write it; of the node itself, ``host``."""
        return "host" if self.subject.is_host else f"{self.namespace}/{self.pod}"


@dataclass(frozen=True, slots=True)
class Facts:
    """One node's. ``endpoints`` by their number, ``identities`` by theirs.

    ``api_servers``: addresses that the node reaches by TCP whatever policy says, and that reach its
    ``kubelet_port``. ``pod_cidrs``: where pods live, if rules of prefixes do not select them.
    """

    node: str
    options: Options
    settings: Settings
    sources: tuple[Source, ...] = ()
    known: Known = field(default_factory=Known)
    identities: Mapping[int, Labels] = field(default_factory=dict)
    endpoints: Mapping[int, EndpointFact] = field(default_factory=dict)
    api_servers: tuple[str, ...] = ()
    kubelet_port: int = 0
    pod_cidrs: tuple[Prefix, ...] = ()

    def readings(self) -> list[tuple[Source, Reading]]:
        """Each policy with what it is read as."""
        return [(source, read(source, self.settings)) for source in self.sources]

    def rules(self, reader: Callable[[Source, Settings], Reading] = read) -> list[PolicyRule]:
        """The rules of all policies."""
        return [rule for s in self.sources for rule in reader(s, self.settings).rules]

    def pod(self, name: str) -> EndpointFact | None:
        """An endpoint by ``namespace/pod``."""
        return next((e for e in self.endpoints.values() if e.name == name), None)

    def host(self) -> EndpointFact | None:
        """The node itself; ``None``: its policies are not enforced."""
        return next((e for e in self.endpoints.values() if e.subject.is_host), None)

    def spares(self, way: Direction, peer: str, protocol: int, port: int) -> bool:
        """Whether the node exchanges this with the API server, whatever policy says."""
        if peer not in self.api_servers or protocol != TCP:
            return False
        return way is Direction.EGRESS or port == self.kubelet_port

    def table(self) -> PolicyTable:
        """The computation, as the agent does it; endpoints by ``namespace/pod``."""
        table = PolicyTable(self.options)
        table.known = self.known
        table.put_identities(self.identities)
        for source, reading in self.readings():
            table.put_object((source.kind, source.namespace, source.name), reading.rules)
        for endpoint in self.endpoints.values():
            table.put_endpoint(endpoint.name, endpoint.subject)
        table.compute()
        return table


def to_json(facts: Facts) -> dict[str, Any]:
    """Plain values."""
    known = facts.known
    return {
        "node": facts.node,
        "options": {
            "mode": facts.options.mode.value,
            "localhost": facts.options.allow_localhost,
            "audit": facts.options.audit,
            "cidr-modes": sorted(facts.options.cidr_modes),
        },
        "settings": {name: getattr(facts.settings, name) for name in _SETTINGS},
        "policies": [_source(source) for source in facts.sources],
        "groups": [
            {"name": n, "labels": g.labels.strings(), "prefixes": [str(p) for p in g.prefixes]}
            for n, g in sorted(known.groups.items())
        ],
        "services": [
            {
                "namespace": namespace,
                "name": name,
                "labels": service.labels.strings(),
                "pods": None if service.pods is None else _selector(service.pods),
                "addresses": [str(p) for p in service.addresses],
            }
            for (namespace, name), service in sorted(known.services.items())
        ],
        "port-names": [
            {"name": name, "protocol": protocol, "ports": sorted(numbers)}
            for (name, protocol), numbers in sorted(known.pod_ports.items())
        ],
        "identities": [
            {"id": number, "labels": labels.strings()}
            for number, labels in sorted(facts.identities.items())
        ],
        "endpoints": [
            {
                "id": number,
                "namespace": e.namespace,
                "pod": e.pod,
                "identity": e.identity,
                "labels": e.subject.labels.strings(),
                "ports": [list(port) for port in e.subject.ports],
                "host": e.subject.is_host,
                "addresses": list(e.addresses),
                "closed": e.closed,
            }
            for number, e in sorted(facts.endpoints.items())
        ],
        "api-servers": list(facts.api_servers),
        "kubelet-port": facts.kubelet_port,
        "pod-cidrs": list(map(str, facts.pod_cidrs)),
    }


def from_json(said: Mapping[str, Any]) -> Facts:
    """Inverse of ``to_json``. Raises ``KeyError`` or ``ValueError`` for anything else."""
    options = said["options"]
    known = Known(
        {
            g["name"]: CidrGroup(tuple(map(parse_prefix, g["prefixes"])), parse_labels(g["labels"]))
            for g in said["groups"]
        },
        {
            (s["namespace"], s["name"]): PolicyService(
                parse_labels(s["labels"]),
                None if s["pods"] is None else _parse_selector(s["pods"]),
                tuple(map(parse_prefix, s["addresses"])),
            )
            for s in said["services"]
        },
        {(p["name"], p["protocol"]): set(p["ports"]) for p in said["port-names"]},
    )
    return Facts(
        node=said["node"],
        options=Options(
            Mode(options["mode"]),
            options["localhost"],
            options["audit"],
            frozenset(map(CidrMode, options.get("cidr-modes", ()))),
        ),
        settings=Settings(**{name: said["settings"][name] for name in _SETTINGS}),
        sources=tuple(_parse_source(source) for source in said["policies"]),
        known=known,
        identities={i["id"]: parse_labels(i["labels"]) for i in said["identities"]},
        endpoints={e["id"]: _parse_endpoint(e) for e in said["endpoints"]},
        api_servers=tuple(said["api-servers"]),
        kubelet_port=said["kubelet-port"],
        pod_cidrs=tuple(map(parse_prefix, said.get("pod-cidrs", ()))),
    )


def parse_labels(texts: Iterable[str]) -> Labels:
    """Inverse of ``Labels.strings``."""
    found = []
    for text in texts:
        source, _, rest = text.partition(":")
        key, _, value = rest.partition("=")
        found.append(Label(key, value, source))
    return Labels.of(found)


def _source(source: Source) -> dict[str, Any]:
    return {
        "kind": source.kind.value,
        "namespace": source.namespace,
        "name": source.name,
        "uid": source.uid,
        "annotations": dict(source.annotations),
        "spec": source.spec,
        "specs": source.specs,
    }


def _parse_source(said: Mapping[str, Any]) -> Source:
    return Source(
        Kind(said["kind"]),
        said["namespace"],
        said["name"],
        said["spec"],
        said["specs"],
        said["annotations"],
        said["uid"],
    )


def _selector(selector: Selector) -> list[dict[str, Any]]:
    return [
        {"key": r.key, "operator": r.operator.value, "values": list(r.values), "source": r.source}
        for r in selector.requirements
    ]


def _parse_selector(said: Iterable[Mapping[str, Any]]) -> Selector:
    return Selector(
        tuple(
            Requirement(r["key"], Operator(r["operator"]), tuple(r["values"]), r["source"])
            for r in said
        )
    )


def _parse_endpoint(said: Mapping[str, Any]) -> EndpointFact:
    ports = tuple((name, protocol, number) for name, protocol, number in said["ports"])
    subject = Subject(parse_labels(said["labels"]), ports, said["host"])
    addresses = tuple(said["addresses"])
    return EndpointFact(
        said["namespace"], said["pod"], said["identity"], subject, addresses, said["closed"]
    )

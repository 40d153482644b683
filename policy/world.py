"""All that decides about policy on one node, as plain JSON values: what was told to it.

An agent tells it; whoever has it reads the same objects by the same settings and comes to the same
verdicts. Pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from model.address import Prefix, parse_prefix
from model.labels import Label, Labels
from policy.known import CidrGroup, Known, Mode, Options, PolicyService, Subject
from policy.objects.read import Kind, Reading, Source, read
from policy.objects.settings import Settings
from policy.rules import Operator, PolicyRule, Requirement, Selector
from policy.table import PolicyTable

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """An endpoint of the node. ``error``: why its map is closed, or empty."""

    id: int
    name: str  # namespace/pod
    identity: int
    address: str
    subject: Subject
    error: str = ""


@dataclass(slots=True)
class World:
    """One node. ``cluster`` and ``node`` are names."""

    cluster: str
    node: str
    options: Options = field(default_factory=Options)
    settings: Settings = field(default_factory=Settings)
    identities: dict[int, Labels] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)
    known: Known = field(default_factory=Known)

    def readings(self) -> list[tuple[Source, Reading]]:
        """Every object, and what it says."""
        return [(source, read(source, self.settings)) for source in self.sources]

    def rules(self) -> list[PolicyRule]:
        """The rules of all objects."""
        return [rule for _, reading in self.readings() for rule in reading.rules]

    def table(self) -> PolicyTable:
        """The computation, as the agent does it."""
        table = PolicyTable(self.options)
        table.known = self.known
        table.put_identities(self.identities)
        for source, reading in self.readings():
            table.put_object((source.kind, source.namespace, source.name), reading.rules)
        for place in self.places.values():
            table.put_endpoint(place.name, place.subject)
        table.compute()
        return table


def to_json(world: World) -> Json:
    """Inverse of ``from_json``."""
    return {
        "cluster": world.cluster,
        "node": world.node,
        "options": {"mode": world.options.mode, "localhost": world.options.allow_localhost},
        "settings": asdict(world.settings),
        "identities": {str(n): _labels(labels) for n, labels in sorted(world.identities.items())},
        "endpoints": [_place(place) for _, place in sorted(world.places.items())],
        "policies": [_source(source) for source in world.sources],
        "groups": [
            {"name": name, "prefixes": _texts(group.prefixes), "labels": _labels(group.labels)}
            for name, group in sorted(world.known.groups.items())
        ],
        "services": [
            _service(*key, service) for key, service in sorted(world.known.services.items())
        ],
        "ports": [
            {"name": name, "protocol": protocol, "numbers": sorted(numbers)}
            for (name, protocol), numbers in sorted(world.known.pod_ports.items())
        ],
    }


def from_json(said: Mapping[str, Any]) -> World:
    """Raises ``ValueError`` when it is of another version."""
    try:
        options = Options(Mode(said["options"]["mode"]), bool(said["options"]["localhost"]))
        known = Known(
            {
                group["name"]: CidrGroup(_prefixes(group["prefixes"]), _parse(group["labels"]))
                for group in said["groups"]
            },
            {(s["namespace"], s["name"]): _parse_service(s) for s in said["services"]},
            {(p["name"], p["protocol"]): set(p["numbers"]) for p in said["ports"]},
        )
        places = [_parse_place(place) for place in said["endpoints"]]
        return World(
            str(said["cluster"]),
            str(said["node"]),
            options,
            Settings(**said["settings"]),
            {int(number): _parse(texts) for number, texts in said["identities"].items()},
            {place.name: place for place in places},
            [_parse_source(source) for source in said["policies"]],
            known,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the agent is of another version: {error!r}") from error


def _texts(prefixes: Iterable[Prefix]) -> list[str]:
    return [str(prefix) for prefix in prefixes]


def _prefixes(texts: Iterable[str]) -> tuple[Prefix, ...]:
    return tuple(parse_prefix(text) for text in texts)


def _labels(labels: Labels) -> list[str]:
    return [f"{label.source}:{label.key}={label.value}" for label in labels]


def _parse(texts: Iterable[str]) -> Labels:
    found = []
    for text in texts:
        source, _, rest = text.partition(":")
        key, _, value = rest.partition("=")
        found.append(Label(key, value, source))
    return Labels.of(found)


def _source(source: Source) -> Json:
    return {**asdict(source), "kind": source.kind.value, "annotations": dict(source.annotations)}


def _parse_source(said: Json) -> Source:
    return Source(**{**said, "kind": Kind(said["kind"])})


def _place(place: Place) -> Json:
    return {
        "id": place.id,
        "name": place.name,
        "identity": place.identity,
        "address": place.address,
        "labels": _labels(place.subject.labels),
        "ports": [list(port) for port in place.subject.ports],
        "host": place.subject.is_host,
        "error": place.error,
    }


def _parse_place(said: Json) -> Place:
    ports = tuple((str(name), int(protocol), int(port)) for name, protocol, port in said["ports"])
    subject = Subject(_parse(said["labels"]), ports, bool(said["host"]))
    return Place(
        said["id"], said["name"], said["identity"], said["address"], subject, said["error"]
    )


def _service(namespace: str, name: str, service: PolicyService) -> Json:
    return {
        "namespace": namespace,
        "name": name,
        "labels": _labels(service.labels),
        "addresses": _texts(service.addresses),
        "pods": None if service.pods is None else [_term(r) for r in service.pods.requirements],
    }


def _term(requirement: Requirement) -> list[Any]:
    values = list(requirement.values)
    return [requirement.source, requirement.key, requirement.operator.value, values]


def _parse_service(said: Json) -> PolicyService:
    pods = None
    if said["pods"] is not None:
        pods = Selector(
            tuple(
                Requirement(key, Operator(operator), tuple(values), source)
                for source, key, operator, values in said["pods"]
            )
        )
    return PolicyService(_parse(said["labels"]), pods, _prefixes(said["addresses"]))

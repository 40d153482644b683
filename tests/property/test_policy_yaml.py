"""What is computed of objects with every field there is, against a judge of their YAML alone."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from model.address import parse_prefix
from model.labels import Labels
from model.policy_map import Direction
from policy.cidr_modes import CidrMode
from policy.known import Mode, Options, PolicyService
from policy.objects.read import AUDIT_ANNOTATION, Kind, Source
from policy.objects.selectors import in_namespace
from policy.objects.settings import Settings
from policy.rules import Operator, Requirement, Selector
from tests.support import policy_author
from tests.support.policy_author import Author
from tests.support.policy_engine import ADDRESSES, WORDS, Engine
from tests.support.policy_engine import NODES as NODES_AT
from tests.support.policy_engine import PODS as PODS_AT
from tests.support.policy_world import PEERS
from tests.support.raw_policy import Judge, Peer, Thing, World

GROUPS = {"g": ["10.0.0.0/8", "192.0.2.3/32"], "h": ["203.0.113.0/24"]}
TEAMS: dict[str, dict[str, str]] = {"g": {"team": "x"}, "h": {}}
PODS = Selector((in_namespace("default"), Requirement("app", Operator.IN, ("client",), "k8s")))
SERVICES = {
    ("default", "pods"): PolicyService(Labels.k8s({"tier": "x"}), pods=PODS),
    ("other", "addresses"): PolicyService(
        Labels.k8s({"tier": "x"}), addresses=(parse_prefix("192.0.2.3/32"),)
    ),
}
NAMED = {("http", 6): {8080}}
KINDS = {Kind.NETWORK_POLICY: "NP", Kind.CILIUM: "CNP", Kind.CLUSTERWIDE: "CCNP"}
MODES = (
    (Settings(), Options()),
    (Settings(), Options()),
    (Settings(upstream_readings=True), Options()),
    (Settings(default_local_cluster=True), Options(Mode.ALWAYS)),
    (Settings(), Options(allow_localhost=False)),
    (Settings(audit=True), Options(audit=True)),
    (Settings(audit=True), Options(Mode.ALWAYS, audit=True)),
    (Settings(non_default_deny=False), Options()),
    (Settings(), Options(Mode.NEVER)),
    (Settings(), Options(cidr_modes=frozenset(CidrMode))),
    (Settings(), Options(cidr_modes=frozenset({CidrMode.NODES}))),
    (Settings(default_local_cluster=True), Options(cidr_modes=frozenset({CidrMode.PODS}))),
)
SUBJECTS = ("W", "W", "W", "node", "init", "health")
NODE_LABELS = {"zone": "a"}
PACKETS = (
    *((6, port) for port in (0, 8, 64, 80, 81, 127, 8080, 8090)),
    *((17, port) for port in (53, 80, 8080)),
    *((132, 80), (1, 0), (1, 8), (1, 13), (58, 128)),
)
SEEDS = range(500)
ROUNDS = 20  # seeds of one test
ASKED = 120  # packets of one seed


def peers(modes: frozenset[CidrMode]) -> dict[str, Peer]:
    """An address only where rules of prefixes are to look at it."""
    addresses = dict(ADDRESSES)
    if CidrMode.PODS in modes:
        addresses |= PODS_AT
    if CidrMode.NODES in modes:
        addresses |= NODES_AT
    return {
        name: Peer(frozenset(labels), addresses.get(name, "")) for name, labels in PEERS.items()
    }


class Scene:
    """One seed: objects, a subject, settings; the engine, and the judge."""

    def __init__(self, seed: int) -> None:
        self.author = Author(seed)
        self.objects = self.author.objects()
        self.chance = Random(f"settings {seed}")
        settings, self.options = self.chance.choice(MODES)
        self.settings = replace(settings, node_selectors=True)
        self.subject = self.chance.choice(SUBJECTS)
        self.peers = peers(self.options.cidr_modes)

    def engine(self) -> Engine:
        return Engine(
            self.objects, self.settings, self.options, SERVICES, GROUPS, NAMED, self.subject,
            NODE_LABELS, TEAMS,
        )  # fmt: skip

    def judge(self, objects: list[Source] | None = None) -> Judge:
        on_node = self.subject == "node"
        node = Peer(frozenset({"k8s:zone=a", "reserved:host="}))
        own = node if on_node else self.peers[self.subject]
        world = World(
            services={
                ("default", "pods"): ({"tier": "x"}, {"app": "client"}, ()),
                ("other", "addresses"): ({"tier": "x"}, None, ("192.0.2.3/32",)),
            },
            groups={name: (TEAMS[name], tuple(found)) for name, found in GROUPS.items()},
            own_ports={} if on_node else {("http", 6): 8080},
            pod_ports=NAMED,
            mode=self.options.mode.value,
            allow_localhost=self.options.allow_localhost,
            literal=self.settings.upstream_readings,
            local=self.settings.default_local_cluster,
            audit=self.settings.audit,
            non_default_deny=self.settings.non_default_deny,
        )
        chosen = self.objects if objects is None else objects
        return Judge([thing(source) for source in chosen], world, own, on_node)

    def asked(self) -> list[tuple[str, str, int, int]]:
        """Some of all packets: another choice for every seed."""
        return self.chance.sample(self.every(), ASKED)

    def every(self) -> list[tuple[str, str, int, int]]:
        ways = ("ingress", "egress")
        return [(way, name, *what) for way in ways for name in self.peers for what in PACKETS]


def thing(source: Source) -> Thing:
    specs = [s for s in (source.spec, *(source.specs or ())) if s is not None]  # type: ignore[misc]
    return Thing(KINDS[source.kind], tuple(specs), AUDIT_ANNOTATION in source.annotations)


@pytest.mark.parametrize("first", range(0, SEEDS.stop, ROUNDS))
def test_what_is_computed_is_what_is_written(first: int) -> None:
    """Any peer, packet and direction, whatever the settings and the subject."""
    for seed in range(first, first + ROUNDS):
        scene = Scene(seed)
        engine, judge = scene.engine(), scene.judge()
        assert all(reading.valid for reading in engine.readings), (
            seed,
            [str(e) for reading in engine.readings for e in reading.errors],
        )
        for way, name, protocol, port in scene.asked():
            said = WORDS[engine.look_up(name, Direction[way.upper()], protocol, port)[0]]
            wanted = judge.verdict(way, scene.peers[name], protocol, port)
            # What audit forbids to labels and another rule allows to the address passes untold.
            if scene.options.cidr_modes and (said, wanted) == ("allow", "audit"):
                continue
            assert said == wanted, (seed, way, name, protocol, port, scene.objects)


def test_every_feature_occurs_and_has_something_to_say() -> None:
    """Over the seeds above: each stands in several objects, and one of these changes a verdict."""
    seen, decided = Counter[str](), Counter[str]()
    for seed in SEEDS:
        scene = Scene(seed)
        used = scene.author.used
        for features in used.values():
            seen.update(features)
        whole, asked = scene.judge(), scene.every()
        for source in scene.objects:
            if not used[source.name] - decided.keys():
                continue
            rest = scene.judge([other for other in scene.objects if other is not source])
            if any(
                whole.verdict(way, scene.peers[name], protocol, port)
                != rest.verdict(way, scene.peers[name], protocol, port)
                for way, name, protocol, port in asked
            ):
                decided.update(used[source.name])
    tables = (
        ("labels", policy_author.LABELS), ("expression", policy_author.EXPRESSIONS),
        ("set", policy_author.HOLES), ("to", policy_author.SERVICES), ("port", policy_author.PORTS),
        ("icmp", policy_author.TYPES), ("above", policy_author.ABOVE),
        ("kubernetes-port", policy_author.KUBERNETES_PORTS),
        ("peer", policy_author.KUBERNETES_PEERS),
    )  # fmt: skip
    wanted = {f"{kind}:{name}" for kind, table in tables for name in table}
    wanted |= {f"entity:{name}" for name in policy_author.ENTITIES}
    assert not {name for name in wanted if seen[name] < 3}, "they hardly occur"
    assert not {name for name in seen if not decided[name]}, "they never decide anything"

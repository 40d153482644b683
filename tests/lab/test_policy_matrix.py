"""What policy forbids does not arrive: place × end × protocol × policy, in two joined clusters.

Each verdict is said three times: by the table below, by the oracle on what agents were told, and by
packets. A sniffer in the server's pod sees that none that was forbidden got there.
"""

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from cli import rest
from kind import story
from kind.story import C1, C2
from model.policy_map import Direction
from policy.explain import side
from policy.facts import Facts, from_json
from policy.known import Subject
from policy.objects.read import AUDIT_ANNOTATION
from policy.oracle import Packet
from tests.support import lab as labs
from tests.support.lab import Json, Lab

pytestmark = [
    pytest.mark.root,
    pytest.mark.lab,
    pytest.mark.timeout(300),
]

PROGRAM = [sys.executable, "-I", "-S", str(labs.CHECKOUT / "tests/support/policy_probe.py")]
NODES = {"here": f"{C1}-worker", "there": f"{C1}-control-plane", "abroad": f"{C2}-worker"}
CLUSTER = {"here": C1, "there": C1, "abroad": C2}
WHO = ("friend", "stranger")
PORTS = {6: 80, 17: 53, 1: 8}
ON_HOST = {6: 18081, 17: 18053, 1: 8}
NAMES = {6: "TCP", 17: "UDP", 1: "ICMP"}
HOST, REMOTE_NODE = 1, 6
LATE = 8  # so often those are asked again that should have answered
SERVE = ("serve", "0.0.0.0", "80", "53")


@dataclass(frozen=True)
class Try:
    """One probe. ``what``: pod or service of the server, host (its node); or from a host."""

    who: str  # friend, stranger, or node
    place: str
    what: str
    protocol: int

    def __str__(self) -> str:
        return f"{self.who} {self.place} -> {self.what} {NAMES[self.protocol]}"


TRIES = [
    Try(who, place, what, protocol)
    for who, place, what, protocol in itertools.product(
        (*WHO, "node"), NODES, ("pod", "service", "host"), PORTS
    )
    # A service has no echo; hosts are asked about as senders to the pod only.
    if (what, protocol) != ("service", 1) and (who != "node" or what == "pod")
]

Expected = Callable[[Try], bool]


@dataclass(frozen=True)
class Case:
    """Objects by cluster, and what passes."""

    name: str
    passes: Expected
    objects: dict[str, list[Json]] = field(default_factory=dict)


def policy(
    name: str, spec: Json, kind: str = "CiliumNetworkPolicy", annotations: Json | None = None
) -> Json:
    version = "networking.k8s.io/v1" if kind == "NetworkPolicy" else "cilium.io/v2"
    meta: Json = {"name": name, "annotations": annotations or {}}
    if kind != "CiliumClusterwideNetworkPolicy":
        meta["namespace"] = "default"
    return {"apiVersion": version, "kind": kind, "metadata": meta, "spec": spec}


def app(name: str) -> Json:
    return {"matchLabels": {"app": name}}


def server(**rules: Any) -> dict[str, list[Json]]:
    """On the server's side."""
    return {C1: [policy("matrix", {"endpointSelector": app("server"), **rules})]}


def friends(**rules: Any) -> dict[str, list[Json]]:
    """On the friends' side, in both clusters."""
    spec = {"endpointSelector": app("friend"), **rules}
    return {C1: [policy("matrix", spec)], C2: [policy("matrix", spec)]}


def tcp(port: str, end: int = 0) -> list[Json]:
    return [{"ports": [{"port": port, "protocol": "TCP", **({"endPort": end} if end else {})}]}]


def to_host(t: Try) -> bool:
    return t.what == "host"


def probe_of_own_node(t: Try) -> bool:
    return (t.who, t.place) == ("node", "here")


FRIEND = [{"fromEndpoints": [app("friend")]}]
KUBERNETES = "NetworkPolicy"

CASES = [
    Case("none", lambda t: True),
    Case(
        "friends may do everything, of any cluster",
        lambda t: to_host(t) or t.who == "friend" or probe_of_own_node(t),
        server(ingress=FRIEND),
    ),
    Case(
        "friends of the other cluster, TCP 80",
        lambda t: (
            to_host(t)
            or probe_of_own_node(t)
            or (t.who, t.place, t.protocol) == ("friend", "abroad", 6)
        ),
        server(
            ingress=[
                {
                    "fromEndpoints": [
                        {"matchLabels": {"app": "friend", "io.cilium.k8s.policy.cluster": C2}}
                    ],
                    "toPorts": tcp("80"),
                }
            ]
        ),
    ),
    Case(
        "nodes",
        lambda t: to_host(t) or t.who == "node",
        server(ingress=[{"fromEntities": ["remote-node"]}]),
    ),
    Case(
        "cluster: pods of this one, nodes of all",
        lambda t: to_host(t) or t.who == "node" or t.place != "abroad",
        server(ingress=[{"fromEntities": ["cluster"]}]),
    ),
    Case(
        "everybody but friends",
        lambda t: to_host(t) or t.who != "friend",
        server(
            ingress=[{"fromEntities": ["all"]}], ingressDeny=[{"fromEndpoints": [app("friend")]}]
        ),
    ),
    Case(
        "a denied port in an allowed range",
        lambda t: to_host(t) or (probe_of_own_node(t) and t.protocol != 6),
        server(
            ingress=[{"toPorts": tcp("64", 127)}],
            ingressDeny=[{"toPorts": tcp("80", 81)}],
        ),
    ),
    Case(
        "echo requests alone",
        lambda t: to_host(t) or probe_of_own_node(t) or t.protocol == 1,
        server(ingress=[{"icmps": [{"fields": [{"type": 8, "family": "IPv4"}]}]}]),
    ),
    Case(
        "deny by Kubernetes",
        lambda t: to_host(t) or probe_of_own_node(t),
        {C1: [policy("matrix", {"podSelector": app("server"), "ingress": []}, KUBERNETES)]},
    ),
    Case(
        "the same in audit",
        lambda t: True,
        {
            C1: [
                policy(
                    "matrix",
                    {"podSelector": app("server"), "ingress": []},
                    KUBERNETES,
                    {AUDIT_ANNOTATION: "true"},
                )
            ]
        },
    ),
    Case(
        "friends send UDP to the server",
        lambda t: t.who != "friend" or (not to_host(t) and t.protocol == 17),
        friends(
            egress=[
                {
                    "toEndpoints": [app("server")],
                    "toPorts": [{"ports": [{"port": "53", "protocol": "UDP"}]}],
                }
            ]
        ),
    ),
    Case(
        "a CIDR is no pod and no node",
        lambda t: t.who != "friend",
        friends(egress=[{"toCIDR": ["0.0.0.0/0"]}]),
    ),
    Case(
        "friends are denied the nodes",
        lambda t: not (t.who == "friend" and to_host(t)),
        friends(
            egress=[{"toEntities": ["all"]}], egressDeny=[{"toEntities": ["host", "remote-node"]}]
        ),
    ),
    Case(
        "http rules, not enforced yet",
        lambda t: to_host(t) or (probe_of_own_node(t) and t.protocol != 6),
        server(
            ingress=[
                {
                    "toPorts": [
                        {
                            "ports": [{"port": "80", "protocol": "TCP"}],
                            "rules": {"http": [{"method": "GET"}]},
                        }
                    ]
                }
            ]
        ),
    ),
    Case(
        "clusterwide, and a policy more",
        lambda t: to_host(t) or probe_of_own_node(t) or (t.who == "friend" and t.protocol != 1),
        {
            C1: [
                policy(
                    "wide",
                    {"endpointSelector": app("server"), "ingressDeny": [
                        {"icmps": [{"fields": [{"type": 8}]}], "fromEndpoints": [{}]}]},
                    "CiliumClusterwideNetworkPolicy",
                ),
                policy("matrix", {"endpointSelector": app("server"), "ingress": FRIEND}),
            ]
        },
    ),
]  # fmt: skip


class Told:
    """A program that answers a line with a line."""

    def __init__(self, world: "World", cluster: str, target: str, *words: str) -> None:
        place = ("--cluster", cluster, "-n", "default") if target in world.pods else ()
        argv = [*labs.CLI, "exec", "--lab", world.lab.name, *place, target, "--", *PROGRAM, *words]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=labs.CHECKOUT
        )

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def say(self, value: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        self._process.terminate()
        self._process.wait(60)
        self._process.stdout.close()


def pod(name: str, label: str, node: str, *words: str) -> Json:
    container = {"name": "main", "image": "python", "command": [*PROGRAM, *words]}
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [container]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": label}},
        "spec": spec,
    }


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "matrix", "namespace": "default", "annotations": {story.GLOBAL: "true"}},
    "spec": {
        "selector": {"app": "server"},
        "ports": [
            {"name": "web", "port": 80, "protocol": "TCP"},
            {"name": "dns", "port": 53, "protocol": "UDP"},
        ],
    },
}


class World:
    """Two joined clusters: a server, a friend and a stranger at each place, and their nodes."""

    def __init__(self, lab: Lab, stack: ExitStack) -> None:
        self.lab, self.mesh = lab, story.Mesh(lab.name)
        for context in (C1, C2):
            self.mesh.isthmus("clustermesh", "enable", "--context", context)
        words = ("--context", C1, "--destination-context", C2)
        self.mesh.isthmus("clustermesh", "connect", *words)
        self.pods = {"server": C1} | {f"{w}-{p}": CLUSTER[p] for w in WHO for p in NODES}
        for context in (C1, C2):
            made = [
                pod(f"{who}-{place}", who, NODES[place], *SERVE)
                for who in WHO
                for place in NODES
                if CLUSTER[place] == context
            ]
            if context == C1:
                made.append(pod("server", "server", NODES["here"], *SERVE))
            lab.apply(*made, SERVICE, cluster=context)
        for name, context in self.pods.items():
            lab.wait_ready(name, cluster=context)
        self.addresses = {
            name: lab.get("pod", name, cluster=context)["status"]["podIP"]
            for name, context in self.pods.items()
        }
        self.vips = {c: lab.get("svc", "matrix", cluster=c)["spec"]["clusterIP"] for c in (C1, C2)}
        self.token = 20000
        self.standing: dict[str, set[tuple[str, str]]] = {C1: set(), C2: set()}
        ports = (str(ON_HOST[6]), str(ON_HOST[17]))
        address = str(lab.node(NODES["here"]).address)
        on_host = Told(self, C1, NODES["here"], "serve", address, *ports)
        self.sniffer = Told(self, C1, "server", "sniff")
        self.askers = {
            (who, place): Told(self, CLUSTER[place], f"{who}-{place}", "ask")
            for who in WHO
            for place in NODES
        } | {("node", place): Told(self, CLUSTER[place], node, "ask") for place, node in
             NODES.items()}  # fmt: skip
        for told in (on_host, self.sniffer, *self.askers.values()):
            stack.callback(told.close)
            assert told.line() == "ready\n"

    def target(self, t: Try) -> tuple[str, int]:
        if t.what == "host":
            return str(self.lab.node(NODES["here"]).address), ON_HOST[t.protocol]
        if t.what == "service":
            return self.vips[CLUSTER[t.place]], PORTS[t.protocol]
        return self.addresses["server"], PORTS[t.protocol]

    def probe(self, tries: list[Try]) -> tuple[set[Try], set[Try]]:
        """Those that were answered, and those whose packets the server's pod received."""
        tokens: dict[int, Try] = {}
        asked: dict[tuple[str, str], list[tuple[int, int, str, int]]] = {k: [] for k in self.askers}
        self.sniffer.say("forget")
        self.sniffer.line()
        for t in tries:
            self.token += 1
            tokens[self.token] = t
            asked[t.who, t.place].append((self.token, t.protocol, *self.target(t)))
        for key, told in self.askers.items():
            told.say(asked[key])
        answered = {tokens[n] for told in self.askers.values() for n in json.loads(told.line())}
        self.sniffer.say("tell")
        arrived = {tokens[n] for n in json.loads(self.sniffer.line()) if n in tokens}
        return answered, arrived

    def socket(self, place: str) -> str:
        return str(self.lab.node(NODES[place]).directory / "run/cilium/cilium.sock")

    def facts(self, place: str) -> Facts:
        return from_json(rest.get(self.socket(place), "policy/facts"))

    def become(self, wanted: dict[str, list[Json]]) -> None:
        """Just these objects, in both clusters at once: what stands is replaced or goes."""

        def do(context: str) -> None:
            names = {(o["kind"], o["metadata"]["name"]) for o in wanted.get(context, ())}
            if wanted.get(context):
                self.lab.apply(*wanted[context], cluster=context)
            for kind, name in self.standing[context] - names:
                self.lab.kubectl("delete", kind, name, "--wait=false", cluster=context)
            self.standing[context] = names

        with ThreadPoolExecutor() as pool:
            list(pool.map(do, (C1, C2)))

    def in_force(self, wanted: dict[str, list[Json]]) -> bool:
        """Every agent has just these objects, and its kernel their rows."""
        for place in NODES:
            told = rest.get(self.socket(place), "policy")
            found = {o["name"]: o for o in json.loads(told["policy"])}
            objects = {o["metadata"]["name"]: o for o in wanted.get(CLUSTER[place], ())}
            if found.keys() != objects.keys():
                return False
            if not all(_is_as(found[name], body) for name, body in objects.items()):
                return False
            for endpoint in rest.get(self.socket(place), "endpoint"):
                if endpoint["status"]["policy"]["realized"]["policy-revision"] < told["revision"]:
                    return False
        return True


def _is_as(found: Json, body: Json) -> bool:
    """What an agent has is what was applied, but for what an API server fills in."""
    audit = body["metadata"]["annotations"].get(AUDIT_ANNOTATION) == "true"
    same = (found["kind"], found["audit"]) == (body["kind"], audit)
    return same and found["spec"] == {**found["spec"], **body["spec"]}


class Judge:
    """The oracle, on what the agents of both nodes were told."""

    def __init__(self, world: World) -> None:
        self._facts = {place: world.facts(place) for place in NODES}
        self._rules = {place: facts.rules() for place, facts in self._facts.items()}

    def passes(self, t: Try) -> bool:
        server = self._facts["here"].pod("default/server")
        client = self._facts[t.place].pod(f"default/{t.who}-{t.place}")
        own_node = HOST if t.place == "here" else REMOTE_NODE
        assert server is not None
        to = own_node if t.what == "host" else server.identity
        source = client.identity if client else own_node
        sends = client is None or self._side(t.place, client.subject, Direction.EGRESS, to, t)
        if t.what == "host":
            return sends
        return sends and self._side("here", server.subject, Direction.INGRESS, source, t)

    def _side(self, place: str, own: Subject, way: Direction, peer: int, t: Try) -> bool:
        facts = self._facts[place]
        # Of a service the backend is judged, on its own port: the same here.
        port = (ON_HOST if t.what == "host" else PORTS)[t.protocol]
        packet = Packet(peer, facts.identities[peer], t.protocol, port)
        found = side(facts.known, self._rules[place], facts.options, own, way, packet)
        return found.verdict.passes


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    lab = labs.start("p")
    with ExitStack() as stack:
        stack.callback(labs.stop, lab)
        yield World(lab, stack)


def test_without_policy_everything_arrives(world: World) -> None:
    """The baseline: every probe is answered, and the sniffer sees what comes to the pod."""
    world.become({})
    labs.wait_until("no policy is in force", lambda: world.in_force({}))
    missing: set[Try] = set(TRIES)

    def look() -> bool:
        missing.clear()
        answered, arrived = world.probe(TRIES)
        missing.update(set(TRIES) - answered)
        missing.update(t for t in TRIES if t.what != "host" and t not in arrived)
        return not missing

    try:
        labs.wait_until("every probe is answered", look)
    except AssertionError:
        raise AssertionError(f"not answered: {', '.join(map(str, missing))}") from None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_matrix(world: World, case: Case) -> None:
    """Table, oracle and packets agree; nothing that is forbidden reaches the pod."""
    world.become(case.objects)
    labs.wait_until("the policies are in force", lambda: world.in_force(case.objects))
    explaining = _explain(world)
    try:
        judge = Judge(world)
        wanted = {t for t in TRIES if case.passes(t)}
        meant = {t for t in TRIES if judge.passes(t)}
        assert meant == wanted, _differences(wanted, meant)
        answered, arrived = world.probe(TRIES)
        for _ in range(LATE):
            late = wanted - answered
            if not late:
                break
            time.sleep(0.5)  # a busy machine, not a verdict
            again, more = world.probe(sorted(late, key=str))
            answered, arrived = answered | again, arrived | more
        assert answered == wanted, _differences(wanted, answered)
        assert not {t for t in arrived if t not in wanted}, _differences(wanted, arrived)
        assert {t for t in wanted if t.what != "host"} <= arrived
        _explained(explaining, case)
    finally:
        explaining.kill()
        explaining.communicate()


def _explain(world: World) -> "subprocess.Popen[str]":
    """The command, asked about one of them while packets are sent."""
    words = ("--from", f"{C2}/default/friend-abroad", "--to", f"{C1}/default/server")
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", "policy", "explain", *words, "--port=80", "-o", "json"],
        env=world.lab.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=labs.CHECKOUT,
    )


def _explained(explaining: "subprocess.Popen[str]", case: Case) -> None:
    """It says the same, also by its exit status."""
    out, err = explaining.communicate(timeout=180)
    passes = case.passes(Try("friend", "abroad", "pod", 6))
    assert explaining.returncode == (0 if passes else 1), err
    said = json.loads(out)
    assert said["allowed"] is passes
    if not passes:
        assert said["egress"]["change"] or said["ingress"]["change"]


def _differences(wanted: set[Try], found: set[Try]) -> str:
    more, less = sorted(map(str, found - wanted)), sorted(map(str, wanted - found))
    return f"passed and should not: {more}; should pass and did not: {less}"

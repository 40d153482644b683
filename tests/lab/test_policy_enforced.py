"""Policy across two joined clusters: who may contact whom, while all of it restarts."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from kind import story
from kind.story import C1, C2, ONE, TWO
from tests.support import lab as labs
from tests.support.lab import Json, Lab

pytestmark = [pytest.mark.root, pytest.mark.lab]

CLUSTER = "io.cilium.k8s.policy.cluster"
NAMESPACE = "k8s:io.kubernetes.pod.namespace"
DNS = {
    "toEndpoints": [{"matchLabels": {NAMESPACE: "kube-system", "k8s:k8s-app": "kube-dns"}}],
    "toPorts": [{"ports": [{"port": "53", "protocol": "ANY"}]}],
}
PATIENCE_S = 20.0  # with one that is answered: a busy machine stands still for seconds
REFUSED_S = 2.0  # and with one that is not
PROGRAM = [sys.executable, "-I", "-S", str(labs.CHECKOUT / "tests/support/traffic.py")]


def policy(name: str, spec: Json, annotations: dict[str, str] | None = None) -> Json:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations or {}},
        "spec": spec,
    }


def peer(name: str, cluster: str) -> Json:
    return {"matchLabels": {"name": name, CLUSTER: cluster}}


# As in the well-known example: the egress of x-wing in cluster1, and beside it the other end.
OUT = policy(
    "allow-cross-cluster",
    {
        "endpointSelector": peer("x-wing", C1),
        "egress": [DNS, {"toEndpoints": [peer("rebel-base", C2)]}],
    },
)
IN = policy(
    "only-x-wing-of-cluster1",
    {
        "endpointSelector": {"matchLabels": {"name": "rebel-base"}},
        "ingress": [
            {
                "fromEndpoints": [peer("x-wing", C1)],
                "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}],
            }
        ],
    },
)


class World:
    """Two joined clusters with the example's workloads."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.mesh = lab, story.Mesh(lab.name)
        for tell in (story.clusters, story.joined):
            step = story.Step(0, tell.__name__)
            tell(self.mesh, step)
            assert step.held, step.checks

    def pod(self, context: str, name: str) -> Json:
        return self.mesh.pods(context, f"name={name}")[0]

    def address(self, context: str, name: str) -> str:
        return str(self.pod(context, name)["status"]["podIP"])

    def answer(
        self, context: str, host: str, name: str = "x-wing", patience_s: float = PATIENCE_S
    ) -> str:
        """Who answers one request; empty: nobody, within this time."""
        pod = self.pod(context, name)["metadata"]["name"]
        argv = ("curl", "-s", "-m", str(patience_s), f"http://{host}/")
        text = self.mesh.isthmus(
            *("lab", "exec", "--lab", self.lab.name, "--cluster", context, "-n", "default"),
            *(pod, "--", *argv),
            check=False,
        )
        return next((name for name in (ONE, TWO) if name in text), "")

    def refused(self, context: str, host: str, name: str = "x-wing") -> bool:
        """Whether one request is left without an answer."""
        return self.answer(context, host, name, REFUSED_S) == ""

    def start(
        self, context: str, pod: Json, *words: str, patience_s: float = PATIENCE_S
    ) -> "subprocess.Popen[str]":
        """A traffic program in a pod."""
        place = ("--cluster", context, "-n", "default", pod["metadata"]["name"])
        return self.start_at(*place, "--", *words, patience_s=patience_s)

    def start_at(self, *place: str, patience_s: float = PATIENCE_S) -> "subprocess.Popen[str]":
        """A traffic program at a place of ``lab exec``, and after ``--`` its words."""
        cut = place.index("--")
        place, words = place[:cut], place[cut + 1 :]
        argv = [sys.executable, "-m", "cli.main", "lab", "exec", "--lab", self.lab.name]
        argv += [*place, "--"]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*argv, "env", f"TRAFFIC_PATIENCE_S={patience_s:g}", *PROGRAM, *words],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            env=self.mesh.environment,
        )

    def restart_agent(self, context: str, node: str) -> None:
        pod = self.mesh.agents(context)[node]
        self.mesh.kubectl(
            context, "-n", "kube-system", "delete", "pod", pod, "--force", "--grace-period=0"
        )

    def enforced(self, context: str, name: str) -> str:
        found = self.lab.get("cnp", name, cluster=context)
        conditions = (found.get("status") or {}).get("conditions") or []
        return next((c["status"] for c in conditions if c["type"] == "Enforced"), "")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    # All tests here run with it: what no policy of nodes forbids is as before.
    made = labs.start("p", "--set=hostFirewall.enabled=true")
    try:
        yield World(made)
    finally:
        labs.stop(made)


@pytest.fixture
def clean(world: World) -> Iterator[World]:
    """No policy is left behind."""
    yield world
    for context in (C1, C2):
        world.mesh.kubectl(context, "delete", "cnp", "--all", "-n", "default")


def eventually(what: str, look: Any) -> None:
    labs.wait_until(what, look)


@pytest.mark.timeout(600)
def test_the_example(clean: World) -> None:
    """x-wing of cluster1 may contact rebel-base of cluster2 and nobody else, by name; nobody else
    may contact rebel-base of cluster2; a new pod and a new agent change nothing of that."""
    world = clean
    near, far = world.address(C1, "rebel-base"), world.address(C2, "rebel-base")
    assert world.answer(C1, near) == ONE
    assert world.answer(C2, near) == ONE

    world.lab.apply(OUT, cluster=C1)
    eventually("x-wing may not stay at home", lambda: world.refused(C1, near))
    assert world.answer(C1, far) == TWO
    # By the service's name: its backends at home are closed to it, those abroad answer.
    answers = [world.answer(C1, "rebel-base", patience_s=REFUSED_S) for _ in range(6)]

    def abroad() -> bool:  # six may all have gone to those at home
        if TWO not in answers:
            answers.append(world.answer(C1, "rebel-base", patience_s=REFUSED_S))
        return TWO in answers

    eventually("one abroad answers", abroad)
    assert ONE not in answers, answers
    eventually("the policy says so", lambda: world.enforced(C1, OUT["metadata"]["name"]) == "True")
    assert world.answer(C2, near) == ONE, "the policy is of cluster1's x-wing"

    world.lab.apply(IN, cluster=C2)
    eventually("x-wing of cluster2 is not named", lambda: world.refused(C2, far))
    assert world.answer(C1, far) == TWO
    assert world.refused(C1, far, name="rebel-base"), "others of cluster1 are not named"

    for context, name in ((C1, "x-wing"), (C2, "rebel-base")):
        world.mesh.kubectl(context, "rollout", "restart", f"deployment/{name}")
        world.mesh.kubectl(context, "rollout", "status", f"deployment/{name}", "--timeout=110s")
    far = world.address(C2, "rebel-base")
    eventually("new pods are who the old ones were", lambda: world.answer(C1, far) == TWO)
    assert world.refused(C1, near)
    assert world.refused(C2, far)

    for context in (C1, C2):
        store = "clustermesh-apiserver"
        world.mesh.kubectl(
            context, "-n", "kube-system", "rollout", "restart", f"deployment/{store}"
        )
        for node in world.mesh.agents(context):
            world.restart_agent(context, node)
    for _ in range(4):
        assert world.refused(C2, far)
        assert world.refused(C1, near)
        assert world.answer(C1, far) == TWO


@pytest.mark.timeout(600)
def test_a_killed_agent_opens_nothing(clean: World) -> None:
    """Both ends' agents are killed again and again under a flood from another cluster: no packet of
    it reaches the pod."""
    world = clean
    world.lab.apply(IN, cluster=C2)
    far = world.pod(C2, "rebel-base")
    address, node = far["status"]["podIP"], far["spec"]["nodeName"]
    eventually("it is shut", lambda: world.refused(C2, address))
    source = world.pod(C1, "rebel-base")
    server = world.start(C2, far, "count-udp", address, "5000", "far")
    flood = world.start(C1, source, "steady-udp", address, "5000", "0.001")
    try:
        for process in (server, flood):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for _ in range(3):
            world.restart_agent(C2, node)
            world.restart_agent(C1, source["spec"]["nodeName"])
            for context, name in ((C2, node), (C1, source["spec"]["nodeName"])):
                labs.wait_until(
                    "the agent is back", lambda c=context, n=name: n in world.mesh.agents(c)
                )
                pod = world.mesh.agents(context)[name]
                world.lab.wait_ready(pod, namespace="kube-system", cluster=context)
        out, _ = flood.communicate("", timeout=120)
        seen = json.loads(out.splitlines()[-1])
        assert seen["sent"] > 3000, seen
        assert seen["answered"] == 0, seen
        out, _ = server.communicate("", timeout=30)
        assert json.loads(out.splitlines()[-1]) == {}, "not one came to the pod"
    finally:
        for process in (server, flood):
            process.kill()
            process.communicate()


@pytest.mark.timeout(600)
def test_invalid_and_audited(clean: World) -> None:
    """An invalid policy closes what it selects and says so; one in audit drops nothing."""
    world = clean
    near = world.address(C1, "rebel-base")
    spec = IN["spec"]
    bad = {**spec, "ingress": [*spec["ingress"], {"fromCIDR": ["10.0.0.0/64"]}]}
    name = IN["metadata"]["name"]
    world.lab.apply(policy(name, spec, {"policy.isthmus.io/audit": "true"}), cluster=C1)
    eventually("it is in audit", lambda: world.enforced(C1, name) == "False")
    for _ in range(3):
        assert world.answer(C2, near) == ONE
    world.lab.apply(policy(name, spec), cluster=C1)
    eventually("it is enforced", lambda: world.refused(C2, near))
    assert world.answer(C1, near) == ONE
    world.lab.apply(policy(name, bad), cluster=C1)
    eventually("closed", lambda: world.refused(C1, near))
    eventually("its condition says so", lambda: world.enforced(C1, name) == "False")
    world.lab.apply(policy(name, spec), cluster=C1)
    eventually("open again", lambda: world.answer(C1, near) == ONE)


class Explained:
    """``isthmus policy explain``: exit status and JSON."""

    def __init__(self, world: World, source: str, destination: str, port: int, *more: str) -> None:
        words = ("--from", source, "--to", destination, f"--port={port}", "-o", "json", *more)
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", "policy", "explain", "--context", C1, *words],
            env=world.lab.env,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            cwd=labs.CHECKOUT,
        )
        assert done.returncode in (0, 1), done.stderr
        self.said: Json = json.loads(done.stdout)
        assert self.said["allowed"] is (done.returncode == 0)

    @property
    def allowed(self) -> bool:
        return bool(self.said["allowed"])

    def rule(self, side: str) -> str:
        return str((self.said[side]["rule"] or {}).get("name", ""))


@pytest.mark.timeout(600)
def test_explained_for_every_kind_of_end(clean: World) -> None:
    """Services by their backends in both clusters, entities, addresses that are pods' and those of
    nobody: what is said is what packets do."""
    world = clean
    world.lab.apply(OUT, cluster=C1)
    world.lab.apply(IN, cluster=C2)
    near, far = world.address(C1, "rebel-base"), world.address(C2, "rebel-base")
    eventually("in force at home", lambda: world.refused(C1, near))
    eventually("in force abroad", lambda: world.refused(C2, far))
    x_wing, base = (f"{C1}/default/{name}" for name in ("x-wing", "rebel-base"))

    service = Explained(world, x_wing, f"{C1}/svc/default/rebel-base", 80)
    assert service.said["verdict"] == "partly"
    judged = {b["to"]["address"]: b["allowed"] for b in service.said["backends"]}
    for address in judged:
        patience_s = PATIENCE_S if judged[address] else REFUSED_S
        answered = world.answer(C1, address, patience_s=patience_s)
        assert bool(answered) is judged[address], address
    assert (judged[near], judged[far]) == (False, True)
    (abroad,) = [b for b in service.said["backends"] if b["to"]["address"] == far]
    assert abroad["to"]["cluster"] == C2, "the backend's own side was asked, in its cluster"
    assert abroad["ingress"]["rule"]["name"] == IN["metadata"]["name"]

    by_address = Explained(world, x_wing, far, 80)
    assert (by_address.allowed, by_address.rule("ingress")) == (True, IN["metadata"]["name"])
    assert not Explained(world, base, far, 80).allowed
    assert not Explained(world, x_wing, "world", 443).allowed
    assert not Explained(world, x_wing, "198.51.100.1", 443).allowed
    assert Explained(world, base, "world", 443).allowed
    assert Explained(world, "host", base, 80).allowed
    assert not Explained(world, "world", f"{C2}/default/rebel-base", 80).allowed
    by_node = Explained(world, f"{C1}/node/{world.pod(C1, 'x-wing')['spec']['nodeName']}", base, 80)
    assert by_node.allowed


NODES = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumClusterwideNetworkPolicy",
    "metadata": {"name": "nodes"},
    "spec": {
        "nodeSelector": {},
        "ingress": [
            {"fromEntities": ["cluster", "remote-node", "world"]},
            {"fromEndpoints": [{}]},
        ],
        "ingressDeny": [
            {
                "fromEndpoints": [peer("x-wing", C1)],
                "toPorts": [{"ports": [{"port": "5000", "protocol": "UDP"}]}],
            }
        ],
    },
}


@pytest.mark.timeout(600)
def test_policies_of_nodes(clean: World) -> None:
    """A node refuses one pod and no other, at one port and no other; a pod with host network is the
    node; and `explain` says so before and after."""
    world = clean
    x_wing = world.pod(C1, "x-wing")
    node = x_wing["spec"]["nodeName"]
    address = str(world.lab.node(node).address)
    agent = f"{C1}/kube-system/{world.mesh.agents(C1)[node]}"
    ends = (f"{C1}/node/{node}", agent, address)
    server = world.start_at(node, "--", "serve-udp", address, "5000", "node")
    other = world.start_at(node, "--", "serve-udp", address, "5001", "node")
    try:
        for process in (server, other):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"

        def reaches(name: str, port: int, patience_s: float = PATIENCE_S) -> bool:
            words = ("udp", address, str(port), "1")
            tried = world.start(C1, world.pod(C1, name), *words, patience_s=patience_s)
            out, err = tried.communicate(timeout=120)
            assert out, err
            return bool(json.loads(out)["names"])

        assert reaches("x-wing", 5000)
        world.lab.apply(NODES, cluster=C1)
        eventually("the node refuses it", lambda: not reaches("x-wing", 5000, REFUSED_S))
        assert reaches("x-wing", 5001)
        assert reaches("rebel-base", 5000)
        for end in ends[:2]:
            refused = Explained(world, f"{C1}/default/x-wing", end, 5000, "--protocol=udp")
            assert (refused.allowed, refused.rule("ingress")) == (False, "nodes"), end
            for name, port in (("x-wing", 5001), ("rebel-base", 5000)):
                source = f"{C1}/default/{name}"
                assert Explained(world, source, end, port, "--protocol=udp").allowed, (end, name)
    finally:
        world.mesh.kubectl(C1, "delete", "ccnp", "nodes", "--ignore-not-found")
        for process in (server, other):
            process.kill()
            process.communicate()

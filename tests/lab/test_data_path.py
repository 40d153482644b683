"""Nodes of two clusters do not reach each other any more, while both can read each other's store:
requests stay at home within seconds, and go abroad again in steps. Connections that were there
before live through it all."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from cli import rest
from kind import story
from kind.story import C1, C2, ONE, RATE, TWO, Request
from tests.support import lab as labs
from tests.support.lab import Json, Lab

pytestmark = [pytest.mark.root, pytest.mark.lab]

# Much faster than the defaults.
SETTINGS = {"clustermesh-probe-interval": "1s", "clustermesh-probe-return": "18s"}
# Three rounds of a second, each of up to 2.5 s when nobody answers; a busy machine takes longer.
TAKEN_OUT_S = 45.0
# What TCP's own patience allows: its last attempt before the way is open again lies up to as far
# back as the cut was long, and the next comes as long after it.
PATIENCE_S = 120.0
CONNECTIONS = 24  # so that it never happens that all go to one cluster
PROGRAM = [sys.executable, "-I", "-S", str(labs.CHECKOUT / "tests/support/traffic.py")]
CUT = """table inet isthmus_test_cut {
  chain input { type filter hook input priority -300
    udp dport 8472 ip saddr %s drop
  }
}"""


@dataclass(slots=True)
class Span:
    """Of the clock."""

    begin: float
    end: float


def steady(answer: str) -> tuple[Json, Json]:
    """A global service whose connections last; it says which cluster it is."""
    labels = {"app": "steady"}
    container = {
        "name": "steady",
        "image": "python",
        "command": [*PROGRAM, "serve-tcp", "0.0.0.0", "80", answer],
        "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
    }
    pod = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "steady"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "steady", "annotations": {story.GLOBAL: "true"}},
        "spec": {"selector": labels, "ports": [{"port": 80}]},
    }
    return deployment, service


class World:
    """Two joined clusters with the example workloads."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.mesh = lab, story.Mesh(lab.name)
        patch = json.dumps({"data": SETTINGS})
        for context in (C1, C2):
            named = ("-n", "kube-system", "patch", "configmap", "cilium-config")
            self.mesh.kubectl(context, *named, "--type=merge", "-p", patch)
            self.mesh.kubectl(
                context, "-n", "kube-system", "delete", "pod", "-l", "k8s-app=cilium", "--wait"
            )
            labs.wait_until("agents are back", lambda c=context: len(self.mesh.agents(c)) == 2)
            for pod in self.mesh.agents(context).values():
                lab.wait_ready(pod, namespace="kube-system", cluster=context)
        for tell in (story.clusters, story.joined):
            step = story.Step(0, tell.__name__)
            tell(self.mesh, step)
            assert step.held, step.checks
        self.node = self.mesh.pods(C1, "name=x-wing")[0]["spec"]["nodeName"]
        for context, name in ((C1, ONE), (C2, TWO)):
            lab.apply(*steady(name), cluster=context)
            words = ("rollout", "status", "deployment/steady", "--timeout=110s")
            self.mesh.kubectl(context, *words)

    @contextmanager
    def cut(self) -> Iterator[None]:
        """No packet of the tunnel passes between the clusters; everything else does."""
        nodes = self.lab.topology.nodes
        for node in nodes:
            others = "172.20.2.0/24" if node.name.startswith(C1) else "172.20.1.0/24"
            self._nft(node.netns, "-f", "-", stdin=CUT % others)
        try:
            yield
        finally:
            for node in nodes:
                self._nft(node.netns, "delete", "table", "inet", "isthmus_test_cut")

    def _nft(self, netns: str, *words: str, stdin: str = "") -> None:
        command = ["ip", "netns", "exec", netns, "nft", *words]
        subprocess.run(command, input=stdin, text=True, check=True, timeout=60)

    @contextmanager
    def connections(self) -> Iterator[list[Json]]:
        """Some to ``steady`` of both clusters, open all the while; afterwards what each saw."""
        pod = self.mesh.pods(C1, "name=x-wing")[0]["metadata"]["name"]
        argv = [sys.executable, "-m", "cli.main", "lab", "exec", "--lab", self.lab.name]
        argv += ["--cluster", C1, pod, "--", *PROGRAM]
        argv += ["steady-tcps", "steady", "80", "0.1", str(CONNECTIONS), str(PATIENCE_S)]
        pipe, seen = subprocess.PIPE, []
        process = subprocess.Popen(
            argv, stdin=pipe, stdout=pipe, text=True, env=self.mesh.environment
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield seen
            seen += json.loads(process.communicate(timeout=PATIENCE_S)[0])  # stdin ends
        finally:
            process.kill()
            process.communicate()

    def share_pct(self) -> int:
        """What the client's node gives cluster2 of its usual part."""
        # At its socket: a command would take so long that steps pass unseen.
        socket = self.lab.node(self.node).directory / "run/cilium/cilium.sock"
        remote = rest.get(str(socket), "healthz")["cluster-mesh"]["clusters"][0]
        assert remote["connected"], remote
        return int(remote["data-path"]["share-percent"])

    def told(self) -> str:
        """What ``clustermesh status`` says, well or not."""
        return self.mesh.isthmus("clustermesh", "status", "--context", C1, check=False)

    def steps(self, after_s: float = 4, limit_s: float = 120) -> dict[int, Span]:
        """Each share until it has been whole for a while, and when it certainly was in force."""
        seen: dict[int, Span] = {}
        deadline = time.monotonic() + limit_s
        while 100 not in seen or seen[100].end < seen[100].begin + after_s:
            assert time.monotonic() < deadline, seen
            asked = time.time()
            share = self.share_pct()
            seen.setdefault(share, Span(time.time(), 0)).end = asked
            time.sleep(0.1)
        return seen


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = labs.start("h")
    try:
        yield World(made)
    finally:
        labs.stop(made)


def abroad(requests: list[Request], span: Span) -> tuple[int, int]:
    """Answers of cluster2 in a span of time, and requests. None has failed."""
    # Between a share that is decided and its slots in the kernel lies a moment.
    found = [r for r in requests if span.begin + 0.5 < r.at < span.end]
    assert [r for r in found if not r.ok] == []
    return sum(r.cluster == TWO for r in found), len(found)


def bounds(count: int, part: float) -> tuple[float, float]:
    """Six standard deviations of as many draws."""
    width = 6 * (count * part * (1 - part)) ** 0.5
    return count * part - width, count * part + width


@pytest.mark.timeout(600)
def test_requests_stay_at_home_while_the_way_is_cut(world: World) -> None:
    """The whole of it, with real packets: out, what is said of it, and back in steps.

    Of the connections that were open before, those at home notice nothing, those abroad stand still
    and go on: none is broken, and none comes out at another backend.
    """
    mesh = world.mesh
    before = mesh.ask(100)
    assert before[ONE] > 0 < before[TWO], before
    labs.wait_until("probes were answered", lambda: world.share_pct() == 100)
    with world.connections() as steady, ExitStack() as way:
        way.enter_context(world.cut())
        cut_at = time.monotonic()
        taken_s = mesh.wait_for("cluster2 is out", lambda: world.share_pct() == 0, TAKEN_OUT_S)
        during = mesh.ask(100)
        assert during == {ONE: during[ONE]}, during
        down = "data path down on 2/2 nodes: its backends are out"  # the other node may be later
        said = labs.wait_until("both nodes say so", lambda: down in (s := world.told()) and s)
        assert "2/2 configured, 2/2 connected" in said
        assert "2 only outside of it: let UDP 8472 pass" in said
        with world.connections() as new:
            pass
        assert {c["name"] for c in new} == {ONE}, new
        with mesh.stream("rebel-base") as stream:
            cut_s = time.monotonic() - cut_at
            way.close()  # open again, with the stream under way
            seen = world.steps()
            requests = list(stream.requests)
    # On a busy machine a step may pass unseen, none comes out of turn.
    assert list(seen) == [share for share in (0, 10, 25, 50, 100) if share in seen]
    assert len(seen) > 3, seen
    for share, span in seen.items():
        count, total = abroad(requests, span)
        print(f"out after {taken_s:.1f} s; {share} %: {count} of {total} in cluster2")
        lowest, highest = bounds(total, share / 200)  # half of the backends are cluster2's
        assert lowest <= count <= highest, (share, count, total)
        assert share == 0 or total > RATE / 4
    labs.wait_until("the other node's is whole, too", lambda: "data path" not in world.told())
    mesh.isthmus("clustermesh", "status", "--context", C1)
    print(f"cut for {cut_s:.1f} s: {steady}")
    assert [c for c in steady if c["errors"]] == []
    home = [c for c in steady if c["name"] == ONE]
    away = [c for c in steady if c["name"] == TWO]
    assert len(home) + len(away) == CONNECTIONS
    assert home
    assert away
    assert all(c["worst_s"] < cut_s / 2 for c in home)
    assert all(c["worst_s"] > cut_s / 2 for c in away)

"""Two clusters of a lab joined with a token: traffic crosses, status is good, disconnect works."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from kind import story
from tests.support import lab as labs
from tests.support.lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.xdist_group("join")]


@pytest.fixture(scope="module", params=[False, True], ids=["direct", "kvstoremesh"])
def apart(request: pytest.FixtureRequest) -> Iterator[tuple[Lab, bool]]:
    """Clusters that nobody has connected; and whether their agents are to read copies."""
    made = labs.start("jk" if request.param else "j")
    try:
        yield made, request.param
    finally:
        labs.stop(made)


def join_inside(lab: Lab, token: str, directory: Path) -> str:
    """``join`` by somebody of cluster2, in the network of its node and with its context alone."""
    node = lab.node("cluster2-control-plane")
    whole = yaml.safe_load(lab.kubeconfig.read_text())
    context = next(c for c in whole["contexts"] if c["name"] == story.C2)
    server = next(c for c in whole["clusters"] if c["name"] == context["context"]["cluster"])
    server["cluster"]["server"] = f"https://{node.address}:6443"
    user = next(u for u in whole["users"] if u["name"] == context["context"]["user"])
    own = {**whole, "contexts": [context], "clusters": [server], "users": [user]}
    path = directory / "kubeconfig"
    path.write_text(yaml.safe_dump({**own, "current-context": story.C2}))
    argv = ["ip", "netns", "exec", node.netns, sys.executable, "-m", "cli.main"]
    argv += ["--kubeconfig", str(path), "clustermesh", "join", token]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=60, cwd=labs.CHECKOUT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(400)
def test_joined_by_token(apart: tuple[Lab, bool], tmp_path: Path) -> None:
    """No command sees both clusters until they are joined."""
    lab, copied = apart
    mesh = story.Mesh(lab.name)
    step = story.Step(1, "")
    story.clusters(mesh, step)
    assert step.held, step.checks
    for context in (story.C1, story.C2):
        words = ("--enable-kvstoremesh",) if copied else ()
        mesh.isthmus("clustermesh", "enable", "--context", context, *words)
        rollout = ("rollout", "status", "deployment/clustermesh-apiserver", "--timeout=60s")
        mesh.kubectl(context, "-n", "kube-system", *rollout)
    token = mesh.isthmus("clustermesh", "grant", "--context", story.C1).strip()
    said = join_inside(lab, token, tmp_path)
    assert "Joined cluster" in said
    for context in (story.C1, story.C2):
        words = ("--context", context, "--wait", "--wait-duration", "60s", "-o", "json")
        status = json.loads(mesh.isthmus("clustermesh", "status", *words))
        assert status["connectivity"]["connected"]["min"] == 1
        assert status["kvstoremesh"]["enabled"] is copied
        node = mesh.objects(context, "nodes")[0]["metadata"]["name"]
        (remote,) = mesh.agent(node, "status")["cluster-mesh"]["clusters"]
        assert remote["config"]["kvstoremesh"] is copied
        for name in ("rebel-base", "x-wing"):
            mesh.kubectl(context, "rollout", "status", f"deployment/{name}", "--timeout=60s")
    for number, part in enumerate((story.pod_to_pod, story.global_service), 2):
        step = story.Step(number, "")
        part(mesh, step)
        assert step.held, step.checks
    step = story.Step(8, "")
    story.parted(mesh, step)
    assert step.held, step.checks

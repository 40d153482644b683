"""Two clusters of a lab joined with a token: traffic crosses, status is good, disconnect works."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from certs import check
from certs.issue import KeyPair, issue
from certs.profiles import REMOTE_SECRET, mesh_profiles
from kind import story
from kube.connections import credential_keys
from tests.support import lab as labs
from tests.support.lab import Lab
from tests.support.metrics_page import parse

pytestmark = [pytest.mark.root, pytest.mark.lab]


@pytest.fixture(scope="module", params=[False, True], ids=["direct", "kvstoremesh"])
def apart(request: pytest.FixtureRequest) -> Iterator[tuple[Lab, bool]]:
    """Clusters that nobody has connected; and whether their agents are to read copies."""
    made = labs.start("jk" if request.param else "j")
    try:
        yield made, request.param
    finally:
        labs.stop(made)


def join_inside(lab: Lab, token: str, directory: Path, *words: str) -> str:
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
    argv += ["--kubeconfig", str(path), "clustermesh", "join", token, *words]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=180, cwd=labs.CHECKOUT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def doctor(mesh: story.Mesh, contexts: str = f"{story.C1},{story.C2}") -> list[dict[str, Any]]:
    """Its findings."""
    words = ("clustermesh", "doctor", "--contexts", contexts, "-o", "json")
    found: list[dict[str, Any]] = json.loads(mesh.isthmus(*words, check=False))["findings"]
    return found


def nothing_found(mesh: story.Mesh, contexts: str = f"{story.C1},{story.C2}") -> None:
    """Soon: an agent of a busy machine may not answer at once, which is a finding, too."""
    labs.wait_until(f"nothing is found in {contexts}", lambda: doctor(mesh, contexts) == [], 90, 1)


def doctor_looks_at_what_was_signed(lab: Lab, mesh: story.Mesh, copied: bool) -> None:
    """Nothing is wrong with clusters that have no authority in common; then one certificate is
    near its end, then it is of another authority."""
    nothing_found(mesh)
    nothing_found(mesh, story.C1)
    name = "cilium-kvstoremesh" if copied else "cilium-clustermesh"
    key = credential_keys(story.C2)["crt"]
    good = lab.get("secret", name, "-n", "kube-system")["data"][key]
    profile = mesh_profiles(story.C2)[REMOTE_SECRET]
    begun = datetime.now(UTC) - timedelta(days=profile.validity_days - 9)
    for signer, at, words in (
        (story.C2, begun, "its certificate for the store of cluster cluster2 expires in 8 days"),
        (story.C1, datetime.now(UTC), "that its ca.crt does not hold"),
    ):
        data = lab.get("secret", "cilium-ca", "-n", "kube-system", cluster=signer)["data"]
        ca = KeyPair(*(base64.b64decode(data[part]) for part in ("ca.crt", "ca.key")))
        put(lab, name, key, base64.b64encode(issue(ca, profile, at).certificate).decode())
        found = labs.wait_until(
            "one certificate is told of",
            lambda: len(f := [f for f in doctor(mesh) if f["check"] == "certificate"]) == 1 and f,
        )
        assert words in found[0]["found"]
        assert "grant --name cluster1` in cluster cluster2" in found[0]["remedy"]
        assert found[0]["blocking"] is (signer == story.C1)
    put(lab, name, key, good)
    nothing_found(mesh)


def until_when_it_is_good_is_told(lab: Lab, mesh: story.Mesh, copied: bool) -> None:
    """By the list of certificates, and by the metrics of whoever reads the other's store."""
    rows = json.loads(mesh.isthmus("certs", "list", "--context", story.C1, "-o", "json"))
    secret = "cilium-kvstoremesh" if copied else "cilium-clustermesh"
    (row,) = [r for r in rows if r["secret"] == f"{secret} (cluster2)"]
    assert (row["subject"], row["state"]) == ("remote", "good")
    assert row["authority"] not in {r["authority"] for r in rows if r is not row}
    page = "9964" if copied else "9962"
    url = f"http://127.0.0.1:{page}/metrics"
    code, text = lab.exec("cluster1-control-plane", "curl", "-sS", url)
    assert code == 0, text
    name = "cilium_kvstoremesh" if copied else "isthmus"
    found = parse(text)[f"{name}_certificate_expiration_timestamp_seconds"]
    ends = found.total(target_cluster=story.C2)
    assert ends == datetime.fromisoformat(row["expires"]).timestamp()


def issuers(mesh: story.Mesh, copied: bool) -> set[str]:
    """Whose signature those of cluster2 show who read cluster1, and whose they accept."""
    if copied:
        pods = json.loads(
            mesh.kubectl(
                story.C2, "-n", "kube-system", "get", "pods", "-o", "json",
                "-l", "k8s-app=clustermesh-apiserver",
            )
        )["items"]  # fmt: skip
        name = pods[0]["metadata"]["name"]
        argv = ("clustermesh-apiserver", "kvstoremesh-dbg", "status", "-o", "json")
        words = ("-n", "kube-system", "exec", name, "-c", "kvstoremesh", "--", *argv)
        (remote,) = json.loads(mesh.kubectl(story.C2, *words))
    else:
        node = mesh.objects(story.C2, "nodes")[0]["metadata"]["name"]
        (remote,) = mesh.agent(node, "status")["cluster-mesh"]["clusters"]
    said = remote["certificate"]
    assert said["issuer"] in said["authorities"]
    return {said["issuer"]} if remote["ready"] else set()


def reads_with(mesh: story.Mesh, copied: bool, wanted: set[str]) -> None:
    """Once they are connected again."""

    def look() -> bool:
        try:
            return issuers(mesh, copied) == wanted
        except (story.StoryError, ValueError):
            return False  # one that begins, or ends

    labs.wait_until(f"read with {wanted}", look, 120, 1)


def an_authority_is_replaced(lab: Lab, mesh: story.Mesh, copied: bool, directory: Path) -> None:
    """``certs rotate --ca`` of cluster1 waits until cluster2 has been told by a new token."""
    (before,) = issuers(mesh, copied)
    words = ("certs", "rotate", "--ca", "--context", story.C1, "--peer-delay", "15s")
    argv = [sys.executable, "-m", "cli.main", "--kubeconfig", str(lab.kubeconfig), *words]
    with subprocess.Popen(
        argv, cwd=labs.CHECKOUT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as rotating:
        try:
            assert rotating.stderr is not None
            waits = "cluster cluster2, joined by a token, must learn the new authority"
            assert any(waits in line for line in rotating.stderr)
            # The store was started anew, and nothing that anybody shows has changed.
            reads_with(mesh, copied, {before})
            words = ("clustermesh", "grant", "--context", story.C1, "--name", story.C2)
            token = mesh.isthmus(*words).strip()
            join_inside(lab, token, directory, "--replace")
            said, _ = rotating.communicate(timeout=300)
        finally:
            rotating.kill()  # or leaving this block would wait for it
    assert rotating.returncode == 0
    assert "the old authority is forgotten" in said
    trust = base64.b64decode(
        lab.get("secret", "clustermesh-apiserver-server-cert", "-n", "kube-system")["data"][
            "ca.crt"
        ]
    )
    (after,) = check.authorities(trust)
    assert after != before
    reads_with(mesh, copied, {after})
    nothing_found(mesh)
    rows = json.loads(mesh.isthmus("certs", "list", "--context", story.C2, "-o", "json"))
    assert {r["state"] for r in rows} == {"good"}


def put(lab: Lab, name: str, key: str, value: str) -> None:
    patch = json.dumps({"data": {key: value}})
    lab.kubectl("patch", "secret", name, "-n", "kube-system", "--type=merge", "-p", patch)


@pytest.mark.timeout(900)
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
        rollout = ("rollout", "status", "deployment/clustermesh-apiserver", "--timeout=110s")
        mesh.kubectl(context, "-n", "kube-system", *rollout)
    token = mesh.isthmus("clustermesh", "grant", "--context", story.C1).strip()
    said = join_inside(lab, token, tmp_path)
    assert "Joined cluster" in said
    for context in (story.C1, story.C2):
        words = ("--context", context, "--wait", "--wait-duration", "110s", "-o", "json")
        status = json.loads(mesh.isthmus("clustermesh", "status", *words))
        assert status["connectivity"]["connected"]["min"] == 1
        assert status["kvstoremesh"]["enabled"] is copied
        node = mesh.objects(context, "nodes")[0]["metadata"]["name"]
        (remote,) = mesh.agent(node, "status")["cluster-mesh"]["clusters"]
        assert remote["config"]["kvstoremesh"] is copied
        for name in ("rebel-base", "x-wing"):
            mesh.kubectl(context, "rollout", "status", f"deployment/{name}", "--timeout=110s")
    for number, part in enumerate((story.pod_to_pod, story.global_service), 2):
        step = story.Step(number, "")
        part(mesh, step)
        assert step.held, step.checks
    until_when_it_is_good_is_told(lab, mesh, copied)
    doctor_looks_at_what_was_signed(lab, mesh, copied)
    an_authority_is_replaced(lab, mesh, copied, tmp_path)
    for number, part in enumerate((story.pod_to_pod, story.global_service), 4):
        step = story.Step(number, "")
        part(mesh, step)
        assert step.held, step.checks
    step = story.Step(8, "")
    story.parted(mesh, step)
    assert step.held, step.checks

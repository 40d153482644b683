"""A new authority for a cluster of a live mesh, while pods call each other across it."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from certs import check
from kind import story
from tests.support import lab as labs
from tests.support.lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.lab]
REMOTE_SECRET = "clustermesh-apiserver-remote-cert"
LOCAL_SECRET = "clustermesh-apiserver-local-cert"


class Rotating(NamedTuple):
    """A lab and its mesh."""

    lab: Lab
    mesh: story.Mesh


@pytest.fixture(scope="module", params=[False, True], ids=["direct", "kvstoremesh"])
def rotating(request: pytest.FixtureRequest) -> Iterator[Rotating]:
    """A mesh of its own: what is replaced here, others rely on."""
    made = labs.start("rk" if request.param else "r")
    try:
        yield Rotating(made, story.Mesh(made.name, kvstoremesh=request.param))
    finally:
        labs.stop(made)


def secret(mesh: story.Mesh, context: str, name: str) -> dict[str, bytes]:
    raw = json.loads(
        mesh.kubectl(context, "-n", "kube-system", "get", "secret", name, "-o", "json")
    )
    return {key: base64.b64decode(value) for key, value in raw["data"].items()}


def agents_ready(mesh: story.Mesh) -> bool:
    for context in (story.C1, story.C2):
        words = ("--context", context, "--wait", "--wait-duration", "110s", "-o", "json")
        status = json.loads(mesh.isthmus("clustermesh", "status", *words))
        connected = status["connectivity"]["connected"]
        if connected["min"] != 1 or not status["certificates"]:
            return False
    return True


def issuer(pair: dict[str, bytes]) -> str:
    """Which of the authorities beside it signed a certificate."""
    return check.issuer(pair["tls.crt"], check.authorities(pair["ca.crt"]))


def presented_by_agents(mesh: story.Mesh) -> set[str]:
    """Whose certificates the agents of cluster1 show, each connected to its own store."""
    nodes = [n["metadata"]["name"] for n in mesh.objects(story.C1, "nodes")]
    remotes = [mesh.agent(n, "status")["cluster-mesh"]["clusters"][0] for n in nodes]
    assert all(r["config"]["kvstoremesh"] and r["copy"]["connected"] for r in remotes)
    return {r["certificate"]["issuer"] for r in remotes}


_ASK = """
import sys
from kvstore import diagnose
from kvstore.config import Endpoint, StoreConfig
address, *files = sys.argv[1:]
said = diagnose.explain(
    StoreConfig((), *files), Endpoint(address, 32379, True, "cluster1.mesh.cilium.io")
)
print(said)
"""


def refusal(lab: Lab, address: str, pair: dict[str, bytes], trust: bytes, at: Path) -> str:
    """What the store of cluster1 says to a client of cluster2; empty when it lets it in."""
    files = {"ca": trust, "crt": pair["tls.crt"], "key": pair["tls.key"]}
    for name, data in files.items():
        (at / name).write_bytes(data)
    argv = ["ip", "netns", "exec", lab.node("cluster2-worker").netns, sys.executable, "-c", _ASK]
    argv += [address, *(str(at / name) for name in files)]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=90, check=True, cwd=labs.CHECKOUT
    )
    return done.stdout.strip()


@pytest.mark.timeout(400)
def test_a_new_authority_costs_no_request(rotating: Rotating, tmp_path: Path) -> None:
    """No request across the mesh fails, all agents are ready, the old authority opens nothing.

    With KVStoreMesh agents read their own store, and the mirror the others'.
    """
    lab, mesh = rotating
    for number, step in enumerate((story.clusters, story.joined), 1):
        told = story.Step(number, "")
        step(mesh, told)
        assert told.held, told.checks
    mesh.annotate(story.C1, f"{story.AFFINITY}=remote")  # every request crosses
    old = secret(mesh, story.C1, REMOTE_SECRET)
    status = json.loads(
        mesh.isthmus("clustermesh", "status", "--context", "cluster1", "-o", "json")
    )
    (address, *_) = status["access_information"]["service_ips"]
    new_trust = secret(mesh, story.C2, REMOTE_SECRET)["ca.crt"]
    assert refusal(lab, address, old, new_trust, tmp_path) == ""
    words = ("certs", "rotate", "--ca", "--context", "cluster1", "--destination-context")
    with mesh.stream("rebel-base") as stream:
        said = mesh.isthmus(*words, "cluster2", "-o", "json")
        assert agents_ready(mesh)
        seen = len(stream.requests)
        stream.until("some more", lambda: len(stream.requests) > seen + story.RATE)
    steps = [s["step"] for s in json.loads(said)["steps"]]
    assert {"trust", "restart", "promote", "issue", "forget"} == set(steps)
    print(f"requests {len(stream.requests)}, steps {steps}")
    assert stream.failed == []
    new = secret(mesh, story.C1, REMOTE_SECRET)
    new_trust = secret(mesh, story.C2, REMOTE_SECRET)["ca.crt"]
    assert refusal(lab, address, new, new_trust, tmp_path) == ""
    labs.wait_until(
        "the old one is not let in",
        lambda: "our client certificate" in refusal(lab, address, old, new_trust, tmp_path),
    )
    if mesh.kvstoremesh:
        own = {issuer(secret(mesh, story.C1, LOCAL_SECRET))}
        labs.wait_until("agents show theirs", lambda: presented_by_agents(mesh) == own)
    for context in (story.C1, story.C2):
        rows = json.loads(mesh.isthmus("certs", "list", "--context", context, "-o", "json"))
        assert {r["state"] for r in rows} == {"good"}

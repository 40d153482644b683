"""The port of a running mesh store, called by the certificate of another cluster."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kind import story
from kvstore.advisories import Weakness, weaknesses
from tests.conformance.test_store_front import TURNED_AWAY
from tests.support import lab as labs
from tests.support.lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.lab]
MESH, ETCD, LOCAL = 32379, 32382, 32383


@pytest.fixture(scope="module")
def joined() -> Iterator[Lab]:
    """Two clusters that read each other."""
    made = labs.start("f")
    try:
        mesh = story.Mesh(made.name)
        for number, act in enumerate((story.clusters, story.joined), 1):
            step = story.Step(number, "")
            act(mesh, step)
            assert step.held, step.checks
        yield made
    finally:
        labs.stop(made)


class Certificate:
    """What a cluster has in a Secret, as files."""

    def __init__(self, lab: Lab, cluster: str, name: str, at: Path) -> None:
        words = ("-n", "kube-system", "secret", f"clustermesh-apiserver-{name}-cert")
        data = lab.get(*words, cluster=cluster)["data"]
        self.files = []
        for key in ("ca.crt", "tls.crt", "tls.key"):
            path = at / f"{cluster}-{name}-{key}"
            path.write_bytes(base64.b64decode(data[key]))
            self.files.append(str(path))


def probe(lab: Lab, node: str, place: str, certificate: Certificate) -> dict[str, str]:
    """What each call meets with, sent from a node."""
    argv = ["ip", "netns", "exec", lab.node(node).netns, sys.executable]
    argv += ["-m", "tests.support.store_probe", place, "cluster2.mesh.cilium.io"]
    done = subprocess.run(
        [*argv, *certificate.files],
        cwd=labs.CHECKOUT, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def refused(found: dict[str, str]) -> bool:
    """Nothing got through, and somebody answered."""
    return all(said.startswith("refused: ") for said in found.values())


@pytest.mark.timeout(300)
def test_what_etcd_lets_through_ends_at_the_port(joined: Lab, tmp_path: Path) -> None:
    """Reading passes; nested transactions and watches to the end of all keys do not. The same calls
    to etcd itself, where only its node reaches it, show that they are what they are taken for."""
    address = joined.node("cluster2-control-plane").address
    peer = Certificate(joined, story.C1, "remote", tmp_path)
    found = probe(joined, "cluster1-worker", f"{address}:{MESH}", peer)
    assert (found.pop("heartbeat"), found.pop("status")) == ("allowed", "allowed")
    assert refused(found), found
    assert "refused: UNAVAILABLE" not in found.values()
    assert {"nested read", "nested put", "watch on"} <= found.keys()
    own = Certificate(joined, story.C2, "remote", tmp_path)
    beside = probe(joined, "cluster2-control-plane", f"127.0.0.1:{ETCD}", own)
    version = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True)
    weak = weaknesses(version.stdout.split()[2])
    assert (beside["nested read"] == "allowed") == (Weakness.NESTED in weak)
    assert (beside["watch on"] == "allowed") == (Weakness.WATCH_ON in weak)


@pytest.mark.timeout(300)
def test_etcd_is_nobodys_but_its_nodes(joined: Lab, tmp_path: Path) -> None:
    """From outside there is no such port; on the node another cluster's authority means nothing;
    and the agents' door takes no certificate but theirs."""
    address = joined.node("cluster2-control-plane").address
    peer = Certificate(joined, story.C1, "remote", tmp_path)
    for node, place in (
        ("cluster2-worker", f"{address}:{ETCD}"),
        ("cluster2-control-plane", f"127.0.0.1:{ETCD}"),
        ("cluster1-worker", f"{address}:{LOCAL}"),
    ):
        found = probe(joined, node, place, peer)
        assert set(found.values()) == {"refused: UNAVAILABLE"}, (place, found)
    own = Certificate(joined, story.C2, "remote", tmp_path)
    found = probe(joined, "cluster2-worker", f"{address}:{LOCAL}", own)
    assert set(found.values()) <= TURNED_AWAY, found
    local = Certificate(joined, story.C2, "local", tmp_path)
    found = probe(joined, "cluster2-worker", f"{address}:{LOCAL}", local)
    assert (found.pop("heartbeat"), found.pop("status")) == ("allowed", "allowed")
    assert refused(found), found

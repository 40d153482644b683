"""Two clusters of a lab connected by objects alone: applied, changed, deleted."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from certs.issue import KeyPair, issue
from certs.profiles import REMOTE_SECRET, mesh_profiles
from kind import story
from tests.support import lab as labs
from tests.support.lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.lab]

NUMBERS = {story.C1: 1, story.C2: 2}


@pytest.fixture(scope="module")
def apart() -> Iterator[Lab]:
    """Clusters that nobody has connected."""
    made = labs.start("d")
    yield made
    labs.stop(made)


def credentials(lab: Lab, other: str) -> dict[str, str]:
    """A certificate for the store of the other cluster, as its authority's owner hands it out."""
    found = lab.get("secret", "cilium-ca", "-n", "kube-system", cluster=other)["data"]
    ca = KeyPair(*(base64.b64decode(found[key]) for key in ("ca.crt", "ca.key")))
    pair = issue(ca, mesh_profiles(other)[REMOTE_SECRET], datetime.now(UTC))
    data = {"ca.crt": ca.certificate, "tls.crt": pair.certificate, "tls.key": pair.key}
    return {key: base64.b64encode(value).decode() for key, value in data.items()}


def manifests(lab: Lab, other: str, **more: Any) -> list[dict[str, Any]]:
    """What lies in the repository of the cluster that reads ``other``."""
    place = lab.node(f"{other}-control-plane").address
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": other, "namespace": "isthmus-peers"},
            "data": credentials(lab, other),
        },
        {
            "apiVersion": "isthmus.io/v1alpha1",
            "kind": "ClusterMeshPeer",
            "metadata": {"name": other},
            "spec": {
                "clusterID": NUMBERS[other],
                "endpoints": [f"{place}:32379"],
                "secretRef": {"name": other},
                **more,
            },
        },
    ]


def ready(lab: Lab, other: str, cluster: str) -> dict[str, Any]:
    """The condition of an object."""
    status = lab.get("clustermeshpeer", other, cluster=cluster).get("status") or {}
    return next((c for c in status.get("conditions") or []), {})


@pytest.mark.timeout(400)
def test_connected_by_objects(apart: Lab) -> None:
    """No command connects or parts anything here."""
    mesh = story.Mesh(apart.name)
    step = story.Step(1, "")
    story.clusters(mesh, step)
    assert step.held, step.checks
    for context in (story.C1, story.C2):
        mesh.isthmus("clustermesh", "enable", "--context", context)
        rollout = ("rollout", "status", "deployment/clustermesh-apiserver", "--timeout=110s")
        mesh.kubectl(context, "-n", "kube-system", *rollout)
    for context, other in ((story.C1, story.C2), (story.C2, story.C1)):
        apart.apply(*manifests(apart, other), cluster=context)
    for context, other in ((story.C1, story.C2), (story.C2, story.C1)):
        words = ("--context", context, "--wait", "--wait-duration", "110s", "-o", "json")
        status = json.loads(mesh.isthmus("clustermesh", "status", *words))
        assert status["connectivity"]["connected"]["min"] == 1
        assert status["declared_by"] == {other: other}
        said_connected(apart, other, context)
        for name in ("rebel-base", "x-wing"):
            mesh.kubectl(context, "rollout", "status", f"deployment/{name}", "--timeout=110s")
    for number, part in enumerate((story.pod_to_pod, story.global_service), 2):
        step = story.Step(number, "")
        part(mesh, step)
        assert step.held, step.checks
    changed_is_followed(apart, mesh)
    commands_leave_it_alone(mesh)
    doctor_finds_nothing(mesh)
    deleted_is_parted(apart, mesh)


def said_connected(lab: Lab, other: str, cluster: str) -> None:
    """The condition, in time."""
    labs.wait_until(
        f"{cluster}: the object says that it is connected",
        lambda: ready(lab, other, cluster).get("reason") == "Connected",
    )


def changed_is_followed(lab: Lab, mesh: story.Mesh) -> None:
    """An end of life for stale data is set, and a wrong endpoint is told without guessing."""
    lab.apply(manifests(lab, story.C2, cacheTTL="10m")[1])
    labs.wait_until("the time is set", lambda: b"isthmus-cache-ttl: 10m" in entry(lab, story.C2))
    lab.apply(manifests(lab, story.C2, endpoints=["192.0.2.250"])[1])
    labs.wait_until(
        "the condition names the field",
        lambda: "spec.endpoints" in ready(lab, story.C2, story.C1).get("message", ""),
    )
    assert b"32379" in entry(lab, story.C2)  # the last good connection stays
    lab.apply(manifests(lab, story.C2)[1])
    labs.wait_until(
        "it is good again", lambda: ready(lab, story.C2, story.C1).get("status") == "True"
    )
    assert b"isthmus-cache-ttl" not in entry(lab, story.C2)
    said = mesh.isthmus("clustermesh", "inspect", "--context", story.C1)
    assert "Declared by:    ClusterMeshPeer cluster2" in said


def entry(lab: Lab, other: str) -> bytes:
    """What agents are told."""
    data = lab.get("secret", "cilium-clustermesh", "-n", "kube-system").get("data") or {}
    return base64.b64decode(data.get(other, ""))


def commands_leave_it_alone(mesh: story.Mesh) -> None:
    """What an object has made is the object's."""
    with pytest.raises(story.StoryError, match="connected by ClusterMeshPeer"):
        mesh.isthmus(
            "clustermesh", "disconnect", "--context", story.C1, "--destination-context", story.C2
        )


def doctor_finds_nothing(mesh: story.Mesh) -> None:
    """Nothing is wrong with clusters that were connected this way."""
    words = ("clustermesh", "doctor", "--contexts", f"{story.C1},{story.C2}", "-o", "json")
    labs.wait_until(  # an agent of a busy machine may not answer at once, which is a finding, too
        "nothing is found", lambda: json.loads(mesh.isthmus(*words, check=False))["findings"] == []
    )


def deleted_is_parted(lab: Lab, mesh: story.Mesh) -> None:
    """The object goes at once, and with it what was learnt of the cluster."""
    lab.kubectl("delete", "clustermeshpeer", story.C2, "--timeout=110s")
    labs.wait_until("the entry is gone", lambda: not entry(lab, story.C2))
    mesh.wait_for("remote backends disappear", lambda: len(story._backends(mesh)) == 2)
    data = lab.get("secret", "cilium-clustermesh", "-n", "kube-system").get("data") or {}
    assert not data

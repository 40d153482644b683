"""The main job with KVStoreMesh between the clusters, and what one sees when it is cut off."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from kind import story
from tests.support import lab as labs

pytestmark = [pytest.mark.root, pytest.mark.lab]

TOLD = story.STEPS[:5]


@pytest.fixture(scope="module")
def mesh() -> Iterator[story.Mesh]:
    made = labs.start("k")
    try:
        yield story.Mesh(made.name, kvstoremesh=True)
    finally:
        labs.stop(made)


@pytest.fixture(scope="module")
def told(mesh: story.Mesh) -> dict[int, story.Step]:
    """The story up to its fifth step, told once."""
    return {step.number: step for step in story.tell(mesh, TOLD)}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", range(1, len(TOLD) + 1))
def test_step_holds(told: dict[int, story.Step], number: int) -> None:
    """Every check of the step is true, read through copies."""
    step = told[number]
    print(step.figures)
    assert [what for what, good in step.checks if not good] == []
    assert step.held


def agents(mesh: story.Mesh) -> list[dict[str, Any]]:
    """What each agent of cluster1 says of cluster2."""
    nodes = [n["metadata"]["name"] for n in mesh.objects(story.C1, "nodes")]
    return [mesh.agent(n, "status")["cluster-mesh"]["clusters"][0] for n in nodes]


STATUS = ("clustermesh", "status", "--context", story.C1)


def status(mesh: story.Mesh) -> dict[str, Any]:
    """Of cluster1, whether all is well or not."""
    found: dict[str, Any] = json.loads(mesh.isthmus(*STATUS, "-o", "json", check=False))
    return found


def doctor(mesh: story.Mesh) -> list[dict[str, Any]]:
    """What it finds in cluster1."""
    words = ("clustermesh", "doctor", "--context", story.C1, "-o", "json")
    found: list[dict[str, Any]] = json.loads(mesh.isthmus(*words, check=False))["findings"]
    return found


def well(mesh: story.Mesh) -> bool:
    """The exit status says so."""
    try:
        mesh.isthmus(*STATUS)
    except story.StoryError:
        return False
    return True


@pytest.mark.timeout(300)
def test_agents_read_copies_and_a_cut_is_visible(
    mesh: story.Mesh, told: dict[int, story.Step]
) -> None:
    """Agents reach only their own store; when cluster2's goes away they keep all and say so."""
    assert all(step.held for step in told.values())
    for remote in agents(mesh):
        assert remote["config"]["kvstoremesh"] is True
        assert remote["copy"]["connected"] is True
    labs.wait_until("all is well", lambda: well(mesh))
    assert status(mesh)["kvstoremesh"]["enabled"] is True
    labs.wait_until("nothing is wrong", lambda: doctor(mesh) == [])
    scale = ("scale", "-n", "kube-system", "deployment/clustermesh-apiserver")
    mesh.kubectl(story.C2, *scale, "--replicas=0")
    labs.wait_until(
        "every agent knows of the cut, and why",
        lambda: all(not r["copy"]["connected"] and r["copy"]["error"] for r in agents(mesh)),
    )
    assert all(r["ready"] for r in agents(mesh))
    assert len(story._backends(mesh)) == 4
    assert not well(mesh)
    found = labs.wait_until(
        "the data gets old",
        lambda: (s := status(mesh))["kvstoremesh"]["status"].get("age_seconds") and s,
    )
    assert found["kvstoremesh"]["status"]["age_seconds"]["cluster2"] > 0
    assert "cluster2" in str(found["kvstoremesh"]["status"]["errors"])
    (fault,) = labs.wait_until("one thing is wrong", lambda: len(f := doctor(mesh)) == 1 and f)
    assert fault["check"] == "kvstoremesh"
    assert "agents read data that is" in fault["found"]
    assert "cluster2" in fault["remedy"]
    mesh.kubectl(story.C2, *scale, "--replicas=1")
    labs.wait_until("all is well again", lambda: well(mesh))
    labs.wait_until("for each agent", lambda: all(r["copy"]["connected"] for r in agents(mesh)))

"""Three joined clusters: which of them answers is what annotations of our Service say.

The clusters are joined by one command in mesh mode; all that is judged are answers to requests.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from kind import story
from kind.story import AFFINITY, C1, C2, ONE, TWO
from tests.support import lab as labs

pytestmark = [pytest.mark.root, pytest.mark.lab]

C3, THREE = "cluster3", "Cluster-3"
EVERYBODY = {ONE, TWO, THREE}
ORDER = "isthmus.io/affinity-order"
THRESHOLD = "isthmus.io/failover-threshold"
WEIGHTS = "isthmus.io/cluster-weights"
COUNT = 200
ROLLED_OUT = ("rollout", "status", "deployment/rebel-base", "--timeout=110s")


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[story.Mesh]:
    """Three clusters of a node each, every one reads every other, the example in all."""
    made = labs.start("p", clusters=3, nodes=1)
    try:
        mesh = story.Mesh(made.name)
        for context in (C1, C2, C3):
            mesh.kubectl(context, "apply", "-f", str(example(context, tmp_path_factory)))
            mesh.isthmus("clustermesh", "enable", "--context", context)
        words = ("--context", C1, "--destination-context", f"{C2},{C3}")
        mesh.isthmus("clustermesh", "connect", *words, "--connection-mode", "mesh")
        for context in (C1, C2, C3):
            words = ("--context", context, "--wait", "--wait-duration", "110s", "-o", "json")
            status = json.loads(mesh.isthmus("clustermesh", "status", *words))
            assert set(status["connectivity"]["clusters"]) == {C1, C2, C3} - {context}
            for name in ("rebel-base", "x-wing"):
                mesh.kubectl(context, "rollout", "status", f"deployment/{name}", "--timeout=110s")
        yield mesh
    finally:
        labs.stop(made)


def example(context: str, directories: pytest.TempPathFactory) -> Path:
    """The example of a cluster; that of the third is the second's under its own name."""
    examples = story.HERE / "examples"
    if context != C3:
        return examples / f"{context}.yaml"
    path = directories.mktemp("examples") / "cluster3.yaml"
    path.write_text((examples / "cluster2.yaml").read_text().replace(TWO, THREE))
    return path


@pytest.fixture
def mesh(joined: story.Mesh) -> Iterator[story.Mesh]:
    """No annotation but the global one; all clusters answer."""
    settled(joined, EVERYBODY)
    yield joined
    joined.annotate(C1, *(f"{name}-" for name in (AFFINITY, ORDER, THRESHOLD, WEIGHTS)))


def settled(mesh: story.Mesh, expected: set[str]) -> None:
    """These clusters answer, all of them and no other. Not one request gets no answer."""
    with mesh.stream("rebel-base") as stream:

        def holds() -> bool:
            recent = stream.requests[-30:]
            return len(recent) == 30 and {r.cluster for r in recent} == expected

        stream.until(f"answers of {sorted(expected)}", holds, 90)
    assert stream.failed == []


def shares(mesh: story.Mesh) -> Counter[str]:
    found = mesh.ask(COUNT)
    assert not found["failed"], found
    return found


def near(found: Counter[str], cluster: str, part: float) -> bool:
    """Within six standard deviations of as many draws."""
    total = found.total()
    return abs(found[cluster] - total * part) <= 6 * (total * part * (1 - part)) ** 0.5


@pytest.mark.timeout(300)
def test_clusters_in_order(mesh: story.Mesh) -> None:
    """The first of the order that has a backend has all, whatever is ours; it gets them back."""
    mesh.annotate(C1, f"{ORDER}={C3},{C2}")
    settled(mesh, {THREE})
    mesh.kubectl(C3, "scale", "deployment/rebel-base", "--replicas=0")
    settled(mesh, {TWO})
    mesh.kubectl(C3, "scale", "deployment/rebel-base", "--replicas=2")
    mesh.kubectl(C3, *ROLLED_OUT)
    settled(mesh, {THREE})
    # Among the clusters that come after ours.
    mesh.annotate(C1, f"{AFFINITY}=local", f"{ORDER}={C2}")
    settled(mesh, {ONE})
    mesh.annotate(C1, f"{AFFINITY}=remote")
    settled(mesh, {TWO})


@pytest.mark.timeout(300)
def test_threshold_adds_the_next_cluster(mesh: story.Mesh) -> None:
    """Below its share of ready backends cluster3 helps, cluster2 does not; above it nobody does."""
    mesh.annotate(C1, f"{AFFINITY}=local", f"{ORDER}={C3}", f"{THRESHOLD}=60%")
    settled(mesh, {ONE})
    pod = mesh.pods(C1, "name=rebel-base")[0]["metadata"]["name"]
    mesh.inside(C1, pod, "touch", "/tmp/unready")
    settled(mesh, {ONE, THREE})  # one of two
    mesh.annotate(C1, f"{THRESHOLD}=50%")
    settled(mesh, {ONE})
    mesh.annotate(C1, f"{THRESHOLD}=60%")
    settled(mesh, {ONE, THREE})
    mesh.inside(C1, pod, "rm", "/tmp/unready")
    settled(mesh, {ONE})


@pytest.mark.timeout(300)
def test_clusters_by_weight(mesh: story.Mesh) -> None:
    """Answers come as weights say, also when these change; a cluster without weight has none."""
    mesh.annotate(C1, f"{WEIGHTS}={C1}=80,{C2}=20")
    settled(mesh, {ONE, TWO})
    found = shares(mesh)
    print(found)
    assert near(found, ONE, 0.8), found
    assert not found[THREE]
    mesh.annotate(C1, f"{WEIGHTS}={C2}=10,{C3}=90")
    settled(mesh, {TWO, THREE})
    found = shares(mesh)
    print(found)
    assert near(found, THREE, 0.9), found
    assert not found[ONE]
    # What nobody can read is told, and all clusters are alike until then.
    mesh.annotate(C1, f"{WEIGHTS}={C2}=many")
    settled(mesh, EVERYBODY)
    told = mesh.agent("cluster1-control-plane", "status")["rejected"]["problems"]
    assert f'annotation {WEIGHTS} is "{C2}=many"' in str(told)

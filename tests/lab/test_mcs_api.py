"""MCS-API end to end: two clusters export a service; pods use its name of the cluster set."""

import json
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from kind import story
from kind.story import C1, C2, ONE, TWO
from tests.support import lab as labs

pytestmark = [pytest.mark.root, pytest.mark.lab]

NAME = "rebel-base.default.svc.clusterset.local"
SYSTEM = ("-n", "kube-system")


@pytest.fixture(scope="module", params=[False, True], ids=["direct", "kvstoremesh"])
def mesh(request: pytest.FixtureRequest) -> Iterator[story.Mesh]:
    """Two joined clusters with MCS-API on, and no service that is global by annotation."""
    made = labs.start("y" if request.param else "x")
    told = story.Mesh(made.name, kvstoremesh=request.param)
    try:
        for number, context in ((1, C1), (2, C2)):
            words = ("--context", context, "--cluster-name", context, "--cluster-id", str(number))
            told.isthmus("install", *words, "--set", "clustermesh.mcsapi.enabled=true")
            told.kubectl(context, "delete", "pod", *SYSTEM, "-l", "io.cilium/app=operator")
        for step in story.tell(told, story.STEPS[:2]):
            assert step.held, step.checks
        for context in (C1, C2):
            told.annotate(context, f"{story.GLOBAL}-")
        yield told
    finally:
        labs.stop(made)


def export(mesh: story.Mesh, context: str, name: str = "rebel-base", **spec: Any) -> None:
    body = {
        "apiVersion": "multicluster.x-k8s.io/v1alpha1",
        "kind": "ServiceExport",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }
    labs.wait_until("the kind is served", lambda: _served(mesh, context))
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(body, file)
        file.flush()
        mesh.kubectl(context, "apply", "-f", file.name)


def _served(mesh: story.Mesh, context: str) -> bool:
    try:
        mesh.objects(context, "serviceexports")
    except story.StoryError:
        return False
    return True


def conditions(mesh: story.Mesh, context: str, name: str = "rebel-base") -> dict[str, Any]:
    found = [e for e in mesh.objects(context, "serviceexports") if e["metadata"]["name"] == name]
    listed = found[0].get("status", {}).get("conditions", []) if found else []
    return {c["type"]: (c["status"], c["reason"], c["message"]) for c in listed}


def imports(mesh: story.Mesh, context: str) -> dict[str, Any]:
    return {i["metadata"]["name"]: i for i in mesh.objects(context, "serviceimports")}


def derived(mesh: story.Mesh, context: str) -> list[str]:
    found = [s["metadata"]["name"] for s in mesh.objects(context, "services")]
    return [name for name in found if name.startswith("derived-")]


def has_its_address(mesh: story.Mesh, context: str) -> bool:
    """The import tells that of the Service behind it."""
    (name,) = derived(mesh, context)
    found = mesh.objects(context, "services")
    service = next(s for s in found if s["metadata"]["name"] == name)
    told = imports(mesh, context)["rebel-base"]["spec"].get("ips")
    return bool(told == [service["spec"]["clusterIP"]])


def clusters_of(mesh: story.Mesh, context: str) -> list[str]:
    found = imports(mesh, context).get("rebel-base", {})
    return [c["cluster"] for c in found.get("status", {}).get("clusters", [])]


@pytest.mark.timeout(400)
def test_a_service_of_the_set_of_clusters(mesh: story.Mesh) -> None:
    """Exported in both: one name, backends of both; a conflict is told; withdrawn: all is gone."""
    # One cluster alone: the other, which has the namespace, gets it all the same.
    export(mesh, C2)
    labs.wait_until("imported in cluster1", lambda: clusters_of(mesh, C1) == [C2])
    with mesh.stream(NAME) as stream:
        stream.until("40 answers", lambda: len([r for r in stream.requests if r.ok]) >= 40)
        assert {r.cluster for r in stream.requests if r.ok} == {TWO}
    # Both.
    export(mesh, C1)
    for context in (C1, C2):
        labs.wait_until("of both", lambda c=context: clusters_of(mesh, c) == [C1, C2])
        labs.wait_until(
            "ready", lambda c=context: conditions(mesh, c).get("Ready", "")[:1] == ("True",)
        )
        assert conditions(mesh, context)["Valid"][:2] == ("True", "Valid")
        assert "Conflict" not in conditions(mesh, context)
        assert imports(mesh, context)["rebel-base"]["spec"]["type"] == "ClusterSetIP"
        labs.wait_until("its address is told", lambda c=context: has_its_address(mesh, c))
    with mesh.stream(NAME) as stream:

        def seen() -> set[str]:
            return {r.cluster for r in stream.requests if r.ok}

        stream.until("answers of both", lambda: seen() == {ONE, TWO})
    # A conflict: the younger export is of another affinity; both are told, the older is in force.
    patch = '{"spec":{"sessionAffinity":"ClientIP"}}'
    mesh.kubectl(C1, "patch", "service", "rebel-base", "--type=merge", "-p", patch)
    for context in (C1, C2):
        labs.wait_until("the conflict is told", lambda c=context: "Conflict" in conditions(mesh, c))
        status, reason, message = conditions(mesh, context)["Conflict"]
        assert (status, reason) == ("True", "SessionAffinityConflict")
        assert f'Using "None" from oldest service export in cluster "{C2}"' in message
        assert imports(mesh, context)["rebel-base"]["spec"]["sessionAffinity"] == "None"
    back = '{"spec":{"sessionAffinity":"None"}}'
    mesh.kubectl(C1, "patch", "service", "rebel-base", "--type=merge", "-p", back)
    labs.wait_until("mended", lambda: "Conflict" not in conditions(mesh, C1))
    # Withdrawn.
    for context in (C1, C2):
        mesh.kubectl(context, "delete", "serviceexport", "rebel-base")
    for context in (C1, C2):
        labs.wait_until(
            "all is gone",
            lambda c=context: not imports(mesh, c) and not derived(mesh, c),
        )


def invalid(mesh: story.Mesh, name: str, reason: str = "") -> str:
    """What is said of an export of cluster1, once it is not valid for that reason."""

    def told() -> str:
        # An operator that has not heard of a Service yet says at first that there is none.
        status, why, message = conditions(mesh, C1, name)["Valid"]
        assert status == "False"
        return message if reason in ("", why) else ""

    def look() -> str:
        return told() if conditions(mesh, C1, name) else ""

    found: str = labs.wait_until(f"{name} is not valid {reason}", look)
    return found


@pytest.mark.timeout(300)
def test_what_cannot_be_exported_says_why(mesh: story.Mesh) -> None:
    """No Service, or one without backends of its own: a condition with the reason."""
    export(mesh, C1, "nothing")
    assert "doesn't exist" in invalid(mesh, "nothing", "NoService")
    mesh.kubectl(C1, "create", "service", "externalname", "far", "--external-name=example.com")
    export(mesh, C1, "far")
    invalid(mesh, "far", "InvalidServiceType")
    export(mesh, C1, "x-wing", exportedLabels={"a": "not valid"})
    invalid(mesh, "x-wing")
    assert imports(mesh, C1) == {}

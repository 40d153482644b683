"""Headless services across clusters: pods of the other cluster have names in this one's DNS."""

import json
import tempfile
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from kind import story
from kind.story import C1, C2, ONE, TWO
from tests.lab.test_mcs_api import SYSTEM, export
from tests.support import lab as labs

pytestmark = [pytest.mark.root, pytest.mark.lab]

SETTINGS = (
    "clustermesh.enableEndpointSliceSynchronization=true",
    "clustermesh.mcsapi.enabled=true",
)
MANAGER = "endpointslice.kubernetes.io/managed-by=endpointslice-mesh-controller.cilium.io"


@pytest.fixture(scope="module")
def mesh() -> Iterator[story.Mesh]:
    """Two joined clusters, each with a StatefulSet of two behind the headless service ``crew``."""
    made = labs.start("h")
    told = story.Mesh(made.name)
    try:
        for number, context in ((1, C1), (2, C2)):
            words = ["--context", context, "--cluster-name", context, "--cluster-id", str(number)]
            for setting in SETTINGS:
                words += ["--set", setting]
            told.isthmus("install", *words)
            told.kubectl(context, "delete", "pod", *SYSTEM, "-l", "io.cilium/app=operator")
        for step in story.tell(told, story.STEPS[:2]):
            assert step.held, step.checks
        for name, context in (("one", C1), ("two", C2)):
            apply(told, context, service(), stateful_set(name))
            told.kubectl(context, "rollout", "status", f"statefulset/{name}", "--timeout=110s")
        yield told
    finally:
        labs.stop(made)


def apply(mesh: story.Mesh, context: str, *bodies: dict[str, Any]) -> None:
    for body in bodies:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(body, file)
            file.flush()
            mesh.kubectl(context, "apply", "-f", file.name)


def service() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "crew", "annotations": {story.GLOBAL: "true"}},
        "spec": {
            "clusterIP": "None",
            "selector": {"app": "crew"},
            "ports": [{"name": "http", "port": 80}],
        },
    }


def stateful_set(name: str) -> dict[str, Any]:
    container = {
        "name": "web",
        "image": "docker.io/nginx:1.15.8",
        "ports": [{"containerPort": 80}],
        "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
        "volumeMounts": [{"name": "html", "mountPath": "/usr/share/nginx/html/"}],
    }
    items = [{"key": "message", "path": "index.html"}]
    volume = {"name": "html", "configMap": {"name": "rebel-base-response", "items": items}}
    pod = {
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": [volume],
    }
    labels = {"app": "crew"}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name},
        "spec": {
            "serviceName": "crew",
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def pod_ips(mesh: story.Mesh, context: str) -> dict[str, str]:
    found = mesh.pods(context, "app=crew")
    return {p["metadata"]["name"]: p["status"].get("podIP", "") for p in found}


def copies(mesh: story.Mesh, context: str) -> list[dict[str, Any]]:
    return mesh.objects(context, "endpointslices", "-l", MANAGER)


def copied(mesh: story.Mesh, context: str, service_name: str = "crew") -> set[str]:
    return {
        address
        for one in copies(mesh, context)
        if one["metadata"]["labels"]["kubernetes.io/service-name"] == service_name
        for endpoint in one.get("endpoints") or ()
        for address in endpoint["addresses"]
    }


def resolve(mesh: story.Mesh, context: str, host: str) -> set[str]:
    """Addresses that x-wing of a cluster finds for a name; none when there is no such name."""
    pod = mesh.pods(context, "name=x-wing")[0]["metadata"]["name"]
    try:
        text = mesh.inside(context, pod, "getent", "ahostsv4", host)
    except story.StoryError:
        return set()
    return {line.split()[0] for line in text.splitlines() if line}


def names(mesh: story.Mesh, context: str, host: str, wanted: set[str]) -> None:
    """A name has these addresses, soon."""
    found: set[str] = set()

    def holds() -> bool:
        nonlocal found
        found = resolve(mesh, context, host)
        return found == wanted

    try:
        labs.wait_until(f"{host} in {context}", holds)
    except AssertionError as error:
        raise AssertionError(f"{error}: {sorted(found)}, not {sorted(wanted)}") from None


def nothing_copied(mesh: story.Mesh, context: str) -> bool:
    return not copies(mesh, context)


def answer(mesh: story.Mesh, context: str, host: str) -> str:
    pod = mesh.pods(context, "name=x-wing")[0]["metadata"]["name"]
    found = json.loads(mesh.inside(context, pod, "curl", "-s", "-m", "20", f"http://{host}/"))
    return str(found["Cluster"])


@pytest.mark.timeout(300)
def test_pods_of_the_other_cluster_have_names(mesh: story.Mesh) -> None:
    """By the service's name all pods of both, by its own name each; with what runs there now."""
    ips = {context: pod_ips(mesh, context) for context in (C1, C2)}
    everybody = {ip for of in ips.values() for ip in of.values()}
    for context in (C1, C2):
        names(mesh, context, "crew.default.svc.cluster.local", everybody)
        for pod, ip in (ips[C1] | ips[C2]).items():
            names(mesh, context, f"{pod}.crew", {ip})
    assert answer(mesh, C1, "two-1.crew") == TWO
    assert answer(mesh, C1, "one-1.crew") == ONE
    assert answer(mesh, C2, "one-0.crew") == ONE
    # Agents and the publisher of a cluster take no copy for their own.
    assert {
        s["metadata"]["labels"]["multicluster.kubernetes.io/source-cluster"]
        for s in copies(mesh, C1)
    } == {C2}
    mesh.kubectl(C2, "scale", "statefulset", "two", "--replicas=1")
    left = {ips[C2]["two-0"]}
    labs.wait_until("one is gone", lambda: copied(mesh, C1) == left)
    labs.wait_until("and its name", lambda: not resolve(mesh, C1, "two-1.crew"))
    # An operator that is killed finds everything as it left it.
    before = {s["metadata"]["name"]: s["metadata"]["uid"] for s in copies(mesh, C1)}
    mesh.kubectl(C1, "delete", "pod", *SYSTEM, "-l", "io.cilium/app=operator", "--wait=false")
    mesh.kubectl(C2, "scale", "statefulset", "two", "--replicas=2")
    labs.wait_until("followed again", lambda: len(copied(mesh, C1)) == 2, 90)
    assert (
        before.items()
        <= {s["metadata"]["name"]: s["metadata"]["uid"] for s in copies(mesh, C1)}.items()
    )


def changed(mesh: story.Mesh, pod: str, before: dict[str, dict[str, str]]) -> str:
    """The address of a pod of cluster2 that has taken the place of an earlier one."""
    ip = pod_ips(mesh, C2).get(pod, "")
    return ip if ip != before[C2][pod] else ""


@pytest.mark.timeout(300)
def test_headless_services_of_the_set_of_clusters(mesh: story.Mesh) -> None:
    """Exported in both: names below clusterset.local, for the service and for each of its pods."""
    for context in (C1, C2):
        export(mesh, context, "crew")
    ips = {context: pod_ips(mesh, context) for context in (C1, C2)}
    everybody = {ip for of in ips.values() for ip in of.values()}
    name = "crew.default.svc.clusterset.local"
    for context in (C1, C2):
        names(mesh, context, name, everybody)
        for other in (C1, C2):
            for pod, ip in ips[other].items():
                names(mesh, context, f"{pod}.{other}.{name}", {ip})
    assert answer(mesh, C1, name) in (ONE, TWO)
    assert answer(mesh, C1, f"two-0.{C2}.{name}") == TWO
    mesh.kubectl(C2, "delete", "pod", "two-0", "--wait=false")
    anew = labs.wait_until("two-0 is another pod", partial(changed, mesh, "two-0", ips))
    names(mesh, C1, f"two-0.{C2}.{name}", {anew})
    mesh.kubectl(C2, "delete", "serviceexport", "crew")
    names(mesh, C1, name, set(ips[C1].values()))


@pytest.mark.timeout(300)
def test_disconnected_means_gone(mesh: story.Mesh) -> None:
    """What was copied of a cluster goes with it, and comes back with it."""
    labs.wait_until("there is something", lambda: copies(mesh, C1))
    pair = ("--context", C1, "--destination-context", C2)
    mesh.isthmus("clustermesh", "disconnect", *pair)
    for context in (C1, C2):
        labs.wait_until("nothing is left", partial(nothing_copied, mesh, context), 90)
    names(mesh, C1, "crew", set(pod_ips(mesh, C1).values()))
    mesh.isthmus("clustermesh", "connect", *pair)
    for context in (C1, C2):
        labs.wait_until("copied again", partial(copied, mesh, context), 90)

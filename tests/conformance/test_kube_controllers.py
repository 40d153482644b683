"""The lab's controllers against its API server, with a kubelet that says every pod runs."""

import contextlib
import http.client
import threading
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from tests.support.kind_apiserver import Cluster, cluster, deployment, pod, service, until

_numbers = count(1)
_MERGE = {"content_type": "application/merge-patch+json"}


class Kubelet:
    """Plays the kubelets: gives each placed pod an address, ends each deleted one.

    ``unready`` holds beginnings of names of pods that do not become ready, ``busy`` of those that
    do not end.
    """

    def __init__(self, api: Cluster) -> None:
        self._api = api
        self._addresses = count(2)
        self._given: set[str] = set()  # UIDs: events are older than our own writes
        self.unready: set[str] = set()
        self.busy: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(40)

    def _run(self) -> None:
        while not self._ended.is_set():
            # A server that is killed, or starts, answers by halves.
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
                listed = self._api.get("/api/v1/pods").body
                for item in listed["items"]:
                    self._look(item)
                revision = listed["metadata"]["resourceVersion"]
                path = f"/api/v1/pods?watch=1&resourceVersion={revision}&timeoutSeconds=1"
                for event in self._api.watch(path):
                    if event["type"] in ("ADDED", "MODIFIED"):
                        self._look(event["object"])

    def _look(self, item: Any) -> None:
        m, path = item["metadata"], pod_path(item)
        if not item["spec"].get("nodeName"):
            return
        if m.get("deletionTimestamp"):
            if not any(m["name"].startswith(b) for b in self.busy):
                body = {"gracePeriodSeconds": 0, "preconditions": {"uid": m["uid"]}}
                self._api.request("DELETE", path, body)
        elif m["uid"] not in self._given:
            self._given.add(m["uid"])
            number = next(self._addresses)
            ready = str(not any(m["name"].startswith(u) for u in self.unready))
            status = {
                "phase": "Running",
                "podIP": f"10.1.{number >> 8}.{number & 255}",
                "conditions": [{"type": "Ready", "status": ready}],
            }
            self._api.request("PATCH", f"{path}/status", {"status": status}, **_MERGE)


def pod_path(item: Any) -> str:
    m = item["metadata"]
    return f"/api/v1/namespaces/{m['namespace']}/pods/{m['name']}"


def set_ready(api: Cluster, item: Any, ready: bool) -> None:
    status = {"status": {"conditions": [{"type": "Ready", "status": str(ready)}]}}
    api.request("PATCH", f"{pod_path(item)}/status", status, **_MERGE)


def node(name: str, **labels: str) -> Any:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name} | labels},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Kubelet]]:
    with cluster(tmp_path_factory.mktemp("controllers")) as api:
        for name in ("n1", "n2"):
            api.request("POST", "/api/v1/nodes", node(name))
        api.start_controllers("--cluster-cidr=10.1.0.0/16")
        kubelet = Kubelet(api)
        kubelet.start()
        try:
            yield api, kubelet
        finally:
            kubelet.stop()


@pytest.fixture
def api(world: tuple[Cluster, Kubelet]) -> Cluster:
    return world[0]


@pytest.fixture
def kubelet(world: tuple[Cluster, Kubelet]) -> Kubelet:
    return world[1]


@pytest.fixture
def space(api: Cluster) -> str:
    """A namespace that has its defaults."""
    name = f"t{next(_numbers)}"
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    until(
        "the service account",
        lambda: api.get(f"/api/v1/namespaces/{name}/serviceaccounts/default").code == 200,
    )
    return name


def pods(api: Cluster, space: str) -> list[Any]:
    found: list[Any] = api.get(f"/api/v1/namespaces/{space}/pods").body["items"]
    return found


def endpoints(api: Cluster, space: str, name: str) -> list[Any]:
    """The endpoints in all slices of a service, by address."""
    path = f"/apis/discovery.k8s.io/v1/namespaces/{space}/endpointslices"
    slices = api.get(f"{path}?labelSelector=kubernetes.io/service-name%3D{name}").body["items"]
    found = [e for s in slices for e in s.get("endpoints") or []]
    return sorted(found, key=lambda e: str(e["addresses"]))


def ready_addresses(api: Cluster, space: str, name: str) -> list[str]:
    found = endpoints(api, space, name)
    return [e["addresses"][0] for e in found if e["conditions"]["ready"]]


def test_every_namespace_has_its_defaults(api: Cluster, space: str) -> None:
    """A new namespace gets a service account and the cluster's CA, again when one is deleted."""
    path = f"/api/v1/namespaces/{space}/configmaps/kube-root-ca.crt"
    found = until("the CA", lambda: api.get(path).code == 200 and api.get(path).body)
    assert found["data"]["ca.crt"] == api.certificate.read_text()
    api.request("DELETE", path)
    until("the CA again", lambda: api.get(path).code == 200)


def test_nodes_get_prefixes(api: Cluster) -> None:
    """Every node has a pod prefix of its own."""

    def prefixes() -> list[str]:
        nodes = api.get("/api/v1/nodes").body["items"]
        found = [n.get("spec", {}).get("podCIDR") for n in nodes]
        return found if all(found) else []

    found = until("prefixes", prefixes)
    assert len(set(found)) == len(found) >= 2
    assert all(f.startswith("10.1.") and f.endswith("/24") for f in found)


def test_deployment_rolls_out(api: Cluster, space: str) -> None:
    """A deployment's pods run, a new image replaces them all, an undo brings the old one back."""
    rollout = ("rollout", "status", "-n", space, "deployment/d", "--timeout=60s")
    api.apply(deployment("d", space, 3))
    api.kubectl(*rollout)
    assert {p["spec"]["nodeName"] for p in pods(api, space)} == {"n1", "n2"}
    api.kubectl("set", "image", "-n", space, "deployment/d", "main=example:2")
    api.kubectl(*rollout)

    def images() -> list[str]:
        alive = [p for p in pods(api, space) if not p["metadata"].get("deletionTimestamp")]
        return [p["spec"]["containers"][0]["image"] for p in alive]

    until("only new pods", lambda: images() == ["example:2"] * 3)
    api.kubectl("rollout", "undo", "-n", space, "deployment/d")
    api.kubectl(*rollout)
    until("only old pods", lambda: images() == ["example:1"] * 3)
    history = api.kubectl("rollout", "history", "-n", space, "deployment/d").split()
    assert "3" in history


def test_roll_out_keeps_pods_available(api: Cluster, kubelet: Kubelet, space: str) -> None:
    """New pods that never become ready leave the allowed number of old ones in place."""
    api.apply(deployment("stuck", space, 4))
    api.kubectl("rollout", "status", "-n", space, "deployment/stuck", "--timeout=60s")
    kubelet.unready.add("stuck")
    api.kubectl("set", "image", "-n", space, "deployment/stuck", "main=example:2")

    def settled() -> bool:
        status = api.json("get", "deployment/stuck", "-n", space)["status"]
        return bool(status["updatedReplicas"] == 2 and status["replicas"] == 5)

    until("the roll-out stops", settled)
    assert api.json("get", "deployment/stuck", "-n", space)["status"]["availableReplicas"] == 3


def test_scaling_and_repair(api: Cluster, space: str) -> None:
    """Scaling up and down, and a pod deleted by hand, end in exactly the wanted pods."""
    api.apply(deployment("d", space, 1))

    def running() -> int:
        return sum(1 for p in pods(api, space) if not p["metadata"].get("deletionTimestamp"))

    until("one pod", lambda: running() == 1)
    api.kubectl("scale", "-n", space, "deployment/d", "--replicas=7")
    until("seven pods", lambda: running() == 7)
    api.request("DELETE", pod_path(pods(api, space)[0]))
    until("six old, one new", lambda: running() == 7 and len(pods(api, space)) == 7)
    api.kubectl("scale", "-n", space, "deployment/d", "--replicas=2")
    until("two pods", lambda: len(pods(api, space)) == 2)
    until(
        "the status",
        lambda: (
            (api.json("get", "deployment/d", "-n", space).get("status") or {}).get("replicas") == 2
        ),
    )


def test_endpoints_follow_readiness(api: Cluster, space: str) -> None:
    """Ready pods are ready endpoints, with node, target and the resolved port; others are not."""
    api.apply(service("d", space, {"app": "d"}), deployment("d", space, 2))
    addresses = until("two", lambda: len(a := ready_addresses(api, space, "d")) == 2 and a)
    found = endpoints(api, space, "d")
    names = {p["metadata"]["name"] for p in pods(api, space)}
    assert {e["targetRef"]["name"] for e in found} == names
    assert {e["nodeName"] for e in found} == {"n1", "n2"}
    slices = api.json("get", "endpointslices", "-n", space)["items"]
    assert [(p["name"], p["port"]) for p in slices[0]["ports"]] == [("", 8080)]
    first = next(p for p in pods(api, space) if p["status"]["podIP"] == addresses[0])
    set_ready(api, first, False)
    until("one left", lambda: ready_addresses(api, space, "d") == addresses[1:])
    subset = until(
        "the Endpoints object",
        lambda: [
            s
            for s in api.json("get", "endpoints/d", "-n", space).get("subsets") or []
            if s.get("notReadyAddresses")
        ],
    )[0]
    assert [a["ip"] for a in subset["addresses"]] == addresses[1:]
    set_ready(api, first, True)
    until("both", lambda: ready_addresses(api, space, "d") == addresses)
    api.kubectl("delete", "service/d", "-n", space)
    until("no slice", lambda: not api.json("get", "endpointslices", "-n", space)["items"])


def test_terminating_pods_serve(api: Cluster, kubelet: Kubelet, space: str) -> None:
    """A pod that ends is no longer ready but still serving, until it is gone."""
    kubelet.busy.add("slow")
    api.apply(service("s", space, {"app": "slow"}), pod("slow", space, app="slow"))
    until("ready", lambda: ready_addresses(api, space, "s"))
    api.kubectl("delete", "pod/slow", "-n", space, "--wait=false")
    found = until(
        "not ready", lambda: not ready_addresses(api, space, "s") and endpoints(api, space, "s")
    )
    assert found[0]["conditions"] == {"ready": False, "serving": True, "terminating": True}
    kubelet.busy.discard("slow")
    api.request("DELETE", f"/api/v1/namespaces/{space}/pods/slow", {"gracePeriodSeconds": 0})
    until("gone", lambda: not endpoints(api, space, "s"))


def test_daemon_set(api: Cluster, space: str) -> None:
    """One pod per node whatever its taints and readiness; new nodes get one, gone ones lose it."""
    manifest = deployment("ds", space, 0)
    manifest["kind"] = "DaemonSet"
    del manifest["spec"]["replicas"]
    api.apply(manifest)

    def where() -> list[str]:
        return sorted(p["spec"]["nodeName"] for p in pods(api, space))

    until("two pods", lambda: where() == ["n1", "n2"])
    third = node("n3")
    third["spec"] = {"taints": [{"key": "x", "effect": "NoSchedule"}]}
    third["status"]["conditions"][0]["status"] = "False"
    api.request("POST", "/api/v1/nodes", third)
    until("three pods", lambda: where() == ["n1", "n2", "n3"])
    api.kubectl("rollout", "restart", "-n", space, "daemonset/ds")
    api.kubectl("rollout", "status", "-n", space, "daemonset/ds", "--timeout=60s")
    api.request("DELETE", "/api/v1/nodes/n3")
    until("two pods again", lambda: where() == ["n1", "n2"])


def test_job(api: Cluster, space: str) -> None:
    """A job runs its pods to completion and says so; too many failures end it."""
    manifest = deployment("j", space, 1)
    manifest |= {"apiVersion": "batch/v1", "kind": "Job"}
    manifest["spec"] = {"completions": 2, "template": manifest["spec"]["template"]}
    manifest["spec"]["template"]["spec"]["restartPolicy"] = "Never"
    api.apply(manifest)
    for done in (1, 2):
        running = until(
            "a pod",
            lambda: [p for p in pods(api, space) if p["status"].get("phase") == "Running"],
        )
        status = {"status": {"phase": "Succeeded"}}
        api.request("PATCH", f"{pod_path(running[0])}/status", status, **_MERGE)
        until(
            "counted",
            lambda n=done: (
                (api.json("get", "job/j", "-n", space).get("status") or {}).get("succeeded") == n
            ),
        )
    api.kubectl("wait", "--for=condition=complete", "-n", space, "job/j", "--timeout=60s")
    assert len(pods(api, space)) == 2


def test_stateful_set(api: Cluster, space: str) -> None:
    """Numbered pods come in order and go in reverse."""
    manifest = deployment("s", space, 3)
    manifest["kind"] = "StatefulSet"
    manifest["spec"]["serviceName"] = "s"
    api.apply(manifest)
    api.kubectl("rollout", "status", "-n", space, "statefulset/s", "--timeout=60s")
    assert [p["metadata"]["name"] for p in pods(api, space)] == ["s-0", "s-1", "s-2"]
    api.kubectl("scale", "-n", space, "statefulset/s", "--replicas=1")
    until("one", lambda: [p["metadata"]["name"] for p in pods(api, space)] == ["s-0"])


def test_scheduling(api: Cluster, space: str) -> None:
    """Selectors and taints are respected; a pod that fits nowhere says why, and waits."""
    lost = pod("lost", space)
    lost["spec"]["nodeSelector"] = {"disk": f"fast-{space}"}
    api.apply(lost)

    def conditions() -> list[Any]:
        item = api.get(f"/api/v1/namespaces/{space}/pods/lost").body
        return [c for c in item["status"].get("conditions") or [] if c["type"] == "PodScheduled"]

    found = until("a verdict", conditions)[0]
    assert (found["status"], found["reason"]) == ("False", "Unschedulable")
    assert "0/2 nodes are available" in found["message"]
    api.kubectl("label", "node/n2", f"disk=fast-{space}")
    item = until(
        "placed",
        lambda: (
            (i := api.get(f"/api/v1/namespaces/{space}/pods/lost").body)["spec"].get("nodeName")
            and i
        ),
    )
    assert item["spec"]["nodeName"] == "n2"
    api.kubectl("label", "node/n2", "disk-")


def test_spread_by_anti_affinity(api: Cluster, space: str) -> None:
    """Two pods that refuse each other's node land on two nodes, a third waits."""
    manifest = deployment("a", space, 3)
    term = {"labelSelector": {"matchLabels": {"app": "a"}}, "topologyKey": "kubernetes.io/hostname"}
    manifest["spec"]["template"]["spec"]["affinity"] = {
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    }
    api.apply(manifest)

    def placed() -> bool:
        found = [p["spec"].get("nodeName") for p in pods(api, space)]
        waits = [
            p
            for p in pods(api, space)
            if any(c.get("reason") == "Unschedulable" for c in p["status"].get("conditions") or [])
        ]
        return sorted(f for f in found if f) == ["n1", "n2"] and len(waits) == 1

    until("two placed, one waiting", placed)


def test_deletion_takes_dependents(api: Cluster, space: str) -> None:
    """Background, foreground and orphaning deletion do what their names say."""

    def left(kind: str) -> list[str]:
        return api.kubectl("get", kind, "-n", space, "-o", "name").split()

    for policy in ("background", "foreground"):
        api.apply(deployment("d", space, 2))
        until("pods", lambda: len(pods(api, space)) == 2)
        api.kubectl("delete", "deployment/d", "-n", space, f"--cascade={policy}", "--timeout=60s")
        if policy == "foreground":
            assert left("replicasets") == []
        until("nothing left", lambda: not left("replicasets") and not pods(api, space))
    api.apply(deployment("d", space, 2))
    until("pods", lambda: len(pods(api, space)) == 2)
    api.kubectl("delete", "deployment/d", "-n", space, "--cascade=orphan", "--timeout=60s")
    (kept,) = api.json("get", "replicasets", "-n", space)["items"]
    assert not kept["metadata"].get("ownerReferences")
    assert len(pods(api, space)) == 2


def test_custom_objects_follow_their_owner(api: Cluster, space: str) -> None:
    """A custom object owned by a pod goes with it, though its CRD came after the controllers."""
    api.apply(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "tags.example.com"},
            "spec": {
                "group": "example.com",
                "scope": "Namespaced",
                "names": {"plural": "tags", "kind": "Tag"},
                "versions": [
                    {
                        "name": "v1",
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": {"type": "object"}},
                    }
                ],
            },
        },
        pod("p", space),
    )
    owner = api.get(f"/api/v1/namespaces/{space}/pods/p").body
    path = f"/apis/example.com/v1/namespaces/{space}/tags"
    reference = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": owner["metadata"]["uid"]}
    for name, refs in (("owned", [reference]), ("free", [])):
        m = {"name": name, "ownerReferences": refs}
        assert api.request("POST", path, {"metadata": m}).code == 201
    api.kubectl("delete", "pod/p", "-n", space)
    until(
        "only the free one",
        lambda: [i["metadata"]["name"] for i in api.get(path).body["items"]] == ["free"],
    )


def test_namespace_ends_with_everything_in_it(api: Cluster, space: str) -> None:
    """Deleting a namespace deletes its objects and then itself; meanwhile nothing new comes in."""
    api.apply(deployment("d", space, 2), service("d", space, {"app": "d"}))
    held = {"metadata": {"name": "held", "finalizers": ["example.com/hold"]}}
    maps = f"/api/v1/namespaces/{space}/configmaps"
    assert api.request("POST", maps, held).code == 201
    api.kubectl("delete", "namespace", space, "--wait=false")
    until("pods gone", lambda: not pods(api, space))
    refused = api.request("POST", maps, {"metadata": {"name": "late"}})
    assert (refused.code, refused.body["details"]["causes"][0]["reason"]) == (
        403,
        "NamespaceTerminating",
    )
    assert api.get(f"/api/v1/namespaces/{space}").body["status"]["phase"] == "Terminating"
    api.request("PATCH", f"{maps}/held", {"metadata": {"finalizers": None}}, **_MERGE)
    until("the namespace is gone", lambda: api.get(f"/api/v1/namespaces/{space}").code == 404)


def test_controllers_survive_crashes(api: Cluster, space: str) -> None:
    """kill -9 of controllers and API server in the middle of work ends in the wanted state."""
    api.apply(service("d", space, {"app": "d"}), deployment("d", space, 6))
    api.kill("controllers")
    api.kill("api")
    api.start_api()
    api.kubectl("scale", "-n", space, "deployment/d", "--replicas=4")
    api.start_controllers("--cluster-cidr=10.1.0.0/16")
    until("four ready", lambda: len(ready_addresses(api, space, "d")) == 4)
    api.kill("api")
    api.start_api()
    api.kubectl("scale", "-n", space, "deployment/d", "--replicas=5")
    until("five ready", lambda: len(ready_addresses(api, space, "d")) == 5)
    until("no other is left", lambda: len(pods(api, space)) == 5)

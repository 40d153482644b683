"""Rules for single kinds in the lab's API server: services, pods, events, custom resources."""

import json
import subprocess
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from tests.support.kind_apiserver import Cluster, cluster, pod, service, until

_numbers = count(1)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("kinds")) as made:
        yield made


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A server to be killed."""
    with cluster(tmp_path_factory.mktemp("own")) as made:
        yield made


@pytest.fixture
def space(api: Cluster) -> str:
    """A namespace for one test."""
    name = f"t{next(_numbers)}"
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


def _pods(space: str) -> str:
    return f"/api/v1/namespaces/{space}/pods"


def test_service_addresses(api: Cluster, space: str) -> None:
    """A service gets an address once; asking for one, none or a taken one works as documented."""
    own_ip = service("fixed", space, {})
    own_ip["spec"]["clusterIP"] = f"10.96.77.{next(_numbers)}"
    api.apply(service("a", space, {}), own_ip, service("none", space, {}, clusterIP="None"))
    found = {
        i["metadata"]["name"]: i["spec"] for i in api.json("get", "services", "-n", space)["items"]
    }
    assert found["fixed"]["clusterIP"] == own_ip["spec"]["clusterIP"]
    assert found["none"]["clusterIP"] == "None"
    assert found["a"]["clusterIP"].startswith("10.96.")
    assert found["a"]["ports"][0]["protocol"] == "TCP"
    outside = service("outside", space, {}, clusterIP="192.0.2.1")
    refused = api.request("POST", f"/api/v1/namespaces/{space}/services", outside)
    assert "not in the valid range" in refused.body["message"]
    change = '{"spec":{"clusterIP":"10.96.77.250"}}'
    refused = api.run("patch", "service/a", "-n", space, "--type=merge", "-p", change)
    assert "may not change once set" in refused.stderr


def test_node_port(api: Cluster, space: str) -> None:
    """A NodePort service keeps the port it asks for, and gets one when it does not."""
    asked = service("a", space, {}, type="NodePort")
    asked["spec"]["ports"][0]["nodePort"] = 32379
    api.apply(asked, service("b", space, {}, type="NodePort"))
    found = [
        i["spec"]["ports"][0]["nodePort"] for i in api.json("get", "services", "-n", space)["items"]
    ]
    assert found[0] == 32379
    assert found[1] != 32379
    assert 30000 <= found[1] < 32768


def test_kubernetes_service(api: Cluster) -> None:
    """The server publishes itself as the service ``kubernetes``."""
    assert api.json("get", "service/kubernetes")["spec"]["clusterIP"] == "10.96.0.1"
    found = api.json("get", "endpointslice/kubernetes")
    assert found["endpoints"][0]["addresses"] == ["127.0.0.1"]
    assert found["ports"][0]["port"] == api.port
    api.kubectl("delete", "service/kubernetes", "endpointslice/kubernetes")
    path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes"
    until("the slice is back", lambda: api.get(path).code == 200)
    until(
        "the service", lambda: api.get("/api/v1/namespaces/default/services/kubernetes").code == 200
    )


def test_graceful_pod_deletion(api: Cluster, space: str) -> None:
    """A placed pod is first marked, and goes when its kubelet deletes it with grace 0."""
    api.apply(pod("p", space))
    api.request("POST", f"{_pods(space)}/p/binding", {"target": {"name": "n1"}})
    api.kubectl("delete", "pod/p", "-n", space, "--wait=false", "--grace-period=5")
    found = api.json("get", "pod/p", "-n", space)["metadata"]
    assert found["deletionGracePeriodSeconds"] == 5
    assert "Terminating" in api.kubectl("get", "pods", "-n", space)
    wrong = {"gracePeriodSeconds": 0, "preconditions": {"uid": "other"}}
    assert api.request("DELETE", f"{_pods(space)}/p", wrong).code == 409
    right = {"gracePeriodSeconds": 0, "preconditions": {"uid": found["uid"]}}
    assert api.request("DELETE", f"{_pods(space)}/p", right).code == 200
    assert api.get(f"{_pods(space)}/p").code == 404


def test_finalizers(api: Cluster, space: str) -> None:
    """An object with a finalizer goes when the finalizer does."""
    path = f"/api/v1/namespaces/{space}/configmaps"
    api.request("POST", path, {"metadata": {"name": "c", "finalizers": ["example.com/hold"]}})
    assert api.request("DELETE", f"{path}/c").body["metadata"]["deletionTimestamp"]
    merge = {"content_type": "application/merge-patch+json"}
    api.request("PATCH", f"{path}/c", {"metadata": {"finalizers": None}}, **merge)
    assert api.get(f"{path}/c").code == 404


def test_eviction_respects_a_budget(api: Cluster, space: str) -> None:
    """Evicting the last ready pod of a budget is refused with 429."""
    api.apply(pod("p", space, app="a"))
    status = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    merge = {"content_type": "application/merge-patch+json"}
    api.request("PATCH", f"{_pods(space)}/p/status", status, **merge)
    api.apply(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "b", "namespace": space},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}},
        }
    )
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
    assert api.request("POST", f"{_pods(space)}/p/eviction", body).code == 429
    api.kubectl("delete", "poddisruptionbudget/b", "-n", space)
    assert api.request("POST", f"{_pods(space)}/p/eviction", body).code == 201
    assert api.get(f"{_pods(space)}/p").code == 404


def test_events_in_both_groups(api: Cluster, space: str) -> None:
    """An event written to one API group is read through the other with that group's names."""
    event = {
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": space},
        "reason": "Started",
        "message": "it runs",
        "type": "Normal",
    }
    assert api.request("POST", f"/api/v1/namespaces/{space}/events", event).code == 201
    other = api.get(f"/apis/events.k8s.io/v1/namespaces/{space}/events/e").body
    assert (other["apiVersion"], other["note"]) == ("events.k8s.io/v1", "it runs")
    assert other["regarding"]["name"] == "p"
    text = api.kubectl("get", "events", "-n", space, "--field-selector", "involvedObject.name=p")
    assert "it runs" in text
    key = f"/registry/core/events/{space}/e"
    stored = subprocess.run(
        ["etcdctl", f"--endpoints={api.etcd_url}", "get", key, "-w", "json"],
        env={"ETCDCTL_API": "3"},
        check=True,
        capture_output=True,
    )
    assert json.loads(stored.stdout)["kvs"][0]["lease"], "events expire by themselves"


# Custom resources.


def _crd(plural: str, kind: str) -> Any:
    properties = {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1, "maximum": 9},
                "colour": {"type": "string", "enum": ["red", "green"], "default": "red"},
                "address": {"type": "string", "pattern": "^[0-9.]+$"},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            },
        },
        "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind, "shortNames": [plural[:4]]},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                        {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
                    ],
                }
            ],
        },
    }


def test_custom_resources(api: Cluster, space: str) -> None:
    """A CRD is served at once: defaults, pruning, validation, columns, status, removal."""
    api.apply(_crd("boxes", "Box"))
    api.kubectl("wait", "--for=condition=Established", "crd/boxes.example.com", "--timeout=60s")
    box = {
        "apiVersion": "example.com/v1",
        "kind": "Box",
        "metadata": {"name": "b", "namespace": space},
        "spec": {"size": 3, "free": {"any": 1}},
        "status": {"phase": "ignored"},
    }
    api.apply(box)
    path = f"/apis/example.com/v1/namespaces/{space}/boxes"
    found = api.get(f"{path}/b").body
    assert found["spec"] == {"size": 3, "free": {"any": 1}, "colour": "red"}
    assert "status" not in found
    merge = {"content_type": "application/merge-patch+json"}
    api.request("PATCH", f"{path}/b/status", {"status": {"phase": "Ready"}}, **merge)
    header, row = api.kubectl("get", "boxe", "-n", space).splitlines()
    assert (header.split(), row.split()) == (["NAME", "SIZE", "PHASE"], ["b", "3", "Ready"])
    pruned = api.request("PATCH", f"{path}/b", {"spec": {"unknown": 1}}, **merge)
    assert "unknown" not in pruned.body["spec"]
    strict = api.request(
        "PATCH", f"{path}/b?fieldValidation=Strict", {"spec": {"unknown": 1}}, **merge
    )
    assert 'unknown field "spec.unknown"' in strict.body["message"]
    bad = {"metadata": {"name": "bad"}, "spec": {"size": 12, "colour": "blue", "address": "x"}}
    answer = api.request("POST", path, bad)
    assert answer.code == 422
    fields = {c["field"] for c in answer.body["details"]["causes"]}
    assert fields == {"spec.size", "spec.colour", "spec.address"}
    missing = api.request("POST", path, {"metadata": {"name": "bad"}, "spec": {}})
    assert "spec.size: Required value" in missing.body["message"]
    api.kubectl("delete", "crd", "boxes.example.com")
    assert api.get(path).code == 404


def test_crd_survives_a_crash(own: Cluster) -> None:
    """Custom resources are served again after kill -9 of the server."""
    own.apply(_crd("cases", "Case"))
    path = "/apis/example.com/v1/namespaces/default/cases"
    assert own.request("POST", path, {"metadata": {"name": "c"}, "spec": {"size": 1}}).code == 201
    own.kill("api")
    own.start_api()
    assert own.get(f"{path}/c").body["spec"]["size"] == 1

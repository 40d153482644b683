"""The lab's API server on a real etcd, as kubectl and plain HTTP clients see it."""

import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import kubectl
from tests.support.kind_apiserver import Cluster, cluster, deployment, pod, service, until
from tests.support.lab_api import free_port

_numbers = count(1)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("api")) as made:
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


# kubectl.


def test_apply_twice_changes_nothing(api: Cluster, space: str) -> None:
    """Applying the same manifests again reports them unchanged and leaves the revision alone."""
    manifests = [
        pod("p", space, app="a"),
        service("s", space, {"app": "a"}),
        deployment("d", space, 2),
    ]
    assert api.apply(*manifests).count("created") == 3
    before = api.json("get", "service/s", "-n", space)["metadata"]["resourceVersion"]
    assert api.apply(*manifests).count("unchanged") == 3
    assert api.json("get", "service/s", "-n", space)["metadata"]["resourceVersion"] == before


def test_apply_removes_what_the_manifest_dropped(api: Cluster, space: str) -> None:
    """A field that was applied and is gone from the manifest disappears; others' fields stay."""
    manifest = service("s", space, {"app": "a"}, sessionAffinity="ClientIP")
    manifest["metadata"]["annotations"] = {"one": "1", "two": "2"}
    api.apply(manifest)
    api.kubectl("annotate", "-n", space, "service/s", "three=3")
    del manifest["metadata"]["annotations"]["one"]
    api.apply(manifest)
    found = api.json("get", "service/s", "-n", space)["metadata"]["annotations"]
    assert {k for k in found if not k.startswith("kubectl")} == {"two", "three"}


def test_outputs(api: Cluster, space: str) -> None:
    """-o name, wide, yaml, json, jsonpath and custom columns all show the object."""
    api.apply(pod("p", space, app="a"))
    get = ("get", "pods", "-n", space)
    assert api.kubectl(*get, "-o", "name") == "pod/p\n"
    header, row = api.kubectl(*get).splitlines()
    assert header.split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert row.split()[:4] == ["p", "0/1", "Pending", "0"]
    assert "NODE" in api.kubectl(*get, "-o", "wide").splitlines()[0]
    assert yaml.safe_load(api.kubectl(*get, "-o", "yaml"))["items"][0]["kind"] == "Pod"
    assert api.kubectl(*get, "-o", "jsonpath={.items[*].metadata.name}") == "p"
    assert "APP" in api.kubectl(*get, "-L", "app").splitlines()[0]
    assert "app=a" in api.kubectl(*get, "--show-labels")


def test_describe(api: Cluster, space: str) -> None:
    """describe works for what people look at, with nothing but discovery from us."""
    api.apply(pod("p", space, app="a"), service("s", space, {"app": "a"}))
    assert "example:1" in api.kubectl("describe", "pod", "p", "-n", space)
    assert "Selector:" in api.kubectl("describe", "service", "s", "-n", space)
    assert "Status:" in api.kubectl("describe", "namespace", space)


def test_edit(api: Cluster, space: str) -> None:
    """kubectl edit with an editor that is a script stores the change."""
    api.apply(service("s", space, {"app": "a"}))
    api.kubectl("edit", "service/s", "-n", space, EDITOR="sed -i 's/app: a$/app: b/'")
    assert api.json("get", "service/s", "-n", space)["spec"]["selector"] == {"app": "b"}


def test_label_annotate_scale(api: Cluster, space: str) -> None:
    """The short commands change what they say, and take away with a minus."""
    api.apply(deployment("d", space, 1))
    api.kubectl("label", "-n", space, "deployment/d", "x=1", "y=2")
    api.kubectl("label", "-n", space, "deployment/d", "x-")
    api.kubectl("annotate", "-n", space, "deployment/d", "service.cilium.io/global=true")
    api.kubectl("scale", "-n", space, "deployment/d", "--replicas=4")
    found = api.json("get", "deployment/d", "-n", space)
    assert found["metadata"]["labels"] == {"y": "2"}
    assert found["metadata"]["annotations"]["service.cilium.io/global"] == "true"
    assert found["spec"]["replicas"] == 4
    wrong = api.run("scale", "-n", space, "deployment/d", "--replicas=1", "--current-replicas=9")
    assert wrong.returncode != 0


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("json", '[{"op":"replace","path":"/spec/ports/0/port","value":81}]'),
        ("merge", '{"spec":{"ports":[{"port":81,"targetPort":"http"}]}}'),
        ("strategic", '{"spec":{"ports":[{"port":81},{"$patch":"delete","port":80}]}}'),
    ],
)
def test_patch(api: Cluster, space: str, kind: str, text: str) -> None:
    """The three patch types all reach the same port."""
    api.apply(service("s", space, {"app": "a"}))
    api.kubectl("patch", "service/s", "-n", space, f"--type={kind}", "-p", text)
    found = api.json("get", "service/s", "-n", space)["spec"]["ports"]
    assert [p["port"] for p in found] == [81]


def test_strategic_merge_by_container_name(api: Cluster, space: str) -> None:
    """A strategic patch of one container's image and environment leaves the others alone."""
    manifest = deployment("d", space, 1)
    containers = manifest["spec"]["template"]["spec"]["containers"]
    containers.append({"name": "side", "image": "side:1", "env": [{"name": "A", "value": "1"}]})
    api.apply(manifest)
    api.kubectl("set", "image", "-n", space, "deployment/d", "main=example:2")
    api.kubectl("set", "env", "-n", space, "deployment/d", "-c", "side", "B=2")
    found = api.json("get", "deployment/d", "-n", space)["spec"]["template"]["spec"]["containers"]
    assert [(c["name"], c["image"]) for c in found] == [("main", "example:2"), ("side", "side:1")]
    assert [e["name"] for e in found[1]["env"]] == ["A", "B"]


def test_server_side_apply(api: Cluster, space: str) -> None:
    """Two managers own different fields; what one stops applying goes, a clash is refused."""
    path = f"/api/v1/namespaces/{space}/configmaps/c"
    kind = "application/apply-patch+yaml"

    def apply(manager: str, data: dict[str, str], more: str = "") -> Any:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}
        query = f"?fieldManager={manager}{more}"
        return api.request("PATCH", path + query, body, content_type=kind)

    assert apply("one", {"a": "1", "b": "1"}).code == 201
    assert apply("two", {"c": "2"}).code == 200
    assert apply("one", {"a": "1"}).body["data"] == {"a": "1", "c": "2"}
    clash = apply("two", {"a": "other"})
    assert clash.code == 409
    assert 'conflict with "one": .data.a' in clash.body["message"]
    assert apply("two", {"a": "other"}, "&force=true").body["data"] == {"a": "other"}


def test_server_side_apply_by_kubectl(api: Cluster, space: str) -> None:
    """kubectl apply --server-side can be repeated on a pod and a service."""
    text = yaml.safe_dump_all([pod("p", space, app="a"), service("s", space, {"app": "a"})])
    for _ in range(2):
        api.kubectl("apply", "--server-side", "-f", "-", stdin=text)


def test_create_and_delete(api: Cluster, space: str) -> None:
    """create refuses what exists; delete by name, label and --all remove."""
    text = yaml.safe_dump_all([pod(n, space, app=n[0]) for n in ("a1", "a2", "b1", "c1")])
    api.kubectl("create", "-f", "-", stdin=text)
    again = api.run("create", "-f", "-", stdin=text)
    assert again.returncode != 0
    assert "already exists" in again.stderr
    api.kubectl("delete", "pod", "-n", space, "-l", "app=a")
    assert api.kubectl("get", "pods", "-n", space, "-o", "name").split() == ["pod/b1", "pod/c1"]
    api.kubectl("delete", "pod", "-n", space, "--all")
    assert api.json("get", "pods", "-n", space)["items"] == []


def test_imperative_create(api: Cluster, space: str) -> None:
    """kubectl create and run without a manifest (newer ones send protobuf) make the objects."""
    api.kubectl("create", "configmap", "c", "-n", space, "--from-literal=a=b")
    api.kubectl("create", "secret", "generic", "s", "-n", space, "--from-literal=a=b")
    api.kubectl("create", "serviceaccount", "robot", "-n", space)
    api.kubectl("create", "namespace", f"{space}-more")
    api.kubectl("create", "deployment", "d", "-n", space, "--image=example:1", "--port=80")
    api.kubectl("create", "service", "clusterip", "svc", "-n", space, "--tcp=80:8080")
    api.kubectl("run", "p", "-n", space, "--image=example:1", "--labels=x=y")
    assert api.json("get", "configmap/c", "-n", space)["data"] == {"a": "b"}
    assert api.json("get", "secret/s", "-n", space)["data"] == {"a": "Yg=="}
    template = api.json("get", "deployment/d", "-n", space)["spec"]["template"]["spec"]
    assert template["containers"][0]["ports"][0]["containerPort"] == 80
    port = api.json("get", "service/svc", "-n", space)["spec"]["ports"][0]
    assert (port["port"], port["targetPort"]) == (80, 8080)
    if kubectl.minor() >= kubectl.TOKENS:
        token = api.kubectl("create", "token", "robot", "-n", space).strip()
    else:
        path = f"/api/v1/namespaces/{space}/serviceaccounts/robot/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        token = api.request("POST", path, body).body["status"]["token"]
    assert api.get(_pods(space), token=token).code == 200
    assert api.get(_pods(space), token=token[:-3] + "AAA").code == 401


def test_kubectl_watch(api: Cluster, space: str) -> None:
    """kubectl get -w prints what is there and every change, in the table's form."""
    api.apply(pod("p", space))
    with api.kubectl_watch("get", "pods", "-n", space, "-w", "-o", "name") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "pod/p\n"
        api.apply(pod("q", space))
        assert process.stdout.readline() == "pod/q\n"
    with api.kubectl_watch("get", "pods", "-n", space, "--watch-only") as process:
        assert process.stdout is not None

        def told() -> bool:  # what was changed before it watches is not
            change = f"x={next(_numbers)}"
            api.kubectl("label", "-n", space, "pod/p", change, "--overwrite")
            return bool(select.select([process.stdout], [], [], 0.5)[0])

        until("a label is told", told)
        first = process.stdout.readline() + process.stdout.readline()
        assert "NAME" in first
        assert "Pending" in first


def test_selectors(api: Cluster, space: str) -> None:
    """Equality and set-based label selectors, and field selectors, choose as documented."""
    api.apply(pod("a", space, app="a"), pod("b", space, app="b", x="1"), pod("c", space))

    def names(*arguments: str) -> list[str]:
        text = api.kubectl("get", "pods", "-n", space, "-o", "name", *arguments)
        return [line.removeprefix("pod/") for line in text.split()]

    assert names("-l", "app=a") == ["a"]
    assert names("-l", "app!=a") == ["b", "c"]
    assert names("-l", "app in (a,b),!x") == ["a"]
    assert names("-l", "app notin (a)") == ["b", "c"]
    assert names("-l", "app") == ["a", "b"]
    assert names("--field-selector", "metadata.name=b") == ["b"]
    assert names("--field-selector", "status.phase=Pending,metadata.name!=b") == ["a", "c"]
    assert names("--field-selector", "spec.nodeName=nowhere") == []
    refused = api.run("get", "pods", "-n", space, "--field-selector", "spec.colour=red")
    assert 'field label not supported: "spec.colour"' in refused.stderr


def test_api_resources(api: Cluster) -> None:
    """Discovery offers short names and groups, plain and aggregated."""
    text = api.kubectl("api-resources")
    for line in ("svc", "deploy", "endpointslices", "crd,crds", "leases"):
        assert line in text
    assert "apps/v1" in api.kubectl("api-versions").split()
    kinds = {r["kind"] for r in api.get("/apis/apps/v1").body["resources"]}
    assert {"Deployment", "ReplicaSet", "DaemonSet"} <= kinds
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    found = api.get("/apis", accept=accept).body
    assert found["kind"] == "APIGroupDiscoveryList"
    assert api.get("/openapi/v3").body == {"paths": {}}


def test_dry_run_and_diff(api: Cluster, space: str) -> None:
    """A dry run on the server answers like a write and stores nothing."""
    text = yaml.safe_dump(service("s", space, {"app": "a"}))
    if kubectl.minor() >= kubectl.DRY_RUN_WITHOUT_OPENAPI:
        made = api.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=text)
        assert json.loads(made)["spec"]["clusterIP"].startswith("10.96.")
    path = f"/api/v1/namespaces/{space}/services?dryRun=All"
    answer = api.request("POST", path, yaml.safe_load(text))
    assert answer.body["spec"]["clusterIP"].startswith("10.96.")
    assert api.json("get", "services", "-n", space)["items"] == []


# Bad input.


def test_bad_objects_get_a_clear_status(api: Cluster, space: str) -> None:
    """A wrong name, a missing image and a bad port are each named with their field."""
    bad = pod("Bad_Name", space)
    bad["spec"]["containers"][0] = {"name": "main", "ports": [{"containerPort": 70000}]}
    answer = api.request("POST", _pods(space), bad)
    assert answer.code == 422
    assert answer.body["reason"] == "Invalid"
    assert {c["field"] for c in answer.body["details"]["causes"]} == {
        "metadata.name",
        "spec.containers[0].image",
        "spec.containers[0].ports[0].containerPort",
    }
    assert answer.body["message"].startswith('Pod "Bad_Name" is invalid: [metadata.name: Invalid')


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "text"),
    [
        ("POST", "/pods", {"kind": "Service"}, 400, "expects"),
        ("POST", "/pods", {"metadata": {}}, 422, "name or generateName is required"),
        ("POST", "/services", {"metadata": {"name": "s"}, "spec": {}}, 422, "spec.ports"),
        ("GET", "/pods/none", None, 404, 'pods "none" not found'),
        ("DELETE", "/pods/none", None, 404, 'pods "none" not found'),
        ("PUT", "/pods/none", {"metadata": {"name": "other"}}, 404, "not found"),
        ("GET", "/colours", None, 404, "could not find the requested resource"),
        ("PATCH", "/pods", {}, 405, "does not allow this method"),
        ("GET", "/pods?labelSelector=a%20b%20c", None, 400, "unable to parse requirement"),
        ("GET", "/pods?limit=many", None, 400, "limit"),
        ("GET", "/pods?continue=nonsense", None, 400, "continue key is not valid"),
        ("GET", "/pods/none/exec", None, 404, "not found"),
    ],
)
def test_refusals(
    api: Cluster, space: str, method: str, path: str, body: Any, code: int, text: str
) -> None:
    """Every refused request is answered by a Status that says why."""
    answer = api.request(method, f"/api/v1/namespaces/{space}{path}", body)
    assert (answer.code, answer.body["kind"], answer.body["code"]) == (code, "Status", code)
    assert text in answer.body["message"]


def test_body_that_is_no_json(api: Cluster, space: str) -> None:
    """Broken bodies and unknown media types are refused as such, and the server goes on."""
    answer = api.request("POST", _pods(space), "text", content_type="application/json")
    assert answer.code == 400
    answer = api.request("POST", _pods(space), {}, content_type="text/plain; x")
    assert answer.code in (400, 422)
    answer = api.request("PATCH", _pods(space) + "/p", {}, content_type="application/json")
    assert answer.code == 415
    assert api.get(_pods(space)).code == 200


def test_authentication(api: Cluster) -> None:
    """Without a known token there is 401, but for health and version."""
    assert api.get("/api/v1/pods", token="").code == 401
    assert api.get("/api/v1/pods", token="wrong").body["reason"] == "Unauthorized"
    assert api.get("/healthz", token="").body == "ok"
    assert api.get("/version", token="").body["major"] == "1"


# Versions of objects.


def test_conflict(api: Cluster, space: str) -> None:
    """An update from an old resourceVersion is refused and changes nothing."""
    api.apply(service("s", space, {"app": "a"}))
    path = f"/api/v1/namespaces/{space}/services/s"
    first = api.get(path).body
    second = json.loads(json.dumps(first))
    first["metadata"]["labels"] = {"by": "first"}
    second["metadata"]["labels"] = {"by": "second"}
    assert api.request("PUT", path, first).code == 200
    refused = api.request("PUT", path, second)
    assert (refused.code, refused.body["reason"]) == (409, "Conflict")
    assert "the object has been modified" in refused.body["message"]
    assert api.get(path).body["metadata"]["labels"] == {"by": "first"}


def test_parallel_patches_are_all_kept(api: Cluster, space: str) -> None:
    """Patches without a resourceVersion that meet each other all take effect."""
    api.apply(pod("p", space))
    argv = [("label", "-n", space, "pod/p", f"l{i}=1") for i in range(6)]
    processes = [
        subprocess.Popen(
            ["kubectl", f"--kubeconfig={api.kubeconfig}", *a], stdout=subprocess.DEVNULL
        )
        for a in argv
    ]
    assert [p.wait(90) for p in processes] == [0] * 6
    assert len(api.json("get", "pod/p", "-n", space)["metadata"]["labels"]) == 6


def test_generation_and_status(api: Cluster, space: str) -> None:
    """The generation grows with the spec only; status is written through its own path only."""
    api.apply(deployment("d", space, 1))
    path = f"/apis/apps/v1/namespaces/{space}/deployments/d"
    merge = {"content_type": "application/merge-patch+json"}
    generation = api.get(path).body["metadata"]["generation"]
    body = {"metadata": {"labels": {"x": "y"}}, "status": {"replicas": 7}}
    found = api.request("PATCH", path, body, **merge).body
    assert (found["metadata"]["generation"], found.get("status")) == (generation, None)
    body = {"spec": {"replicas": 9}, "status": {"replicas": 7}}
    found = api.request("PATCH", f"{path}/status", body, **merge).body
    assert (found["spec"]["replicas"], found["status"]["replicas"]) == (1, 7)
    found = api.request("PATCH", path, {"spec": {"replicas": 2}}, **merge).body
    assert found["metadata"]["generation"] == generation + 1


def test_pages(api: Cluster, space: str) -> None:
    """Pages of a list together are the list as of the first page's revision."""
    api.apply(*[pod(f"p{i}", space) for i in range(5)])
    first = api.get(f"{_pods(space)}?limit=2").body
    api.kubectl("delete", "pod", "p4", "-n", space)
    token = first["metadata"]["continue"]
    rest = api.get(f"{_pods(space)}?limit=9&continue={token}").body
    names = [i["metadata"]["name"] for i in first["items"] + rest["items"]]
    assert names == ["p0", "p1", "p2", "p3", "p4"]
    assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


# Watches.


def test_watch_from_a_list_misses_nothing(api: Cluster, space: str) -> None:
    """A watch from a list's revision tells every later change once, in order."""
    revision = api.get(_pods(space)).body["metadata"]["resourceVersion"]
    api.apply(pod("a", space))
    api.kubectl("label", "-n", space, "pod/a", "x=1")
    api.kubectl("delete", "-n", space, "pod/a")
    path = f"{_pods(space)}?watch=1&resourceVersion={revision}&timeoutSeconds=1"
    events = list(api.watch(path))
    assert [e["type"] for e in events] == ["ADDED", "MODIFIED", "DELETED"]
    versions = [int(e["object"]["metadata"]["resourceVersion"]) for e in events]
    assert versions == sorted(set(versions))
    assert versions[0] > int(revision)


def test_watch_with_selector(api: Cluster, space: str) -> None:
    """An object that leaves the selector is told as DELETED, one that enters as ADDED."""
    api.apply(pod("a", space, app="a"))
    revision = api.get(_pods(space)).body["metadata"]["resourceVersion"]
    for label in ("app=b", "app=a", "other=1"):
        api.kubectl("label", "-n", space, "--overwrite", "pod/a", label)
    path = f"{_pods(space)}?watch=1&resourceVersion={revision}&timeoutSeconds=1"
    found = [e["type"] for e in api.watch(f"{path}&labelSelector=app%3Da")]
    assert found == ["DELETED", "ADDED", "MODIFIED"]
    field = f"{path}&fieldSelector=spec.nodeName%3Dn1"
    bind = {"target": {"name": "n1"}}
    assert api.request("POST", f"{_pods(space)}/a/binding", bind).code == 201
    assert [e["type"] for e in api.watch(field)] == ["ADDED", "MODIFIED"]


def test_initial_events_and_bookmark(api: Cluster, space: str) -> None:
    """sendInitialEvents streams what is there, then a bookmark that says so."""
    api.apply(pod("a", space), pod("b", space))
    query = (
        "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
        "&allowWatchBookmarks=true&timeoutSeconds=1"
    )
    events = list(api.watch(f"{_pods(space)}?{query}"))
    assert [e["type"] for e in events[:3]] == ["ADDED", "ADDED", "BOOKMARK"]
    notes = events[2]["object"]["metadata"]["annotations"]
    assert notes == {"k8s.io/initial-events-end": "true"}


def test_watch_of_a_compacted_revision(own: Cluster) -> None:
    """After compaction a watch or a page from before gets 410, and a new list works."""
    first = own.get("/api/v1/namespaces?limit=1").body["metadata"]
    own.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "later"}})
    now = own.get("/api/v1/namespaces").body["metadata"]["resourceVersion"]
    subprocess.run(
        ["etcdctl", f"--endpoints={own.etcd_url}", "compact", now],
        env={"ETCDCTL_API": "3"},
        check=True,
        capture_output=True,
    )
    page = own.get(f"/api/v1/namespaces?limit=9&continue={first['continue']}")
    assert (page.code, page.body["reason"]) == (410, "Expired")
    own.kill("api")
    own.start_api()
    (event,) = own.watch("/api/v1/pods?watch=1&resourceVersion=1")
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
    again = own.get("/api/v1/namespaces").body
    assert "later" in [i["metadata"]["name"] for i in again["items"]]
    answer = own.get("/api/v1/namespaces?resourceVersion=999999999")
    assert answer.code == 504
    assert "Too large resource version" in answer.body["message"]


def test_watch_latency(api: Cluster, space: str) -> None:
    """A change reaches a watcher before the writer has had time to ask again."""
    revision = api.get(_pods(space)).body["metadata"]["resourceVersion"]
    path = f"{_pods(space)}?watch=1&resourceVersion={revision}&timeoutSeconds=25"
    events = api.watch(path)
    api.request("POST", _pods(space), pod("a", space))
    began = time.monotonic()
    assert next(events)["object"]["metadata"]["name"] == "a"
    assert time.monotonic() - began < 20.0  # it does not wait for the end of the watch


# Crashes.


def test_kill_loses_nothing(own: Cluster) -> None:
    """Whatever was answered before kill -9 is there after it: objects, addresses, tokens."""
    own.apply(service("s", "default", {"app": "a"}), pod("p", "default", app="a"))
    own.request(
        "POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "robot"}}
    )
    asked = own.request(
        "POST", "/api/v1/namespaces/default/serviceaccounts/robot/token", {"spec": {}}
    )
    before = own.json("get", "service/s")
    own.kill("api")
    own.start_api()
    assert own.json("get", "service/s") == before
    assert own.get(_pods("default"), token=asked.body["status"]["token"]).code == 200
    other = service("t", "default", {})
    other["spec"]["clusterIP"] = before["spec"]["clusterIP"]
    refused = own.request("POST", "/api/v1/namespaces/default/services", other)
    assert refused.code == 422
    assert "provided IP is already allocated" in refused.body["message"]


def test_store_away_and_back(own: Cluster) -> None:
    """While etcd is down writes are refused with 503; afterwards everything goes on."""
    own.apply(pod("p", "default"))
    own.kill("etcd")
    answer = own.request("POST", _pods("default"), pod("q", "default"))
    assert (answer.code, answer.body["kind"]) == (503, "Status")
    own.start_etcd()

    def write() -> bool:
        return own.request("POST", _pods("default"), pod("q", "default")).code in (201, 409)

    until("writes work again", write)

    def follows() -> bool:
        return {i["metadata"]["name"] for i in own.json("get", "pods")["items"]} == {"p", "q"}

    until("the cache follows again", follows)


def test_start_that_cannot_be(api: Cluster, tmp_path: Path) -> None:
    """A port in use, a bad or missing token file: the last line says what is wrong."""

    def start(*arguments: str) -> str:
        argv = [
            sys.executable,
            "-m",
            "kind.apiserver",
            f"--tls-cert={api.certificate}",
            f"--tls-key={api.key}",
            f"--etcd-endpoint={api.etcd_url}",
            *arguments,
        ]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        return done.stderr.splitlines()[-1]

    assert "in use" in start(f"--listen=127.0.0.1:{api.port}")
    bad = tmp_path / "tokens"
    bad.write_text("only-a-token\n")
    free = f"--listen=127.0.0.1:{free_port()}"
    assert "line 1 of the token file" in start(free, f"--token-file={bad}")
    assert "No such file" in start(free, f"--token-file={tmp_path / 'none'}")

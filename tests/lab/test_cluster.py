"""A whole lab: two clusters as ``isthmus lab up`` makes them, with the real network plugin."""

import json
import subprocess
import uuid

import pytest

from tests.support.lab import Json, Lab, lab_command, wait_until

pytestmark = [pytest.mark.root, pytest.mark.lab]


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"w{uuid.uuid4().hex[:8]}"


def deployment(name: str, image: str, replicas: int) -> Json:
    labels = {"app": name}
    container = {
        "name": "c",
        "image": image,
        "readinessProbe": {"tcpSocket": {"port": 80}},
        "env": [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
            },
        },
    }


def service(name: str, **spec: object) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80}], **spec},
    }


def test_lab_is_healthy(lab: Lab) -> None:
    """``status`` says so, with both clusters' nodes and every system pod Ready."""
    done = lab_command("status", lab.name, "-o", "json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["problems"]) == (0, [])
    assert [node["ready"] for node in report["nodes"]] == [True] * 4
    listed = json.loads(lab_command("list", "-o", "json").stdout)
    assert {"name": lab.name, "state": "up"}.items() <= {
        key: value for row in listed if row["name"] == lab.name for key, value in row.items()
    }.items()


def test_contexts(lab: Lab) -> None:
    """The kubeconfig has a context per cluster, each with its own API server."""
    names = [
        lab.get("nodes", cluster=c)["items"][0]["metadata"]["name"]
        for c in ("cluster1", "cluster2")
    ]
    assert names == ["cluster1-control-plane", "cluster2-control-plane"]
    shown = lab_command("kubeconfig", lab.name).stdout.strip()
    assert shown == str(lab.kubeconfig)


def test_names_resolve_and_lead_to_every_backend(lab: Lab, name: str) -> None:
    """A pod reaches a Service of two nodes' pods by its short name, through the cluster DNS."""
    lab.apply(
        deployment(name, "json-mock", 4),
        service(name),
        service(f"{name}-h", clusterIP="None", selector={"app": name}),
    )
    lab.kubectl("rollout", "status", f"deployment/{name}", "--timeout=110s")
    pods = lab.get("pods", "-l", f"app={name}")["items"]
    client = pods[0]["metadata"]["name"]
    address = lab.get("service", name)["spec"]["clusterIP"]

    def resolved() -> bool:
        code, output = lab.exec(client, "getent", "hosts", f"{name}.default.svc.cluster.local")
        return code == 0 and output.split()[0] == address

    wait_until("its name leads to its address", resolved)
    expected = {item["metadata"]["name"] for item in pods}

    def everyone_answered() -> bool:
        code, output = lab.exec(
            client, "sh", "-c", f"for i in $(seq 40); do curl -sS -m 10 http://{name}/; done"
        )
        assert code == 0, output
        return {json.loads(line)["pod"] for line in output.splitlines()} == expected

    wait_until("all backends answer", everyone_answered)
    nodes = {item["spec"]["nodeName"] for item in pods}
    assert nodes == {"cluster1-control-plane", "cluster1-worker"}

    def headless() -> bool:
        code, output = lab.exec(client, "getent", "ahostsv4", f"{name}-h")
        found = {line.split()[0] for line in output.splitlines()}
        return code == 0 and found == {item["status"]["podIP"] for item in pods}

    wait_until("the headless service lists the pods", headless)
    lab.kubectl("delete", "deployment,service", name)


def test_unknown_names_do_not_resolve(lab: Lab, name: str) -> None:
    """A name that is not there fails at once, not after a timeout."""
    lab.apply(deployment(name, "json-mock", 1))
    lab.kubectl("rollout", "status", f"deployment/{name}", "--timeout=110s")
    pod = lab.get("pods", "-l", f"app={name}")["items"][0]["metadata"]["name"]
    code, output = lab.exec(pod, "curl", "-sS", "-m", "4", "http://no-such-service/")
    assert code == 6, output  # curl: could not resolve
    lab.kubectl("delete", "deployment", name)


def test_ordinary_pods_reach_the_api(lab: Lab, name: str) -> None:
    """With its service account's token a pod lists pods through the service ``kubernetes``."""
    lab.apply(deployment(name, "json-mock", 1))
    lab.kubectl("rollout", "status", f"deployment/{name}", "--timeout=110s")
    pod = lab.get("pods", "-l", f"app={name}")["items"][0]["metadata"]["name"]
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    script = (
        f'curl -sS -m 20 --cacert {account}/ca.crt -H "Authorization: Bearer'
        f' $(cat {account}/token)"'
        " https://kubernetes.default.svc/api/v1/namespaces/default/pods"
    )
    code, output = lab.exec(pod, "sh", "-c", script)
    assert code == 0, output
    assert pod in {item["metadata"]["name"] for item in json.loads(output)["items"]}
    lab.kubectl("delete", "deployment", name)


def test_scale_and_delete(lab: Lab, name: str) -> None:
    """kubectl scale and delete reach the processes: no pod's namespace is left."""
    lab.apply(deployment(name, "json-mock", 3))
    lab.kubectl("rollout", "status", f"deployment/{name}", "--timeout=110s")
    lab.kubectl("scale", "deployment", name, "--replicas=1")
    wait_until("one pod", lambda: len(lab.get("pods", "-l", f"app={name}")["items"]) == 1)
    uid = lab.get("pods", "-l", f"app={name}")["items"][0]["metadata"]["uid"].replace("-", "")
    lab.kubectl("delete", "deployment", name)
    wait_until("no pod", lambda: not lab.get("pods", "-l", f"app={name}")["items"])
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert uid not in listed.stdout

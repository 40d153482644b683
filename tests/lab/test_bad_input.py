"""Bad input to a running mesh: one clear sentence, counted, and everything else goes on.

What `isthmus install` and `clustermesh connect` refuse before anything runs is tested against real
API servers in tests/conformance/test_clustermesh_commands.py; here two clusters are joined.
"""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from certs.issue import KeyPair, create_ca, issue
from certs.profiles import ADMIN_SECRET, CA_SECRET, REMOTE_SECRET, mesh_profiles
from tests.support.lab import CHECKOUT, Json, Lab, wait_until

pytestmark = [pytest.mark.root, pytest.mark.lab]

C1, C2 = "cluster1", "cluster2"
CLIENT = "bad-input-client"
KEY = f"cilium/state/services/v1/{C2}/default/undecodable"
PATIENCE_S = 120.0


class Mesh:
    """Two joined clusters, with a global service ``echo`` in both and a client in the first."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def isthmus(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """The command line as a person types it."""
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *words],
            cwd=CHECKOUT,
            env=self.lab.env,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def good(self, *words: str) -> str:
        done = self.isthmus(*words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def join(self) -> None:
        """Connect and wait until every agent says that it is."""
        self.good("clustermesh", "connect", "--context", C1, "--destination-context", C2)
        for context in (C1, C2):
            self.good(
                "clustermesh", "status", "--context", context, "--wait", "--wait-duration=110s"
            )

    def agent(self, node: str = "cluster1-worker") -> Json:
        """``isthmus status -o json`` of a node's agent."""
        code, text = self.lab.exec(node, "isthmus", "status", "-o", "json")
        assert text.startswith("{"), f"{code}: {text}"
        found: Json = json.loads(text)
        return found

    def remote(self) -> Json:
        """What cluster1's agent says of cluster2."""
        found: Json = self.agent()["cluster-mesh"]["clusters"][0]
        return found

    def secret(self, cluster: str, name: str) -> dict[str, bytes]:
        data = self.lab.get("secret", "-n", "kube-system", name, cluster=cluster)["data"]
        return {key: base64.b64decode(value) for key, value in data.items()}

    def patch_secret(self, cluster: str, name: str, data: dict[str, bytes]) -> None:
        body = {"data": {k: base64.b64encode(v).decode() for k, v in data.items()}}
        words = ("patch", "secret", "-n", "kube-system", name, "--type=merge", "-p")
        self.lab.kubectl(*words, json.dumps(body), cluster=cluster)

    def renew_remote_store(self) -> None:
        """End every connection to cluster2's store; its successor must be reached anew."""
        selector = "k8s-app=clustermesh-apiserver"
        words = ("delete", "pod", "-n", "kube-system", "-l", selector)
        self.lab.kubectl(*words, cluster=C2)

    def answers(self) -> set[str]:
        """Which clusters answer the client, over some requests; none may fail."""
        url = "http://echo.default.svc.cluster.local:80/"
        loop = f"for i in $(seq 24); do curl -sS -m 10 {url} || exit 1; done"
        code, text = self.lab.exec(CLIENT, "sh", "-c", loop, options=("--cluster", C1))
        assert code == 0, text
        return {json.loads(line)["cluster"] for line in text.splitlines()}

    def reaches(self, *clusters: str) -> None:
        """Exactly these clusters answer, soon."""
        wait_until(f"answers come from {clusters}", lambda: self.answers() == set(clusters))


def workload(cluster: str) -> tuple[Json, ...]:
    labels = {"app": "echo"}
    container = {
        "name": "echo",
        "image": "echo",
        "env": [{"name": "CLUSTER", "value": cluster}],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    meta = {"name": "echo", "namespace": "default"}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
            },
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta | {"annotations": {"service.cilium.io/global": "true"}},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    return deployment, service


def client() -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": CLIENT, "namespace": "default"},
        "spec": {
            "containers": [{"name": "c", "image": "curl"}],
            "terminationGracePeriodSeconds": 0,
        },
    }


@pytest.fixture(scope="module")
def joined(lab: Lab) -> Iterator[Mesh]:
    mesh = Mesh(lab)
    for context in (C1, C2):
        mesh.good("clustermesh", "enable", "--context", context)
        lab.apply(*workload(context), cluster=context)
    lab.apply(client())
    lab.wait_ready(CLIENT)
    for context in (C1, C2):
        lab.kubectl("rollout", "status", "deployment/echo", "--timeout=110s", cluster=context)

    def connected() -> bool:
        words = ("clustermesh", "connect", "--context", C1, "--destination-context", C2)
        return mesh.isthmus(*words).returncode == 0

    wait_until("both stores have an address", connected)
    yield mesh
    lab.kubectl("delete", "pod", CLIENT)
    for context in (C1, C2):
        lab.kubectl("delete", "deployment/echo", "service/echo", cluster=context)
        mesh.good("clustermesh", "disable", "--context", context)


@pytest.fixture
def mesh(joined: Mesh) -> Mesh:
    """Joined, in order, and with answers from both clusters: the start of every test."""
    joined.join()
    joined.reaches(C1, C2)
    return joined


def annotate(mesh: Mesh, cluster: str, text: str) -> None:
    words = ("annotate", "--overwrite", "service", "echo", text)
    mesh.lab.kubectl(*words, cluster=cluster)


def test_invalid_annotation(mesh: Mesh) -> None:
    """The agents name service, annotation, value and remedy; the service works as without it."""
    name = "service.cilium.io/affinity"
    before = mesh.agent()["rejected"]["count"]
    annotate(mesh, C1, f"{name}=nearest")

    def sentence() -> str:
        found = mesh.agent()["rejected"]["problems"]
        return next((text for text in found if "default/echo" in text), "")

    said = wait_until("the agent says what is wrong", sentence)
    assert all(word in said for word in (name, '"nearest"', "local", "remote", "none"))
    wait_until("it is counted", lambda: mesh.agent()["rejected"]["count"] > before)
    assert mesh.agent()["cilium"]["state"] == "Ok"
    mesh.reaches(C1, C2)
    annotate(mesh, C1, f"{name}=remote")
    mesh.reaches(C2)
    # Whose node answers are looked at may have followed before the one that is asked.
    wait_until("nothing is wrong any more", lambda: sentence() == "")
    annotate(mesh, C1, f"{name}-")
    mesh.reaches(C1, C2)


def etcdctl(mesh: Mesh, *words: str) -> str:
    """A command to cluster2's store, as its administrator, on the node that runs it."""
    node = mesh.lab.node("cluster2-control-plane")
    data = mesh.secret(C2, ADMIN_SECRET)
    for key, value in data.items():
        path = node.root / "run" / f"bad-input-{key}"
        path.write_bytes(value)
        path.chmod(0o600)
    files = [
        f"--{flag}=/run/bad-input-{key}"
        for flag, key in (("cacert", "ca.crt"), ("cert", "tls.crt"), ("key", "tls.key"))
    ]
    argv = ("env", "ETCDCTL_API=3", "etcdctl", "--endpoints=https://127.0.0.1:32382", *files)
    code, text = mesh.lab.exec(node.name, *argv, *words)
    assert code == 0, text
    return text


def test_value_that_does_not_decode(mesh: Mesh) -> None:
    """The record is refused alone, counted and shown; later records of the same type arrive."""
    before = mesh.remote()["num-rejected"]
    etcdctl(mesh, "put", KEY, "{this is no JSON")
    rejected = wait_until(
        "the agent counts it", lambda: (r := mesh.remote())["num-rejected"] > before and r
    )
    assert "undecodable" in rejected["last-rejected"]
    assert rejected["ready"]
    shown = mesh.good("clustermesh", "status", "--context", C1)
    assert "Rejected records" in shown
    assert "undecodable" in shown
    annotate(mesh, C2, "service.cilium.io/shared=false")
    mesh.reaches(C1)
    annotate(mesh, C2, "service.cilium.io/shared-")
    mesh.reaches(C1, C2)
    etcdctl(mesh, "del", KEY)
    assert mesh.remote()["ready"]


def broken(mesh: Mesh, *words: str) -> Json:
    """Wait until cluster1's agent says why it cannot read cluster2."""

    def look() -> Any:
        found = mesh.remote()
        return not found["ready"] and any(w in found["status"] for w in words) and found

    found: Json = wait_until(f"the agent says {words}", look, PATIENCE_S)
    return found


def still_works(mesh: Mesh) -> None:
    """While cluster2 cannot be read its last known state stays in force, and status tells."""
    mesh.reaches(C1, C2)
    done = mesh.isthmus("clustermesh", "status", "--context", C1)
    assert done.returncode == 1
    assert "is not connected to cluster cluster2" in done.stdout
    assert mesh.agent()["cilium"]["state"] == "Ok"


def test_foreign_certificate(mesh: Mesh) -> None:
    """A server of an authority that we do not trust is told as that; connecting again mends it."""
    own = mesh.secret(C1, CA_SECRET)["ca.crt"]
    mesh.patch_secret(C1, REMOTE_SECRET, {"ca.crt": own})
    mesh.renew_remote_store()
    found = broken(mesh, "is of a CA that")
    assert "connect the clusters again" in found["status"]
    assert "common-etcd-client-ca.crt" in found["status"]
    still_works(mesh)
    mesh.join()
    mesh.reaches(C1, C2)


def test_expired_certificate(mesh: Mesh) -> None:
    """Our own expired client certificate is told as that; `enable` issues a new one."""
    data = mesh.secret(C1, REMOTE_SECRET)
    authority = mesh.secret(C1, CA_SECRET)
    old = datetime.now(UTC) - timedelta(days=2000)
    profile = mesh_profiles(C1)[REMOTE_SECRET]
    expired = issue(KeyPair(authority["ca.crt"], authority["ca.key"]), profile, old)
    mesh.patch_secret(C1, REMOTE_SECRET, expired.secret_data(data["ca.crt"]))
    mesh.renew_remote_store()
    found = broken(mesh, "client certificate")
    assert "expired" in found["status"]
    assert "common-etcd-client.crt" in found["status"]
    still_works(mesh)
    refused = mesh.isthmus("clustermesh", "connect", "--context", C1, "--destination-context", C2)
    assert refused.returncode == 1
    assert f"Secret kube-system/{REMOTE_SECRET}: expired on" in refused.stderr
    mesh.good("clustermesh", "enable", "--context", C1)
    mesh.join()
    mesh.reaches(C1, C2)


def test_stranger_is_refused(mesh: Mesh) -> None:
    """A client certificate of an unknown authority reads nothing from a store."""
    stranger = issue(
        create_ca(datetime.now(UTC)), mesh_profiles("stranger")[REMOTE_SECRET], datetime.now(UTC)
    )
    node = mesh.lab.node("cluster1-worker")
    trust = mesh.secret(C2, CA_SECRET)["ca.crt"]
    for name, value in stranger.secret_data(trust).items():
        (node.root / "run" / f"stranger-{name}").write_bytes(value)
    files = [f"--{f}=/run/stranger-{k}" for f, k in (("cacert", "ca.crt"), ("cert", "tls.crt"))]
    address = mesh.lab.node("cluster2-control-plane").address
    code, text = mesh.lab.exec(
        node.name,
        *("env", "ETCDCTL_API=3", "etcdctl", "--dial-timeout=2s", "--command-timeout=3s"),
        *(f"--endpoints=https://{address}:32379", *files, "--key=/run/stranger-tls.key"),
        *("--insecure-skip-tls-verify", "get", "--prefix", "cilium/"),
    )
    assert code != 0
    assert "cilium/" not in text


@pytest.mark.parametrize(
    ("key", "value", "good", "words"),
    [
        ("cluster-id", "1", "2", ("both have ID 1", "--cluster-id")),
        ("cluster-id", "256", "2", ("ID 256", "1 to 255")),
        ("cluster-name", "cluster1", "cluster2", ("named cluster1", "--cluster-name")),
        ("cluster-name", "X" * 33, "cluster2", ("X" * 33, "at most 32")),
    ],
)
def test_connect_is_refused_and_harms_nothing(
    mesh: Mesh, key: str, value: str, good: str, words: tuple[str, ...]
) -> None:
    """A name or number that cannot be is told before anything is written; traffic goes on."""
    patch = ("patch", "configmap", "-n", "kube-system", "cilium-config", "--type=merge", "-p")
    before = mesh.secret(C1, "cilium-clustermesh")
    mesh.lab.kubectl(*patch, json.dumps({"data": {key: value}}), cluster=C2)
    try:
        done = mesh.isthmus("clustermesh", "connect", "--context", C1, "--destination-context", C2)
    finally:
        mesh.lab.kubectl(*patch, json.dumps({"data": {key: good}}), cluster=C2)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert all(word in done.stderr for word in words)
    assert mesh.secret(C1, "cilium-clustermesh") == before
    mesh.reaches(C1, C2)

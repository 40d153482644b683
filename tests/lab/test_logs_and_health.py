"""What every process of a mesh writes and answers: no secret in any log; a page for each probe."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.test_bad_input import C1, C2, Mesh
from tests.support.lab import Lab, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.lab,
    pytest.mark.timeout(300),
]
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
PROBED = 24  # characters of a line of a key: enough to be no chance


@pytest.fixture(scope="module")
def mesh(lab: Lab) -> Iterator[Mesh]:
    """Joined, with agents that write all they ever write, and KVStoreMesh in cluster1."""
    found = Mesh(lab)
    for context in (C1, C2):
        found.good("clustermesh", "enable", "--context", context)
    for context in (C1, C2):
        words = ("patch", "configmap", "-n", "kube-system", "cilium-config", "--type=merge", "-p")
        lab.kubectl(*words, '{"data": {"debug": "true"}}', cluster=context)
        lab.kubectl("delete", "pod", "-n", "kube-system", "-l", "k8s-app=cilium", cluster=context)
        words = ("rollout", "status", "-n", "kube-system", "daemonset/cilium", "--timeout=110s")
        lab.kubectl(*words, cluster=context)
    words = ("clustermesh", "connect", "--context", C1, "--destination-context", C2)
    wait_until("both have an address", lambda: found.isthmus(*words).returncode == 0, 90, 1)
    found.good("clustermesh", "enable", "--context", C1, "--enable-kvstoremesh")
    found.join()
    yield found
    for context in (C1, C2):
        words = ("patch", "configmap", "-n", "kube-system", "cilium-config", "--type=merge", "-p")
        lab.kubectl(*words, '{"data": {"debug": null}}', cluster=context)
        found.good("clustermesh", "disable", "--context", context)


def secrets(mesh: Mesh) -> dict[str, str]:
    """Text that must appear nowhere → where it is kept: lines of private keys, and tokens."""
    found = {}
    for context in (C1, C2):
        for item in mesh.lab.get("secrets", "-A", cluster=context)["items"]:
            name = f"{context}/{item['metadata']['name']}"
            for key, value in (item.get("data") or {}).items():
                if key.endswith(".key"):
                    lines = base64.b64decode(value).decode().splitlines()
                    found |= {line[:PROBED]: name for line in lines if len(line) >= PROBED}
                    found[value[60 : 60 + PROBED]] = name  # as it stands in the object
                elif key == "token":
                    found[base64.b64decode(value).decode()] = name
    found = {text: name for text, name in found.items() if "PRIVATE KEY" not in text}
    for token in re.findall(r"token: (\S{12,})", mesh.lab.kubeconfig.read_text()):
        found[token] = "the kubeconfig"
    for label in ("k8s-app=cilium", "k8s-app=clustermesh-apiserver", "io.cilium/app=operator"):
        found_pods = mesh.lab.get("pods", "-n", "kube-system", "-l", label)["items"]
        pod = next(p for p in found_pods if "deletionTimestamp" not in p["metadata"])
        name, container = pod["metadata"]["name"], pod["spec"]["containers"][-1]["name"]
        where = ("--cluster", C1, "-n", "kube-system", "-c", container)
        code, token = mesh.lab.exec(name, "cat", TOKEN, options=where)
        assert code == 0, token
        found[token.strip()] = f"the token of {name}"
    return found


def logs(mesh: Mesh) -> dict[Path, str]:
    found = {}
    for node in mesh.lab.topology.nodes:
        for path in node.directory.glob("logs/**/*.log"):
            found[path] = path.read_text(errors="replace")
    return found


def test_no_secret_in_any_log(mesh: Mesh) -> None:
    """Of agents, operators, stores, publishers, mirrors, kubelets and API servers."""
    hidden, written = secrets(mesh), logs(mesh)
    names = " ".join(str(path) for path in written)
    for process in ("cilium-agent", "cilium-operator", "etcd", "apiserver", "kvstoremesh"):
        assert process in names
    assert any("level=debug" in text or '"debug"' in text for text in written.values())
    kept = " ".join(hidden.values())
    assert "clustermesh-apiserver-remote-cert" in kept
    assert "cilium-ca" in kept
    assert "the kubeconfig" in kept
    told = [
        f"{hidden[text]} in {path}"
        for path, content in written.items()
        for text in hidden
        if text in content
    ]
    assert told == []
    assert not [path for path, content in written.items() if "PRIVATE KEY" in content]
    assert not [p for p, content in written.items() if re.search(r"Bearer [\w.-]{12,}", content)]


@pytest.mark.parametrize(
    ("node", "place"),
    [
        ("cluster1-worker", "127.0.0.1:9879/healthz"),
        ("cluster1-control-plane", "127.0.0.1:9880/readyz"),
        ("cluster1-control-plane", "127.0.0.1:9880/healthz"),
        ("cluster1-control-plane", "127.0.0.1:9881/readyz"),
        ("operator", "127.0.0.1:9234/healthz"),
        ("operator", "127.0.0.1:9234/v1/healthz"),
        ("operator", "127.0.0.1:9963/metrics"),
    ],
)
def test_health_pages(mesh: Mesh, node: str, place: str) -> None:
    """The well-known ports and paths answer 200 while all is well."""
    if node == "operator":
        words = ("pods", "-n", "kube-system", "-l", "io.cilium/app=operator")
        node = mesh.lab.get(*words)["items"][0]["spec"]["nodeName"]
    curl = ("curl", "-sS", "-m", "3", "-o", "/dev/null", "-w", "%{http_code}")

    def answer() -> str:
        return mesh.lab.exec(node, *curl, f"http://{place}")[1]

    wait_until(f"{place} answers 200", lambda: answer() == "200", 90, 0.5)

"""Two API servers with one kubeconfig, and the command line in this process.

Nothing runs in these clusters: what counts is which objects a command writes.
"""

import base64
import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cli.main import main
from tests.support import kind_apiserver

SYSTEM = "/api/v1/namespaces/kube-system"


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: object
    stdout: str
    stderr: str


class Pair:
    """Two API servers and one kubeconfig with the contexts ``a`` and ``b``."""

    def __init__(self, directory: Path, **servers: kind_apiserver.Cluster) -> None:
        self.servers = servers
        self.kubeconfig = directory / "both"
        merged: dict[str, Any] = {"apiVersion": "v1", "kind": "Config"}
        for name, server in servers.items():
            one = yaml.safe_load(server.kubeconfig.read_text())
            for plural in ("clusters", "users", "contexts"):
                item = one[plural][0] | {"name": name}
                if plural == "contexts":
                    item["context"] = {"cluster": name, "user": name}
                merged.setdefault(plural, []).append(item)
        self.kubeconfig.write_text(yaml.safe_dump(merged))

    def isthmus(self, *words: str) -> Done:
        """The entry point in this process: an interpreter for each command would cost a minute."""
        out, err = io.StringIO(), io.StringIO()
        before, sys.argv = sys.argv, ["isthmus", "--kubeconfig", str(self.kubeconfig), *words]
        code: object = 0
        try:
            with redirect_stdout(out), redirect_stderr(err):
                main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            sys.argv = before
        return Done(code, out.getvalue(), err.getvalue())

    def good(self, *words: str) -> str:
        done = self.isthmus(*words)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def refused(self, *words: str) -> str:
        """What a command says that must fail and change nothing."""
        before = {name: self.everything(name) for name in self.servers}
        done = self.isthmus(*words)
        assert done.returncode == 1, done.stdout
        assert done.stderr.startswith("Error: "), done.stderr
        assert "Traceback" not in done.stderr
        assert {name: self.everything(name) for name in self.servers} == before
        return done.stderr

    def everything(self, name: str) -> dict[str, str]:
        """Revision of every object that the commands may write."""
        found = {}
        for path in (
            f"{SYSTEM}/secrets",
            f"{SYSTEM}/configmaps",
            f"{SYSTEM}/services",
            "/apis/apps/v1/namespaces/kube-system/deployments",
            "/apis/apps/v1/namespaces/kube-system/daemonsets",
        ):
            for item in self.servers[name].get(path).body["items"]:
                found[f"{path}/{item['metadata']['name']}"] = item["metadata"]["resourceVersion"]
        return found

    def secret(self, name: str, secret: str) -> dict[str, bytes]:
        found = self.servers[name].get(f"{SYSTEM}/secrets/{secret}")
        assert found.code == 200, found.body
        return {k: base64.b64decode(v) for k, v in (found.body.get("data") or {}).items()}

    def patch(self, name: str, path: str, body: Any) -> None:
        done = self.servers[name].request(
            "PATCH", path, body, content_type="application/merge-patch+json"
        )
        assert done.code == 200, done.body

    def put_secret(self, name: str, secret: str, data: dict[str, bytes]) -> None:
        encoded = {k: base64.b64encode(v).decode() for k, v in data.items()}
        self.patch(name, f"{SYSTEM}/secrets/{secret}", {"data": encoded})

    def node(self, name: str, prefix: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "n1"},
            "spec": {"podCIDR": prefix, "podCIDRs": [prefix]},
        }
        server = self.servers[name]
        if server.request("POST", "/api/v1/nodes", body).code == 409:
            server.request("DELETE", "/api/v1/nodes/n1")
            assert server.request("POST", "/api/v1/nodes", body).code == 201

    def fresh(self) -> None:
        """Two installed, enabled clusters that are not connected."""
        for name, number in (("a", 1), ("b", 2)):
            # Installed first: what a test did to the settings must not keep disable from its work.
            self.good(
                *("install", "--context", name),
                *("--cluster-name", f"cluster-{name}", "--cluster-id", str(number)),
            )
            self.good("clustermesh", "disable", "--context", name)
            self.node(name, f"10.{number}.0.0/24")
            self.good("clustermesh", "enable", "--context", name)
            self.store_runs(name, f"192.0.2.{number}")

    def store_runs(self, name: str, address: str) -> None:
        """A pod of the mesh store on a node of that address; nothing runs here by itself."""
        pod = kind_apiserver.pod("store", "kube-system", **{"k8s-app": "clustermesh-apiserver"})
        server = self.servers[name]
        server.request("POST", f"{SYSTEM}/pods", pod)
        self.patch(name, f"{SYSTEM}/pods/store/status", {"status": {"hostIP": address}})

"""A real etcd, the lab's API server and its controllers as processes, and the real kubectl."""

import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support.lab_api import free_port, write_certificate

TOKEN = "kind-apiserver-test"
START_S = 60.0
KUBECTL_S = 90.0


def until(what: str, claim: Callable[[], Any], timeout_s: float = 40.0) -> Any:
    """Ask again and again until the claim holds; its value."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = claim()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.01)


@dataclass
class Answer:
    """One HTTP answer."""

    code: int
    body: Any


@dataclass
class Cluster:
    """Processes of one cluster; ``kill`` and ``start`` stand for a crash and what follows."""

    directory: Path
    etcd_port: int = field(default_factory=free_port)
    port: int = field(default_factory=free_port)
    extra: tuple[str, ...] = ()
    _processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    @property
    def etcd_url(self) -> str:
        return f"http://127.0.0.1:{self.etcd_port}"

    def prepare(self) -> None:
        self.certificate, self.key = write_certificate(self.directory)
        (self.directory / "tokens").write_text(f'{TOKEN},tester,1,"system:masters"\n')
        server = f"https://127.0.0.1:{self.port}"
        cluster = {"server": server, "certificate-authority": str(self.certificate)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": TOKEN}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        self.kubeconfig.write_text(yaml.safe_dump(config))
        self.tls = ssl.create_default_context(cafile=str(self.certificate))

    def _spawn(self, name: str, argv: list[str]) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(argv, stdout=log, stderr=log)

    def start_etcd(self) -> None:
        peer = f"http://127.0.0.1:{free_port()}"
        self._spawn(
            "etcd",
            [
                "etcd",
                f"--data-dir={self.directory / 'data'}",
                "--name=t",
                f"--listen-client-urls={self.etcd_url}",
                f"--advertise-client-urls={self.etcd_url}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=t={peer}",
                "--unsafe-no-fsync",
                "--log-level=error",
            ],
        )

    def start_api(self) -> None:
        self._spawn(
            "api",
            [
                sys.executable,
                "-m",
                "kind.apiserver",
                f"--etcd-endpoint={self.etcd_url}",
                f"--listen=127.0.0.1:{self.port}",
                f"--tls-cert={self.certificate}",
                f"--tls-key={self.key}",
                f"--token-file={self.directory / 'tokens'}",
                "--service-cidr=10.96.0.0/16",
                *self.extra,
            ],
        )
        until("the API server is healthy", self._healthy, START_S)

    def start_controllers(self, *arguments: str) -> None:
        argv = [sys.executable, "-m", "kind.controllers", f"--kubeconfig={self.kubeconfig}"]
        self._spawn("controllers", [*argv, *arguments])

    def _healthy(self) -> bool:
        process = self._processes["api"]
        assert process.poll() is None, (self.directory / "api.log").read_text()
        try:
            return self.get("/readyz", token="").code == 200
        except OSError:
            return False

    def kill(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        for name in reversed(list(self._processes)):
            self.kill(name)

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    # Two ways to talk to it.

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str = TOKEN,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": content_type, "Accept": accept}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        url = f"https://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30, context=self.tls) as answer:
                text = answer.read()
                code = answer.status
        except urllib.error.HTTPError as error:
            with error:
                text, code = error.read(), error.code
        try:
            return Answer(code, json.loads(text))
        except ValueError:
            return Answer(code, text.decode(errors="replace"))

    def get(self, path: str, **options: Any) -> Answer:
        return self.request("GET", path, **options)

    def watch(self, path: str) -> Iterator[Any]:
        """Events until the server ends the watch."""
        url = f"https://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=30, context=self.tls) as answer:
            for line in answer:
                yield json.loads(line)

    def _kubectl_argv(self, arguments: tuple[str, ...]) -> list[str]:
        program = shutil.which("kubectl")
        assert program, "kubectl is not installed"
        return [program, f"--kubeconfig={self.kubeconfig}", *arguments]

    def run(self, *arguments: str, stdin: str = "", **environment: str) -> Any:
        """kubectl with its exit code."""
        home = {"HOME": str(self.directory)}  # its discovery cache
        return subprocess.run(
            self._kubectl_argv(arguments),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=KUBECTL_S,
            env=os.environ | home | environment,
            check=False,
        )

    def kubectl(self, *arguments: str, stdin: str = "", **environment: str) -> str:
        """kubectl that must succeed; what it printed."""
        done = self.run(*arguments, stdin=stdin, **environment)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return str(done.stdout)

    @contextmanager
    def kubectl_watch(self, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
        """A kubectl that keeps printing."""
        process = subprocess.Popen(
            self._kubectl_argv(arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"HOME": str(self.directory)},
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def apply(self, *objects: Any) -> str:
        return self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def json(self, *arguments: str) -> Any:
        return json.loads(self.kubectl(*arguments, "-o", "json"))


@contextmanager
def cluster(directory: Path, *extra: str) -> Iterator[Cluster]:
    """etcd and API server; everything ends with the block."""
    made = Cluster(directory, extra=extra)
    made.prepare()
    try:
        made.start_etcd()
        made.start_api()
        yield made
    finally:
        made.stop()


def pod(name: str, namespace: str, **labels: str) -> Any:
    """A small pod."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "containers": [
                {
                    "name": "main",
                    "image": "example:1",
                    "ports": [{"name": "http", "containerPort": 8080}],
                }
            ]
        },
    }


def service(name: str, namespace: str, selector: dict[str, str], **spec: Any) -> Any:
    """A service of port 80 to the pods' port ``http``."""
    ports = [{"port": 80, "targetPort": "http"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": selector, "ports": ports} | spec,
    }


def deployment(name: str, namespace: str, replicas: int, image: str = "example:1") -> Any:
    """A deployment of small pods labelled ``app: name``."""
    labels = {"app": name}
    spec = pod("x", namespace)["spec"]
    spec["containers"][0]["image"] = image
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }

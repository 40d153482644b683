"""Start a lab. Composition: the order of everything is here, the rules are elsewhere."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from kind.kubelet.api import Api, ApiError
from kind.lab import down, host, kubeconfig, pki, services, state, topology
from kind.lab.topology import Cluster, LabError, Topology
from kind.runtime import client
from reconcile.tasks import TaskGroup

Json = dict[str, Any]

READY_TIMEOUT_S = 120.0
LOOK_S = 0.05
REAL_BINARIES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
# How the CLI installs our own components into one cluster; given the context's name.
INSTALL = (sys.executable, "-m", "cli.main", "install")


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for."""

    name: str = topology.DEFAULT_NAME
    clusters: int = 2
    nodes: int = 2
    underlay_mtu: int = 1500
    kube_assets: str = ""
    install: bool = True
    values: tuple[str, ...] = ()  # settings of the installation, key=value

    @property
    def ipv6(self) -> bool:
        """Whether the clusters are of both families: the setting is the installation's."""
        pairs = (text.partition("=") for text in self.values)
        said = [value for key, _, value in pairs if key in ("ipv6.enabled", "enable-ipv6")]
        return bool(said) and said[-1].lower() in ("true", "1")


# Told of each step: cluster ("" for all), what is done, seconds since the start.
Tell = Callable[[str, str, float], None]


def check(request: Request) -> Topology:
    """Refuse at once what cannot work. Raises LabError."""
    lab = topology.build(
        request.name, request.clusters, request.nodes, request.underlay_mtu, ipv6=request.ipv6
    )
    if request.kube_assets:
        missing = [
            name
            for name in REAL_BINARIES
            if not os.access(f"{request.kube_assets}/{name}", os.X_OK)
        ]
        if missing:
            raise LabError(
                f"--kube-assets {request.kube_assets} has no executable {', '.join(missing)}; "
                "put the Kubernetes server binaries there or leave the option away"
            )
    if os.geteuid() != 0:
        raise LabError("a lab needs root: namespaces, mounts and eBPF. Run: sudo isthmus lab up")
    for program, package in (("etcd", "etcd-server"), ("ip", "iproute2")):
        if shutil.which(program) is None:
            raise LabError(f"{program} is not installed; on Debian: apt-get install {package}")
    host.cgroup_mount()
    return lab


def run(request: Request, tell: Tell) -> state.LabRecord:
    """Start the lab and wait until it is ready; what was begun is removed when it is interrupted.

    Raises LabError. When a cluster does not become ready in time the lab stays, to be looked at.
    """
    lab = check(request)
    began = time.monotonic()

    def say(cluster: str, text: str) -> None:
        tell(cluster, text, time.monotonic() - began)

    with state.locked(lab.name):
        state.refuse_if_present(lab.name)
        with contextlib.ExitStack() as undo:
            undo.callback(down.remove, lab.name)
            record = _start(lab, request, say)
            try:
                asyncio.run(_settle(lab, request, record, say))
            except* LabError:
                undo.pop_all()  # it stays, to be looked at
                raise
            undo.pop_all()
            return record


def _keep() -> list[str]:
    """Directories that every container must see, wherever the machine has them mounted."""
    paths = {str(services.CHECKOUT), sys.prefix, sys.base_prefix}
    return sorted(os.path.realpath(path) for path in paths)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket())
            sock.bind(("127.0.0.1", 0))
            ports.append(int(sock.getsockname()[1]))
        return ports


def _start(lab: Topology, request: Request, say: Callable[[str, str], None]) -> state.LabRecord:
    host.make_directory(lab)
    record = state.LabRecord(
        name=lab.name,
        clusters=request.clusters,
        nodes=request.nodes,
        underlay_mtu=request.underlay_mtu,
        ports=_free_ports(request.clusters),
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        by=state.whoami(),
        kube_assets=request.kube_assets,
        ipv6=request.ipv6,
    )
    state.save(record)
    host.make_underlay(lab)
    keep = _keep()
    accesses = []
    for cluster, port in zip(lab.clusters, record.ports, strict=True):
        for node in cluster.nodes:
            host.make_root(node, keep)
            _write_json(node.directory / "runtime.json", services.runtime_settings(node, keep))
            client.ensure(str(node.directory))
        files = pki.make(cluster, datetime.now(UTC))
        control = client.Client(str(cluster.control_plane.directory))
        control.run(services.etcd(cluster))
        access = kubeconfig.Access(
            cluster.name,
            f"https://127.0.0.1:{port}",
            files.ca_cert.read_bytes(),
            files.token(pki.ADMIN),
        )
        accesses.append(access)
        inner = kubeconfig.Access(
            cluster.name, cluster.api_url, access.ca_pem, files.token(pki.CONTROLLERS)
        )
        _write_yaml(cluster.directory / "controllers.kubeconfig", kubeconfig.render([inner]))
        if request.kube_assets:
            launches = services.real_control_plane(cluster, Path(request.kube_assets).resolve())
        else:
            launches = [services.api_server(cluster), services.controllers(cluster)]
        for launch in [*launches, services.forwarder(cluster, port)]:
            control.run(launch)
        for node in cluster.nodes:
            settings = services.kubelet_settings(cluster, node)
            _write_json(node.directory / "kubelet.json", settings)
            client.Client(str(node.directory)).run(services.kubelet(node))
    _write_yaml(lab.kubeconfig, kubeconfig.render(accesses))
    say("", f"{len(lab.nodes)} nodes on the underlay, processes started")
    return record


def _write_json(path: Path, value: object) -> None:
    path.touch(mode=0o600)
    path.write_text(json.dumps(value, indent=1))


def _write_yaml(path: Path, value: object) -> None:
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(value, sort_keys=False))


async def _settle(
    lab: Topology, request: Request, record: state.LabRecord, say: Callable[[str, str], None]
) -> None:
    """Wait for both clusters at once, installing our components on the way."""
    async with TaskGroup() as tasks:
        for cluster, port in zip(lab.clusters, record.ports, strict=True):
            tasks.create_task(_settle_cluster(lab, cluster, port, request, say))


async def _settle_cluster(
    lab: Topology, cluster: Cluster, port: int, request: Request, say: Callable[[str, str], None]
) -> None:
    files = pki.paths(cluster)
    url = f"https://127.0.0.1:{port}"
    async with Api(url, files.ca_cert, files.token(pki.ADMIN)) as api:
        await _until(cluster, "the API server answers", lambda: _answers(api))
        say(cluster.name, "API server answers")
        if request.install:
            await _install(lab, cluster, request.values)
            say(cluster.name, "components installed")
        await apply_manifest(api, dns_manifest(cluster))
        await _until(cluster, "all nodes are registered", lambda: _nodes(api, cluster, False))
        if request.install:
            await _until(cluster, "all nodes are Ready", lambda: _nodes(api, cluster, True))
            say(cluster.name, f"{len(cluster.nodes)} nodes Ready")
            await _until(cluster, "all system pods are Ready", lambda: _pods_ready(api))
            say(cluster.name, "system pods Ready")
        else:
            say(cluster.name, f"{len(cluster.nodes)} nodes registered (nothing installed)")


async def _until(cluster: Cluster, what: str, look: Callable[[], Any]) -> None:
    """Look until it is so. Raises LabError with the last reason."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    why = ""
    while time.monotonic() < deadline:
        try:
            why = await look()
        except ApiError as error:
            why = str(error)
        if not why:
            return
        await asyncio.sleep(LOOK_S)
    raise LabError(
        f"{cluster.name}: waited {READY_TIMEOUT_S:.0f} s until {what}: {why}. The lab stays: "
        f"isthmus lab status {cluster.lab}, isthmus lab logs, isthmus lab down {cluster.lab}"
    )


async def _answers(api: Api) -> str:
    await api.call("GET", "/api/v1/namespaces/kube-system")
    return ""


async def _nodes(api: Api, cluster: Cluster, ready: bool) -> str:
    listing = await api.call("GET", "/api/v1/nodes")
    good = set()
    for item in listing["items"]:
        conditions = (item.get("status") or {}).get("conditions") or []
        is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        if is_ready or not ready:
            good.add(item["metadata"]["name"])
    missing = [node.name for node in cluster.nodes if node.name not in good]
    return f"not yet: {', '.join(missing)}" if missing else ""


async def _pods_ready(api: Api) -> str:
    listing = await api.call("GET", "/api/v1/namespaces/kube-system/pods")
    waiting = []
    for item in listing["items"]:
        if "deletionTimestamp" in item["metadata"]:
            continue
        conditions = (item.get("status") or {}).get("conditions") or []
        if not any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
            waiting.append(item["metadata"]["name"])
    if not listing["items"]:
        return "no pods yet"
    return f"not ready: {', '.join(waiting)}" if waiting else ""


async def _install(lab: Topology, cluster: Cluster, values: tuple[str, ...]) -> None:
    process = await asyncio.create_subprocess_exec(
        *INSTALL,
        "--kubeconfig",
        str(lab.kubeconfig),
        "--context",
        cluster.name,
        "--cluster-name",
        cluster.name,
        "--cluster-id",
        str(cluster.index),
        *(f"--set={value}" for value in values),
        cwd=services.CHECKOUT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode:
        text = output.decode(errors="replace").strip()
        raise LabError(f"{cluster.name}: isthmus install failed ({process.returncode}): {text}")


def dns_manifest(cluster: Cluster) -> list[Json]:
    """The objects of the cluster DNS."""
    path = services.CHECKOUT / "kind/manifests/coredns.yaml"
    text = path.read_text().replace("CLUSTER_DNS_ADDRESS", str(cluster.dns_address))
    return [item for item in yaml.safe_load_all(text) if item]


_PATHS = {
    "ServiceAccount": "/api/v1/namespaces/{ns}/serviceaccounts",
    "Service": "/api/v1/namespaces/{ns}/services",
    "Deployment": "/apis/apps/v1/namespaces/{ns}/deployments",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
}


async def apply_manifest(api: Api, objects: list[Json]) -> None:
    """Create objects; those that exist are left as they are."""
    for item in objects:
        namespace = item["metadata"].get("namespace", "")
        path = _PATHS[item["kind"]].format(ns=namespace)
        try:
            await api.call("POST", path, item)
        except ApiError as error:
            if error.status != 409:
                raise

"""What runs on the nodes beside pods: etcd, API server, controllers, kubelets. Pure but for paths.

Each is a service of its node's runtime, which starts it again when it ends. Nothing waits for
anything here: an API server without etcd, a kubelet without an API server try until it is there.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from kind.lab import host, pki, topology
from kind.lab.topology import Cluster, Node
from kind.runtime.records import ENVIRONMENT, Launch

CHECKOUT = Path(__file__).resolve().parents[2]
CLUSTER_DOMAIN = "cluster.local"


def _listed(networks: Sequence[object]) -> str:
    return ",".join(map(str, networks))


def _service(node: Node, name: str, argv: Sequence[str], netns: str | None = None) -> Launch:
    path = f"{os.path.dirname(sys.executable)}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
    return Launch(
        id=name,
        argv=list(argv),
        env=ENVIRONMENT | {"PATH": f"{path}:/sbin:/bin"},
        cgroup=str(host.cgroup_of(node.lab) / node.name / "system" / name),
        log=str(node.directory / "logs" / f"{name}.log"),
        netns=node.netns_path if netns is None else netns,
        cwd=str(CHECKOUT),
        restart=True,
    )


def etcd(cluster: Cluster) -> Launch:
    """The cluster's etcd, for its API server only: on the loopback of the control plane."""
    client, peer = f"http://127.0.0.1:{topology.ETCD_PORT}", "http://127.0.0.1:2380"
    argv = [
        "etcd",
        f"--name={cluster.name}",
        f"--data-dir={cluster.directory}/etcd",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={cluster.name}={peer}",
        "--logger=zap",
        "--log-level=warn",
    ]
    return _service(cluster.control_plane, "etcd", argv)


def api_server(cluster: Cluster) -> Launch:
    """The lab's own API server."""
    files = pki.paths(cluster)
    address = f"{cluster.control_plane.address}:{topology.API_PORT}"
    argv = [
        sys.executable,
        "-m",
        "kind.apiserver",
        f"--etcd-endpoint=http://127.0.0.1:{topology.ETCD_PORT}",
        f"--listen={address}",
        f"--advertise-address={address}",
        f"--tls-cert={files.cert('apiserver')}",
        f"--tls-key={files.key('apiserver')}",
        f"--client-ca={files.ca_cert}",
        f"--token-file={files.tokens}",
        f"--service-cidr={_listed(cluster.service_cidrs)}",
        f"--kubelet-ca={files.ca_cert}",
        f"--kubelet-client-cert={files.cert('apiserver-kubelet-client')}",
        f"--kubelet-client-key={files.key('apiserver-kubelet-client')}",
    ]
    return _service(cluster.control_plane, "kube-apiserver", argv)


def controllers(cluster: Cluster) -> Launch:
    """The lab's own controllers and scheduler."""
    kubeconfig = cluster.directory / "controllers.kubeconfig"
    argv = [sys.executable, "-m", "kind.controllers", f"--kubeconfig={kubeconfig}"]
    return _service(cluster.control_plane, "kube-controllers", argv)


def real_control_plane(cluster: Cluster, assets: Path) -> list[Launch]:
    """API server, controller manager and scheduler from a directory of real binaries."""
    files = pki.paths(cluster)
    kubeconfig = cluster.directory / "controllers.kubeconfig"
    node = cluster.control_plane
    api = [
        f"{assets}/kube-apiserver",
        f"--etcd-servers=http://127.0.0.1:{topology.ETCD_PORT}",
        f"--bind-address={node.address}",
        f"--advertise-address={node.address}",
        f"--secure-port={topology.API_PORT}",
        f"--tls-cert-file={files.cert('apiserver')}",
        f"--tls-private-key-file={files.key('apiserver')}",
        f"--client-ca-file={files.ca_cert}",
        f"--token-auth-file={files.tokens}",
        "--authorization-mode=RBAC",
        f"--service-cluster-ip-range={_listed(cluster.service_cidrs)}",
        f"--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
        f"--service-account-key-file={files.key('service-account')}",
        f"--service-account-signing-key-file={files.key('service-account')}",
        f"--kubelet-certificate-authority={files.ca_cert}",
        f"--kubelet-client-certificate={files.cert('apiserver-kubelet-client')}",
        f"--kubelet-client-key={files.key('apiserver-kubelet-client')}",
        "--kubelet-preferred-address-types=InternalIP",
    ]
    manager = [
        f"{assets}/kube-controller-manager",
        f"--kubeconfig={kubeconfig}",
        f"--cluster-name={cluster.name}",
        f"--cluster-cidr={_listed(cluster.pod_cidrs)}",
        "--allocate-node-cidrs=false",
        f"--service-cluster-ip-range={_listed(cluster.service_cidrs)}",
        f"--root-ca-file={files.ca_cert}",
        f"--service-account-private-key-file={files.key('service-account')}",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
    ]
    scheduler = [
        f"{assets}/kube-scheduler",
        f"--kubeconfig={kubeconfig}",
        "--leader-elect=false",
    ]
    return [
        _service(node, "kube-apiserver", api),
        _service(node, "kube-controller-manager", manager),
        _service(node, "kube-scheduler", scheduler),
    ]


def forwarder(cluster: Cluster, port: int) -> Launch:
    """The listener on 127.0.0.1 of the root namespace."""
    node = cluster.control_plane
    argv = [
        sys.executable,
        "-I",
        "-S",
        str(CHECKOUT / "kind/lab/forward.py"),
        str(port),
        node.netns_path,
        str(node.address),
        str(topology.API_PORT),
    ]
    return _service(node, "api-forward", argv, netns="")


def kubelet(node: Node) -> Launch:
    """The node's kubelet."""
    return _service(node, "kubelet", [sys.executable, "-m", "kind.kubelet", str(node.directory)])


def kubelet_settings(cluster: Cluster, node: Node) -> dict[str, object]:
    """The file that a kubelet reads: the fields of ``kind.kubelet.config.Config``."""
    files = pki.paths(cluster)
    return {
        "lab": node.lab,
        "node": node.name,
        "node_ip": str(node.address),
        "node_ip6": str(node.address6 or ""),
        "directory": str(node.directory),
        "netns": node.netns_path,
        "pod_netns_prefix": node.pod_netns_prefix,
        "pod_cidrs": [str(cidr) for cidr in node.pod_cidrs],
        "control_plane": node.is_control_plane,
        "cgroup": str(host.cgroup_of(node.lab) / node.name / "pods"),
        "api_url": cluster.api_url,
        "api_service_address": str(cluster.api_service_address),
        "ca_file": str(files.ca_cert),
        "token": files.token(pki.node_user(node)),
        "serving_cert": str(files.cert(node.name)),
        "serving_key": str(files.key(node.name)),
        "client_ca": str(files.ca_cert),
        "dns_address": str(cluster.dns_address),
        "cluster": cluster.name,
        "cluster_domain": CLUSTER_DOMAIN,
        "port": topology.KUBELET_PORT,
    }


def runtime_settings(node: Node, keep: list[str]) -> dict[str, object]:
    """The file that a node's runtime reads."""
    return {
        "root": str(node.root),
        "scratch": str(node.directory / "scratch"),
        "keep": keep,
        "cgroup": str(host.cgroup_of(node.lab) / node.name / "system" / "runtime"),
        "cgroup_mount": host.cgroup_mount(),
    }

"""Keys and tokens of a lab's clusters. Adapter.

One authority per cluster signs the API server, the kubelets and the API server's certificate
towards them; people and components prove themselves by bearer tokens, as the API server's token
file (``token,user,uid,"groups"``) says.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from certs import issue
from certs.issue import KeyPair
from certs.profiles import Profile
from kind.lab.topology import Cluster, Node

ADMIN, CONTROLLERS = "kubernetes-admin", "system:kube-controller-manager"


@dataclass(frozen=True, slots=True)
class Paths:
    """The files of a cluster's secrets."""

    directory: Path

    @property
    def ca_cert(self) -> Path:
        """The authority's certificate."""
        return self.directory / "ca.crt"

    @property
    def tokens(self) -> Path:
        """The API server's token file."""
        return self.directory / "tokens.csv"

    def cert(self, name: str) -> Path:
        """A certificate by the name of its owner."""
        return self.directory / f"{name}.crt"

    def key(self, name: str) -> Path:
        """A key by the name of its owner."""
        return self.directory / f"{name}.key"

    def token(self, name: str) -> str:
        """A token by the name of its owner."""
        for line in self.tokens.read_text().splitlines():
            token, user, _ = line.split(",", 2)
            if user == name:
                return token
        raise KeyError(f"no token of {name} in {self.tokens}")


def paths(cluster: Cluster) -> Paths:
    """Where a cluster's secrets are."""
    return Paths(cluster.directory / "pki")


def node_user(node: Node) -> str:
    """Who a kubelet is to the API server."""
    return f"system:node:{node.name}"


def _write(files: Paths, name: str, pair: KeyPair) -> None:
    files.cert(name).write_bytes(pair.certificate)
    files.key(name).touch(mode=0o600)
    files.key(name).write_bytes(pair.key)


def _profiles(cluster: Cluster) -> Iterator[tuple[str, Profile]]:
    service = "kubernetes.default.svc"
    names = ("localhost", "kubernetes", "kubernetes.default", service, f"{service}.cluster.local")
    addresses = ("127.0.0.1", str(cluster.control_plane.address), str(cluster.api_service_address))
    yield "apiserver", Profile("kube-apiserver", (*names, *addresses), server=True)
    masters = "system:masters"
    yield (
        "apiserver-kubelet-client",
        Profile("kube-apiserver-kubelet-client", client=True, organization=masters),
    )
    # Only its key is used: a real control plane signs service account tokens with it.
    yield "service-account", Profile("service-account", client=True)
    for node in cluster.nodes:
        own = (node.name, str(node.address))
        yield node.name, Profile(node_user(node), own, server=True, organization="system:nodes")


def make(cluster: Cluster, now: datetime) -> Paths:
    """Make all keys and tokens of a cluster."""
    files = paths(cluster)
    files.directory.mkdir(parents=True, mode=0o700)
    authority = issue.create_ca(now, f"{cluster.name}-ca")
    _write(files, "ca", authority)
    for name, profile in _profiles(cluster):
        _write(files, name, issue.issue(authority, profile, now))
    rows = [(ADMIN, "system:masters"), (CONTROLLERS, "system:masters")]
    rows += [(node_user(node), "system:masters") for node in cluster.nodes]
    lines = [f'{secrets.token_hex(16)},{user},{user},"{groups}"\n' for user, groups in rows]
    files.tokens.touch(mode=0o600)
    files.tokens.write_text("".join(lines))
    return files

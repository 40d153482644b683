"""What a kubelet is told when it starts. Pure."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one kubelet; read from the file that the lab writes for the node."""

    lab: str
    node: str
    node_ip: str
    directory: Path  # of the node: its runtime's socket, its root, its pods' files
    netns: str  # path of the node's network namespace
    pod_netns_prefix: str
    pod_cidrs: list[str]  # one per family
    control_plane: bool
    cgroup: str  # directory below which pods get theirs
    api_url: str
    api_service_address: str
    ca_file: Path
    token: str
    serving_cert: Path
    serving_key: Path
    client_ca: Path  # who may use the kubelet's own API
    dns_address: str
    cluster: str
    cluster_domain: str = "cluster.local"
    node_ip6: str = ""  # empty: the node is of IPv4 alone
    port: int = 10250

    @property
    def node_ips(self) -> list[str]:
        """The node's addresses, one per family."""
        return [ip for ip in (self.node_ip, self.node_ip6) if ip]

    @property
    def root(self) -> str:
        """The node's root file system."""
        return str(self.directory / "root")

    @property
    def pods(self) -> Path:
        """A directory per pod: sandbox, volumes, files."""
        return self.directory / "kubelet" / "pods"

    @property
    def logs(self) -> Path:
        """A directory per pod with its containers' output."""
        return self.directory / "logs"

"""Who needs which certificate. Pure.

Names of secrets, subjects and alternative names are those that Cluster Mesh clients look for.
"""

from dataclasses import dataclass
from ipaddress import ip_address

CA_SECRET = "cilium-ca"
CA_COMMON_NAME = "Cilium CA"
SERVER_SECRET = "clustermesh-apiserver-server-cert"
ADMIN_SECRET = "clustermesh-apiserver-admin-cert"
REMOTE_SECRET = "clustermesh-apiserver-remote-cert"
LOCAL_SECRET = "clustermesh-apiserver-local-cert"
SERVER_NAME = "clustermesh-apiserver.cilium.io"
MESH_DOMAIN = "mesh.cilium.io"
VALIDITY_DAYS = 1095
HUBBLE_SERVER_SECRET = "hubble-server-certs"
RELAY_CLIENT_SECRET = "hubble-relay-client-certs"
RELAY_SERVER_SECRET = "hubble-relay-server-certs"
HUBBLE_VALIDITY_DAYS = 365


@dataclass(frozen=True, slots=True)
class Profile:
    """What a certificate says; ``names`` are DNS names or IP addresses."""

    common_name: str
    names: tuple[str, ...] = ()
    server: bool = False
    client: bool = False
    validity_days: int = VALIDITY_DAYS
    organization: str = ""

    def dns_names(self) -> tuple[str, ...]:
        """The names that are no addresses."""
        return tuple(n for n in self.names if not _is_address(n))

    def addresses(self) -> tuple[str, ...]:
        """The names that are addresses."""
        return tuple(n for n in self.names if _is_address(n))


def mesh_profiles(
    cluster: str, namespace: str = "kube-system", extra_names: tuple[str, ...] = ()
) -> dict[str, Profile]:
    """Secret name to certificate, for the mesh store of one cluster and its users."""
    return {
        SERVER_SECRET: Profile(
            SERVER_NAME,
            (
                SERVER_NAME,
                f"*.{MESH_DOMAIN}",
                f"clustermesh-apiserver.{namespace}.svc",
                "127.0.0.1",
                "::1",
                *extra_names,
            ),
            server=True,
            client=True,  # etcd's own gateway presents it as a client
        ),
        ADMIN_SECRET: Profile(f"admin-{cluster}", ("localhost",), client=True),
        REMOTE_SECRET: Profile("remote", client=True),
        LOCAL_SECRET: Profile(f"local-{cluster}", client=True),
    }


def hubble_profiles(cluster: str) -> dict[str, Profile]:
    """Secret name to certificate, for the observers of a cluster's nodes and its relay."""
    nodes = f"*.{cluster.replace('.', '-')}.hubble-grpc.cilium.io"
    relay = "*.hubble-relay.cilium.io"
    return {
        HUBBLE_SERVER_SECRET: _hubble(nodes, server=True),
        RELAY_CLIENT_SECRET: _hubble(relay, client=True),
        RELAY_SERVER_SECRET: _hubble(relay, server=True),
    }


def _hubble(name: str, *, server: bool = False, client: bool = False) -> Profile:
    return Profile(name, (name,), server, client, HUBBLE_VALIDITY_DAYS)


def server_host(cluster: str) -> str:
    """The name under which others reach a cluster's mesh store; its certificate covers it."""
    return f"{cluster}.{MESH_DOMAIN}"


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True

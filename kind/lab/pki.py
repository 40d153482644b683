"""Keys and tokens of a lab's clusters. Adapter.

One authority per cluster signs the API server, the kubelets and the API server's certificate
towards them; people and components prove themselves by bearer tokens, as the API server's token file
(``token,user,uid,"groups"``) says.
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kind.lab.topology import Cluster, Node

LIFETIME = timedelta(days=365)
ADMIN, CONTROLLERS, SCHEDULER = "kubernetes-admin", "system:kube-controller-manager", "scheduler"


@dataclass(frozen=True, slots=True)
class Paths:
    """The files of a cluster's secrets."""

    directory: Path

    @property
    def ca_cert(self) -> Path:
        """The authority's certificate."""
        return self.directory / "ca.crt"

    @property
    def ca_key(self) -> Path:
        """The authority's key."""
        return self.directory / "ca.key"

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


class _Authority:
    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(self._name, self._name, self._key.public_key())
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        self.certificate = (
            builder.add_extension(constraints, critical=True)
            .add_extension(usage, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )

    def write(self, files: Paths) -> None:
        _write_cert(files.ca_cert, self.certificate)
        _write_key(files.ca_key, self._key)

    def issue(
        self,
        files: Paths,
        name: str,
        subject: list[tuple[x509.ObjectIdentifier, str]],
        names: list[str],
        addresses: list[IPv4Address],
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        whom = x509.Name([x509.NameAttribute(kind, value) for kind, value in subject])
        alternatives: list[x509.GeneralName] = [x509.DNSName(item) for item in names]
        alternatives += [x509.IPAddress(item) for item in addresses]
        builder = _builder(whom, self._name, key.public_key())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        if alternatives:
            builder = builder.add_extension(
                x509.SubjectAlternativeName(alternatives), critical=False
            )
        _write_cert(files.cert(name), builder.sign(self._key, hashes.SHA256()))
        _write_key(files.key(name), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
    )


def _write_cert(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def make(cluster: Cluster) -> Paths:
    """Make all keys and tokens of a cluster."""
    files = paths(cluster)
    files.directory.mkdir(parents=True, mode=0o700)
    authority = _Authority(f"{cluster.name}-ca")
    authority.write(files)
    common = NameOID.COMMON_NAME
    service = "kubernetes.default.svc"
    authority.issue(
        files,
        "apiserver",
        [(common, "kube-apiserver")],
        ["localhost", "kubernetes", "kubernetes.default", service, f"{service}.cluster.local"],
        [
            IPv4Address("127.0.0.1"),
            cluster.control_plane.address,
            cluster.api_service_address,
        ],
    )
    masters = (NameOID.ORGANIZATION_NAME, "system:masters")
    authority.issue(files, "apiserver-kubelet-client", [masters, (common, "apiserver")], [], [])
    authority.issue(files, "service-account", [(common, "service-account")], [], [])
    for node in cluster.nodes:
        subject = [(NameOID.ORGANIZATION_NAME, "system:nodes"), (common, node_user(node))]
        authority.issue(files, node.name, subject, [node.name], [node.address])
    rows = [(ADMIN, "system:masters"), (CONTROLLERS, "system:masters")]
    rows += [(node_user(node), "system:masters") for node in cluster.nodes]
    lines = [f'{secrets.token_hex(16)},{user},{user},"{groups}"\n' for user, groups in rows]
    files.tokens.touch(mode=0o600)
    files.tokens.write_text("".join(lines))
    return files

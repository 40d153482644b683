"""Certificates: made as mesh tools expect them, checked with one sentence each."""

import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from certs.check import bundle, expires_at, problem, subject_key_id
from certs.issue import KeyPair, create_ca, issue
from certs.profiles import (
    ADMIN_SECRET,
    LOCAL_SECRET,
    REMOTE_SECRET,
    SERVER_SECRET,
    Profile,
    mesh_profiles,
)

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
CA = create_ca(NOW)
OTHER = create_ca(NOW)


def read(pair: KeyPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate)


def test_subjects_are_the_users_of_the_store() -> None:
    """The common name of each secret is the etcd user that roles are given to."""
    names = {secret: p.common_name for secret, p in mesh_profiles("berlin").items()}
    assert names == {
        SERVER_SECRET: "clustermesh-apiserver.cilium.io",
        ADMIN_SECRET: "admin-berlin",
        REMOTE_SECRET: "remote",
        LOCAL_SECRET: "local-berlin",
    }


def test_the_server_is_known_by_every_name_clients_use() -> None:
    """Mesh names, the Service, loopback and what was asked for."""
    profile = mesh_profiles("berlin", "mesh-ns", ("192.0.2.1", "store.example"))[SERVER_SECRET]
    names = read(issue(CA, profile, NOW)).extensions.get_extension_for_oid(
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME
    )
    assert names.value.get_values_for_type(x509.DNSName) == [
        "clustermesh-apiserver.cilium.io",
        "*.mesh.cilium.io",
        "clustermesh-apiserver.mesh-ns.svc",
        "store.example",
    ]
    assert [str(a) for a in names.value.get_values_for_type(x509.IPAddress)] == [
        "127.0.0.1",
        "::1",
        "192.0.2.1",
    ]


@pytest.mark.parametrize("secret", list(mesh_profiles("berlin")))
def test_a_certificate_lasts_three_years_from_a_little_before_now(secret: str) -> None:
    """Clocks of two clusters differ; clients must be able to use it at once."""
    certificate = read(issue(CA, mesh_profiles("berlin")[secret], NOW))
    assert certificate.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert certificate.not_valid_after_utc == NOW + timedelta(days=1095)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert ExtendedKeyUsageOID.CLIENT_AUTH in usage
    assert (ExtendedKeyUsageOID.SERVER_AUTH in usage) == (secret == SERVER_SECRET)


def test_another_program_verifies_the_chain(tmp_path: Path) -> None:
    """openssl accepts the server's certificate for a mesh name, and only under its authority."""
    for name, pair in (("ca", CA), ("other", OTHER)):
        (tmp_path / name).write_bytes(pair.certificate)
    made = issue(CA, mesh_profiles("berlin")[SERVER_SECRET], NOW)
    (tmp_path / "server").write_bytes(made.certificate)

    def verify(authority: str, host: str) -> bool:
        at = str(int(NOW.timestamp()) + 60)
        argv = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-attime", at]
        argv += ["-verify_hostname", host, "-CAfile", str(tmp_path / authority)]
        return not subprocess.run([*argv, str(tmp_path / "server")], capture_output=True).returncode

    assert verify("ca", "paris.mesh.cilium.io")
    assert not verify("ca", "paris.example")
    assert not verify("other", "paris.mesh.cilium.io")


def test_key_and_certificate_belong_together(tmp_path: Path) -> None:
    """The TLS library loads the pair."""
    pair = issue(CA, Profile("admin", client=True, organization="system:masters"), NOW)
    (tmp_path / "crt").write_bytes(pair.certificate)
    (tmp_path / "key").write_bytes(pair.key)
    ssl.create_default_context().load_cert_chain(tmp_path / "crt", tmp_path / "key")
    assert read(pair).subject.rfc4514_string() == "CN=admin,O=system:masters"


def test_an_authority_made_elsewhere_may_sign() -> None:
    """Charts make RSA authorities; those of other kinds are refused with the remedy."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Cilium CA")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    authority = KeyPair(made.public_bytes(Encoding.PEM), pem(key))
    leaf = issue(authority, Profile("remote", client=True), NOW)
    assert not problem("x", leaf.certificate, authority.certificate, NOW + timedelta(days=1))
    with pytest.raises(ValueError, match="neither EC nor RSA"):
        issue(
            KeyPair(CA.certificate, pem(ed25519.Ed25519PrivateKey.generate())),
            Profile("remote", client=True),
            NOW,
        )


def pem(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_a_secret_holds_three_files() -> None:
    """Names as in ``kubernetes.io/tls``; the key shows nowhere else."""
    pair = issue(CA, Profile("remote", client=True), NOW)
    assert pair.secret_data(CA.certificate) == {
        "ca.crt": CA.certificate,
        "tls.crt": pair.certificate,
        "tls.key": pair.key,
    }
    assert b"PRIVATE" not in repr(pair).encode()


def test_a_bundle_holds_each_authority_once() -> None:
    """In the given order, whatever the parts repeat."""
    both = bundle(CA.certificate, OTHER.certificate, CA.certificate + OTHER.certificate)
    assert both == CA.certificate + OTHER.certificate


def test_authorities_can_be_told_apart() -> None:
    """Equal names, different keys."""
    assert read(CA).subject == read(OTHER).subject
    assert subject_key_id(CA.certificate) != subject_key_id(OTHER.certificate)


@pytest.mark.parametrize(
    ("after", "trust", "says"),
    [
        (timedelta(days=1), CA.certificate, ""),
        (timedelta(days=1), bundle(OTHER.certificate, CA.certificate), ""),
        (timedelta(days=1100), CA.certificate, "expired on 2029-03-03: issue it anew"),
        (timedelta(days=-1), CA.certificate, "check the clocks"),
        (timedelta(days=1), OTHER.certificate, "does not hold"),
        (timedelta(days=1), b"nonsense", "not a PEM certificate"),
    ],
)
def test_what_is_wrong_is_said_with_its_remedy(after: timedelta, trust: bytes, says: str) -> None:
    """One sentence that begins with the object, or nothing."""
    pem = issue(CA, Profile("remote", client=True), NOW).certificate
    said = problem("secret kube-system/x", pem, trust, NOW + after)
    assert bool(said) == bool(says)
    assert says in said
    assert not said or said.startswith("secret kube-system/x: ")
    assert expires_at(pem) == NOW + timedelta(days=1095)

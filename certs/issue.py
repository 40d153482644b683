"""Make authorities and certificates. Adapter (randomness); the clock is an argument."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.profiles import CA_COMMON_NAME, VALIDITY_DAYS, Profile

# A certificate is valid a little earlier than it was issued: clocks of two clusters differ.
BACKDATE = timedelta(minutes=5)

Signer: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate with its private key, both PEM. The key never shows in a representation."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "KeyPair(certificate=…, key=hidden)"

    def secret_data(self, ca: bytes) -> dict[str, bytes]:
        """The data of a ``kubernetes.io/tls`` secret."""
        return {"ca.crt": ca, "tls.crt": self.certificate, "tls.key": self.key}


def create_ca(
    now: datetime, common_name: str = CA_COMMON_NAME, days: int = VALIDITY_DAYS
) -> KeyPair:
    """A self-signed authority that signs certificates only, not other authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    certificate = (
        _builder(name, name, key.public_key(), now, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), pem_key(key))


def issue(ca: KeyPair, profile: Profile, now: datetime) -> KeyPair:
    """A certificate of ``ca`` for a new key. Raises ``ValueError`` when the authority's PEM does
    not parse.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    return KeyPair(certify(ca, profile, key.public_key(), now), pem_key(key))


def load_authority(ca: KeyPair) -> tuple[x509.Certificate, Signer]:
    """An authority's certificate and what signs with its key. Raises ``ValueError``."""
    signer = serialization.load_pem_private_key(ca.key, None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ValueError("the CA's key is neither EC nor RSA: make the CA anew")
    return x509.load_pem_x509_certificate(ca.certificate), signer


def certify(
    ca: KeyPair, profile: Profile, public_key: ec.EllipticCurvePublicKey, now: datetime
) -> bytes:
    """The certificate of a profile for a key, PEM. Raises ``ValueError`` as ``issue``."""
    authority, signer = load_authority(ca)
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, profile.common_name)]
    if profile.organization:
        subject.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, profile.organization))
    usages = [ExtendedKeyUsageOID.SERVER_AUTH] if profile.server else []
    if profile.client:
        usages.append(ExtendedKeyUsageOID.CLIENT_AUTH)
    usage = x509.KeyUsage(True, False, True, False, False, False, False, False, False)
    builder = (
        _builder(x509.Name(subject), authority.subject, public_key, now, profile.validity_days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            ),
            critical=False,
        )
    )
    names: list[x509.GeneralName] = [x509.DNSName(n) for n in profile.dns_names()]
    names += [x509.IPAddress(ip_address(n)) for n in profile.addresses()]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS #8, without a passphrase."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )

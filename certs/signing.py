"""Certificates for somebody else's key: make a request, check one, sign it. Adapter (randomness).

Of a request only the public key is taken. Everything the certificate says comes from our own
profile, so nothing that a stranger asks for (another name, an authority's rights) can get into it.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.issue import KeyPair, certify, load_authority, pem_key
from certs.profiles import Profile

CURVES = (ec.SECP256R1, ec.SECP384R1)
REQUEST_LIMIT = 8 * 1024  # bytes


def make_request(common_name: str) -> KeyPair:
    """A new key, and a signing request (PEM, in ``certificate``) for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return KeyPair(request.public_bytes(serialization.Encoding.PEM), pem_key(key))


def sign_request(ca: KeyPair, pem: bytes, profile: Profile, now: datetime) -> bytes:
    """The certificate (PEM) of the profile for a request's key.

    It never outlives the authority. Raises ``ValueError`` for a request that is not what it
    should be: another name than the profile's, any extension, a foreign kind of key, a bad
    signature.
    """
    key = _checked(pem, profile.common_name)
    authority, _ = load_authority(ca)
    left = authority.not_valid_after_utc - now
    if left < timedelta(days=1):
        raise ValueError("the authority that is to sign has expired or is about to: rotate it")
    days = min(profile.validity_days, left.days)
    return certify(ca, replace(profile, validity_days=days), key, now)


def check_signed(pem: bytes, request: KeyPair, authority: bytes, name: str, now: datetime) -> None:
    """Is this a certificate for our request's key by that authority? Raises ``ValueError``."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        trusted = x509.load_pem_x509_certificates(authority)
    except ValueError as error:
        raise ValueError(f"the certificate is no PEM: {error}") from error
    if not any(_issued_by(certificate, one) for one in trusted):
        raise ValueError("the certificate is not signed by the authority that came with it")
    ours = x509.load_pem_x509_csr(request.certificate).public_key()
    if _spki(certificate.public_key()) != _spki(ours):
        raise ValueError("the certificate is for another key than the one in the request")
    if _common_names(certificate.subject) != [name]:
        raise ValueError(f'the certificate is not for the common name "{name}"')
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise ValueError("the certificate is not valid now: check the clocks of both clusters")
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        raise ValueError("the certificate is not for clients")


def check_authorities(pem: bytes, limit: int = 4) -> bytes:
    """A peer's trust bundle, written anew. Raises ``ValueError``."""
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ValueError(f"the authority is no PEM bundle: {error}") from error
    if len(found) > limit:
        raise ValueError(f"{len(found)} authorities in one bundle: at most {limit} are taken")
    for one in found:
        try:
            constraints = one.extensions.get_extension_for_class(x509.BasicConstraints).value
        except x509.ExtensionNotFound:
            constraints = None
        if constraints is None or not constraints.ca:
            raise ValueError(f"{one.subject.rfc4514_string()!r} is no authority (CA:false)")
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in found)


def fits(certificate: bytes, key: bytes) -> bool:
    """Whether a private key (PEM) is that of a certificate (PEM); false for what is none."""
    try:
        public = serialization.load_pem_private_key(key, None).public_key()
        known = x509.load_pem_x509_certificate(certificate).public_key()
    except (ValueError, TypeError):
        return False
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return public.public_bytes(*form) == known.public_bytes(*form)


def fingerprint(pem: bytes) -> str:
    """SHA-256 of the first certificate's DER, hex. Raises ``ValueError``."""
    return x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA256()).hex()


def _checked(pem: bytes, common_name: str) -> ec.EllipticCurvePublicKey:
    if len(pem) > REQUEST_LIMIT:
        raise ValueError(f"the signing request has more than {REQUEST_LIMIT} bytes")
    try:
        request = x509.load_pem_x509_csr(pem)
        names, extensions = _common_names(request.subject), list(request.extensions)
        valid = request.is_signature_valid
    except (ValueError, InvalidSignature) as error:
        raise ValueError(f"the signing request cannot be read: {error}") from error
    if names != [common_name] or len(list(request.subject)) != 1:
        raise ValueError(
            f"the signing request asks for {request.subject.rfc4514_string()[:120]!r}: "
            f'only "CN={common_name}" is signed'
        )
    if extensions:
        raise ValueError("the signing request asks for extensions: none are signed")
    key = request.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVES):
        raise ValueError("the signing request has a key that is not on P-256 or P-384")
    if not valid:
        raise ValueError("the signing request is not signed by its own key")
    return key


def _common_names(name: x509.Name) -> list[str]:
    return [str(a.value) for a in name.get_attributes_for_oid(NameOID.COMMON_NAME)]


def _spki(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("the certificate's key is not on an elliptic curve")
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True

"""Is a certificate usable, and if not, what is to be done. Pure: PEM and a time in, words out."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

SOON = timedelta(days=30)


def bundle(*authorities: bytes) -> bytes:
    """One trust bundle of several, each certificate once, in the given order."""
    seen: dict[bytes, bytes] = {}
    for pem in authorities:
        for certificate in x509.load_pem_x509_certificates(pem):
            seen.setdefault(
                certificate.fingerprint(SHA256()), certificate.public_bytes(Encoding.PEM)
            )
    return b"".join(seen.values())


def subject_key_id(pem: bytes) -> str:
    """What tells one authority from another. Raises ``ValueError``."""
    certificate = x509.load_pem_x509_certificate(pem)
    extension = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return extension.value.digest.hex()


def authorities(pem: bytes) -> dict[str, bytes]:
    """The certificates of a bundle by what tells them apart. Raises ``ValueError``."""
    return {
        _authority_id(c): c.public_bytes(Encoding.PEM) for c in x509.load_pem_x509_certificates(pem)
    }


def issuer(pem: bytes, known: Mapping[str, bytes]) -> str:
    """Which of the ``known`` authorities signed a certificate; else what it says of its issuer.

    Empty when it says nothing. Raises ``ValueError``.
    """
    certificate = x509.load_pem_x509_certificate(pem)
    for name, authority in known.items():
        if _issued_by(certificate, x509.load_pem_x509_certificate(authority)):
            return name
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound:
        return ""
    return (found.value.key_identifier or b"").hex()


def validity(pem: bytes) -> tuple[datetime, datetime]:
    """From when to when. Raises ``ValueError``."""
    certificate = x509.load_pem_x509_certificate(pem)
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc


def subject(pem: bytes) -> tuple[str, tuple[str, ...]]:
    """Common name, and the DNS names and addresses beside it. Raises ``ValueError``."""
    certificate = x509.load_pem_x509_certificate(pem)
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(common[0].value) if common else ""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return name, ()
    texts = names.get_values_for_type(x509.DNSName)
    return name, (*texts, *(str(ip) for ip in names.get_values_for_type(x509.IPAddress)))


def expires_at(pem: bytes) -> datetime:
    """When the first certificate of a PEM ends. Raises ``ValueError``."""
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc


def problem(where: str, pem: bytes, trust: bytes, now: datetime) -> str:
    """One sentence naming ``where`` and the remedy, or an empty string when all is well."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        authorities = x509.load_pem_x509_certificates(trust)
    except ValueError as error:
        return f"{where}: not a PEM certificate ({error}): issue it anew"
    if now > certificate.not_valid_after_utc:
        return f"{where}: expired on {certificate.not_valid_after_utc:%Y-%m-%d}: issue it anew"
    if now < certificate.not_valid_before_utc:
        return (
            f"{where}: not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M}Z: "
            "check the clocks"
        )
    if not any(_issued_by(certificate, authority) for authority in authorities):
        return (
            f"{where}: issued by {certificate.issuer.rfc4514_string()!r} with a key that its "
            "ca.crt does not hold: issue it from this CA, or add its CA to the bundle"
        )
    return ""


def is_signed(pem: bytes, trust: bytes) -> bool:
    """By an authority of a bundle? True also for what cannot be read: ``problem`` tells that."""
    try:
        known = authorities(trust)
        return issuer(pem, known) in known
    except ValueError:
        return True


def _authority_id(certificate: x509.Certificate) -> str:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return certificate.fingerprint(SHA256()).hex()
    return extension.value.digest.hex()


def _issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True

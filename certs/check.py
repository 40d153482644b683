"""Is a certificate usable, and if not, what is to be done. Pure: PEM and a time in, words out."""

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

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


def _issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True

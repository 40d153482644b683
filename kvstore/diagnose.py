"""Why a TLS connection fails, in one sentence. Adapter.

The gRPC transport reports every failed handshake alike. After a failure the same handshake is made
once more through the standard library, which tells an expired certificate from a foreign one.
"""

import contextlib
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass

from kvstore.config import Endpoint, StoreConfig

TIMEOUT_S = 3.0
_REMEDIES = {
    "certificate has expired": "the server's certificate has expired: issue it anew",
    "certificate is not yet valid": "the server's certificate is not yet valid: check the clocks",
    "unable to get local issuer certificate": "the server's certificate is of a CA that {ca} does "
    "not hold: connect the clusters again, so that they exchange their CAs",
    "self-signed certificate in certificate chain": "the server's certificate is of a CA that {ca} "
    "does not hold: connect the clusters again, so that they exchange their CAs",
    "Hostname mismatch": "the server's certificate is for other names than {name}",
    "IP address mismatch": "the server's certificate does not carry {name}: use its name with "
    "cilium-host-aliases",
}
_ALERTS = {
    "CERTIFICATE_EXPIRED": "our client certificate {cert} has expired: issue it anew",
    "UNKNOWN_CA": "the server does not trust the CA of our client certificate {cert}",
    "BAD_CERTIFICATE": "the server refuses our client certificate {cert}: it has expired or is of "
    "a CA that the server does not trust",
    "CERTIFICATE_REQUIRED": "the server wants a client certificate: set cert-file and key-file",
}


@dataclass(frozen=True, slots=True)
class Handshake:
    """How far it came."""

    error: str  # empty: it works
    peer: str = ""  # the address that answered
    connected_ms: float = 0.0
    version: str = ""  # of TLS


def explain(config: StoreConfig, endpoint: Endpoint, timeout_s: float = TIMEOUT_S) -> str:
    """What is wrong, or an empty string when the handshake works. Blocks up to ``timeout_s``."""
    return shake_hands(config, endpoint, timeout_s).error


def shake_hands(config: StoreConfig, endpoint: Endpoint, timeout_s: float = TIMEOUT_S) -> Handshake:
    """Connect and greet, as a client of the store would. Blocks up to ``timeout_s`` per step."""
    began = time.monotonic()
    try:
        connection = socket.create_connection((endpoint.address, endpoint.port), timeout_s)
    except OSError as error:
        return Handshake(f"{endpoint.authority} does not answer: {error.strerror or error}")
    with connection:
        ms = round((time.monotonic() - began) * 1e3, 1)
        peer = str(connection.getpeername()[0])
        reason, version = _greet(config, endpoint, connection) if endpoint.secure else ("", "")
    return Handshake(reason, peer, ms, version)


def shown_certificate(endpoint: Endpoint, timeout_s: float = TIMEOUT_S) -> bytes:
    """The server's certificate (DER), whoever issued it; empty when it shows none.

    Raises ``OSError``; ``ssl.SSLError`` is one.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    place = (endpoint.address, endpoint.port)
    with (
        socket.create_connection(place, timeout_s) as connection,
        context.wrap_socket(connection, server_hostname=endpoint.server_name) as tls,
    ):
        return tls.getpeercert(binary_form=True) or b""


def _greet(config: StoreConfig, endpoint: Endpoint, connection: socket.socket) -> tuple[str, str]:
    words = {"ca": config.ca_file, "cert": config.cert_file, "name": endpoint.server_name}
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        context.set_alpn_protocols(["h2"])
        if config.cert_file:
            context.load_cert_chain(config.cert_file, config.key_file)
    except (OSError, ssl.SSLError) as error:
        return (
            f"{config.ca_file}, {config.cert_file} or {config.key_file} cannot be used: {error}",
            "",
        )
    version = ""
    try:
        with context.wrap_socket(connection, server_hostname=endpoint.server_name) as tls:
            version = tls.version() or ""
            tls.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                tls.recv(1)  # with TLS 1.3 a refusal of our certificate arrives here
        return "", version
    except ssl.SSLCertVerificationError as error:
        return _known(_REMEDIES, error, words) or error.verify_message, version
    except ssl.SSLError as error:
        return _known(_ALERTS, error, words) or str(error), version
    except OSError as error:
        reason = error.strerror or error
        return f"{endpoint.authority} broke off the TLS handshake: {reason}", version


def _known(remedies: Mapping[str, str], error: Exception, words: Mapping[str, str]) -> str:
    for text, remedy in remedies.items():
        if text in str(error):
            return remedy.format(**words)
    return ""

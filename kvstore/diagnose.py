"""Why a TLS connection fails, in one sentence. Adapter.

The gRPC transport reports every failed handshake alike. After a failure the same handshake is made
once more through the standard library, which tells an expired certificate from a foreign one.
"""

import socket
import ssl

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


def explain(config: StoreConfig, endpoint: Endpoint, timeout_s: float = TIMEOUT_S) -> str:
    """What is wrong, or an empty string when the handshake works. Blocks up to ``timeout_s``."""
    words = {"ca": config.ca_file, "cert": config.cert_file, "name": endpoint.server_name}
    try:
        connection = socket.create_connection((endpoint.address, endpoint.port), timeout_s)
    except OSError as error:
        return f"{endpoint.authority} does not answer: {error.strerror or error}"
    with connection:
        if not endpoint.secure:
            return ""
        try:
            context = ssl.create_default_context(cafile=config.ca_file)
            context.set_alpn_protocols(["h2"])
            if config.cert_file:
                context.load_cert_chain(config.cert_file, config.key_file)
        except (OSError, ssl.SSLError) as error:
            return (
                f"{config.ca_file}, {config.cert_file} or {config.key_file} cannot be used: {error}"
            )
        try:
            with context.wrap_socket(connection, server_hostname=endpoint.server_name) as tls:
                tls.settimeout(0.5)
                try:
                    tls.recv(1)  # with TLS 1.3 a refusal of our certificate arrives here
                except TimeoutError:
                    return ""
            return ""
        except ssl.SSLCertVerificationError as error:
            for text, remedy in _REMEDIES.items():
                if text in str(error):
                    return remedy.format(**words)
            return error.verify_message
        except ssl.SSLError as error:
            for text, remedy in _ALERTS.items():
                if text in str(error):
                    return remedy.format(**words)
            return str(error)
        except OSError as error:
            return f"{endpoint.authority} broke off the TLS handshake: {error.strerror or error}"

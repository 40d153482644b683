"""The certificate of a server of HTTP/1.1, from files that are renewed beneath it. Adapter."""

import logging
import ssl
from pathlib import Path

from hubble.rpc_server import server_tls

log = logging.getLogger("isthmus.hubble.tls")


class TlsFiles:
    """``context`` shows the certificate that the files had when ``renew`` was called last."""

    def __init__(self, certificate: Path, key: Path, client_authorities: Path | None) -> None:
        self._files = certificate, key
        self._stamps = self._look()
        self.context: ssl.SSLContext = server_tls(
            certificate, key, [client_authorities] if client_authorities else ()
        )
        self.context.set_alpn_protocols(["http/1.1"])

    def _look(self) -> tuple[float, ...]:
        return tuple(path.stat().st_mtime for path in self._files)

    def renew(self) -> None:
        """Connections that come later meet what the files have now, if that can be used."""
        try:
            stamps = self._look()
            if stamps != self._stamps:
                self.context.load_cert_chain(*self._files)
                self._stamps = stamps
                log.info("event=certificate-renewed file=%s", self._files[0])
        except (OSError, ssl.SSLError) as error:
            log.warning('event=certificate-kept file=%s error="%s"', self._files[0], error)

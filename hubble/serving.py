"""The observer of this node on its socket and on TCP. Wiring.

Certificates are read again when their files change: connections that come after that meet the new
ones.
"""

import asyncio
import importlib.metadata
import logging
import ssl
from pathlib import Path

from hubble.config import PORT, HubbleConfig
from hubble.node import NodeSource
from hubble.observer_server import Observer
from hubble.peers import Peer, PeerTable, peer_name, tls_server_name
from hubble.rpc_server import Server, server_tls
from hubble.standard_services import Health, Reflection

log = logging.getLogger("isthmus.hubble")

UPKEEP_S = 1.0
_SERVICES = ("observer.Observer", "peer.Peer")


class Serving:
    """Serves what ``source`` has."""

    def __init__(self, config: HubbleConfig, source: NodeSource) -> None:
        self._config, self._source = config, source
        self._peers = PeerTable()
        version = importlib.metadata.version("isthmus")
        self._observer = Observer(source, self._peers, f"isthmus v{version}")
        self._tls: ssl.SSLContext | None = None
        self._stamps: tuple[float, ...] = ()

    async def run(self) -> None:
        """Until cancelled."""
        handlers = (
            self._observer.handlers()
            | Health(lambda: True).handlers()
            | Reflection(_SERVICES).handlers()
        )
        async with Server(handlers) as server:
            await server.listen_unix(self._config.hubble_socket_path)
            listen = self._config.hubble_listen_address
            if listen is not None:
                self._tls = None if self._config.hubble_disable_tls else self._context()
                await server.listen_tcp(listen[0] or None, listen[1], self._tls)
            log.info("event=serving socket=%s tcp=%s", self._config.hubble_socket_path, listen)
            while True:
                self._peers.replace(self._known_peers())
                self._renew()
                await asyncio.sleep(UPKEEP_S)

    def _known_peers(self) -> dict[str, Peer]:
        listen = self._config.hubble_listen_address
        port = listen[1] if listen else PORT
        has_tls = listen is not None and not self._config.hubble_disable_tls
        return {
            peer_name(cluster, node): Peer(
                f"[{address}]:{port}" if ":" in address else f"{address}:{port}",
                tls_server_name(cluster, node) if has_tls else None,
            )
            for (cluster, node), address in self._source.names.nodes().items()
        }

    def _files(self) -> tuple[Path, Path]:
        config = self._config
        assert config.hubble_tls_cert_file is not None
        assert config.hubble_tls_key_file is not None
        return config.hubble_tls_cert_file, config.hubble_tls_key_file

    def _context(self) -> ssl.SSLContext:
        self._stamps = tuple(path.stat().st_mtime for path in self._files())
        return server_tls(*self._files(), self._config.hubble_tls_client_ca_files)

    def _renew(self) -> None:
        if self._tls is None:
            return
        try:
            stamps = tuple(path.stat().st_mtime for path in self._files())
            if stamps != self._stamps:
                self._tls.load_cert_chain(*self._files())
                self._stamps = stamps
                log.info("event=certificate-renewed")
        except (OSError, ssl.SSLError) as error:
            log.warning('event=certificate-kept error="%s"', error)

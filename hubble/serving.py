"""The observer of this node on its socket and on TCP. Wiring."""

import asyncio
import importlib.metadata
import logging

from hubble.call_metrics import CallMetrics
from hubble.config import PORT, HubbleConfig
from hubble.node import NodeSource
from hubble.observer_server import Observer
from hubble.peers import Peer, PeerTable, peer_name, tls_server_name
from hubble.rpc_server import Server
from hubble.standard_services import Health, Reflection
from hubble.tls_listener import Listener, ServerFiles
from reconcile.tasks import TaskGroup

log = logging.getLogger("isthmus.hubble")

UPKEEP_S = 1.0
_SERVICES = ("observer.Observer", "peer.Peer")


class Serving:
    """Serves what ``source`` has."""

    def __init__(self, config: HubbleConfig, source: NodeSource) -> None:
        self._config, self._source = config, source
        self._peers = PeerTable()
        self.calls = CallMetrics()
        version = importlib.metadata.version("isthmus")
        self._observer = Observer(source, self._peers, f"isthmus v{version}")

    async def run(self) -> None:
        """Until cancelled."""
        handlers = (
            self._observer.handlers()
            | Health(lambda: True).handlers()
            | Reflection(_SERVICES).handlers()
        )
        async with Server(handlers, self.calls.called) as server:
            await server.listen_unix(self._config.hubble_socket_path)
            listen = self._config.hubble_listen_address
            log.info("event=serving socket=%s tcp=%s", self._config.hubble_socket_path, listen)
            async with TaskGroup() as tasks:
                tasks.create_task(self._keep_peers(), name="peers")
                if listen is not None:
                    listener = Listener(
                        server.listen_tcp, listen[0] or None, listen[1], self._files()
                    )
                    tasks.create_task(listener.run(), name="tcp")

    async def _keep_peers(self) -> None:
        while True:
            self._peers.replace(self._known_peers())
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

    def _files(self) -> ServerFiles | None:
        config = self._config
        if config.hubble_disable_tls:
            return None
        assert config.hubble_tls_cert_file is not None
        assert config.hubble_tls_key_file is not None
        return ServerFiles(
            config.hubble_tls_cert_file,
            config.hubble_tls_key_file,
            config.hubble_tls_client_ca_files,
        )

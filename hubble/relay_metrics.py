"""What a relay tells Prometheus: its nodes by state and cluster, the calls it served. Adapter."""

import contextlib
from collections import Counter as Counts
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from hubble.call_metrics import CallMetrics
from hubble.relay_pool import Node, Pool
from telemetry.metrics import CONTENT_TYPE, Family, family, render

STATES: Final = (
    "IDLE",
    "CONNECTING",
    "READY",
    "TRANSIENT_FAILURE",
    "SHUTDOWN",
    "NIL_CONNECTION",
)


def _state(node: Node) -> str:
    if node.is_connected:
        return "READY"
    return "TRANSIENT_FAILURE" if node.error else "CONNECTING"


def cluster_of(name: str) -> str:
    """Of a peer's name."""
    cluster, slash, _ = name.partition("/")
    return cluster if slash else "default"


class RelayMetrics:
    """Of one relay."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.calls = CallMetrics()

    def families(self) -> list[Family]:
        """For ``/metrics``."""
        nodes = self._pool.nodes.values()
        states = Counts(_state(node) for node in nodes)
        by_cluster = Counts((cluster_of(n.name), str(n.is_connected).lower()) for n in nodes)
        return [
            family(
                "hubble_relay_pool_peer_connection_status",
                "gauge",
                "Nodes by state of the connection to them.",
                (({"status": state}, states[state]) for state in STATES),
            ),
            family(
                "isthmus_hubble_relay_nodes",
                "gauge",
                "Nodes by cluster, and whether they can be asked.",
                (
                    ({"cluster": cluster, "connected": connected}, number)
                    for (cluster, connected), number in sorted(by_cluster.items())
                ),
            ),
            *self.calls.families(),
        ]


@contextlib.asynccontextmanager
async def serving(address: str, metrics: RelayMetrics) -> AsyncIterator[None]:
    """``/metrics`` on ``[host]:port``; nothing when it is empty. ``OSError``."""

    async def page(_: web.Request) -> web.Response:
        text = render(metrics.families()).encode()
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    if not address:
        yield
        return
    app = web.Application()
    app.router.add_get("/metrics", page)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        host, _, port = address.rpartition(":")
        await web.TCPSite(runner, host.strip("[]") or None, int(port)).start()
        yield
    finally:
        await runner.cleanup()

"""The operator's pages: 200 once the definitions are served, and metrics. Adapter."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from aiohttp import web

from telemetry.metrics import CONTENT_TYPE, Family, render

log = logging.getLogger("operator.health")


async def serve(
    address: str,
    metrics_address: str,
    ready: asyncio.Event,
    collect: Callable[[], Iterable[Family]],
) -> web.AppRunner:
    """Listen on ``host:port``, and on a second one for metrics alone unless it is empty.

    The caller cleans the runner up. Raises ``OSError``, ``ValueError`` for what is no address.
    """

    async def healthz(_: web.Request) -> web.Response:
        if ready.is_set():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="the resource definitions are not served yet\n")

    async def metrics(_: web.Request) -> web.Response:
        page = render(collect()).encode()
        return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    for path in ("/healthz", "/v1/healthz"):
        app.router.add_get(path, healthz)
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    for place in filter(None, (address, metrics_address)):
        host, _, port = place.rpartition(":")
        await web.TCPSite(runner, host.strip("[]") or None, int(port)).start()
    # The port is the kernel's choice when it was given as 0.
    log.info("event=listening address=%s:%s", *runner.addresses[0][:2])
    return runner

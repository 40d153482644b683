"""The operator's health page: 200 once the definitions are served. Adapter."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from aiohttp import web

from cluster_operator.collector import Collector

log = logging.getLogger("operator.health")


def _lines(name: str, label: str, counts: Counter[str]) -> list[str]:
    return [f'{name}{{{label}="{key}"}} {count}' for key, count in sorted(counts.items())]


async def serve(
    address: str,
    ready: asyncio.Event,
    collector: Collector,
    more: Callable[[], list[str]] = list,
) -> web.AppRunner:
    """Listen on ``host:port``; the caller cleans the runner up. Raises ``OSError``."""
    host, _, port = address.rpartition(":")

    async def healthz(_: web.Request) -> web.Response:
        if ready.is_set():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="the resource definitions are not served yet\n")

    async def metrics(_: web.Request) -> web.Response:
        lines = _lines("isthmus_operator_deleted_total", "kind", collector.deleted)
        lines += _lines("isthmus_operator_failed_rounds_total", "round", collector.failed)
        lines += more()
        return web.Response(text="".join(line + "\n" for line in lines))

    app = web.Application()
    for path in ("/healthz", "/v1/healthz"):
        app.router.add_get(path, healthz)
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host.strip("[]") or None, int(port)).start()
    # The port is the kernel's choice when it was given as 0.
    log.info("event=listening address=%s:%s", *runner.addresses[0][:2])
    return runner

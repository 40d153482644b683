"""``/readyz``, ``/healthz`` and ``/metrics``. Adapter."""

from collections.abc import Awaitable, Callable
from time import perf_counter

from aiohttp import web

from clustermesh_apiserver.requests import Requests

Pages = dict[str, Callable[[], tuple[int, str]]]


async def serve(host: str, port: int, pages: Pages, requests: Requests) -> web.AppRunner:
    """Answer each path with what its function returns. Raises ``OSError``."""

    def handler(
        path: str, page: Callable[[], tuple[int, str]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(_: web.Request) -> web.Response:
            requests.begin(path)
            status, began = 500, perf_counter()
            try:
                status, text = page()
                return web.Response(status=status, text=text)
            finally:
                requests.end(path, status, perf_counter() - began)

        return handle

    app = web.Application()
    for path, page in pages.items():
        app.router.add_get(path, handler(path, page))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host or None, port).start()
    return runner

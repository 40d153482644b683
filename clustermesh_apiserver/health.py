"""``/readyz``, ``/healthz`` and ``/metrics``. Adapter."""

from collections.abc import Callable

from aiohttp import web


async def serve(
    host: str, port: int, pages: dict[str, Callable[[], tuple[int, str]]]
) -> web.AppRunner:
    """Answer each path with what its function returns. Raises ``OSError``."""

    def handler(page: Callable[[], tuple[int, str]]) -> Callable[[web.Request], object]:
        async def handle(_: web.Request) -> web.Response:
            status, text = page()
            return web.Response(status=status, text=text)

        return handle

    app = web.Application()
    for path, page in pages.items():
        app.router.add_get(path, handler(page))  # type: ignore[arg-type]
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host or None, port).start()
    return runner

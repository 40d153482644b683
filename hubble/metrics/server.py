"""A node's metrics: counting, the file that says what, and the page. Adapter.

The page is at `hubble-metrics-server`, path `/metrics`; the file is read again every ten seconds.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from functools import partial

from aiohttp import web

from hubble.config import HubbleConfig
from hubble.feed import Feed
from hubble.metrics.contexts import Pod
from hubble.metrics.engine import Engine
from hubble.metrics.options import parse_file
from hubble.node import NodeSource
from hubble.ring import SOURCE_KERNEL, SOURCE_QUEUE
from hubble.tls_listener import Listener, ServerFiles
from hubble.watched_file import WatchedFile
from reconcile.tasks import TaskGroup
from telemetry import metrics as text
from telemetry import process
from telemetry.metrics import Counter, Family, Histogram, family

log = logging.getLogger("isthmus.hubble.metrics")

FILE_INTERVAL_S = 10.0
GONE_S = 60.0  # how long the series of a pod outlive it
_UPKEEP_S = 1.0
_CHUNK = 1024  # records between two pauses: about a millisecond


class Metrics:
    """Counts what ``source`` sees and serves it."""

    def __init__(
        self,
        config: HubbleConfig,
        source: NodeSource,
        more: Callable[[], list[Family]] = list,
        gone_s: float = GONE_S,
    ) -> None:
        """``more``: what else the page tells."""
        self._config, self._source, self._gone_s = config, source, gone_s
        self._more = more
        self.engine = Engine(source.decode, self._names_revision)
        self.engine.configure(config.hubble_metrics)
        path = config.hubble_dynamic_metrics_config_path
        self._file = WatchedFile(path) if path else None
        self._looked_s, self._refused = float("-inf"), ""
        self._gone: dict[Pod, float] = {}
        self._woken = asyncio.Event()
        self._feed = Feed(source.ring, self._woken.set)
        source.names.on_pod = self._pod
        self._requests, self._durations = Counter(("code",)), Histogram(("code",))
        self._configured = Counter(("op",))

    def _names_revision(self) -> tuple[int, int, int]:
        """Names of DNS end as time goes on."""
        source = self._source
        minute = int(time.monotonic() // 60)
        return source.names.revision, source.dns.revision, minute

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with TaskGroup() as tasks:
                tasks.create_task(self._count(), name="metrics")
                tasks.create_task(self._serve(), name="metrics-page")
        finally:
            self._feed.close()

    async def _count(self) -> None:
        while True:
            self._woken.clear()
            while entries := self._feed.take(_CHUNK):
                self.engine.take(entries)
                await asyncio.sleep(0)
            await self._woken.wait()

    def _pod(self, pod: Pod, present: bool) -> None:
        if present:
            self._gone.pop(pod, None)
        elif self.engine.knows(pod):
            self._gone.setdefault(pod, time.monotonic())

    def _sweep(self, now_s: float) -> None:
        over = [pod for pod, since_s in self._gone.items() if now_s - since_s >= self._gone_s]
        if over:
            self.engine.remove(over)
            for pod in over:
                del self._gone[pod]

    def _read_file(self, now_s: float) -> None:
        if self._file is None or now_s - self._looked_s < FILE_INTERVAL_S:
            return
        self._looked_s = now_s
        try:
            data = self._file.changed()
            if data is None:
                return
            self.engine.configure(parse_file(data))
        except (OSError, ValueError) as error:
            self._refuse(str(error))
            return
        self._configured.add("update")
        self._refused = ""
        log.info("event=metrics-configured metrics=%s", ",".join(self.engine.names))

    def _refuse(self, why: str) -> None:
        self._configured.add("failure")
        if why != self._refused:
            self._refused = why
            path = self._file.path if self._file else None
            log.warning('event=metrics-kept file=%s error="%s"', path, why)

    async def _serve(self) -> None:
        config = self._config
        assert config.hubble_metrics_server is not None
        files = _files(config)
        app = web.Application()
        app.router.add_get("/metrics", self._page)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        host, port = config.hubble_metrics_server
        listener = Listener(partial(_listen, runner), host or None, port, files)
        try:
            await listener.look()
            log.info("event=metrics-served address=%s:%d tls=%s", host, port, files is not None)
            while True:
                now_s = time.monotonic()
                self._read_file(now_s)
                self._sweep(now_s)
                await listener.look()
                await asyncio.sleep(_UPKEEP_S)
        finally:
            listener.close()
            await runner.cleanup()

    async def _page(self, request: web.Request) -> web.Response:
        begun_s = time.monotonic()
        is_open = self._config.enable_hubble_open_metrics and (
            "application/openmetrics-text" in request.headers.get("Accept", "")
        )
        render = text.render_open if is_open else text.render
        kind = text.OPEN_CONTENT_TYPE if is_open else text.CONTENT_TYPE
        body = render(self.families()).encode()
        response = web.Response(body=body, headers={"Content-Type": kind})
        response.enable_compression()
        self._requests.add("200")
        self._durations.observe(time.monotonic() - begun_s, "200")
        return response

    def families(self) -> list[Family]:
        """The whole page."""
        lost = self._source.intake.lost
        return [
            *self.engine.families(),
            family(
                "hubble_lost_events_total",
                "counter",
                "Events that were lost, by where; those of the ring were lost for readers only",
                [
                    ({"source": "perf_event_ring_buffer"}, lost[SOURCE_KERNEL]),
                    ({"source": "observer_events_queue"}, lost[SOURCE_QUEUE]),
                    ({"source": "hubble_ring_buffer"}, self._source.ring.overtaken),
                    ({"source": "access_log"}, self._source.access_log.lost),
                    ({"source": "metrics_queue"}, self._feed.lost),
                ],
            ),
            family(
                "hubble_undecodable_records_total",
                "counter",
                "Records that could not be read, each time that somebody tried",
                [({}, self._source.decoder.failed)],
            ),
            self._configured.family(
                "hubble_dynamic_metrics_reconfigurations_total",
                "Readings of the file of metrics, by what came of them",
            ),
            self._requests.family(
                "hubble_metrics_http_handler_requests_total", "Requests for this page"
            ),
            self._durations.family(
                "hubble_metrics_http_handler_request_duration_seconds",
                "How long it took to make this page",
            ),
            *process.families("hubble_"),
            *self._more(),
        ]


async def _listen(
    runner: web.AppRunner, host: str | None, port: int, tls: ssl.SSLContext | None
) -> asyncio.Server:
    assert runner.server is not None
    return await asyncio.get_running_loop().create_server(runner.server, host, port, ssl=tls)


def _files(config: HubbleConfig) -> ServerFiles | None:
    if not config.hubble_metrics_server_enable_tls:
        return None
    certificate = config.hubble_metrics_server_tls_cert_file
    key = config.hubble_metrics_server_tls_key_file
    assert certificate is not None
    assert key is not None
    authorities = config.hubble_metrics_server_tls_client_ca_files
    return ServerFiles(certificate, key, (authorities,) if authorities else (), "http/1.1")

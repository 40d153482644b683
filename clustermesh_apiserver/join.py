"""``join``: listens while there are grants, and not otherwise. Adapter (HTTPS).

Strangers can reach this port. So: TLS 1.3 only, bodies and connections bounded in size, number and
time, requests bounded per address, and no answer that tells a stranger more than "not known". What
it can do besides answering is in ``redeem``.
"""

import asyncio
import logging
import ssl
import time
from asyncio import Event, Protocol, Server
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from clustermesh_apiserver import grants
from clustermesh_apiserver.grants import GRANTS_SECRET, Allowance, Refused
from clustermesh_apiserver.redeem import Redeemer
from kube import resources
from kube.config import connect as connect_kube
from kube.informer import Informer
from reconcile.tasks import TaskGroup
from wire.join import (
    AUTHORITY_PATH,
    BODY_LIMIT,
    HELLO_PATH,
    JOIN_PATH,
    Hello,
    Join,
    Refusal,
)
from wire.k8s.core import Secret

log = logging.getLogger("join")

HANDSHAKE_S = 5
BODY_S = 10  # for a body to arrive
LIFE_S = 30  # of a connection, whatever it does
CONNECTIONS = 128
CERTIFICATE_S = 5  # how often the certificate's files are looked at while listening

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``join`` is told."""

    namespace: str
    address: str  # empty: all
    port: int
    certificate: Path  # directory with tls.crt and tls.key
    kubeconfig: str = ""  # empty: in-cluster


class _Full(Protocol):
    """Refuses a connection that is one too many."""

    def connection_made(self, transport: Any) -> None:
        transport.abort()


class Door:
    """The HTTPS side: requests in, the redeemer's answers out."""

    def __init__(self, redeemer: Redeemer, clock: Callable[[], float] = time.monotonic) -> None:
        self._redeemer = redeemer
        self._clock = clock
        self._allowance = Allowance()
        self._open: set[Any] = set()

    def application(self) -> web.Application:
        """Paths and limits."""
        app = web.Application(client_max_size=BODY_LIMIT)
        app.router.add_get(AUTHORITY_PATH, self._authority)
        app.router.add_post(HELLO_PATH, self._hello)
        app.router.add_post(JOIN_PATH, self._join)
        return app

    def accept(self, make: Callable[[], Any]) -> Any:
        """A handler for a new connection, or one that ends it; each lives for a bounded time."""
        if len(self._open) >= CONNECTIONS:
            return _Full()
        handler = make()
        self._open.add(handler)
        asyncio.get_running_loop().call_later(LIFE_S, self._end, handler)
        return handler

    def _end(self, handler: Any) -> None:
        self._open.discard(handler)
        if handler.transport is not None:
            handler.transport.abort()

    async def _authority(self, request: web.Request) -> web.Response:
        if not self._allowance.take(request.remote or "", self._clock()):
            return _busy()
        return web.Response(text=self._redeemer.authority())

    async def _hello(self, request: web.Request) -> web.Response:
        async def answer(message: Hello) -> object:
            return self._redeemer.hello(message)

        return await self._answer(request, Hello, answer)

    async def _join(self, request: web.Request) -> web.Response:
        return await self._answer(request, Join, self._redeemer.join)

    async def _answer(
        self, request: web.Request, kind: type[M], answer: Callable[[M], Awaitable[object]]
    ) -> web.Response:
        remote = request.remote or ""
        if not self._allowance.take(remote, self._clock()):
            return _busy()
        try:
            async with asyncio.timeout(BODY_S):
                message = msgspec.json.decode(await request.read(), type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return _refusal(400, "this is no request of `isthmus clustermesh join`")
        except TimeoutError:
            return _refusal(408, "the request did not arrive in time: try again")
        try:
            return _json(200, await answer(message))
        except Refused as error:
            log.warning('event=refused address=%s reason="%s"', remote, error)
            return _refusal(403, str(error))
        except OSError as error:
            log.error('event=failed address=%s error="%s"', remote, error)
            return _refusal(
                503,
                "the other cluster's API server does not answer: run the same `join` again later",
            )


class Listener:
    """The port: open while there are grants, with the certificate as it lies on disk now."""

    def __init__(self, settings: Settings, door: Door) -> None:
        self._settings = settings
        self._runner = web.AppRunner(door.application(), access_log=None)
        self._door = door
        self._server: Server | None = None
        self._context: ssl.SSLContext | None = None
        self._seen: tuple[int, ...] = ()

    async def open(self) -> None:
        """Listen, or take up a changed certificate. Raises ``OSError``."""
        self._load()
        if self._server is not None:
            return
        if self._runner.server is None:
            await self._runner.setup()
        loop = asyncio.get_running_loop()
        make: Any = self._runner.server
        self._server = await loop.create_server(
            lambda: self._door.accept(make),
            self._settings.address or None,
            self._settings.port,
            ssl=self._context,
            ssl_handshake_timeout=HANDSHAKE_S,
        )
        log.info("event=listening port=%d", self._settings.port)

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            self._server = None
            log.info("event=closed port=%d", self._settings.port)

    async def cleanup(self) -> None:
        """For good."""
        await self.close()
        await self._runner.cleanup()

    def _load(self) -> None:
        paths = [self._settings.certificate / name for name in ("tls.crt", "tls.key")]
        seen = tuple(value for p in paths for value in (p.stat().st_mtime_ns, p.stat().st_ino))
        if seen == self._seen and self._context is not None:
            return
        context = self._context or ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(str(paths[0]), str(paths[1]))
        self._context, self._seen = context, seen


async def keep(listener: Listener, redeemer: Redeemer, changed: Event) -> None:
    """Open and close the port as grants come and expire, until cancelled."""
    while True:
        changed.clear()
        now = redeemer.now()
        pause: float | None = None
        try:
            if redeemer.grants.live(now):
                await listener.open()
            else:
                await listener.close()
        except OSError as error:
            log.error('event=not-listening error="%s"', error)
            pause = CERTIFICATE_S
        if redeemer.grants.live(now):
            left = (redeemer.grants.next_change(now) or now) - now
            pause = max(0.0, min(left, CERTIFICATE_S))
        try:
            async with asyncio.timeout(pause):
                await changed.wait()
        except TimeoutError:
            continue


async def run(settings: Settings) -> None:
    """Until cancelled."""
    async with await connect_kube(settings.kubeconfig) as client:
        redeemer, changed = Redeemer(client, settings.namespace), Event()
        listener = Listener(settings, Door(redeemer))

        async def on_change(_: Secret | None, new: Secret | None) -> None:
            redeemer.grants = grants.parse((new.data or {}) if new else {})
            for problem in redeemer.grants.problems:
                log.warning('event=rejected error="%s"', problem)
            changed.set()

        informer = Informer(
            client,
            resources.SECRETS,
            on_change,
            namespace=settings.namespace,
            field_selector=f"metadata.name={GRANTS_SECRET}",
        )
        try:
            async with TaskGroup() as tasks:
                tasks.create_task(informer.run())
                tasks.create_task(keep(listener, redeemer, changed))
        finally:
            await listener.cleanup()


def _json(status: int, body: object) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/json"
    )


def _refusal(status: int, text: str) -> web.Response:
    return _json(status, Refusal(text))


def _busy() -> web.Response:
    return _refusal(429, "too many requests: wait a few seconds and try again")

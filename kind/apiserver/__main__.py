"""``python -m kind.apiserver``: one process, one etcd, any number of listeners. Adapter."""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from aiohttp import web

from kind.apiserver.allocate import Network
from kind.apiserver.api import Api
from kind.apiserver.bootstrap import Advertised, make_initial_objects
from kind.apiserver.cache import Event
from kind.apiserver.resources import CRD_TABLE, Registry
from kind.apiserver.server import Server
from kind.apiserver.storage import Storage
from kind.apiserver.tokens import User, parse_token_file
from kvstore.config import StoreConfig
from kvstore.etcd import EtcdStore, connect
from kvstore.port import UnavailableError
from reconcile.tasks import TaskGroup

log = logging.getLogger("kind.apiserver")
_STORE_WAIT_S = 15.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The command line, checked."""

    etcd: str
    listen: tuple[str, ...]
    certificate: str
    key: str
    client_ca: str
    token_file: str
    networks: tuple[Network, ...]  # of services, one per family
    advertise: str
    kubelet_ca: str
    kubelet_certificate: str
    kubelet_key: str
    compaction_s: float


def parse(arguments: list[str]) -> Settings:
    """Exits with a usage message when the command line is wrong."""
    p = argparse.ArgumentParser(prog="python -m kind.apiserver", description=__doc__)
    p.add_argument("--etcd-endpoint", required=True, help="http://ADDR:PORT or unix:PATH")
    p.add_argument(
        "--listen",
        action="append",
        required=True,
        help="ADDR:PORT or fd:N for an inherited socket; may be repeated",
    )
    p.add_argument("--tls-cert", required=True)
    p.add_argument("--tls-key", required=True)
    p.add_argument("--client-ca", default="", help="accept client certificates of this CA")
    p.add_argument("--token-file", default="", help="token,user,uid[,groups] per line")
    p.add_argument("--service-cidr", default="10.96.0.0/16", help="one, or one per family")
    p.add_argument(
        "--advertise-address",
        default="",
        help="ADDR:PORT that the kubernetes service leads to; default: first --listen",
    )
    p.add_argument("--kubelet-ca", default="", help="default: kubelets are not verified")
    p.add_argument("--kubelet-client-cert", default="")
    p.add_argument("--kubelet-client-key", default="")
    p.add_argument("--compaction-interval", type=float, default=300.0, metavar="SECONDS")
    a = p.parse_args(arguments)
    try:
        networks = tuple(ip_network(text) for text in a.service_cidr.split(","))
    except ValueError as e:
        p.error(f"--service-cidr: {e}")
    if len({network.version for network in networks}) < len(networks):
        p.error(f"--service-cidr: {a.service_cidr}: one of each family")
    return Settings(
        a.etcd_endpoint,
        tuple(a.listen),
        a.tls_cert,
        a.tls_key,
        a.client_ca,
        a.token_file,
        networks,
        a.advertise_address or a.listen[0],
        a.kubelet_ca,
        a.kubelet_client_cert,
        a.kubelet_client_key,
        a.compaction_interval,
    )


def _server_tls(s: Settings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(s.certificate, s.key)
    if s.client_ca:
        context.load_verify_locations(s.client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _kubelet_tls(s: Settings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=s.kubelet_ca or None)
    context.check_hostname = False  # kubelets are addressed by IP and certified by name
    if not s.kubelet_ca:
        context.verify_mode = ssl.CERT_NONE
    if s.kubelet_certificate:
        context.load_cert_chain(s.kubelet_certificate, s.kubelet_key)
    return context


def _split(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def _site(runner: web.AppRunner, listen: str, tls: ssl.SSLContext) -> web.BaseSite:
    if listen.startswith("fd:"):
        sock = socket.socket(fileno=int(listen[3:]))
        sock.setblocking(False)
        return web.SockSite(runner, sock, ssl_context=tls)
    host, port = _split(listen)
    return web.TCPSite(runner, host, port, ssl_context=tls)


async def _connect(endpoint: str) -> EtcdStore:
    """The store may start beside us. Raises ``UnavailableError`` when it does not."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _STORE_WAIT_S
    while True:
        try:
            return await connect(StoreConfig((endpoint,)))
        except UnavailableError:
            if loop.time() > deadline:
                raise
            await asyncio.sleep(0.1)


async def serve(s: Settings, users: dict[str, User]) -> None:
    """Until SIGTERM or SIGINT."""
    registry, lost = Registry(), asyncio.Event()

    def on_event(table: str, event: Event) -> None:
        if table == CRD_TABLE:
            found = event.item or event.previous
            assert found is not None
            now = event.item.obj if event.item is not None else None
            registry.set_crd(found.obj["metadata"]["name"], now)
        elif event.item is None and event.previous is not None:
            m = event.previous.obj["metadata"]
            if (m.get("namespace"), m["name"]) == ("default", "kubernetes"):
                lost.set()

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    store = await _connect(s.etcd)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        storage = Storage(store, on_event)
        key = await storage.constant("signing-key", lambda: os.urandom(32))
        await storage.load()
        api = Api(storage, registry, s.networks)
        async with TaskGroup() as group:
            server = Server(api, users, key, _kubelet_tls(s), group)
            tasks = [
                group.create_task(storage.follow()),
                group.create_task(storage.compact_every(s.compaction_s)),
            ]
            if not s.advertise.startswith("fd:"):
                address, port = _split(s.advertise)
                here = Advertised(address, port, str(s.networks[0][1]))
                await make_initial_objects(api, here)
                tasks.append(group.create_task(_keep_initial_objects(api, here, lost)))
            runner = web.AppRunner(
                server.app(), handler_cancellation=True, access_log=None, shutdown_timeout=1.0
            )
            await runner.setup()
            for listen in s.listen:
                await _site(runner, listen, _server_tls(s)).start()
            log.info(
                "event=ready listen=%s revision=%d", ",".join(s.listen), storage.cache.revision
            )
            await stop.wait()
            await runner.cleanup()
            for task in tasks:
                task.cancel()


async def _keep_initial_objects(api: Api, here: Advertised, lost: asyncio.Event) -> None:
    """Somebody who deletes all services does not mean the one that leads to us."""
    while True:
        await lost.wait()
        lost.clear()
        try:
            await make_initial_objects(api, here)
        except OSError as e:
            log.warning("event=bootstrap_failed error=%s", e)
            await asyncio.sleep(1)
            lost.set()


def main() -> None:
    """The process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    settings = parse(sys.argv[1:])
    reasons: list[str] = []
    try:
        text = Path(settings.token_file).read_text() if settings.token_file else ""
        asyncio.run(serve(settings, parse_token_file(text)))
    except* (OSError, ValueError) as group:
        reasons = [str(e) for e in _leaves(group)]
    if reasons:
        raise SystemExit(f"kind.apiserver: {'; '.join(reasons)}")


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    for inner in group.exceptions:
        if isinstance(inner, BaseExceptionGroup):
            yield from _leaves(inner)
        else:
            yield inner


if __name__ == "__main__":
    main()

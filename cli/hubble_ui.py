"""``isthmus hubble ui``: the backend of Hubble's UI, for its front end. Adapter."""

import asyncio
import contextlib
from pathlib import Path

import click

from cli import hubble_connect
from cli.go_flags import GoFlags
from hubble.rpc import RpcError
from hubble.rpc_client import connect
from hubble.rpc_server import Server
from hubble.standard_services import Reflection
from hubble.ui import serving
from hubble.ui.backend import LAST, Backend, Settings

PORT = 12000


def _address(text: str) -> tuple[str | None, int]:
    host, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and int(port) < 65536):
        raise click.UsageError(f"{text!r} is not of the form [host]:port")
    return host.strip("[]") or None, int(port)


@click.command(cls=GoFlags)
@click.option("--listen-address", default=f"127.0.0.1:{PORT}", show_default=True, help="HTTP.")
@click.option("--grpc-listen-address", default="", help="Of the service ui.UI; empty: none.")
@click.option(
    "--front-end",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with the front end's files; without there is only its API.",
)
@click.option("--last", type=click.IntRange(min=1), default=LAST, show_default=True)
@hubble_connect.options
def ui(
    server: hubble_connect.Server,
    listen_address: str,
    grpc_listen_address: str,
    front_end: Path | None,
    last: int,
) -> None:
    """Serve the front end of Hubble's UI with flows of a relay, until interrupted."""
    address = _address(listen_address)
    rpc_address = _address(grpc_listen_address) if grpc_listen_address else None
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(server, address, rpc_address, front_end, Settings(last)))


async def _serve(
    server: hubble_connect.Server,
    address: tuple[str | None, int],
    rpc_address: tuple[str | None, int] | None,
    front_end: Path | None,
    settings: Settings,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        target = await hubble_connect.reach(server, stack)
        backend = Backend(lambda: connect(target, server.tls, server.timeout_s), settings)
        stack.callback(backend.close)
        if rpc_address is not None:
            handlers = {**serving.handlers(backend), **Reflection(("ui.UI",)).handlers()}
            calls = await stack.enter_async_context(Server(handlers))
            await calls.listen_tcp(*rpc_address, None)
        port = await stack.enter_async_context(serving.serving(backend, *address, front_end))
        click.echo(
            f"ℹ️  Hubble UI is at http://{address[0] or 'localhost'}:{port}, flows of {target}"
        )
        try:
            await backend.status()
        except RpcError as error:
            click.echo(f"⚠️  the relay does not answer yet: {error.message}", err=True)
        await asyncio.Event().wait()

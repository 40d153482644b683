"""``isthmus hubble port-forward``: the relay through the API server, from anywhere. Adapter."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import click

from cli import cluster, options
from kube import resources
from kube.client import HttpClient
from kube.config import connect
from kube.port import ApiError

PORT: Final = 4245
_LABEL: Final = "k8s-app=hubble-relay"


@dataclass(frozen=True, slots=True)
class Where:
    """The relay's cluster, and the port here."""

    context: str
    kubeconfig: str
    namespace: str
    port: int  # 0: any


async def _relay_pod(api: HttpClient, namespace: str) -> str:
    kind = resources.untyped(resources.PODS)
    for pod in await api.list(kind, namespace, label_selector=_LABEL):
        found: Any = pod
        status = found.get("status") or {}
        ready = [c["status"] for c in status.get("conditions") or () if c["type"] == "Ready"]
        if ready == ["True"]:
            return str(found["metadata"]["name"])
    raise click.ClickException(
        f"there is no relay that is ready in namespace {namespace}: run `isthmus hubble enable "
        "--relay`, or name a node's observer with --server"
    )


@contextlib.asynccontextmanager
async def forwarding(where: Where) -> AsyncIterator[int]:
    """While the context lasts a port of 127.0.0.1 leads to the relay; the port."""
    async with await connect(where.kubeconfig, where.context) as api:
        await _relay_pod(api, where.namespace)  # told now, not when somebody connects

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                pod = await _relay_pod(api, where.namespace)
                error = await api.port_forward(where.namespace, pod, PORT, reader, writer)
            except (OSError, ApiError, click.ClickException) as failed:
                error = str(failed)
            finally:
                writer.close()
            if error:
                click.echo(f"port-forward: {error}", err=True)

        listening = await asyncio.start_server(carry, "127.0.0.1", where.port)
        try:
            yield int(listening.sockets[0].getsockname()[1])
        finally:
            listening.close()


@click.command("port-forward")
@options.command
@click.option("--port", default=PORT, show_default=True, help="Of this machine.")
def port_forward(context: str, kubeconfig: str, namespace: str, port: int) -> None:
    """Have the relay at 127.0.0.1 until interrupted."""

    async def work() -> None:
        async with forwarding(Where(context, kubeconfig, namespace, port)) as bound:
            click.echo(f"ℹ️  Hubble Relay is available at 127.0.0.1:{bound}")
            await asyncio.Event().wait()

    with contextlib.suppress(KeyboardInterrupt):
        cluster.run(work())

"""``isthmus hubble``: what the observers of nodes see. Adapter."""

import asyncio
from typing import Any

import click
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from cli import hubble_connect, hubble_listing, hubble_status
from cli.hubble_connect import Server
from cli.hubble_enable import disable, enable
from cli.hubble_forward import port_forward
from cli.hubble_map import service_map
from cli.hubble_observe import observe
from cli.hubble_print import to_json
from cli.hubble_record import record, replay
from wire.hubble import observer_pb2, peer_pb2


@click.group()
def hubble() -> None:
    """Flows of the mesh: what happened to which packet, and why."""


hubble.add_command(enable)
hubble.add_command(disable)
hubble.add_command(port_forward)
hubble.add_command(observe)
hubble.add_command(record)
hubble.add_command(replay)
hubble.add_command(service_map)


async def _ask(server: Server, path: str, request: Message) -> bytes:
    async with hubble_connect.channel(server) as channel:
        return await channel.unary(
            path, request.SerializeToString(), server.request_timeout_s, server.metadata
        )


@hubble.command()
@click.option(
    "-o", "--output", type=click.Choice(["compact", "dict", "json", "table"]), default="compact"
)
@hubble_connect.options
def status(server: Server, output: str) -> None:
    """Health and numbers of an observer or relay; exit status 1 unless it serves."""

    async def ask() -> tuple[bytes, bytes, bytes]:
        async with hubble_connect.channel(server) as channel:
            asked = health_pb2.HealthCheckRequest(service="hubble.server.Observer")
            health = await channel.unary(
                "/grpc.health.v1.Health/Check",
                asked.SerializeToString(),
                server.request_timeout_s,
                server.metadata,
            )
            path = "/observer.Observer/ServerStatus"
            data = await channel.unary(path, b"", server.request_timeout_s, server.metadata)
            nodes = b""
            if observer_pb2.ServerStatusResponse.FromString(data).HasField("num_connected_nodes"):
                path = "/observer.Observer/GetNodes"
                nodes = await channel.unary(path, b"", server.request_timeout_s, server.metadata)
            return health, data, nodes

    health_data, data, nodes_data = asyncio.run(ask())
    health = health_pb2.HealthCheckResponse.FromString(health_data)
    serving = health.status == health_pb2.HealthCheckResponse.SERVING
    answer = observer_pb2.ServerStatusResponse.FromString(data)
    if output == "json":
        click.echo(to_json(answer))
    else:
        nodes = observer_pb2.GetNodesResponse.FromString(nodes_data).nodes
        click.echo(hubble_status.text(answer, output, server.target, serving, nodes))
    if not serving:
        click.get_current_context().exit(1)


@hubble.group("list")
def listing() -> None:
    """Nodes and namespaces."""


def _list_output(function: Any) -> Any:
    return click.option(
        "-o", "--output", type=click.Choice(["table", "wide", "json"]), default="table"
    )(function)


@listing.command("nodes")
@_list_output
@hubble_connect.options
def nodes(server: Server, output: str) -> None:
    """Nodes that a relay reads from."""
    data = asyncio.run(_ask(server, "/observer.Observer/GetNodes", observer_pb2.GetNodesRequest()))
    answer = observer_pb2.GetNodesResponse.FromString(data)
    if output == "json":
        click.echo(to_json(answer))
    else:
        click.echo(hubble_listing.nodes(answer, wide=output == "wide"))


listing.add_command(nodes, "node")


@listing.command("namespaces")
@_list_output
@hubble_connect.options
def namespaces(server: Server, output: str) -> None:
    """Namespaces seen in flows of the last hour."""
    path = "/observer.Observer/GetNamespaces"
    data = asyncio.run(_ask(server, path, observer_pb2.GetNamespacesRequest()))
    answer = observer_pb2.GetNamespacesResponse.FromString(data)
    if output == "json":
        click.echo(to_json(answer))
    else:
        click.echo(hubble_listing.namespaces(answer, wide=output == "wide"))


@hubble.group()
def watch() -> None:
    """What changes."""


@watch.command()
@hubble_connect.options
def peers(server: Server) -> None:
    """Nodes that can be asked, as they come and go (of an observer, not of a relay)."""

    async def follow() -> None:
        async with (
            hubble_connect.channel(server) as channel,
            channel.call("/peer.Peer/Notify", b"", server.metadata) as answer,
        ):
            while messages := await answer.take():
                for message in messages:
                    told = peer_pb2.ChangeNotification.FromString(message)
                    click.echo(hubble_listing.peer(told))

    asyncio.run(follow())

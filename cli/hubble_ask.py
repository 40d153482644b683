"""``isthmus hubble status``, ``list`` and ``watch``: questions with short answers. Adapter."""

import asyncio
from typing import Any

import click
from google.protobuf import descriptor_pb2
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from cli import hubble_connect, hubble_listing, hubble_settings, hubble_status
from cli.go_flags import GoFlags
from cli.hubble_connect import Server
from cli.hubble_print import to_json
from wire.hubble import observer_pb2, peer_pb2


async def _ask(server: Server, path: str, request: Message) -> bytes:
    async with hubble_connect.channel(server) as channel:
        return await channel.unary(
            path, request.SerializeToString(), server.request_timeout_s, server.metadata
        )


@click.command(cls=GoFlags)
@click.option(
    "-o", "--output", type=click.Choice(["compact", "dict", "json", "table"]), default="compact"
)
@hubble_settings.debug_option
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


@click.group("list")
def listing() -> None:
    """Nodes and namespaces."""


def _list_output(function: Any) -> Any:
    return click.option(
        "-o", "--output", type=click.Choice(["table", "wide", "json"]), default="table"
    )(function)


@listing.command("nodes", cls=GoFlags)
@_list_output
@hubble_settings.debug_option
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


@listing.command("namespaces", cls=GoFlags)
@_list_output
@hubble_settings.debug_option
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


@click.group()
def watch() -> None:
    """What changes."""


@watch.command(cls=GoFlags)
@hubble_settings.debug_option
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


@click.command(cls=GoFlags, hidden=True)
@hubble_settings.debug_option
@hubble_connect.options
def reflect(server: Server) -> None:
    """Services, methods and messages that a server describes."""
    click.echo("\n".join(asyncio.run(_described(server))))


async def _described(server: Server) -> list[str]:
    path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    data = await _ask(server, path, asked)
    listed = reflection_pb2.ServerReflectionResponse.FromString(data).list_services_response
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for service in listed.service:
        asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol=service.name)
        data = await _ask(server, path, asked)
        found = reflection_pb2.ServerReflectionResponse.FromString(data)
        for content in found.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(content)
            files[file.name] = file
    return [line for name in sorted(files) for line in hubble_listing.described(files[name])]

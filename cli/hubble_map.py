"""``isthmus hubble map``: who talks to whom, as a picture or as data. Adapter."""

import asyncio
import subprocess
from pathlib import Path
from typing import Final

import click

from cli import hubble_connect, hubble_map_text, hubble_settings
from cli.hubble_file import read_files
from cli.hubble_observe import stream
from cli.hubble_request import FilterCommand, Filters, Response, Span, filter_options, flows_request
from hubble.service_map import By, Traffic

LAST: Final = 10_000  # of each node
_LAYOUT_S: Final = 60


@click.command("map", cls=FilterCommand)
@click.option("-o", "--output", type=click.Choice(["svg", "dot", "json"]), default="svg")
@click.option(
    "--by",
    type=click.Choice(["workload", "service", "identity"]),
    default="workload",
    show_default=True,
    help="What a card stands for.",
)
@click.option("--last", type=click.IntRange(min=1), help=f"Flows of each node.  [default: {LAST}]")
@click.option("--since", help="Nothing earlier (3m, or a time).")
@click.option("--until", help="Nothing later.")
@filter_options
@click.option("--input-file", help="Flows as JSON lines instead of a server; - is stdin.")
@hubble_settings.debug_option
@hubble_connect.options
def service_map(
    server: hubble_connect.Server,
    output: str,
    by: By,
    last: int | None,
    since: str | None,
    until: str | None,
    filters: Filters,
    input_file: str | None,
) -> None:
    """Services and who talks to them, of the flows that nodes keep.

    Cards are workloads of all clusters, with their namespaces and clusters as frames; arrows are
    green where traffic passes, red where it is dropped. SVG needs Graphviz.
    """
    last = last or (None if since or until else LAST)
    request = flows_request(Span(last=last, since=since, until=until), filters)
    traffic = Traffic()
    if input_file is not None:
        for answer in read_files([Path(input_file)], request):
            if answer.HasField("flow"):
                traffic.add(answer.flow)
    else:
        path, data = "/observer.Observer/GetFlows", request.SerializeToString()
        asyncio.run(stream(server, path, data, lambda messages: _take(traffic, messages)))
    found = traffic.map(by)
    if found.left_out:
        click.echo(f"{found.left_out} flows had no room: ask for fewer (--namespace)", err=True)
    if output == "json":
        click.echo(hubble_map_text.document(found))
        return
    graph = hubble_map_text.dot(found)
    click.echo(graph if output == "dot" else svg(graph), nl=False)


def _take(traffic: Traffic, messages: list[bytes]) -> None:
    for message in messages:
        answer = Response.FromString(message)
        if answer.HasField("flow"):
            traffic.add(answer.flow)
        elif answer.node_status.message:
            names = ", ".join(answer.node_status.node_names)
            click.echo(f"{names}: {answer.node_status.message}", err=True)


def svg(graph: str) -> str:
    """The picture of a graph, by Graphviz. ``click.ClickException``."""
    try:
        done = subprocess.run(
            ["dot", "-Tsvg"],
            input=graph,
            capture_output=True,
            text=True,
            timeout=_LAYOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise click.ClickException(
            "dot is not installed, which draws the picture: install graphviz, or use -o dot"
        ) from None
    except subprocess.TimeoutExpired:
        raise click.ClickException(
            f"the map is too large to draw within {_LAYOUT_S} s: choose with --namespace or "
            "another filter, or use -o json"
        ) from None
    if done.returncode:
        raise click.ClickException(f"dot: {done.stderr.strip()}")
    return done.stdout

"""``isthmus hubble observe``: flows and events as they are asked for. Adapter."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cli import hubble_connect, hubble_request, hubble_times
from cli.go_flags import GoFlags
from cli.hubble_print import FORMATS, Joined, Printer, printer
from cli.hubble_request import Filters, Request, Response, Span
from cli.hubble_text import Look
from hubble import fieldmask
from wire.hubble import observer_pb2


def print_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """How lines look: the argument ``look`` and ``output``."""
    decorated: Any = function
    for arguments, settings in (
        (
            ("-o", "--output"),
            {"type": click.Choice(FORMATS), "default": "compact", "show_default": True},
        ),
        (("--print-node-name", "node_names"), {"is_flag": True}),
        (("--print-policy-names", "policy_names"), {"is_flag": True}),
        (
            ("--time-format", "layout"),
            {"type": click.Choice(hubble_times.LAYOUTS), "default": "StampMilli"},
        ),
        (("--color",), {"type": click.Choice(["auto", "always", "never"]), "default": "auto"}),
        (("--ip-translation/--no-ip-translation",), {"default": True}),
        (("--numeric",), {"is_flag": True, "help": "Addresses, not names."}),
        (("-s", "--silent-errors"), {"is_flag": True, "help": "Say nothing of nodes that fail."}),
        (
            ("-D", "--debug"),
            {
                "is_flag": True,
                "envvar": "HUBBLE_DEBUG",
                "help": "Also say which nodes are connected.",
            },
        ),
    ):
        decorated = click.option(*arguments, **settings)(decorated)
    return decorated  # type: ignore[no-any-return]


def make_printer(*, follow: bool, joined: bool = False, **given: Any) -> Printer:
    """The printer for these options."""
    output = "table" if given["output"] == "tab" else given["output"]
    if output == "table" and follow:
        raise click.UsageError("table output format is not compatible with follow mode")
    if joined and output not in ("compact", "json"):
        raise click.UsageError(f"{output} output format is not compatible with --joined")
    if joined and follow:
        raise click.UsageError("--joined needs all flows of a connection: not with --follow")
    terminal = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    look = Look(
        time=hubble_times.formatter(given["layout"]),
        node_names=given["node_names"],
        policy_names=given["policy_names"],
        translate=given["ip_translation"] and not given["numeric"],
        colour=given["color"] == "always" or (given["color"] == "auto" and terminal),
    )
    if joined:
        return Joined(look, as_json=output == "json", silent=given["silent_errors"])
    legacy = os.environ.get("HUBBLE_COMPAT") == "legacy-json-output"
    return printer(
        output, look, legacy=legacy, silent=given["silent_errors"], verbose=given["debug"]
    )


def _mask(request: Request, output: str, paths: str | None) -> None:
    if not paths:
        return
    if output not in ("json", "jsonpb"):
        raise click.UsageError(f"{output} output format is not compatible with custom field mask")
    request.field_mask.paths.extend(path.strip() for path in paths.split(","))
    try:
        fieldmask.parse(request.field_mask.paths)
    except fieldmask.FieldMaskError as error:
        raise click.UsageError(f"--field-mask: {error}") from None


async def stream(
    server: hubble_connect.Server, path: str, request: bytes, show: Callable[[list[bytes]], None]
) -> None:
    async with (
        hubble_connect.channel(server) as channel,
        channel.call(path, request, server.metadata) as answer,
    ):
        while messages := await answer.take():
            show(messages)


class ObserveGroup(click.Group):
    """``observe`` is ``observe flows``; the other two are named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = ["flows", *args]
        return super().parse_args(ctx, args)


@click.group(cls=ObserveGroup, add_help_option=False)
def observe() -> None:
    """Flows and events of a node, or of many through a relay."""


@observe.command("flows", cls=hubble_request.FilterCommand)
@hubble_request.selector_options
@hubble_request.filter_options
@print_options
@click.option(
    "--field-mask",
    "--experimental-field-mask",
    help="Fields to ask for, separated by commas (JSON only).",
)
@click.option(  # accepted: we send no mask, so that all is there that a format shows
    "--use-default-field-masks/--no-default-field-masks",
    "--experimental-use-default-field-masks",
    default=True,
    hidden=True,
    expose_value=False,
)
@click.option("--input-file", help="Flows as JSON lines instead of a server; - is stdin.")
@click.option("--joined", is_flag=True, help="One line per connection, seen from both sides.")
@click.option("--print-raw-filters", is_flag=True, help="Print the filters and stop.")
@hubble_connect.options
def flows(
    server: hubble_connect.Server,
    span: Span,
    filters: Filters,
    field_mask: str | None,
    input_file: str | None,
    print_raw_filters: bool,
    joined: bool,
    **given: Any,
) -> None:
    """Flows, the newest 20 unless asked otherwise.

    Filters: flags of one kind are alternatives, different flags restrict each other; --pod, --ip
    and others without from- or to- mean either side. A flag after --not takes out.

    `observe agent-events` and `observe debug-events` show what else a node tells.
    """
    if print_raw_filters:
        click.echo(filters.text())
        return
    request = hubble_request.flows_request(span, filters)
    _mask(request, given["output"], field_mask)
    shown = make_printer(follow=span.follow, joined=joined, **given)
    if input_file is not None:
        from cli.hubble_file import read_files  # with it come the libraries of the filters

        for answer in read_files([Path(input_file)], request):
            shown.flow(answer)
        shown.end()
        return

    def show(messages: list[bytes]) -> None:
        for message in messages:
            shown.flow(Response.FromString(message))
        shown.flush()

    asyncio.run(stream(server, "/observer.Observer/GetFlows", request.SerializeToString(), show))
    shown.end()


def _events_command(name: str, request_type: Any, response_type: Any, method: str) -> None:
    @observe.command(name, cls=GoFlags)
    @hubble_request.selector_options
    @print_options
    @hubble_connect.options
    def events(server: hubble_connect.Server, span: Span, **given: Any) -> None:
        request = request_type()
        span.put(request)
        shown = make_printer(follow=span.follow, **given)

        def show(messages: list[bytes]) -> None:
            for message in messages:
                shown.event(response_type.FromString(message))
            shown.flush()

        path = f"/observer.Observer/{method}"
        asyncio.run(stream(server, path, request.SerializeToString(), show))
        shown.end()

    events.help = f"{name.replace('-', ' ').capitalize()} of a node (not of a relay)."


_events_command(
    "agent-events",
    observer_pb2.GetAgentEventsRequest,
    observer_pb2.GetAgentEventsResponse,
    "GetAgentEvents",
)
_events_command(
    "debug-events",
    observer_pb2.GetDebugEventsRequest,
    observer_pb2.GetDebugEventsResponse,
    "GetDebugEvents",
)

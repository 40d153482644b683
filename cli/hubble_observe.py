"""``isthmus hubble observe``: flows and events as they are asked for. Adapter."""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from google.protobuf import json_format

from cli import hubble_connect, hubble_flags, hubble_times
from cli.hubble_file import read_files
from cli.hubble_flags import FlagError, Given
from cli.hubble_print import FORMATS, Joined, Printer, printer
from cli.hubble_text import Look
from hubble import fieldmask
from wire.hubble import flow_pb2, observer_pb2

DEFAULT_LAST: Final = 20
ALL: Final = 2**64 - 1
FILE_MAX: Final = 1_000_000  # flows kept for --last of a file
Request = observer_pb2.GetFlowsRequest
Response = observer_pb2.GetFlowsResponse


class FilterCommand(click.Command):
    """Keeps the filter flags in the order they came, since ``--not`` speaks of the next one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        values, _, order = self.make_parser(ctx).parse_args(list(args))
        waiting = {
            name: list(v) if isinstance(v, (list, tuple)) else [v] for name, v in values.items()
        }
        given: list[Given] = []
        negated = False
        for parameter in order:
            name = parameter.name or ""
            flag = name.replace("_", "-")
            if name == "not_":
                negated = True
                continue
            if flag in hubble_flags.VALUED:
                given.append(Given(flag, str(waiting[name].pop(0)), negated))
            elif flag in hubble_flags.SWITCHES or flag in hubble_flags.ALL_NAMESPACES:
                given.append(Given(flag, "", negated))
            else:
                continue
            negated = False
        if negated:
            raise click.UsageError("trailing --not found in the arguments", ctx)
        ctx.meta["hubble.given"] = given
        return super().parse_args(ctx, args)


_SHORT: Final = {
    "label": ("-l",),
    "namespace": ("-n",),
    "type": ("-t",),
    "all-namespaces": ("-A",),
    "ipv4": ("-4",),
    "ipv6": ("-6",),
}


def filter_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter flags; ``FilterCommand`` reads them."""
    decorated = function
    for flag in reversed(hubble_flags.VALUED):
        names = (*_SHORT.get(flag, ()), f"--{flag}", flag.replace("-", "_"))
        decorated = click.option(*names, multiple=True, expose_value=False)(decorated)
    for flag in (*hubble_flags.ALL_NAMESPACES, *hubble_flags.SWITCHES):
        names = (*_SHORT.get(flag, ()), f"--{flag}", flag.replace("-", "_"))
        decorated = click.option(*names, is_flag=True, expose_value=False)(decorated)
    return click.option(
        "--not",
        "not_",
        is_flag=True,
        multiple=False,
        expose_value=False,
        help="The next filter denies.",
    )(decorated)


def _json_filters(values: Iterable[str], flag: str) -> list[flow_pb2.FlowFilter]:
    parsed = []
    for value in values:
        try:
            parsed.append(json_format.Parse(value, flow_pb2.FlowFilter()))
        except json_format.ParseError as error:
            raise click.UsageError(f"{flag} {value}: {error}") from None
    return parsed


def filters(
    allow: Sequence[str], deny: Sequence[str]
) -> tuple[list[flow_pb2.FlowFilter], list[flow_pb2.FlowFilter]]:
    given = click.get_current_context().meta["hubble.given"]
    try:
        white, black = hubble_flags.filters_of(given)
    except FlagError as error:
        raise click.UsageError(str(error)) from None
    return (
        white + _json_filters(allow, "--allowlist"),
        black + _json_filters(deny, "--denylist"),
    )


def raw_filters(white: Sequence[flow_pb2.FlowFilter], black: Sequence[flow_pb2.FlowFilter]) -> str:
    """YAML that the configuration of the command takes."""
    lines = []
    for name, filters in (("allowlist", white), ("denylist", black)):
        if filters:
            lines.append(f"{name}:")
        for one in filters:
            shown = json_format.MessageToDict(one, preserving_proto_field_name=True)
            lines.append(f"    - '{json.dumps(shown, separators=(',', ':'), ensure_ascii=False)}'")
    return "\n".join(lines) or "{}"


def selector_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """How much of what time."""
    decorated = click.option("--until", help="Nothing later.")(function)
    decorated = click.option("--since", help="Nothing earlier (3m, or a time).")(decorated)
    decorated = click.option("-f", "--follow", is_flag=True, help="Go on as flows come.")(decorated)
    number = click.IntRange(min=0, max=ALL)
    decorated = click.option(
        "--last", type=number, help=f"The newest N.  [default: {DEFAULT_LAST}]"
    )(decorated)
    decorated = click.option("--first", type=number, help="The oldest N.")(decorated)
    return click.option("--all", "everything", is_flag=True, help="All there are.")(decorated)


def select(
    request: Any,
    *,
    everything: bool,
    first: int | None,
    last: int | None,
    follow: bool,
    since: str | None,
    until: str | None,
) -> None:
    """Put the selectors into any of the three requests."""
    if first is not None and follow:
        raise click.UsageError("cannot set both --first and --follow")
    if first is not None and (last is not None or everything):
        raise click.UsageError("cannot set --first together with --last or --all")
    if last is not None and everything:
        raise click.UsageError("cannot set both --last and --all")
    number = ALL if everything else first if first is not None else last
    if number is None:
        number = 0 if follow or since or until else DEFAULT_LAST
    request.number, request.follow, request.first = number, follow, first is not None
    now = datetime.now(UTC)
    for name, text in (("since", since), ("until", until)):
        if text:
            try:
                getattr(request, name).CopyFrom(hubble_times.parse_time(text, now))
            except ValueError as error:
                raise click.UsageError(f"--{name}: {error}") from None


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
        (("-D", "--debug"), {"is_flag": True, "help": "Also say which nodes are connected."}),
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


@observe.command("flows", cls=FilterCommand)
@selector_options
@filter_options
@print_options
@click.option("--allowlist", multiple=True, help="A filter as JSON; what it describes is shown.")
@click.option("--denylist", multiple=True, help="A filter as JSON; what it describes is not shown.")
@click.option("--field-mask", help="Fields to ask for, separated by commas (JSON only).")
@click.option("--use-default-field-masks/--no-default-field-masks", default=True, hidden=True)
@click.option("--input-file", help="Flows as JSON lines instead of a server; - is stdin.")
@click.option("--joined", is_flag=True, help="One line per connection, seen from both sides.")
@click.option("--print-raw-filters", is_flag=True, help="Print the filters and stop.")
@hubble_connect.options
def flows(
    server: hubble_connect.Server,
    everything: bool,
    first: int | None,
    last: int | None,
    follow: bool,
    since: str | None,
    until: str | None,
    allowlist: tuple[str, ...],
    denylist: tuple[str, ...],
    field_mask: str | None,
    use_default_field_masks: bool,
    input_file: str | None,
    print_raw_filters: bool,
    joined: bool,
    **given: Any,
) -> None:
    """Flows, the newest 20 unless asked otherwise.

    Filters: flags of one kind are alternatives, different flags restrict each other; --pod, --ip
    and others without from- or to- mean either side. A flag after --not takes out.
    """
    white, black = filters(allowlist, denylist)
    if print_raw_filters:
        click.echo(raw_filters(white, black))
        return
    request = Request(whitelist=white, blacklist=black)
    span = {"first": first, "last": last, "follow": follow, "since": since, "until": until}
    select(request, everything=everything, **span)  # type: ignore[arg-type]
    _mask(request, given["output"], field_mask)
    shown = make_printer(follow=follow, joined=joined, **given)
    if input_file is not None:
        for answer in read_files([Path(input_file)], request, FILE_MAX):
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
    @observe.command(name)
    @selector_options
    @print_options
    @hubble_connect.options
    def events(
        server: hubble_connect.Server,
        everything: bool,
        first: int | None,
        last: int | None,
        follow: bool,
        since: str | None,
        until: str | None,
        **given: Any,
    ) -> None:
        request = request_type()
        span = {"first": first, "last": last, "follow": follow, "since": since, "until": until}
        select(request, everything=everything, **span)  # type: ignore[arg-type]
        shown = make_printer(follow=follow, **given)

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

"""What is asked for on the command line, as requests to an observer. Adapter."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeVar, cast

import click

from cli import hubble_flags, hubble_help, hubble_times
from cli.go_flags import GoFlags
from cli.hubble_flags import FlagError, Given
from wire.hubble import flow_pb2, observer_pb2

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_LAST: Final = 20
ALL: Final = 2**64 - 1  # no limit
FILE_MAX: Final = 1_000_000  # flows that can be counted in a file
Request = observer_pb2.GetFlowsRequest
Response = observer_pb2.GetFlowsResponse
FlowFilter = flow_pb2.FlowFilter

_SHORT: Final = {
    "label": ("-l",),
    "namespace": ("-n",),
    "type": ("-t",),
    "all-namespaces": ("-A",),
    "ipv4": ("-4",),
    "ipv6": ("-6",),
}


class FilterCommand(GoFlags):
    """Keeps the filter flags in the order they came, since ``--not`` speaks of the next one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        args = self.without_values(ctx, args)
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


class Filters(NamedTuple):
    """Flows that are wanted and those that are not."""

    white: list[FlowFilter]
    black: list[FlowFilter]

    def text(self) -> str:
        """YAML that the settings of the command take."""
        from google.protobuf import json_format

        lines = []
        for name, filters in (("allowlist", self.white), ("denylist", self.black)):
            if filters:
                lines.append(f"{name}:")
            for one in filters:
                shown = json_format.MessageToDict(one, preserving_proto_field_name=True)
                content = json.dumps(shown, separators=(",", ":"), ensure_ascii=False)
                lines.append("    - '" + content.replace("'", "''") + "'")
        return "\n".join(lines) or "{}"


def _json_filters(values: Iterable[str], flag: str) -> list[FlowFilter]:
    from google.protobuf import json_format  # few give filters so, and it takes long to load

    parsed = []
    for value in values:
        try:
            parsed.append(json_format.Parse(value, FlowFilter()))
        except json_format.ParseError as error:
            raise click.UsageError(f"{flag} {value}: {error}") from None
    return parsed


def _filters(allow: Sequence[str], deny: Sequence[str]) -> Filters:
    given = click.get_current_context().meta["hubble.given"]
    try:
        white, black = hubble_flags.filters_of(given)
    except FlagError as error:
        raise click.UsageError(str(error)) from None
    return Filters(
        white + _json_filters(allow, "--allowlist"),
        black + _json_filters(deny, "--denylist"),
    )


def filter_options(function: F) -> F:
    """The filter flags of a ``FilterCommand``: the argument ``filters``."""

    def wrapped(allowlist: tuple[str, ...], denylist: tuple[str, ...], **given: Any) -> Any:
        return function(filters=_filters(allowlist, denylist), **given)

    decorated: Any = _like(wrapped, function)
    for name, what in (("--denylist", "is left out"), ("--allowlist", "counts")):
        text = f"A filter as JSON; what it describes {what}."
        decorated = click.option(name, multiple=True, help=text)(decorated)
    for flag in reversed(hubble_flags.VALUED):
        names = (*_SHORT.get(flag, ()), f"--{flag}", flag.replace("-", "_"))
        text = hubble_help.HELP[flag]
        decorated = click.option(*names, multiple=True, expose_value=False, help=text)(decorated)
    for flag in (*hubble_flags.ALL_NAMESPACES, *hubble_flags.SWITCHES):
        names = (*_SHORT.get(flag, ()), f"--{flag}", flag.replace("-", "_"))
        text = hubble_help.HELP[flag]
        decorated = click.option(*names, is_flag=True, expose_value=False, help=text)(decorated)
    negation = click.option(
        "--not",
        "not_",
        is_flag=True,
        multiple=False,
        expose_value=False,
        help="The next filter denies.",
    )
    return cast("F", negation(decorated))


@dataclass(frozen=True, slots=True)
class Span:
    """How much of what time, as the flags say it."""

    everything: bool = False
    first: int | None = None
    last: int | None = None
    follow: bool = False
    since: str | None = None
    until: str | None = None

    @property
    def is_given(self) -> bool:
        """Anything was said."""
        return self != Span()

    def put(self, request: Any) -> None:
        """Into any of the three requests of events; ``click.UsageError``."""
        if self.first is not None and self.follow:
            raise click.UsageError("cannot set both --first and --follow")
        if self.first is not None and (self.last is not None or self.everything):
            raise click.UsageError("cannot set --first together with --last or --all")
        if self.last is not None and self.everything:
            raise click.UsageError("cannot set both --last and --all")
        number = ALL if self.everything else self.last if self.first is None else self.first
        if number is None:
            number = 0 if self.follow or self.since or self.until else DEFAULT_LAST
        request.number, request.follow = number, self.follow
        request.first = self.first is not None
        now = datetime.now(UTC)
        for name, text in (("since", self.since), ("until", self.until)):
            if text:
                try:
                    getattr(request, name).CopyFrom(hubble_times.parse_time(text, now))
                except ValueError as error:
                    raise click.UsageError(f"--{name}: {error}") from None


_SELECTORS: Final[tuple[tuple[tuple[str, ...], dict[str, Any]], ...]] = (
    (("--all", "everything"), {"is_flag": True, "help": "All there are."}),
    (("--first",), {"type": click.IntRange(min=0, max=ALL), "help": "The oldest N."}),
    (
        ("--last",),
        {
            "type": click.IntRange(min=0, max=ALL),
            "help": f"The newest N.  [default: {DEFAULT_LAST}]",
        },
    ),
    (("-f", "--follow"), {"is_flag": True, "help": "Go on as flows come."}),
    (("--since",), {"help": "Nothing earlier (3m, or a time)."}),
    (("--until",), {"help": "Nothing later."}),
)


def selector_options(function: F) -> F:
    """How much of what time: the argument ``span``."""

    def wrapped(**given: Any) -> Any:
        span = Span(**{one.name: given.pop(one.name) for one in fields(Span)})
        return function(span=span, **given)

    decorated: Any = _like(wrapped, function)
    for names, settings in reversed(_SELECTORS):
        decorated = click.option(*names, **settings)(decorated)
    return cast("F", decorated)


def _like(wrapped: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    wrapped.__name__, wrapped.__doc__ = function.__name__, function.__doc__
    wrapped.__dict__.update(function.__dict__)
    return wrapped


def flows_request(span: Span, filters: Filters) -> Request:
    """``click.UsageError`` where the flags contradict each other."""
    request = Request(whitelist=filters.white, blacklist=filters.black)
    span.put(request)
    return request

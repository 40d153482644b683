"""Flows from a file of JSON lines, selected as a server would. Adapter.

A line is a GetFlowsResponse as ``-o json`` prints it, or a flow alone; a file may be packed by
gzip. Fields that we do not know are ignored, lines of other events (an export has them) are passed
over and counted; a line that is no JSON at all ends the command with its number.
"""

import gzip
import sys
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click
from google.protobuf import json_format

from cli.hubble_request import ALL, FILE_MAX, Request, Response
from hubble.filters import compile_filters
from hubble.patterns import FilterError
from wire.hubble import flow_pb2


def _lines(path: Path) -> Iterator[str]:
    if str(path) == "-":
        yield from sys.stdin
        return
    packed = path.suffix == ".gz"  # as the exporter's elder files are
    try:
        with gzip.open(path, "rt") if packed else path.open(encoding="utf-8") as file:
            yield from file
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise click.ClickException(f"{path}: cannot be read: {reason}") from None


def parse(lines: Iterable[str], name: str) -> Iterator[Response]:
    """The responses; ``click.ClickException`` with the line that is none."""
    others = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            answer: Response | None = json_format.Parse(
                line, Response(), ignore_unknown_fields=True
            )
            if answer is not None and answer.WhichOneof("response_types") is None:
                answer = _alone(line)
        except json_format.ParseError as error:
            raise click.ClickException(f"{name}, line {number}: no flow: {error}") from None
        if answer is None:
            others += 1
        else:
            yield answer
    if others:
        click.echo(f"{name}: {others} lines are neither flows nor losses", err=True)


def _alone(line: str) -> Response | None:
    """A flow without what it was answered in; ``None``: another event. ``ParseError``."""
    flow = json_format.Parse(line, flow_pb2.Flow(), ignore_unknown_fields=True)
    if not flow.HasField("source") and not flow.HasField("event_type"):
        return None
    return Response(flow=flow, node_name=flow.node_name, time=flow.time)


def read_files(paths: Sequence[Path], request: Request) -> Iterable[Response]:
    """What the request asks for, of these files one after the other."""
    try:
        passes = compile_filters(request.whitelist, request.blacklist)
    except FilterError as error:
        raise click.UsageError(str(error)) from None
    if FILE_MAX < request.number < ALL:
        raise click.UsageError(f"of a file at most {FILE_MAX} flows can be counted; or take --all")
    since, until = request.since.ToNanoseconds(), request.until.ToNanoseconds()

    def chosen() -> Iterator[Response]:
        everything = (answer for path in paths for answer in parse(_lines(path), str(path)))
        for answer in everything:
            time = answer.time.ToNanoseconds()
            if answer.HasField("flow"):
                if since and time < since:
                    continue
                if until and time > until:
                    return
                if passes is not None and not passes(answer.flow):
                    continue
            yield answer

    if not 0 < request.number <= FILE_MAX:
        return chosen()
    return _beginning(chosen(), request.number) if request.first else _end(chosen(), request.number)


def _beginning(answers: Iterable[Response], number: int) -> Iterator[Response]:
    """Up to the flow of that number."""
    for answer in answers:
        yield answer
        number -= answer.HasField("flow")
        if not number:
            return


def _end(answers: Iterable[Response], number: int) -> Iterable[Response]:
    """That many flows, and what else is between them and after them."""
    kept: deque[Response] = deque()
    flows = 0
    for answer in answers:
        kept.append(answer)
        flows += answer.HasField("flow")
        while flows > number:
            flows -= kept.popleft().HasField("flow")
    while flows == number and not kept[0].HasField("flow"):
        kept.popleft()
    return kept

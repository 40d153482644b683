"""Flows from a file of JSON lines, selected as a server would. Adapter.

A line is a GetFlowsResponse as ``-o json`` prints it. Fields that we do not know are ignored; a
line that is no response at all ends the command with its number.
"""

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click
from google.protobuf import json_format

from cli.hubble_request import ALL, FILE_MAX, Request, Response
from hubble.filters import compile_filters
from hubble.patterns import FilterError


def _lines(path: Path) -> Iterator[str]:
    if str(path) == "-":
        yield from sys.stdin
        return
    with path.open(encoding="utf-8") as file:
        yield from file


def parse(lines: Iterable[str], name: str) -> Iterator[Response]:
    """The responses; ``click.ClickException`` with the line that is none."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield json_format.Parse(line, Response(), ignore_unknown_fields=True)
        except json_format.ParseError as error:
            raise click.ClickException(f"{name}, line {number}: no flow: {error}") from None


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

    limited = 0 < request.number <= FILE_MAX
    if not limited or request.HasField("since"):
        return chosen()
    if request.first:
        return (answer for answer, _ in zip(chosen(), range(request.number), strict=False))
    return deque(chosen(), maxlen=request.number)

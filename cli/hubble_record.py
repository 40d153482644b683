"""``isthmus hubble record`` and ``replay``: flows into files and back. Adapter.

A recording is lines of ``observe -o json``. When a file is full it becomes ``FILE.1``, what was
``FILE.1`` becomes ``FILE.2``, and so on; replay reads them oldest first.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import click

from cli import hubble_connect, hubble_observe, hubble_request, hubble_settings
from cli.hubble_file import read_files
from cli.hubble_print import to_json
from cli.hubble_request import Filters, Response, Span, flows_request
from wire.hubble import flow_pb2


class Recording:
    """A file with its elder pieces."""

    def __init__(self, path: Path, max_bytes: int, max_backups: int) -> None:
        self._path, self._max_bytes, self._max_backups = path, max_bytes, max_backups
        self._file: TextIO = path.open("a", encoding="utf-8")
        self._size = path.stat().st_size
        self.written = 0

    def write(self, lines: list[str]) -> None:
        """Append lines; a full file is put aside first."""
        for line in lines:
            size = len(line.encode()) + 1
            if self._size and self._size + size > self._max_bytes:
                self._rotate()
            self._file.write(line + "\n")
            self._size += size
            self.written += 1
        self._file.flush()

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self._max_backups, 0, -1):
            elder = _piece(self._path, number - 1)
            if elder.exists():
                elder.replace(_piece(self._path, number))
        self._file = self._path.open("w", encoding="utf-8")
        self._size = 0

    def close(self) -> None:
        """Nothing more comes."""
        self._file.close()


def _piece(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path


def pieces(path: Path) -> list[Path]:
    """The files of a recording, oldest first."""
    found = [path]
    while (elder := _piece(path, len(found))).exists():
        found.append(elder)
    return found[::-1]


@click.command(cls=hubble_request.FilterCommand)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--max-size-mb", type=click.FloatRange(min=0.001), default=10.0, show_default=True)
@click.option("--max-backups", type=click.IntRange(min=1), default=5, show_default=True)
@hubble_request.selector_options
@hubble_request.filter_options
@hubble_settings.debug_option
@hubble_connect.options
def record(
    server: hubble_connect.Server,
    file: Path,
    max_size_mb: float,
    max_backups: int,
    span: Span,
    filters: Filters,
) -> None:
    """Write flows to FILE as they come, or those that are selected.

    What is in FILE stays; when it is full it becomes FILE.1, and so on.
    """
    request = flows_request(span if span.is_given else Span(follow=True), filters)
    recording = Recording(file, int(max_size_mb * 10**6), max_backups)

    def keep(messages: list[bytes]) -> None:
        answers = [Response.FromString(message) for message in messages]
        recording.write([to_json(one) for one in answers if not one.HasField("node_status")])

    path = "/observer.Observer/GetFlows"
    try:
        asyncio.run(hubble_observe.stream(server, path, request.SerializeToString(), keep))
    finally:
        recording.close()
        click.echo(f"{recording.written} lines written to {file}", err=True)


@click.command(cls=hubble_request.FilterCommand)
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@hubble_request.selector_options
@hubble_request.filter_options
@hubble_observe.print_options
@click.option("--joined", is_flag=True, help="One line per connection, seen from both sides.")
@click.option(
    "--metrics",
    metavar="LIST",
    help="Count the flows as a node would with this hubble-metrics, and print the page.",
)
def replay(
    files: tuple[Path, ...],
    span: Span,
    filters: Filters,
    joined: bool,
    metrics: str | None,
    **given: Any,
) -> None:
    """Show recorded flows: all of FILES and their elder pieces, unless selected otherwise."""
    if span.follow:
        raise click.UsageError("a recording has an end: --follow has no meaning here")
    if span.first is None and span.last is None:
        span = replace(span, everything=True)
    request = flows_request(span, filters)
    shown = hubble_observe.make_printer(follow=False, joined=joined, **given)
    found = [piece for file in files for piece in pieces(file)]
    answers = read_files(found, request)
    if metrics is not None:
        click.echo(_counted(metrics, answers), nl=False)
        return
    for answer in answers:
        shown.flow(answer)
    shown.end()


def _counted(metrics: str, answers: Iterable[Response]) -> str:
    """The page after these flows."""
    from hubble.metrics.engine import Engine
    from hubble.metrics.options import parse_text
    from hubble.ring import RECORD_ACCESS_LOG, Entry
    from telemetry.metrics import render

    flows: list[flow_pb2.Flow] = []
    engine = Engine(lambda _entry: flows[-1], lambda: 0)
    try:
        engine.configure(parse_text(metrics))
    except ValueError as error:
        raise click.UsageError(f"--metrics: {error}") from None
    # A record of this type has no key: each flow is looked at by itself.
    entry = Entry(0, 0, bytes((RECORD_ACCESS_LOG,)))
    for answer in answers:
        if answer.HasField("flow"):
            flows[:] = [answer.flow]
            engine.take([entry])
    return render(engine.families())

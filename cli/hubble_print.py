"""Printers of flows and events in the formats of ``hubble``: output on stdout, nodes on stderr."""

import functools
import json
import sys
from collections.abc import Callable
from typing import Any, Final, Protocol

import click
from google.protobuf.message import Message

from cli import hubble_events, hubble_joined, hubble_text, output
from cli.hubble_text import Look
from wire.hubble import observer_pb2, relay_pb2
from wire.hubble.as_json import as_dict

FORMATS: Final = ("compact", "dict", "json", "jsonpb", "table", "tab")
Response = observer_pb2.GetFlowsResponse
_QUIET: Final = (relay_pb2.NodeState.NODE_CONNECTED, relay_pb2.NodeState.NODE_GONE)


class Printer(Protocol):
    """Prints what comes; ``flush`` when nothing more is at hand, ``end`` at the end."""

    def flow(self, answer: Response) -> None:
        """A flow, a loss or what a relay says of nodes."""

    def event(self, answer: hubble_events.Response) -> None:
        """An agent or debug event."""

    def flush(self) -> None:
        """Let it be seen."""

    def end(self) -> None:
        """Nothing more comes."""


def to_json(message: Message) -> str:
    """One line of JSON with the names of the .proto."""
    return _encoder()(as_dict(message)).decode()


@functools.cache
def _encoder() -> Callable[[Any], bytes]:
    import msgspec  # who wants text does not wait for this

    return msgspec.json.Encoder().encode


class _Lines:
    """Text to stdout, kept together until it is to be seen."""

    def __init__(self, look: Look, *, silent: bool, verbose: bool) -> None:
        self.look = look
        self._silent = silent
        self._verbose = verbose
        self._kept: list[str] = []

    def put(self, line: str) -> None:
        self._kept.append(line)

    def flush(self) -> None:
        if self._kept:
            sys.stdout.write("\n".join(self._kept) + "\n")
            sys.stdout.flush()
            self._kept = []

    def end(self) -> None:
        self.flush()

    def wants_status(self, answer: Response) -> bool:
        """Is it to be said what became of nodes?"""
        state = answer.node_status.state_change
        if state == relay_pb2.NodeState.NODE_ERROR and self._silent:
            return False
        return self._verbose or state not in _QUIET

    def status(self, text: str) -> None:
        self.flush()
        click.echo(text, err=True)


class _Compact(_Lines):
    def flow(self, answer: Response) -> None:
        match answer.WhichOneof("response_types"):
            case "flow":
                self.put(hubble_text.compact(answer, self.look))
            case "lost_events":
                self.put(hubble_text.compact_loss(answer, self.look))
            case "node_status" if self.wants_status(answer):
                self.status(hubble_text.node_status(answer, self.look))

    def event(self, answer: hubble_events.Response) -> None:
        self.put(hubble_events.compact(answer, self.look))


class _Dict(_Lines):
    _first = True

    def _put(self, names: list[str], values: list[str]) -> None:
        if not self._first:
            self.put("-" * 12)
        self._first = False
        self.put(hubble_text.as_dict(names, values))

    def flow(self, answer: Response) -> None:
        match answer.WhichOneof("response_types"):
            case "flow":
                self._put(hubble_text.headings(self.look), hubble_text.columns(answer, self.look))
            case "lost_events":
                values = hubble_text.loss_columns(answer, self.look)
                self._put(hubble_text.headings(self.look), values)
            case "node_status" if self.wants_status(answer):
                status = answer.node_status
                values = [
                    self.look.time(answer.time),
                    relay_pb2.NodeState.Name(status.state_change),
                    hubble_text.node_names(list(status.node_names)),
                    hubble_text.safe(status.message),
                ]
                names = ["TIMESTAMP", "STATE", "NODES", "MESSAGE"]
                self.status(hubble_text.as_dict(names, values))

    def event(self, answer: hubble_events.Response) -> None:
        self._put(*hubble_events.fields(answer, self.look))


class _Table(_Lines):
    def __init__(self, look: Look, *, silent: bool, verbose: bool) -> None:
        super().__init__(look, silent=silent, verbose=verbose)
        self._rows: list[list[str]] = []

    def flow(self, answer: Response) -> None:
        if not self._rows:
            self._rows.append(hubble_text.headings(self.look))
        match answer.WhichOneof("response_types"):
            case "flow":
                self._rows.append(hubble_text.columns(answer, self.look))
            case "lost_events":
                self._rows.append(hubble_text.loss_columns(answer, self.look))
            case "node_status" if self.wants_status(answer):
                self.status(hubble_text.node_status(answer, self.look))

    def event(self, answer: hubble_events.Response) -> None:
        names, values = hubble_events.table_row(answer, self.look)
        if not self._rows:
            self._rows.append(names)
        self._rows.append(values)

    def end(self) -> None:
        if self._rows:
            self.put(output.table(self._rows))
        self.flush()


class _Json(_Lines):
    def __init__(self, look: Look, *, legacy: bool, silent: bool, verbose: bool) -> None:
        super().__init__(look, silent=silent, verbose=verbose)
        self._legacy = legacy

    def flow(self, answer: Response) -> None:
        if answer.HasField("node_status"):
            if self.wants_status(answer):
                self.status(to_json(answer))
        elif self._legacy and answer.HasField("flow"):
            self.put(to_json(answer.flow))
        else:
            self.put(to_json(answer))

    def event(self, answer: hubble_events.Response) -> None:
        self.put(to_json(answer))


class Joined(_Lines):
    """One line per connection at the end; losses and nodes as they come, on stderr."""

    def __init__(self, look: Look, *, as_json: bool, silent: bool) -> None:
        super().__init__(look, silent=silent, verbose=False)
        self._as_json = as_json
        self._joiner = hubble_joined.Joiner()

    def flow(self, answer: Response) -> None:
        match answer.WhichOneof("response_types"):
            case "flow":
                self._joiner.add(answer)
            case "lost_events":
                self.status(hubble_text.compact_loss(answer, self.look))
            case "node_status" if self.wants_status(answer):
                self.status(hubble_text.node_status(answer, self.look))

    def event(self, answer: hubble_events.Response) -> None:
        raise TypeError("events have no connection")

    def end(self) -> None:
        for connection in self._joiner.connections():
            if self._as_json:
                shown = hubble_joined.data(connection)
                self.put(json.dumps(shown, separators=(",", ":"), ensure_ascii=False))
            else:
                self.put(hubble_joined.line(connection, self.look))
        self.flush()


def printer(name: str, look: Look, *, legacy: bool, silent: bool, verbose: bool) -> Printer:
    """The printer of a format."""
    match name:
        case "compact":
            return _Compact(look, silent=silent, verbose=verbose)
        case "dict":
            return _Dict(look, silent=silent, verbose=verbose)
        case "table":
            return _Table(look, silent=silent, verbose=verbose)
    return _Json(look, legacy=legacy and name == "json", silent=silent, verbose=verbose)

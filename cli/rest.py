"""The agent's REST API on its unix socket, with the standard library alone. Adapter.

The agent executes these commands in its own container, where they must start quickly and need
nothing installed besides.
"""

import http.client
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import click
from click.core import ParameterSource

from wire import deadline

F = TypeVar("F", bound=Callable[..., Any])

SOCKET_VARIABLE = "CILIUM_SOCK"
DEFAULT_SOCKET = "/var/run/cilium/cilium.sock"
TIMEOUT_S = 30.0
CHANGE_TIMEOUT_S = 15.0  # shorter than whoever executes us in a container waits


class AgentUnreachableError(OSError):
    """Nobody answers, or not in time, or not with HTTP."""


class AgentRefusedError(OSError):
    """The agent answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def option(function: F) -> F:
    """``-H``/``--host``: where the agent listens."""
    return click.option(
        "-H",
        "--host",
        envvar=SOCKET_VARIABLE,
        default=DEFAULT_SOCKET,
        show_default=True,
        show_envvar=True,
        metavar="PATH",
        help="The agent's socket.",
    )(function)


def given(host: str) -> str:
    """``host`` if it was named on the command line, else nothing."""
    source = click.get_current_context().get_parameter_source("host")
    return host if source is ParameterSource.COMMANDLINE else ""


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(self.timeout)
        try:
            made.connect(self._path)
        except OSError:
            made.close()
            raise
        self.sock = made


def change(host: str, path: str) -> bytes:
    """``PUT /v1/<path>``, which the agent refuses when it gets to it after we have given up."""
    headers = deadline.header(time.time() + CHANGE_TIMEOUT_S)
    return fetch(host, path, CHANGE_TIMEOUT_S, "PUT", headers)


def fetch(
    host: str,
    path: str,
    timeout_s: float = TIMEOUT_S,
    method: str = "GET",
    headers: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """``GET /v1/<path>``: the body as it came. ``path`` is already quoted.

    Raises ``AgentUnreachableError`` or ``AgentRefusedError``, each with a sentence for a person.
    """
    place = host.removeprefix("unix://")
    connection = _Connection(place, timeout_s)
    try:
        connection.request(method, f"/v1/{path}", headers=dict(headers))
        answer = connection.getresponse()
        body = answer.read()
    except TimeoutError as error:
        raise AgentUnreachableError(
            f"the agent at {place} did not answer {method} /v1/{path} within {timeout_s:g} s"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise AgentUnreachableError(_silent(place, error)) from error
    finally:
        connection.close()
    if answer.status != 200:
        raise AgentRefusedError(answer.status, f"{method} /v1/{path}: {_message(body, answer)}")
    return body


def get(host: str, path: str, query: Mapping[str, str] | None = None) -> Any:
    """``fetch``, decoded."""
    where = f"{path}?{urlencode(query)}" if query else path
    body = fetch(host, where)
    try:
        return json.loads(body)
    except ValueError as error:
        place = host.removeprefix("unix://")
        raise AgentUnreachableError(
            f"GET /v1/{where}: what listens at {place} does not answer JSON: {error}"
        ) from error


def segment(text: str) -> str:
    """One part of a path, quoted."""
    return quote(text, safe=":")


def _silent(place: str, error: Exception) -> str:
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    if isinstance(error, PermissionError):
        remedy = "run as root"
    elif isinstance(error, FileNotFoundError):
        remedy = f"is this a node, and is the agent's socket elsewhere (--host, {SOCKET_VARIABLE})?"
    else:
        remedy = "look at the log of the node's agent (container cilium-agent)"
    return f"the agent does not answer at {place}: {reason or type(error).__name__}; {remedy}"


def _message(body: bytes, answer: http.client.HTTPResponse) -> str:
    """Errors have a JSON string as their body."""
    try:
        text = json.loads(body)
    except ValueError:
        text = body.decode(errors="replace").strip()
    return str(text) or f"{answer.status} {answer.reason}"

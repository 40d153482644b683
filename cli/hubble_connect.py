"""How ``isthmus hubble`` reaches an observer or a relay: flags, environment, the channel. Adapter.

Names of flags and of environment variables (``HUBBLE_SERVER``, ``HUBBLE_TLS``, …) are those of the
``hubble`` command. Without either the node's socket is asked where there is one, a relay on
localhost otherwise.
"""

import base64
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from cli import hubble_settings, hubble_times
from hubble.rpc import Code, RpcError
from hubble.rpc_client import Channel, ClientTls, connect

if TYPE_CHECKING:
    from cli.hubble_forward import Where

F = TypeVar("F", bound=Callable[..., Any])

SOCKET: Final = Path("/var/run/cilium/hubble.sock")
RELAY: Final = "localhost:4245"


@dataclass(frozen=True, slots=True)
class Server:
    """Where to ask, and how."""

    target: str
    tls: ClientTls | None
    timeout_s: float
    request_timeout_s: float
    metadata: dict[str, str]
    forward: "Where | None" = None  # the relay through the API server
    is_named: bool = True  # somebody said where to ask


class _Duration(click.ParamType[float]):
    name = "duration"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        found_ns = hubble_times.duration_ns(value)
        if found_ns:
            return found_ns / 1e9
        raise click.BadParameter(f"{value!r} is not a duration such as 5s or 500ms", ctx, param)


_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_OPTIONS: Final[tuple[tuple[tuple[str, ...], dict[str, Any]], ...]] = (
    (
        ("--server",),
        {
            "help": f"host:port, tls://host:port or unix:///path.  [default: {RELAY}, "
            f"or {SOCKET} where it is]"
        },
    ),
    (("-P", "--port-forward"), {"is_flag": True, "help": "Ask the relay through the API server."}),
    (("--port-forward-port",), {"type": int, "default": 0, "help": "Of this machine; 0: any."}),
    (("--kubeconfig",), {"help": "For -P."}),
    (("--kube-context",), {"help": "For -P."}),
    (("--kube-namespace",), {"default": "kube-system", "help": "For -P."}),
    (("--timeout",), {"type": _Duration(), "default": "5s", "help": "To connect."}),
    (("--request-timeout",), {"type": _Duration(), "default": "12s", "help": "Of one answer."}),
    (("--tls",), {"is_flag": True, "help": "Speak TLS."}),
    (("--tls-allow-insecure",), {"is_flag": True, "help": "Believe any certificate."}),
    (("--tls-ca-cert-files",), {"help": "Authorities to believe, separated by commas."}),
    (("--tls-client-cert-file",), {"type": _FILE, "help": "Our certificate."}),
    (("--tls-client-key-file",), {"type": _FILE, "help": "Its key."}),
    (("--tls-server-name",), {"help": "Name in the server's certificate."}),
    (("--basic-auth-username",), {"help": "Only with TLS."}),
    (("--basic-auth-password",), {"help": "Only with TLS."}),
)


def options(function: F) -> F:
    """For a command: the argument ``server``, a ``Server``."""

    def wrapped(**arguments: Any) -> Any:
        names = [option[0][-1].removeprefix("--").replace("-", "_") for option in _OPTIONS]
        given = {name: arguments.pop(name) for name in names}
        return function(server=_server(given), **arguments)

    wrapped.__name__, wrapped.__doc__ = function.__name__, function.__doc__
    wrapped.__dict__.update(function.__dict__)
    decorated: F = wrapped  # type: ignore[assignment]
    for names, settings in reversed(_OPTIONS):
        variable = hubble_settings.variable(names[-1].removeprefix("--"))
        decorated = click.option(*names, envvar=variable, **settings)(decorated)
    return hubble_settings.option(decorated)


def _server(given: dict[str, Any]) -> Server:
    target = given["server"] or (f"unix://{SOCKET}" if SOCKET.exists() else RELAY)
    tls = _tls(given) if given["tls"] or target.startswith("tls://") else None
    metadata = {}
    user, password = given["basic_auth_username"], given["basic_auth_password"]
    if user or password:
        if tls is None:
            raise click.UsageError("basic auth needs --tls: a password must not go in the clear")
        token = base64.b64encode(f"{user or ''}:{password or ''}".encode()).decode()
        metadata["authorization"] = f"Basic {token}"
    forward = None
    if given["port_forward"]:
        from cli.hubble_forward import Where  # the client of Kubernetes takes long to load

        if given["server"]:
            raise click.UsageError("--server and --port-forward do not go together")
        where = (given["kube_context"] or "", given["kubeconfig"] or "", given["kube_namespace"])
        forward = Where(*where, given["port_forward_port"])
        target = f"relay in {given['kube_namespace']}"
    return Server(
        target,
        tls,
        given["timeout"],
        given["request_timeout"],
        metadata,
        forward,
        bool(given["server"]),
    )


def _tls(given: dict[str, Any]) -> ClientTls:
    certificate, key = given["tls_client_cert_file"], given["tls_client_key_file"]
    if (certificate is None) != (key is None):
        raise click.UsageError("--tls-client-cert-file and --tls-client-key-file go together")
    files = [Path(name) for name in (given["tls_ca_cert_files"] or "").split(",") if name]
    return ClientTls(
        authorities=tuple(files),
        certificate=certificate,
        key=key,
        server_name=given["tls_server_name"],
        insecure=given["tls_allow_insecure"],
    )


class HubbleError(click.ClickException):
    """A call that failed, in one line; exit status 1."""

    def __init__(self, server: Server, error: RpcError) -> None:
        name = error.code.name.replace("_", " ").lower()
        where = "" if error.code is Code.UNAVAILABLE else f" ({name}, from {server.target})"
        if error.code is Code.UNAVAILABLE and not server.is_named and server.forward is None:
            where = (
                ": ask the relay through the API server with -P, or after `isthmus hubble "
                "port-forward`, or name an observer with --server"
            )
        super().__init__(f"{error.message}{where}")


async def reach(server: Server, stack: contextlib.AsyncExitStack) -> str:
    """The target to connect to; a port that is forwarded is so while the stack lasts."""
    if server.forward is None:
        return server.target
    from cli import hubble_forward

    port = await stack.enter_async_context(hubble_forward.forwarding(server.forward))
    return f"127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def channel(server: Server) -> AsyncIterator[Channel]:
    """A channel to the server; what fails on it ends the command with one line."""
    try:
        async with contextlib.AsyncExitStack() as stack:
            target = await reach(server, stack)
            context = click.get_current_context(silent=True)
            if context is not None and hubble_settings.wants_debug(context):
                click.echo(f"asking {target}", err=True)
            opened = await connect(target, server.tls, server.timeout_s)
            stack.callback(opened.close)
            yield opened
    except RpcError as error:
        raise HubbleError(server, error) from None

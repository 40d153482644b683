"""``hubble-relay serve``: one observer for all nodes of the mesh. Wiring.

Flags are those of the well-known relay; each also as ``RELAY_…`` in the environment, and as a key
of ``config.yaml`` in ``/etc/hubble-relay``. What has no meaning here is taken and passed over.
"""

import asyncio
import contextlib
import importlib.metadata
import logging
import platform
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from hubble import relay_metrics
from hubble.config import paths
from hubble.export.settings import duration
from hubble.relay_metrics import RelayMetrics
from hubble.relay_pool import RETRY_S, Pool
from hubble.relay_server import Relay
from hubble.rpc_client import ClientTls
from hubble.rpc_server import Server
from hubble.standard_services import Health, Reflection
from hubble.tls_listener import Listener, ServerFiles
from reconcile.tasks import TaskGroup

_FILE: Final = click.Path(dir_okay=False, path_type=Path)


class _Files(click.ParamType[tuple[Path, ...]]):
    name = "files"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[Path, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return paths(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


_FILES: Final = _Files()


class _Seconds(click.ParamType[float]):
    """``30s``, ``1m30s``, or a number of seconds."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        try:
            return float(value)
        except ValueError:
            pass
        try:
            return duration(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


_SECONDS: Final = _Seconds()
_CONFIG: Final = Path("/etc/hubble-relay/config.yaml")
# Of the well-known relay: answers are merged otherwise, and nothing here speaks gops or pprof.
_WITHOUT_EFFECT: Final = (
    *("--dial-timeout", "--sort-buffer-len-max", "--sort-buffer-drain-timeout"),
    *("--gops-port", "--pprof-address", "--pprof-port"),
)
_SWITCHES_WITHOUT_EFFECT: Final = ("--gops", "--pprof")


def _take_without_effect(function: Callable[..., Any]) -> Callable[..., Any]:
    """Hidden flags that do nothing."""
    for name in _WITHOUT_EFFECT:
        function = click.option(name, hidden=True, expose_value=False)(function)
    for name in _SWITCHES_WITHOUT_EFFECT:
        function = click.option(name, is_flag=True, hidden=True, expose_value=False)(function)
    return function


def _read(ctx: click.Context, _option: click.Parameter, path: Path | None) -> None:
    """What the file says becomes the defaults."""
    if path is None and not _CONFIG.exists():
        return
    import yaml

    try:
        found = yaml.safe_load((path or _CONFIG).read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise click.UsageError(f"{path or _CONFIG}: cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise click.UsageError(f"{path or _CONFIG}: not a list of settings")
    # A chart leaves the value out where the default counts; elder names are those of flags, too.
    names = {
        option: parameter.name
        for parameter in ctx.command.params
        for option in parameter.opts
        if parameter.name
    }
    ctx.default_map = {
        name: value
        for key, value in found.items()
        if (name := names.get(f"--{key}")) is not None and value not in (None, "")
    }


def _address(text: str) -> tuple[str | None, int]:
    host, _, port = text.rpartition(":")
    if not port.isdigit():
        raise click.BadParameter(f"{text!r} is not of the form [host]:port")
    return host.strip("[]") or None, int(port)


@click.group(context_settings={"auto_envvar_prefix": "RELAY"})
def main() -> None:
    """Flows of all nodes through one address."""


@main.command(context_settings={"auto_envvar_prefix": "RELAY"})
@click.option(
    "--config",
    type=_FILE,
    is_eager=True,
    expose_value=False,
    callback=_read,
    help=f"Settings as YAML.  [default: {_CONFIG}, if it is there]",
)
@_take_without_effect
@click.option("--cluster-name", default="default", show_default=True)
@click.option("--listen-address", default=":4245", show_default=True)
@click.option("--health-listen-address", default=":4222", show_default=True, help="Without TLS.")
@click.option("--metrics-listen-address", default="", help="For Prometheus; empty: none.")
@click.option("--peer-service", default="unix:///var/run/cilium/hubble.sock", show_default=True)
@click.option("--retry-timeout", type=_SECONDS, default=RETRY_S, show_default=True)
@click.option("--disable-client-tls", is_flag=True, help="Speak to nodes without TLS.")
@click.option("--disable-server-tls", is_flag=True, help="Serve without TLS.")
@click.option("--tls-hubble-client-cert-file", "--tls-client-cert-file", type=_FILE)
@click.option("--tls-hubble-client-key-file", "--tls-client-key-file", type=_FILE)
@click.option("--tls-hubble-server-ca-files", type=_FILES, help="With commas between.")
@click.option("--tls-relay-server-cert-file", "--tls-server-cert-file", type=_FILE)
@click.option("--tls-relay-server-key-file", "--tls-server-key-file", type=_FILE)
@click.option("--tls-relay-client-ca-files", type=_FILES, default="", help="Only their clients.")
def serve(cluster_name: str, **given: Any) -> None:
    """Serve until stopped."""
    logging.basicConfig(level=logging.INFO)
    error: BaseException | None = None  # before 3.11.4 what except* raises comes out in a group
    try:
        asyncio.run(_until_signal(cluster_name, given))
    except* OSError as group:
        error = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if error is not None:
        raise click.ClickException(str(error))


async def _until_signal(cluster: str, given: dict[str, Any]) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await _serve(cluster, given)


def _client_tls(cluster: str, given: dict[str, Any]) -> tuple[ClientTls | None, ClientTls | None]:
    """To the nodes and to the peer service."""
    if given["disable_client_tls"]:
        return None, None
    names = ("tls_hubble_client_cert_file", "tls_hubble_client_key_file")
    if None in (given[names[0]], given[names[1]]) or not given["tls_hubble_server_ca_files"]:
        raise click.UsageError(
            "TLS to nodes needs --tls-hubble-client-cert-file, --tls-hubble-client-key-file and "
            "--tls-hubble-server-ca-files, or --disable-client-tls"
        )
    authorities = given["tls_hubble_server_ca_files"]
    nodes = ClientTls(authorities, given[names[0]], given[names[1]])
    server_name = f"hubble-peer.{cluster.replace('.', '-')}.hubble-grpc.cilium.io"
    service = ClientTls(authorities, given[names[0]], given[names[1]], server_name=server_name)
    is_local = given["peer_service"].startswith(("unix://", "/"))
    return nodes, None if is_local else service


def _server_files(given: dict[str, Any]) -> ServerFiles | None:
    if given["disable_server_tls"]:
        return None
    certificate, key = given["tls_relay_server_cert_file"], given["tls_relay_server_key_file"]
    if certificate is None or key is None:
        raise click.UsageError(
            "--tls-relay-server-cert-file and --tls-relay-server-key-file are needed, or "
            "--disable-server-tls"
        )
    return ServerFiles(certificate, key, given["tls_relay_client_ca_files"])


async def _serve(cluster: str, given: dict[str, Any]) -> None:
    nodes_tls, service_tls = _client_tls(cluster, given)
    files = _server_files(given)
    pool = Pool(given["peer_service"], service_tls, nodes_tls)
    version = importlib.metadata.version("isthmus")
    relay = Relay(pool, f"{cluster}/{platform.node()}", f"hubble-relay v{version}")
    health = Health(relay.is_serving).handlers()
    handlers = {**relay.handlers(), **health, **Reflection(("observer.Observer",)).handlers()}
    metrics = RelayMetrics(pool)
    async with (
        Server(handlers, metrics.calls.called) as server,
        Server(health) as plain,
        relay_metrics.serving(given["metrics_listen_address"], metrics),
    ):
        await _run(server, plain, pool, files, given)


async def _run(
    server: Server, plain: Server, pool: Pool, files: ServerFiles | None, given: dict[str, Any]
) -> None:
    async with TaskGroup() as tasks:
        listen = _address(given["listen_address"])
        tasks.create_task(Listener(server.listen_tcp, *listen, files).run())
        tasks.create_task(
            Listener(plain.listen_tcp, *_address(given["health_listen_address"]), None).run()
        )
        tasks.create_task(pool.run(given["retry_timeout"]))


if __name__ == "__main__":
    main()

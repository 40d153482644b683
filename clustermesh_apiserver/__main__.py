"""``clustermesh-apiserver``: its commands. Adapter; wiring and options only.

A command imports what it runs when it runs: four of them start in each pod, and each would pay for
all.
"""

import asyncio
import gc
import json
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from clustermesh_apiserver import config
from model.duration import parse_duration_s
from reconcile.tasks import TaskGroup
from telemetry import logs

if TYPE_CHECKING:
    from kvstore.ways import Way

# Objects and rows come by ten thousands, stay, and are in no cycle: looking at them is for nothing.
GC_THRESHOLDS = 50_000, 20, 100

# Where the manifests of a mesh member mount them.
MOUNTED_ETCD_CONFIG = "/var/lib/cilium/etcd-config/etcd-config.yaml"
CLUSTERS = "/var/lib/cilium/clustermesh"


def causes(error: BaseException) -> list[BaseException]:
    """The errors inside nested groups."""
    if isinstance(error, BaseExceptionGroup):
        return [cause for inner in error.exceptions for cause in causes(inner)]
    return [error]


async def _until_signal(work: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.get_running_loop()
    async with TaskGroup() as tasks:
        task = tasks.create_task(work)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)


class Logging(NamedTuple):
    """What every command is told about its log."""

    options: tuple[str, ...]
    debug: bool


def _run(make: Callable[[], Coroutine[Any, Any, None]], log: Logging) -> None:
    """Exit 1 with one line per error; ``make`` raises ``ValueError`` for settings."""
    failed: list[BaseException] = []
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        logs.configure(logs.parse_options(log.options), debug=log.debug)
        asyncio.run(_until_signal(make()))
    except* (OSError, ValueError) as group:
        failed = causes(group)
    _end(failed)


def _end(failed: list[BaseException]) -> None:
    for error in failed:
        click.echo(f"clustermesh-apiserver: {error}", err=True)
    sys.exit(1 if failed else 0)


Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def _together(*options: Decorator) -> Decorator:
    """Several options as one decorator, in this order."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_LOG = _together(
    click.option("--log-opt", multiple=True, help="format=text|text-ts|json|json-ts, level=…"),
    click.option("--debug", type=bool, default=False, is_flag=False, flag_value=True),
)
_MEMBER = _together(
    click.option("--cluster-name", default="default", envvar="CILIUM_CLUSTER_NAME"),
    click.option("--cluster-id", type=int, default=0, envvar="CILIUM_CLUSTER_ID"),
    click.option(
        "--max-connected-clusters", type=int, default=255, envvar="CILIUM_MAX_CONNECTED_CLUSTERS"
    ),
    click.option("--kvstore-opt", multiple=True, help="etcd.config=FILE"),
    click.option("--kvstore-lease-ttl", default=config.LEASE_TTL, show_default=True),
    click.option("--prometheus-serve-addr", default="", help="host:port of /metrics; empty: none"),
    click.option("--controller-group-metrics", multiple=True, hidden=True),
)


def _log_of(flags: dict[str, Any]) -> Logging:
    return Logging(flags["log_opt"], flags["debug"])


def _member_of(flags: dict[str, Any]) -> config.Member:
    return config.parse_member(
        flags["cluster_name"],
        flags["cluster_id"],
        flags["max_connected_clusters"],
        flags["kvstore_opt"],
        flags["kvstore_lease_ttl"],
        flags["prometheus_serve_addr"],
    )


@click.group()
def main() -> None:
    """Tells other clusters about this one."""


@main.command("etcdinit")
@click.option("--etcd-data-dir", default="/var/run/etcd", show_default=True)
@click.option("--etcd-initial-cluster-token", default="clustermesh-apiserver", show_default=True)
@click.option("--etcd-cluster-name", default="clustermesh-apiserver", show_default=True)
@click.option("--etcd-binary", default="etcd", show_default=True, help="program to start")
@click.option("--trusted-ca-file", default="", help="a bundle, of which etcd is to trust our part")
@click.option("--own-ca-dir", default="/var/lib/cilium/ca", show_default=True)
@click.option("--etcd-trust-dir", default="/var/run/etcd-trust", show_default=True)
@click.option("--cluster-name", default="default", show_default=True, envvar="CILIUM_CLUSTER_NAME")
@click.option("--timeout", default="2m", show_default=True, help="how long it may take")
@_LOG
def etcdinit_command(
    etcd_data_dir: str,
    etcd_initial_cluster_token: str,
    etcd_cluster_name: str,
    etcd_binary: str,
    trusted_ca_file: str,
    own_ca_dir: str,
    etcd_trust_dir: str,
    cluster_name: str,
    timeout: str,
    **log: Any,
) -> None:
    """Make an empty etcd with the users and roles of a mesh member."""

    from clustermesh_apiserver import etcdinit, own_trust

    def work() -> Coroutine[Any, Any, None]:
        if trusted_ca_file:
            own_trust.write(trusted_ca_file, own_ca_dir, etcd_trust_dir)
        return etcdinit.run(
            etcdinit.Settings(
                data_dir=etcd_data_dir,
                token=etcd_initial_cluster_token,
                member=etcd_cluster_name,
                binary=etcd_binary,
                cluster_name=config.parse_member_name(cluster_name),
                timeout_s=config.parse_seconds("timeout", timeout),
            )
        )

    _run(work, _log_of(log))


@main.command("clustermesh")
@_MEMBER
@click.option("--health-port", type=int, default=9880, show_default=True)
@click.option("--kubeconfig", "--k8s-kubeconfig-path", default="", help="in a cluster: none")
@click.option("--enable-external-workloads", type=bool, default=False)
@click.option(
    "--clustermesh-enable-mcs-api",
    type=bool,
    default=False,
    envvar="CILIUM_CLUSTERMESH_ENABLE_MCS_API",
    help="publish the Services that ServiceExports name",
)
@_LOG
def clustermesh_command(
    health_port: int,
    kubeconfig: str,
    enable_external_workloads: bool,
    clustermesh_enable_mcs_api: bool,
    **flags: Any,
) -> None:
    """Publish nodes, identities, addresses and shared services into etcd."""

    from clustermesh_apiserver import service

    def work() -> Coroutine[Any, Any, None]:
        if enable_external_workloads:
            raise ValueError("enable-external-workloads: this is not supported: leave it false")
        member = _member_of(flags)
        return service.run(
            config.Settings(
                cluster_name=member.name,
                cluster_id=member.number,
                max_connected_clusters=flags["max_connected_clusters"],
                etcd_config=member.etcd_config,
                lease_ttl_s=member.lease_ttl_s,
                health_port=health_port,
                metrics=member.metrics,
                kubeconfig=kubeconfig,
                exports=clustermesh_enable_mcs_api,
            )
        )

    _run(work, _log_of(flags))


@main.command("front")
@click.option("--listen", required=True, metavar="IP:PORT", help="where other clusters connect")
@click.option("--store", required=True, metavar="IP:PORT", help="etcd")
@click.option("--server-certs", default="/var/lib/etcd-secrets", show_default=True)
@click.option("--client-certs", default="/var/lib/cilium/front", show_default=True)
@click.option("--local-listen", metavar="IP:PORT", help="where our own agents connect")
@click.option("--local-certs", default="/var/lib/cilium/front-local", show_default=True)
@click.option("--local-trust", default="/var/run/etcd-trust", show_default=True)
@click.option("--local-name", default="", help="the common name of our agents' certificate")
@click.option("--state-dir", default="/var/run/front", show_default=True)
@click.option("--envoy-binary", default="envoy", show_default=True, help="program to start")
@_LOG
def front_command(
    listen: str,
    store: str,
    server_certs: str,
    client_certs: str,
    local_listen: str | None,
    local_certs: str,
    local_trust: str,
    local_name: str,
    state_dir: str,
    envoy_binary: str,
    **log: Any,
) -> None:
    """Let other clusters, and our own agents, read from etcd, and do nothing else with it."""

    from clustermesh_apiserver import front_process
    from clustermesh_apiserver.front import Door, Front

    async def start() -> None:
        doors = [Door("remote", config.parse_address(listen), client_certs, server_certs)]
        if local_listen is not None:
            if not local_name:
                raise ValueError("local-name: name the certificate of our agents: local-CLUSTER")
            place = config.parse_address(local_listen)
            doors.append(Door("local", place, local_certs, local_trust, local_name))
        front = Front(tuple(doors), config.parse_address(store), server_certs, state_dir)
        front_process.start(front, envoy_binary)

    _run(start, _log_of(log))


@main.command("kvstoremesh")
@_MEMBER
@click.option("--clustermesh-config", default=CLUSTERS, show_default=True)
@click.option("--health-port", type=int, default=9881, show_default=True)
@click.option("--api-serve-addr", default="localhost:9889", show_default=True)
@click.option("--per-cluster-ready-timeout", default="15s", show_default=True)
@click.option("--global-ready-timeout", default="10m", show_default=True)
@click.option("--clustermesh-cache-ttl", default="0s", show_default=True, help="0s: keep for ever")
@click.option("--clustermesh-compare-interval", default="10m", show_default=True, help="0s: never")
@click.option("--disable-drain-on-disconnection", type=bool, default=False, hidden=True)
@_LOG
def kvstoremesh_command(
    clustermesh_config: str,
    health_port: int,
    api_serve_addr: str,
    per_cluster_ready_timeout: str,
    global_ready_timeout: str,
    clustermesh_cache_ttl: str,
    clustermesh_compare_interval: str,
    disable_drain_on_disconnection: bool,
    **flags: Any,
) -> None:
    """Copy what other clusters say into this cluster's etcd, for its agents."""

    from clustermesh_apiserver import kvstoremesh

    def work() -> Coroutine[Any, Any, None]:
        member = _member_of(flags)
        return kvstoremesh.run(
            kvstoremesh.Settings(
                cluster_name=member.name,
                etcd_config=member.etcd_config,
                directory=clustermesh_config,
                lease_ttl_s=member.lease_ttl_s,
                health_port=health_port,
                api=config.parse_address(api_serve_addr),
                metrics=member.metrics,
                cluster_ready_s=config.parse_seconds(
                    "per-cluster-ready-timeout", per_cluster_ready_timeout
                ),
                global_ready_s=config.parse_seconds("global-ready-timeout", global_ready_timeout),
                drain=not disable_drain_on_disconnection,
                cache_ttl_s=parse_duration_s(clustermesh_cache_ttl),
                compare_s=parse_duration_s(clustermesh_compare_interval),
            )
        )

    _run(work, _log_of(flags))


@main.command("join")
@click.option("--namespace", default="kube-system", show_default=True)
@click.option("--listen", default=":32381", show_default=True, help="host:port while grants exist")
@click.option("--certificate", default="/var/lib/etcd-secrets", show_default=True, help="directory")
@click.option("--kubeconfig", "--k8s-kubeconfig-path", default="", help="in a cluster: none")
@_LOG
def join_command(
    namespace: str, listen: str, certificate: str, kubeconfig: str, **log: Any
) -> None:
    """Let other clusters redeem the tokens of `isthmus clustermesh grant`."""

    from clustermesh_apiserver import join

    def work() -> Coroutine[Any, Any, None]:
        address, port = config.parse_address(listen)
        return join.run(join.Settings(namespace, address, port, Path(certificate), kubeconfig))

    _run(work, _log_of(log))


_TROUBLESHOOT = _together(
    click.option("--etcd-config", default=MOUNTED_ETCD_CONFIG, show_default=True),
    click.option("--timeout", default="5s", show_default=True, help="for one step"),
    click.option("-o", "--output", type=click.Choice(["summary", "json"]), default="summary"),
)


def _examine(find: Callable[[], "list[Way]"], timeout: str, how: str) -> None:
    """Raised settings and missing files end with one line."""
    from clustermesh_apiserver import troubleshoot

    try:
        troubleshoot.report(find(), config.parse_seconds("timeout", timeout), how)
    except (LookupError, ValueError) as error:
        _end([error])


@main.group("clustermesh-dbg")
def clustermesh_dbg() -> None:
    """Look into the process that publishes this cluster."""


@clustermesh_dbg.command("troubleshoot")
@_TROUBLESHOOT
def clustermesh_troubleshoot_command(etcd_config: str, timeout: str, output: str) -> None:
    """The way to this cluster's own store, step by step."""
    from clustermesh_apiserver import troubleshoot

    _examine(lambda: troubleshoot.local(etcd_config), timeout, output)


@main.group("kvstoremesh-dbg")
def kvstoremesh_dbg() -> None:
    """Ask a running kvstoremesh."""


@kvstoremesh_dbg.command("status")
@click.option("--host", "-H", default="localhost:9889", show_default=True)
@click.option("-o", "--output", type=click.Choice(["summary", "json"]), default="summary")
@click.option("--verbose", is_flag=True, hidden=True)
def kvstoremesh_status_command(host: str, output: str, verbose: bool) -> None:
    """How the remote clusters are copied, and how old the copies are."""
    from clustermesh_apiserver import kvstoremesh_ask

    try:
        found = kvstoremesh_ask.ask(config.parse_address(host))
    except (OSError, ValueError) as error:
        _end([error])
        return
    if output == "json":
        click.echo(json.dumps(found))
        return
    for cluster in found:
        word = "ready" if cluster["ready"] else "not-ready"
        age = f"{cluster['age-seconds']} s" if "age-seconds" in cluster else "unknown"
        click.echo(f"{cluster['name']}: {word}, age of data: {age}\n└  {cluster['status']}")


@kvstoremesh_dbg.command("troubleshoot")
@click.argument("clusters", nargs=-1)
@click.option("--include-local", is_flag=True, help="also the store that copies are written to")
@click.option("--clustermesh-config", default=CLUSTERS, show_default=True)
@_TROUBLESHOOT
def kvstoremesh_troubleshoot_command(
    clusters: tuple[str, ...],
    include_local: bool,
    clustermesh_config: str,
    etcd_config: str,
    timeout: str,
    output: str,
) -> None:
    """The ways to other clusters' stores, step by step."""

    from clustermesh_apiserver import troubleshoot

    def find() -> "list[Way]":
        own = troubleshoot.local(etcd_config) if include_local else []
        return own + troubleshoot.remote(clustermesh_config, clusters)

    _examine(find, timeout, output)


if __name__ == "__main__":
    main()

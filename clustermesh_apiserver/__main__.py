"""``clustermesh-apiserver``: its commands. Adapter; wiring and options only."""

import asyncio
import json
import logging
import signal
import sys
from collections.abc import Coroutine
from typing import Any

import click

from clustermesh_apiserver import config, etcdinit, kvstoremesh, service

FORMAT = "%(asctime)s level=%(levelname)s subsys=%(name)s %(message)s"


def causes(error: BaseException) -> list[BaseException]:
    """The errors inside nested groups."""
    if isinstance(error, BaseExceptionGroup):
        return [cause for inner in error.exceptions for cause in causes(inner)]
    return [error]


async def _until_signal(work: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)


def _run(work: Coroutine[Any, Any, None], debug: bool) -> None:
    """Exit 1 with one line per error."""
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO, format=FORMAT, stream=sys.stderr
    )
    failed: list[BaseException] = []
    try:
        asyncio.run(_until_signal(work))
    except* (OSError, ValueError) as group:
        failed = causes(group)
    _end(failed)


def _end(failed: list[BaseException]) -> None:
    for error in failed:
        click.echo(f"clustermesh-apiserver: {error}", err=True)
    sys.exit(1 if failed else 0)


@click.group()
def main() -> None:
    """Tells other clusters about this one."""


@main.command("etcdinit")
@click.option("--etcd-data-dir", default="/var/run/etcd", show_default=True)
@click.option("--etcd-initial-cluster-token", default="clustermesh-apiserver", show_default=True)
@click.option("--etcd-cluster-name", default="clustermesh-apiserver", show_default=True)
@click.option("--etcd-binary", default="etcd", show_default=True, help="program to start")
@click.option("--cluster-name", default="default", show_default=True, envvar="CILIUM_CLUSTER_NAME")
@click.option("--timeout", default="2m", show_default=True, help="how long it may take")
@click.option("--debug", type=bool, default=False, is_flag=False, flag_value=True)
def etcdinit_command(
    etcd_data_dir: str,
    etcd_initial_cluster_token: str,
    etcd_cluster_name: str,
    etcd_binary: str,
    cluster_name: str,
    timeout: str,
    debug: bool,
) -> None:
    """Make an empty etcd with the users and roles of a mesh member."""
    try:
        settings = etcdinit.Settings(
            data_dir=etcd_data_dir,
            token=etcd_initial_cluster_token,
            member=etcd_cluster_name,
            binary=etcd_binary,
            cluster_name=config.parse_member_name(cluster_name),
            timeout_s=config.parse_seconds("timeout", timeout),
        )
    except ValueError as error:
        _end([error])
    else:
        _run(etcdinit.run(settings), debug)


@main.command("clustermesh")
@click.option("--cluster-name", default="default", envvar="CILIUM_CLUSTER_NAME")
@click.option("--cluster-id", type=int, default=0, envvar="CILIUM_CLUSTER_ID")
@click.option(
    "--max-connected-clusters", type=int, default=255, envvar="CILIUM_MAX_CONNECTED_CLUSTERS"
)
@click.option("--kvstore-opt", multiple=True, help="etcd.config=FILE")
@click.option("--kvstore-lease-ttl", default=config.LEASE_TTL, show_default=True)
@click.option("--health-port", type=int, default=9880, show_default=True)
@click.option("--prometheus-serve-addr", default="", help="host:port of /metrics; empty: none")
@click.option("--kubeconfig", "--k8s-kubeconfig-path", default="", help="in a cluster: none")
@click.option("--enable-external-workloads", type=bool, default=False)
@click.option("--clustermesh-enable-mcs-api", type=bool, default=False)
@click.option("--controller-group-metrics", multiple=True, hidden=True)
@click.option("--debug", type=bool, default=False, is_flag=False, flag_value=True)
def clustermesh_command(
    cluster_name: str,
    cluster_id: int,
    max_connected_clusters: int,
    kvstore_opt: tuple[str, ...],
    kvstore_lease_ttl: str,
    health_port: int,
    prometheus_serve_addr: str,
    kubeconfig: str,
    enable_external_workloads: bool,
    clustermesh_enable_mcs_api: bool,
    controller_group_metrics: tuple[str, ...],
    debug: bool,
) -> None:
    """Publish nodes, identities, addresses and shared services into etcd."""
    try:
        for name, wanted in (
            ("enable-external-workloads", enable_external_workloads),
            ("clustermesh-enable-mcs-api", clustermesh_enable_mcs_api),
        ):
            if wanted:
                raise ValueError(f"{name}: this is not supported: leave it false")
        name, number = config.parse_cluster(cluster_name, cluster_id, max_connected_clusters)
        settings = config.Settings(
            cluster_name=name,
            cluster_id=number,
            max_connected_clusters=max_connected_clusters,
            etcd_config=config.parse_kvstore_options(kvstore_opt).get(
                "etcd.config", config.ETCD_CONFIG
            ),
            lease_ttl_s=config.parse_lease_ttl_s(kvstore_lease_ttl),
            health_port=health_port,
            metrics=config.parse_address(prometheus_serve_addr) if prometheus_serve_addr else None,
            kubeconfig=kubeconfig,
        )
    except ValueError as error:
        _end([error])
    else:
        _run(service.run(settings), debug)


@main.command("kvstoremesh")
@click.option("--cluster-name", default="default", envvar="CILIUM_CLUSTER_NAME")
@click.option("--cluster-id", type=int, default=0, envvar="CILIUM_CLUSTER_ID")
@click.option(
    "--max-connected-clusters", type=int, default=255, envvar="CILIUM_MAX_CONNECTED_CLUSTERS"
)
@click.option("--kvstore-opt", multiple=True, help="etcd.config=FILE")
@click.option("--kvstore-lease-ttl", default=config.LEASE_TTL, show_default=True)
@click.option("--clustermesh-config", default="/var/lib/cilium/clustermesh", show_default=True)
@click.option("--health-port", type=int, default=9881, show_default=True)
@click.option("--api-serve-addr", default="localhost:9889", show_default=True)
@click.option("--prometheus-serve-addr", default="", help="host:port of /metrics; empty: none")
@click.option("--per-cluster-ready-timeout", default="15s", show_default=True)
@click.option("--global-ready-timeout", default="10m", show_default=True)
@click.option("--disable-drain-on-disconnection", type=bool, default=False, hidden=True)
@click.option("--controller-group-metrics", multiple=True, hidden=True)
@click.option("--debug", type=bool, default=False, is_flag=False, flag_value=True)
def kvstoremesh_command(
    cluster_name: str,
    cluster_id: int,
    max_connected_clusters: int,
    kvstore_opt: tuple[str, ...],
    kvstore_lease_ttl: str,
    clustermesh_config: str,
    health_port: int,
    api_serve_addr: str,
    prometheus_serve_addr: str,
    per_cluster_ready_timeout: str,
    global_ready_timeout: str,
    disable_drain_on_disconnection: bool,
    controller_group_metrics: tuple[str, ...],
    debug: bool,
) -> None:
    """Copy what other clusters say into this cluster's etcd, for its agents."""
    try:
        name, _ = config.parse_cluster(cluster_name, cluster_id, max_connected_clusters)
        settings = kvstoremesh.Settings(
            cluster_name=name,
            etcd_config=config.parse_kvstore_options(kvstore_opt).get(
                "etcd.config", config.ETCD_CONFIG
            ),
            directory=clustermesh_config,
            lease_ttl_s=config.parse_lease_ttl_s(kvstore_lease_ttl),
            health_port=health_port,
            api=config.parse_address(api_serve_addr),
            metrics=config.parse_address(prometheus_serve_addr) if prometheus_serve_addr else None,
            cluster_ready_s=config.parse_seconds(
                "per-cluster-ready-timeout", per_cluster_ready_timeout
            ),
            global_ready_s=config.parse_seconds("global-ready-timeout", global_ready_timeout),
            drain=not disable_drain_on_disconnection,
        )
    except ValueError as error:
        _end([error])
    else:
        _run(kvstoremesh.run(settings), debug)


@main.group("kvstoremesh-dbg")
def kvstoremesh_dbg() -> None:
    """Ask a running kvstoremesh."""


@kvstoremesh_dbg.command("status")
@click.option("--host", "-H", default="localhost:9889", show_default=True)
@click.option("-o", "--output", type=click.Choice(["summary", "json"]), default="summary")
@click.option("--verbose", is_flag=True, hidden=True)
def kvstoremesh_status_command(host: str, output: str, verbose: bool) -> None:
    """How the remote clusters are copied, and how old the copies are."""
    try:
        found = kvstoremesh.ask(config.parse_address(host))
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


if __name__ == "__main__":
    main()

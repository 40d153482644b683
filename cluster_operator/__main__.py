"""``isthmus-operator``: what has to be done once per cluster. Adapter; wiring only."""

import asyncio
import logging
import signal
import sys
from datetime import timedelta

import click

from certs.profiles import hubble_profiles, mesh_profiles
from cluster_operator import (
    config,
    crds,
    exports,
    health,
    metrics,
    multicluster_crds,
    peer_crd,
    peers,
    policies,
    slices,
)
from cluster_operator.certificates import HubbleRenewer, Renewer
from cluster_operator.collector import Collector, utc_now
from cluster_operator.install import install_all
from cluster_operator.slice_counts import SliceCounts
from kube.config import ConfigError, connect
from kube.port import ApiError, Client
from policy.objects.settings import Settings as PolicySettings
from reconcile.tasks import TaskGroup
from telemetry import logs
from telemetry.metrics import Family

log = logging.getLogger("operator")

RETRY_S = 2

FLAGS = (
    ("kubeconfig", "file that says how to reach the API server; in a cluster: none"),
    ("operator-api-serve-addr", "address of /healthz (127.0.0.1:9234)"),
    ("operator-prometheus-serve-addr", "address of /metrics for others (none)"),
    ("identity-gc-interval", "how often unused identities are looked for (15m)"),
    ("identity-heartbeat-timeout", "how long an unused identity is kept (30m)"),
    (
        "cilium-endpoint-gc-interval",
        "how often endpoints without pod are looked for (5m; 0: never)",
    ),
    ("nodes-gc-interval", "how often CiliumNodes without node are looked for (5m; 0: never)"),
    ("certificate-renewal-interval", "how often certificates are looked at (1h; 0: never)"),
    ("cluster-name", "name of this cluster in the mesh"),
    ("k8s-namespace", "where the Secrets of the mesh are (kube-system)"),
    ("skip-crd-creation", "true: leave the resource definitions alone"),
    ("clustermesh-enable-mcs-api", "true: ServiceExports and ServiceImports (false)"),
    ("clustermesh-mcs-api-install-crds", "false: their definitions come from elsewhere (true)"),
    (
        "clustermesh-enable-endpoint-sync",
        "true: EndpointSlices of other clusters' backends of headless global services (false)",
    ),
    ("clustermesh-concurrent-service-endpoint-syncs", "services brought up to date at a time (5)"),
    ("clustermesh-endpoint-updates-batch-period", "how long changes are gathered (500ms)"),
    ("clustermesh-endpoints-per-slice", "endpoints of such a slice, 1 to 1000 (100)"),
    ("clustermesh-config", "directory with a file per remote cluster"),
    ("cluster-id", "this cluster's number in the mesh"),
    ("max-connected-clusters", "255 or 511, the same in the whole mesh"),
    ("validate-network-policy", "false: policies' conditions are not written (true)"),
    ("enable-l7-proxy", "false: policies with rules above ports are invalid (true)"),
    ("enable-host-firewall", "true: agents enforce policies with nodeSelector (false)"),
    ("enable-node-selector-labels", "true: policies may select nodes by label as peers (false)"),
    ("debug", "true: say more"),
    ("log-opt", "format=text, text-ts, json or json-ts; level=debug, info, warn or error"),
)


async def _install(client: Client, settings: config.Settings) -> None:
    """Until it is done: an API server that is still starting is no reason to give up."""
    wanted = () if settings.skip_crd_creation else (*crds.definitions(), *peer_crd.definitions())
    if settings.clustermesh_enable_mcs_api and settings.clustermesh_mcs_api_install_crds:
        wanted = (*wanted, *multicluster_crds.definitions())
    while wanted:
        try:
            await install_all(client, settings.crd_timeout_s, wanted)
            return
        except ApiError as error:
            if error.status == 403:
                raise
            log.warning('event=retry error="%s"', error)
        except OSError as error:
            log.warning('event=retry error="%s"', error)
        await asyncio.sleep(RETRY_S)


def _policies(settings: config.Settings) -> PolicySettings:
    """As the agents of this cluster read policies."""
    return PolicySettings(
        cluster=settings.cluster_name,
        default_local_cluster=settings.policy_default_local_cluster,
        upstream_readings=settings.policy_upstream_readings,
        invalid_open=settings.policy_invalid_open,
        invalid_closes_nodes=settings.policy_invalid_closes_nodes,
        audit=settings.policy_audit_mode,
        non_default_deny=settings.enable_non_default_deny_policies,
        node_selectors=settings.enable_node_selector_labels,
        l7_proxy=settings.enable_l7_proxy,
    )


class Mesh:
    """The duties that read other clusters."""

    def __init__(self, client: Client, settings: config.Settings) -> None:
        self._cluster = settings.cluster_name
        self._peers = peers.Controller(client, settings)
        self._exports = (
            exports.Controller(client, settings) if settings.clustermesh_enable_mcs_api else None
        )
        self._slices = (
            slices.Controller(client, settings)
            if settings.clustermesh_enable_endpoint_sync
            else None
        )

    @property
    def controllers(self) -> list[peers.Controller | exports.Controller | slices.Controller]:
        """Those that are wanted."""
        return [c for c in (self._peers, self._exports, self._slices) if c is not None]

    def families(self) -> list[Family]:
        """For ``/metrics``; a duty that is not wanted has zeros."""
        now_s = asyncio.get_running_loop().time()
        readers = [controller.remotes for controller in self.controllers]
        return [
            *metrics.of_remotes(self._cluster, readers, now_s),
            *metrics.of_services_and_slices(
                self._cluster,
                self._slices.known if self._slices else {},
                self._exports.known if self._exports else {},
                self._slices.counts if self._slices else SliceCounts(),
                self._slices.standing if self._slices else 0,
            ),
        ]


async def run(settings: config.Settings) -> None:
    """Until cancelled."""
    async with await connect(settings.kubeconfig) as client:
        collector = Collector(client, timedelta(seconds=settings.identity_heartbeat_timeout_s))
        name, namespace = settings.cluster_name, settings.k8s_namespace
        renewer = Renewer(client, namespace, name, mesh_profiles(name, namespace))
        hubble = HubbleRenewer(client, namespace, hubble_profiles(name))
        ready = asyncio.Event()
        mesh = Mesh(client, settings)
        runner = await health.serve(
            settings.operator_api_serve_addr,
            settings.operator_prometheus_serve_addr,
            ready,
            lambda: [
                *mesh.families(),
                *metrics.of_garbage(collector),
                *metrics.of_certificates(
                    renewer.expires | hubble.expires, renewer.renewed + hubble.renewed
                ),
                *metrics.of_process(),
            ],
        )
        try:
            await _install(client, settings)
            ready.set()
            log.info("event=ready")
            rounds = (
                ("identities", settings.identity_gc_interval_s, collector.identities),
                ("endpoints", settings.cilium_endpoint_gc_interval_s, collector.endpoints),
                ("nodes", settings.nodes_gc_interval_s, collector.nodes),
                (
                    "certificates",
                    settings.certificate_renewal_interval_s,
                    lambda: renewer.renew(utc_now().replace(microsecond=0)),
                ),
                (
                    "hubble-certificates",
                    settings.certificate_renewal_interval_s,
                    lambda: hubble.renew(utc_now().replace(microsecond=0)),
                ),
            )
            async with TaskGroup() as tasks:
                for name, seconds, collect in rounds:
                    if seconds:
                        tasks.create_task(collector.every(name, seconds, collect))
                if settings.validate_network_policy:
                    read_as, mode = _policies(settings), settings.enable_policy
                    validator = policies.Validator(
                        client, read_as, mode, settings.enable_host_firewall
                    )
                    tasks.create_task(validator.run())
                for controller in mesh.controllers:
                    tasks.create_task(controller.run())
        finally:
            await runner.cleanup()


async def _until_signal(settings: config.Settings) -> None:
    loop = asyncio.get_running_loop()
    async with TaskGroup() as tasks:
        task = tasks.create_task(run(settings))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)


def causes(error: BaseException) -> list[BaseException]:
    """The errors inside nested groups."""
    if isinstance(error, BaseExceptionGroup):
        return [cause for inner in error.exceptions for cause in causes(inner)]
    return [error]


@click.command()
@click.option("--config-dir", default="", help="directory with one file per setting")
def main(config_dir: str, **flags: str | None) -> None:
    """Registers resource definitions, collects garbage. One instance per cluster."""
    given = {name.replace("_", "-"): value for name, value in flags.items()}
    failed: list[BaseException] = []
    try:
        settings = config.load(given, config_dir)
        logs.configure(settings.log, debug=settings.debug)
        asyncio.run(_until_signal(settings))
    except* (ConfigError, ValueError, OSError) as group:
        failed = causes(group)
    for error in failed:
        click.echo(f"isthmus-operator: {error}", err=True)
    sys.exit(1 if failed else 0)


for _name, _help in reversed(FLAGS):
    main = click.option(f"--{_name}", default=None, help=_help)(main)


if __name__ == "__main__":
    main()

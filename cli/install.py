"""``isthmus install`` and ``uninstall``: the components' objects in a cluster. Adapter."""

import asyncio
import importlib.metadata
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from cli import cluster, hubble_certs, hubble_objects, install_hubble, options
from kube import resources
from kube.port import Client
from model.cluster import MAX_CONNECTED_CLUSTERS, parse_cluster_id, parse_cluster_name

WAIT_STEP_S = 0.5
DEFAULTS = {
    "bpf-lb-algorithm": "random",
    "cni-exclusive": "true",
    "enable-hubble": "false",
    "enable-ipv4": "true",
    "enable-ipv6": "false",
    "identity-allocation-mode": "crd",
    "ipam": "kubernetes",
    "kube-proxy-replacement": "true",
    "max-connected-clusters": "255",
    "operator-prometheus-serve-addr": ":9963",
    "prometheus-serve-addr": ":9962",
    "routing-mode": "tunnel",
    "tunnel-protocol": "vxlan",
}
# Values as charts name them, and the keys of cilium-config that they are.
ALIASES = {
    **hubble_objects.ALIASES,
    "cluster.name": "cluster-name",
    "cluster.id": "cluster-id",
    "clustermesh.maxConnectedClusters": "max-connected-clusters",
    "ipam.mode": "ipam",
    "ipv4.enabled": "enable-ipv4",
    "ipv6.enabled": "enable-ipv6",
    "loadBalancer.algorithm": "bpf-lb-algorithm",
    "MTU": "mtu",
    "routingMode": "routing-mode",
    "tunnelProtocol": "tunnel-protocol",
    "autoDirectNodeRoutes": "auto-direct-node-routes",
    "directRoutingSkipUnreachable": "direct-routing-skip-unreachable",
    "ipv4NativeRoutingCIDR": "ipv4-native-routing-cidr",
    "debug.enabled": "debug",
    "bpf.monitorAggregation": "monitor-aggregation",
    "bpf.monitorInterval": "monitor-aggregation-interval",
    "bpf.monitorFlags": "monitor-aggregation-flags",
    "hostFirewall.enabled": "enable-host-firewall",
    "nodeSelectorLabels": "enable-node-selector-labels",
    "policyEnforcementMode": "enable-policy",
    "encryption.nodeEncryption": "encrypt-node",
    "encryption.strictMode.enabled": "enable-encryption-strict-mode",
    "encryption.strictMode.cidr": "encryption-strict-mode-cidr",
    "encryption.strictMode.allowRemoteNodeIdentities": (
        "encryption-strict-mode-allow-remote-node-identities"
    ),
    "encryption.ipsec.keyRotationDuration": "ipsec-key-rotation-duration",
    "encryption.ipsec.keyWatcher": "enable-ipsec-key-watcher",
    "encryption.wireguard.persistentKeepalive": "wireguard-persistent-keepalive",
    "clustermesh.enableEndpointSliceSynchronization": "clustermesh-enable-endpoint-sync",
    "clustermesh.enableMCSAPISupport": "clustermesh-enable-mcs-api",
    "clustermesh.mcsapi.enabled": "clustermesh-enable-mcs-api",
    "clustermesh.mcsapi.installCRDs": "clustermesh-mcs-api-install-crds",
    **install_hubble.ALIASES,
}


def configuration(name: str, number: int, values: Sequence[str]) -> dict[str, str]:
    """The data of ``cilium-config``. Raises ``ValueError`` naming the setting and the remedy."""
    found = dict(DEFAULTS)
    for text in values:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise ValueError(f'--set "{text}" is not key=value')
        found[ALIASES.get(key, key)] = value
    found["cluster-name"] = parse_cluster_name(name)
    if found["max-connected-clusters"] not in map(str, MAX_CONNECTED_CLUSTERS):
        raise ValueError(
            f'max-connected-clusters is "{found["max-connected-clusters"]}": use 255 or 511'
        )
    if number or name != "default":
        parse_cluster_id(number, int(found["max-connected-clusters"]))
        if name == "default":
            raise ValueError(
                f'cluster name "default" with cluster ID {number}: give the cluster its own name'
            )
    found["cluster-id"] = str(number)
    found = hubble_objects.completed(found)
    install_hubble.complete(found)
    _as_agents_read_it(found)
    return found


def _as_agents_read_it(config: dict[str, str]) -> None:
    """Refuse here what every agent would refuse when it starts. Raises ``ValueError``."""
    from agent.config import load

    load((), {"CILIUM_" + key.upper().replace("-", "_"): text for key, text in config.items()})


def objects(config: dict[str, str], namespace: str, image: str) -> list[dict[str, Any]]:
    """Everything that ``install`` applies, in order."""
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "cilium-config", "namespace": namespace},
        "data": dict(sorted(config.items())),
    }
    agent = cluster.manifest("agent", namespace=namespace, image=image)
    operator = cluster.manifest("operator", namespace=namespace, image=image)
    if config.get("enable-hubble") != "true":
        for item in agent:
            pod = item["spec"]["template"]["spec"]
            pod["containers"] = [c for c in pod["containers"] if c["name"] != "hubble"]
            mounted = {m["name"] for c in pod["containers"] for m in c["volumeMounts"]}
            pod["volumes"] = [v for v in pod["volumes"] if v["name"] in mounted]
    if config.get("enable-wireguard", "false") not in ("true", "1"):
        for item in agent:
            containers = item["spec"]["template"]["spec"]["containers"]
            containers[:] = [c for c in containers if c["name"] != "wireguard"]
    for items, key in (
        (agent, "prometheus-serve-addr"),
        (operator, "operator-prometheus-serve-addr"),
    ):
        for item in items:
            install_hubble.show_page(item["spec"]["template"], config, key)
    host, port = config.get("k8sServiceHost"), config.get("k8sServicePort", "6443")
    if host:
        for item in (*agent, *operator):
            for container in item["spec"]["template"]["spec"]["containers"]:
                container.setdefault("env", []).extend(
                    [
                        {"name": "KUBERNETES_SERVICE_HOST", "value": host},
                        {"name": "KUBERNETES_SERVICE_PORT", "value": port},
                    ]
                )
    return [
        *cluster.manifest("rbac", namespace=namespace),
        config_map,
        *operator,
        *agent,
        *install_hubble.services(config, namespace),
        *hubble_objects.objects(config, namespace, image),
    ]


async def put(api: Client, config: dict[str, str], namespace: str, image: str) -> None:
    """Bring a cluster to these settings, certificates included."""
    if hubble_objects.has_tls(config):
        await hubble_certs.issue(api, namespace, config["cluster-name"])
    await cluster.apply(api, objects(config, namespace, image))


def default_image() -> str:
    """The image of this version."""
    return f"isthmus:{importlib.metadata.version('isthmus')}"


@click.command()
@options.command
@click.option("--cluster-name", required=True, help="At most 32 characters, unique in the mesh.")
@click.option("--cluster-id", type=int, required=True, help="1 to 255, unique in the mesh.")
@click.option("--set", "values", multiple=True, metavar="KEY=VALUE", help="A key of cilium-config.")
@click.option("--image", default="", help="Default: isthmus of this version.")
@click.option("--wait/--no-wait", default=False, help="Until the agents are ready.")
@click.option("--wait-duration", default=300, show_default=True, help="Seconds.")
def install(
    context: str,
    kubeconfig: str,
    namespace: str,
    cluster_name: str,
    cluster_id: int,
    values: tuple[str, ...],
    image: str,
    wait: bool,
    wait_duration: int,
) -> None:
    """Install Isthmus into a cluster, or bring it to these settings."""
    config = configuration(cluster_name, cluster_id, values)

    async def work() -> None:
        async with cluster.client(kubeconfig, context) as api:
            await put(api, config, namespace, image or default_image())
            click.echo(f"✅ Isthmus is installed in cluster {cluster_name} (ID {cluster_id})")
            if wait:
                await ready(api, config, namespace, wait_duration)
                click.echo("✅ Agents are ready")

    cluster.run(work())


@click.command()
@options.command
def uninstall(context: str, kubeconfig: str, namespace: str) -> None:
    """Remove the components. Pinned maps and devices stay on the nodes until they reboot."""

    async def work() -> None:
        async with cluster.client(kubeconfig, context) as api:
            every = {"cluster-name": "", "enable-hubble": "true", hubble_objects.RELAY: "true"}
            every[hubble_objects.UI] = "true"
            config = {**DEFAULTS, **every, install_hubble.SERVER: ":9965"}
            made = objects(config, namespace, "isthmus")
            # What people have put into a namespace of ours would go with it.
            await cluster.remove(api, [item for item in made if item["kind"] != "Namespace"])
            click.echo("✅ Isthmus is removed")

    cluster.run(work())


async def ready(api: Client, config: Mapping[str, str], namespace: str, seconds: int) -> None:
    """Wait for agents, and for the relay if there is to be one. Raises ``TimeoutError``."""
    deadline = time.monotonic() + seconds
    while waiting := await _waiting(api, config, namespace):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{waiting} after {seconds} s")
        await asyncio.sleep(WAIT_STEP_S)


async def _waiting(api: Client, config: Mapping[str, str], namespace: str) -> str:
    """What is not ready; empty: nothing."""
    found = await api.get(resources.untyped(resources.DAEMON_SETS), "cilium", namespace)
    status = found.get("status") or {}
    wanted, good = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
    updated = status.get("updatedNumberScheduled", wanted)
    current = status.get("observedGeneration", 0) >= found["metadata"].get("generation", 0)
    if not wanted or good < wanted or updated < wanted or not current:
        return f"{min(good, updated)} of {wanted} agents are ready"
    if config.get(hubble_objects.RELAY) == "true":
        made = resources.untyped(resources.DEPLOYMENTS)
        relay = await api.get(made, "hubble-relay", namespace)
        if not (relay.get("status") or {}).get("readyReplicas"):
            return "the relay is not ready"
    return ""

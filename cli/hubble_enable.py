"""``isthmus hubble enable`` and ``disable``: observers on the nodes, and a relay. Adapter."""

from collections.abc import Mapping
from typing import Any

import click

from cli import cluster, hubble_certs, hubble_objects, install
from kube import resources
from kube.port import ApiError, Client


@click.command()
@cluster.connected
@click.option("--relay/--no-relay", default=None, help="One observer for all nodes.")
@click.option("--wait/--no-wait", default=False, help="Until agents and relay are ready.")
@click.option("--wait-duration", default=300, show_default=True, help="Seconds.")
async def enable(
    api: Client, namespace: str, relay: bool | None, wait: bool, wait_duration: int
) -> None:
    """Observe flows on every node; agents restart when that is new to them."""
    before, image = await _installed(api, namespace)
    config = {**before, "enable-hubble": "true"}
    if relay is not None:
        config[hubble_objects.RELAY] = str(relay).lower()
        if not relay:
            config[hubble_objects.UI] = "false"
    config = hubble_objects.completed(config)
    await install.put(api, config, namespace, image)
    has_relay = config.get(hubble_objects.RELAY) == "true"
    if not has_relay:
        await _remove(api, before, namespace, image, relay_only=True)
    what = "Hubble, with a relay," if has_relay else "Hubble"
    click.echo(f"✅ {what} is enabled in cluster {config['cluster-name']}")
    if wait:
        await install.ready(api, config, namespace, wait_duration)
        click.echo("✅ Everything is ready")


@click.command()
@cluster.connected
async def disable(api: Client, namespace: str) -> None:
    """Stop observing; relay, certificates and Services of Hubble go."""
    before, image = await _installed(api, namespace)
    config = {key: value for key, value in before.items() if key not in hubble_objects.DEFAULTS}
    config |= dict.fromkeys(("enable-hubble", hubble_objects.RELAY, hubble_objects.UI), "false")
    await install.put(api, config, namespace, image)
    await _remove(api, before, namespace, image, relay_only=False)
    await hubble_certs.remove(api, namespace, config["cluster-name"])
    click.echo(f"✅ Hubble is disabled in cluster {config['cluster-name']}")


async def _installed(api: Client, namespace: str) -> tuple[dict[str, str], str]:
    """The settings and the image of the agents."""
    try:
        agent: Any = await api.get(resources.untyped(resources.DAEMON_SETS), "cilium", namespace)
    except ApiError as error:
        if not error.not_found:
            raise
        agent = None
    config = await cluster.read(api, "ConfigMap", "cilium-config", namespace)
    if agent is None or config is None:
        raise click.ClickException("Isthmus is not installed here: run `isthmus install` first")
    containers = agent["spec"]["template"]["spec"]["containers"]
    image = next(one["image"] for one in containers if one["name"] == "cilium-agent")
    return dict(config.get("data") or {}), image


async def _remove(
    api: Client, before: Mapping[str, str], namespace: str, image: str, *, relay_only: bool
) -> None:
    beside = (hubble_objects.RELAY, hubble_objects.UI)
    every = {**before, "enable-hubble": "true", **dict.fromkeys(beside, "true")}
    kept = hubble_objects.objects({**every, **dict.fromkeys(beside, "false")}, namespace, image)
    names = {item["metadata"]["name"] for item in kept} if relay_only else set()
    found = hubble_objects.objects(every, namespace, image)
    await cluster.remove(api, [item for item in found if item["metadata"]["name"] not in names])

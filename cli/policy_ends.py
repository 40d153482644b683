"""The ends of a connection that is asked about. Adapter.

[CLUSTER/]NAMESPACE/POD    [CLUSTER/]node/NAME    [CLUSTER/]svc/NAMESPACE/NAME
world, host, health and other entities            an address
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from cli.policy_source import Cluster, Clusters, longest
from model.address import parse_address
from model.identity import RESERVED_NAMES, ReservedIdentity
from policy.facts import EndpointFact, Facts

FORMS = "[CLUSTER/]NAMESPACE/POD, [CLUSTER/]node/NAME, [CLUSTER/]svc/NAMESPACE/NAME, or an address"
_ENTITIES = {
    RESERVED_NAMES[number].removeprefix("reserved:"): number
    for number in ReservedIdentity
    if number not in (ReservedIdentity.UNKNOWN,)
}


@dataclass(slots=True)
class Ending:
    """One end as it was named and found. ``facts``: of the node whose endpoint it is."""

    text: str
    place: Cluster | None = None
    node: str = ""
    name: str = ""  # namespace/pod
    address: str = ""
    identity: int | None = None
    on_host: bool = False
    facts: Facts | None = None

    @property
    def endpoint(self) -> EndpointFact | None:
        """Whose policy is asked; ``None``: nobody's."""
        if self.facts is None:
            return None
        return self.facts.host() if self.on_host else self.facts.pod(self.name)


@dataclass(frozen=True, slots=True)
class ServiceEnd:
    """A service of a cluster, as it was named."""

    text: str
    place: Cluster
    namespace: str
    name: str


async def find(found: Clusters, text: str) -> Ending | ServiceEnd:
    """What a text names. Raises ``click.ClickException``."""
    parts = text.split("/")
    if len(parts) == 1:
        return _single(text)
    if not all(parts):
        raise click.ClickException(f"{text!r}: write {FORMS}")
    match parts:
        case [*cluster, "svc", namespace, name] if len(cluster) <= 1:
            return ServiceEnd(text, await _place(found, cluster), namespace, name)
        case [*cluster, "node", name] if len(cluster) <= 1:
            return await _node(await _place(found, cluster), text, name)
        case [*cluster, namespace, name] if len(cluster) <= 1:
            return await _pod(await _place(found, cluster), text, namespace, name)
    raise click.ClickException(f"{text!r}: write {FORMS}")


async def _place(found: Clusters, cluster: list[str]) -> Cluster:
    return await found.named(cluster[0]) if cluster else await found.here()


def _single(text: str) -> Ending:
    if text in _ENTITIES:
        return Ending(text, identity=int(_ENTITIES[text]))
    try:
        return Ending(text, address=str(parse_address(text)))
    except ValueError as error:
        raise click.ClickException(
            f"{text!r} is no end of a connection: write {FORMS}, or one of "
            f"{', '.join(sorted(_ENTITIES))}"
        ) from error


async def _pod(place: Cluster, text: str, namespace: str, name: str) -> Ending:
    pod = await place.pod(namespace, name)
    name = f"{namespace}/{pod['metadata']['name']}"
    node = str((pod.get("spec") or {}).get("nodeName") or "")
    address = str((pod.get("status") or {}).get("podIP") or "")
    if not node or not address:
        raise click.ClickException(f"pod {name} has no node or address yet")
    ending = Ending(text, place, node, name, address)
    ending.on_host = bool(pod["spec"].get("hostNetwork"))
    ending.facts = await place.facts(node)
    if not ending.on_host:
        at = ending.endpoint
        if at is None:
            raise click.ClickException(
                f"the agent of node {node} has no endpoint {ending.name} yet: is the pod running?"
            )
        ending.identity = at.identity
    return ending


async def _node(place: Cluster, text: str, name: str) -> Ending:
    address = await place.node_address(name)
    return Ending(text, place, name, "", address, on_host=True, facts=await place.facts(name))


async def settled(found: Clusters, end: Ending, peer: Ending) -> Ending:
    """An address that is a pod's, as that pod: its own side has something to say as well."""
    if end.facts is not None or not end.address or peer.place is None:
        return end
    row = longest(await peer.place.addresses(peer.node), end.address)
    about = (row or {}).get("metadata") or {}
    if not all(about.get(key) for key in ("cluster", "namespace", "name")):
        return end
    place = await found.named(str(about["cluster"]))
    try:
        pod = await _pod(place, end.text, str(about["namespace"]), str(about["name"]))
    except click.ClickException:
        return end  # it has gone meanwhile: what is left is the address
    return pod if pod.address == end.address or pod.on_host else end


async def backends(
    end: ServiceEnd, source: Ending, protocol: str, port: int
) -> list[tuple[str, int]]:
    """Addresses and ports behind a service's port, as the client's node chooses among them.

    Raises ``click.ClickException`` when there are none.
    """
    place = source.place or end.place
    services = await place.services(source.node)
    mine = [
        spec
        for spec in (row["spec"] for row in services)
        if (spec["flags"].get("namespace"), spec["flags"].get("name")) == (end.namespace, end.name)
    ]
    if not mine:
        raise click.ClickException(
            f"node {source.node} of cluster {place.name} knows no service "
            f"{end.namespace}/{end.name}: see `isthmus service list`"
        )
    chosen = [s for s in mine if _is_front(s["frontend-address"], protocol, port)]
    if not chosen:
        known = {f"{f['port']}/{f['protocol'].upper()}" for f in
                 (s["frontend-address"] for s in mine)}  # fmt: skip
        raise click.ClickException(
            f"service {end.namespace}/{end.name} has no port {port}/{protocol.upper()}: it has "
            f"{', '.join(sorted(known))}"
        )
    places = {(b["ip"], int(b["port"])) for s in chosen for b in s["backend-addresses"]}
    if not places:
        raise click.ClickException(f"service {end.namespace}/{end.name} has no backends")
    return sorted(places)


def _is_front(front: Mapping[str, Any], protocol: str, port: int) -> bool:
    return (front["protocol"].lower(), int(front["port"])) == (protocol.lower(), port)

"""``isthmus policy explain``: is a connection allowed, and who decides that. Adapter."""

from dataclasses import dataclass
from typing import Any

import click

from cli import cluster, options, output
from cli.policy_source import Cluster, Clusters, Where, clusters
from model.address import parse_address
from model.identity import RESERVED_NAMES, ReservedIdentity
from model.labels import Labels
from model.policy_map import Direction
from policy.explain import Side, port_text, side, unknown_side, who_text
from policy.facts import EndpointFact, Facts
from policy.known import Known, Options
from policy.oracle import Packet, Verdict
from policy.rules import Origin

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "icmpv6": 58}
WORDS = {
    Verdict.ALLOWED: "allowed",
    Verdict.AUDITED: "audited",
    Verdict.DROPPED: "dropped",
    Verdict.DENIED: "denied",
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


@click.command()
@options.command
@click.option("--from", "source", required=True, metavar="END", help="Who opens the connection.")
@click.option("--to", "destination", required=True, metavar="END", help="Who accepts it.")
@click.option("--port", type=click.IntRange(0, 65535), help="At the destination; of ICMP the type.")
@click.option(
    "--protocol", type=click.Choice(list(PROTOCOLS), case_sensitive=False), default="tcp",
    show_default=True,
)  # fmt: skip
@output.option
def explain(
    context: str,
    kubeconfig: str,
    namespace: str,
    source: str,
    destination: str,
    port: int | None,
    protocol: str,
    how: str,
) -> None:
    """Why a connection is allowed or not, at both of its sides.

    END is [CLUSTER/]NAMESPACE/POD, or an address. In place of a pod's name stands that of its
    workload, or how one of them begins. Of a service name a pod behind it, and the pod's port.
    Exit 0: allowed; 1: not; 2: it could not be told.
    """
    if port is None:
        if not protocol.startswith("icmp"):
            raise click.UsageError(f"--port is missing: it decides for {protocol}")
        port = 8 if protocol == "icmp" else 128
    where = Where(context, kubeconfig, namespace, "")

    async def work() -> int:
        async with clusters(where) as found:
            ends = await _find(found, source), await _find(found, destination)
            sides = await _judge(*ends, PROTOCOLS[protocol], port)
        body = _body(ends, sides, PROTOCOLS[protocol], port)
        click.echo(output.as_json(body) if how == "json" else "\n".join(_lines(body)))
        return 0 if body["allowed"] else 1

    try:
        cluster.run(work())
    except (click.ClickException, OSError, ValueError) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"Error: {message}", err=True)
        raise click.exceptions.Exit(2) from error


async def _find(found: Clusters, text: str) -> Ending:
    parts = text.split("/")
    if len(parts) == 1:
        try:
            return Ending(text, address=str(parse_address(text)))
        except ValueError as error:
            raise click.ClickException(
                f"{text!r} is no end of a connection: write [CLUSTER/]NAMESPACE/POD or an address"
            ) from error
    if len(parts) > 3 or not all(parts):
        raise click.ClickException(f"{text!r}: write [CLUSTER/]NAMESPACE/POD or an address")
    place = await (found.named(parts[0]) if len(parts) == 3 else found.here())
    pod = await place.pod(*parts[-2:])
    name = f"{parts[-2]}/{pod['metadata']['name']}"
    node = str((pod.get("spec") or {}).get("nodeName") or "")
    address = str((pod.get("status") or {}).get("podIP") or "")
    if not node or not address:
        raise click.ClickException(f"pod {name} has no node or address yet")
    ending = Ending(text, place, node, name, address)
    ending.on_host = bool(pod["spec"].get("hostNetwork"))
    ending.facts = await place.facts(node)
    if not ending.on_host:
        at = ending.facts.pod(ending.name)
        if at is None:
            raise click.ClickException(
                f"the agent of node {node} has no endpoint {ending.name} yet: is the pod running?"
            )
        ending.identity = at.identity
    return ending


async def _judge(source: Ending, destination: Ending, protocol: int, port: int) -> list[Side]:
    if source.facts is None and destination.facts is None:
        raise click.ClickException("one end at least must be a pod: policy is about pods")
    return [
        await _side(source, destination, Direction.EGRESS, protocol, port),
        await _side(destination, source, Direction.INGRESS, protocol, port),
    ]


async def _side(own: Ending, peer: Ending, way: Direction, protocol: int, port: int) -> Side:
    """``own``'s node judges; the other side is to it what its identity there is."""
    facts = own.facts
    at = _endpoint(own)
    if facts is None or at is None:
        packet = Packet(0, Labels(), protocol, port)
        return side(Known(), [], Options(), None, way, packet)
    if own.on_host and peer.on_host and _same_node(own, peer):
        return Side(way, Verdict.ALLOWED, reason="it does not leave the node", unasked=True)
    if own.on_host and facts.spares(way, peer.address, protocol, port):
        return Side(way, Verdict.ALLOWED, reason="a node and the API server always reach another")
    identity = await _as_seen(peer, own)
    rules = facts.rules()
    labels = facts.identities.get(identity)
    if labels is None:
        return unknown_side(rules, facts.options, at.subject, way)
    packet = Packet(identity, labels, protocol, port)
    return side(facts.known, rules, facts.options, at.subject, way, packet)


async def _as_seen(peer: Ending, own: Ending) -> int:
    assert own.place is not None
    if peer.on_host and _same_node(own, peer):
        return int(ReservedIdentity.HOST)
    if peer.identity is not None:
        return peer.identity
    default = ReservedIdentity.REMOTE_NODE if peer.on_host else ReservedIdentity.WORLD
    found = await own.place.identity_of(peer.address, own.node)
    return int(default) if found is None else found


def _same_node(one: Ending, other: Ending) -> bool:
    return (one.node, one.place) == (other.node, other.place)


def _origin(origin: Origin | None) -> dict[str, Any] | None:
    if origin is None:
        return None
    about = {"kind": origin.kind, "namespace": origin.namespace, "name": origin.name}
    return about | {"index": origin.index}


def _endpoint(ending: Ending) -> EndpointFact | None:
    if ending.facts is None:
        return None
    return ending.facts.host() if ending.on_host else ending.facts.pod(ending.name)


def _end(ending: Ending) -> dict[str, Any]:
    at = _endpoint(ending)
    return {
        "name": ending.text,
        "cluster": ending.place.name if ending.place else None,
        "node": ending.node or None,
        "address": ending.address,
        "identity": ending.identity,
        "labels": at.subject.labels.strings() if at else [],
    }


def _body(
    ends: tuple[Ending, Ending], sides: list[Side], protocol: int, port: int
) -> dict[str, Any]:
    allowed = all(found.verdict.passes for found in sides)
    told: dict[str, Any] = {
        "from": _end(ends[0]),
        "to": _end(ends[1]),
        "protocol": protocol,
        "port": port,
        "allowed": allowed,
        "verdict": "allowed" if allowed else "denied",
    }
    for name, found, end in zip(("egress", "ingress"), sides, ends, strict=True):
        at = _endpoint(end)
        error = at.closed if at else ""
        told[name] = {
            "verdict": WORDS[found.verdict] if not error else WORDS[Verdict.DENIED],
            "asked": not found.unasked,
            "rule": _origin(found.rule),
            "defaultDenyBy": [_origin(origin) for origin in found.starters],
            "reason": error or found.reason,
            "change": found.change,
        }
        if error:
            told |= {"allowed": False, "verdict": "denied"}
    return told


def _who(end: dict[str, Any]) -> str:
    if end["identity"] is None:
        return f"{end['name']} ({end['address']})"
    return f"{end['name']} (identity {end['identity']}, {end['address']})"


def _lines(body: dict[str, Any]) -> list[str]:
    what = port_text(body["protocol"], body["port"])
    lines = [f"{_who(body['from'])} -> {_who(body['to'])} {what}: {body['verdict'].upper()}"]
    for name, end in (("egress", body["from"]), ("ingress", body["to"])):
        found = body[name]
        place = f" at node {end['node']} of {end['cluster']}" if end["node"] else ""
        lines.append(f"  {name}{place}: {found['verdict']}: {found['reason']}")
        if found["change"]:
            lines.append(f"    to allow it: {found['change']}")
    return lines


def names_of(labels: Labels, number: int) -> str:
    """An identity for people: its name, or its labels."""
    if number in ReservedIdentity.__members__.values():
        return RESERVED_NAMES[ReservedIdentity(number)]
    return who_text(labels) or str(number)

"""``isthmus policy explain``: is a connection allowed, and who decides that. Adapter."""

from dataclasses import replace
from typing import Any

import click

from cli import cluster, options, output
from cli.policy_ends import Ending, ServiceEnd, backends, find, settled
from cli.policy_source import Clusters, Where, clusters
from cli.policy_text import WORDS, origin_json
from model.identity import ReservedIdentity
from model.labels import Labels
from model.policy_map import Direction
from policy.by_address import address_of
from policy.explain import Side, port_text, side, unknown_side
from policy.known import Known, Options
from policy.oracle import Packet, Verdict
from policy.trial import Readings

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "icmpv6": 58}
Judged = tuple[tuple[Ending, Ending], list[Side], int]  # ends, egress and ingress, port


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

    END is [CLUSTER/]NAMESPACE/POD, [CLUSTER/]node/NAME, an address, or an entity (world, host);
    in place of a pod's name stands that of its workload, or how one of them begins. --to may be
    [CLUSTER/]svc/NAMESPACE/NAME, with the service's port: each backend is judged at its own port.
    Exit 0: allowed; 1: not (of a service: not every backend); 2: it could not be told.
    """
    if port is None:
        if not protocol.startswith("icmp"):
            raise click.UsageError(f"--port is missing: it decides for {protocol}")
        port = 8 if protocol == "icmp" else 128
    where = Where(context, kubeconfig, namespace, "")

    async def work() -> int:
        async with clusters(where) as found:
            judged = await _judged(found, source, destination, protocol.lower(), port)
        bodies = [_body(*one, PROTOCOLS[protocol.lower()]) for one in judged]
        if how == "json":
            click.echo(output.as_json(_together(destination, port, bodies)))
        else:
            click.echo("\n".join(line for body in bodies for line in _lines(body)))
        return 0 if all(body["allowed"] for body in bodies) else 1

    try:
        cluster.run(work())
    except (click.ClickException, OSError, ValueError) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"Error: {message}", err=True)
        raise click.exceptions.Exit(2) from error


async def _judged(
    found: Clusters, source: str, destination: str, protocol: str, port: int
) -> list[Judged]:
    """One, or one for each backend of a service."""
    reader, number = Readings(), PROTOCOLS[protocol]
    first, to = await find(found, source), await find(found, destination)
    if isinstance(first, ServiceEnd):
        raise click.ClickException(f"{source} opens no connection: name a pod behind it")
    if not isinstance(to, ServiceEnd):
        ends = await settled(found, first, to), await settled(found, to, first)
        return [(ends, await _judge(*ends, reader, number, port), port)]
    if first.place is None:
        raise click.ClickException(
            "who reaches a service must be a pod or a node: name it in --from"
        )
    judged: list[Judged] = []
    for address, own in await backends(to, first, protocol, port):
        end = await settled(found, Ending(f"{to.text} ({address}:{own})", address=address), first)
        judged.append(((first, end), await _judge(first, end, reader, number, own), own))
    return judged


def _together(destination: str, port: int, bodies: list[dict[str, Any]]) -> dict[str, Any]:
    """A service is one answer, with its backends."""
    if "svc" not in destination.split("/")[:2]:
        return bodies[0]
    allowed = all(body["allowed"] for body in bodies)
    verdict = "allowed" if allowed else "denied"
    if not allowed and any(body["allowed"] for body in bodies):
        verdict = "partly"
    return {"service": destination, "port": port, "allowed": allowed, "verdict": verdict,
            "backends": bodies}  # fmt: skip


async def _judge(
    source: Ending, destination: Ending, reader: Readings, protocol: int, port: int
) -> list[Side]:
    if source.facts is None and destination.facts is None:
        raise click.ClickException(
            "one end at least must be a pod or a node: policy is about these"
        )
    return [
        await _side(source, destination, Direction.EGRESS, reader, (protocol, port)),
        await _side(destination, source, Direction.INGRESS, reader, (protocol, port)),
    ]


async def _side(
    own: Ending, peer: Ending, way: Direction, reader: Readings, what: tuple[int, int]
) -> Side:
    """``own``'s node judges; the other side is to it what its identity there is."""
    facts = own.facts
    at = own.endpoint
    if facts is None or at is None:
        found = side(Known(), [], Options(), None, way, Packet(0, Labels(), *what))
        if facts is not None and own.on_host:
            return replace(found, reason="policies of nodes are not enforced: enable-host-firewall")
        return found
    if own.on_host and peer.on_host and _same_node(own, peer):
        return Side(way, Verdict.ALLOWED, reason="it does not leave the node", unasked=True)
    if own.on_host and facts.spares(way, peer.address, *what):
        return Side(way, Verdict.ALLOWED, reason="a node and the API server always reach another")
    identity = await _as_seen(peer, own)
    rules = facts.rules(reader)
    labels = facts.identities.get(identity)
    if labels is None:
        return unknown_side(rules, facts.options, at.subject, way)
    address = address_of(facts.options, identity, peer.address)
    packet = Packet(identity, labels, *what, address)
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


def _end(ending: Ending) -> dict[str, Any]:
    at = ending.endpoint
    return {
        "name": ending.text,
        "cluster": ending.place.name if ending.place else None,
        "node": ending.node or None,
        "address": ending.address,
        "identity": ending.identity,
        "labels": at.subject.labels.strings() if at else [],
    }


def _body(
    ends: tuple[Ending, Ending], sides: list[Side], port: int, protocol: int
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
        at = end.endpoint
        error = at.closed if at else ""
        told[name] = {
            "verdict": WORDS[found.verdict] if not error else WORDS[Verdict.DENIED],
            "asked": not found.unasked,
            "rule": origin_json(found.rule),
            "defaultDenyBy": [origin_json(origin) for origin in found.starters],
            "reason": error or found.reason,
            "change": found.change,
        }
        if error:
            told |= {"allowed": False, "verdict": "denied"}
    return told


def _who(end: dict[str, Any]) -> str:
    if end["identity"] is None or not end["address"]:
        told = end["address"] if end["identity"] is None else f"identity {end['identity']}"
        return end["name"] if told == end["name"] else f"{end['name']} ({told})"
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

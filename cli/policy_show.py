"""``isthmus policy list | get | selectors | facts``: what agents were told. Adapter."""

from collections.abc import Iterable
from typing import Any

import click

from cli import cluster, options, output, rest
from cli.policy_source import Where, all_nodes, one_node
from model.policy_map import Direction
from policy.explain import PROTOCOLS
from policy.facts import Facts
from policy.objects.notes import Finding
from policy.objects.read import Reading, Source
from policy.oracle import applies
from policy.overlaps import pods_meant
from policy.rules import (
    CidrGroupPeer,
    CidrPeer,
    DirectionRule,
    Operator,
    Peer,
    PolicyRule,
    Requirement,
    Selector,
)


@click.command("list")
@options.command
@rest.option
@output.option
def list_(context: str, kubeconfig: str, namespace: str, host: str, how: str) -> None:
    """All policies: whether they are valid, why not, and how many endpoints they select."""
    where = Where(context, kubeconfig, namespace, rest.given(host))

    async def work() -> None:
        nodes = await all_nodes(where)
        found = [_about(source, reading, nodes) for source, reading in _readings(nodes)]
        click.echo(output.as_json(found) if how == "json" else output.table(_rows(found)))

    cluster.run(work())


@click.command()
@options.command
@rest.option
@click.argument("name", metavar="[NAMESPACE/]NAME")
@click.option("-o", "--output", "how", type=click.Choice(["json"]), default="json")
def get(context: str, kubeconfig: str, namespace: str, host: str, name: str, how: str) -> None:
    """Policies of that name, as JSON: as they were stored, and the rules they were read as."""
    where = Where(context, kubeconfig, namespace, rest.given(host))
    place, _, wanted = name.rpartition("/")

    async def work() -> None:
        nodes = await all_nodes(where)
        found = [
            {
                **_about(source, reading, nodes),
                "annotations": dict(source.annotations),
                "spec": source.spec,
                "specs": source.specs,
                "rules": [_rule(rule) for rule in reading.rules],
            }
            for source, reading in _readings(nodes)
            if source.name == wanted and place in ("", source.namespace)
        ]
        if not found:
            raise click.ClickException(f"there is no policy {name}: see `isthmus policy list`")
        click.echo(output.as_json(found))

    cluster.run(work())


@click.command()
@options.command
@rest.option
@output.option
def selectors(context: str, kubeconfig: str, namespace: str, host: str, how: str) -> None:
    """Selectors that a node's endpoints use: whose they are, and which identities they select."""
    where = Where(context, kubeconfig, namespace, rest.given(host))

    async def work() -> None:
        node = await one_node(where)
        found = [
            {"selector": peer_text(who), "policies": sorted(by), "users": len(by),
             "identities": sorted(members)}
            for who, members, by in _used(node)
        ]  # fmt: skip
        found.sort(key=lambda row: str(row["selector"]))
        click.echo(output.as_json(found) if how == "json" else output.table(_selector_rows(found)))

    cluster.run(work())


@click.command(hidden=True)
@rest.option
def facts(host: str) -> None:
    """All that policy follows from on this node, as the agent tells it."""
    click.echo(rest.fetch(host, "policy/facts"))


def _readings(nodes: Iterable[Facts]) -> list[tuple[Source, Reading]]:
    """Of the first node: all are told the same objects."""
    first = next(iter(nodes), None)
    found = first.readings() if first else []
    return sorted(found, key=lambda pair: (pair[0].kind, pair[0].namespace, pair[0].name))


def _about(source: Source, reading: Reading, nodes: Iterable[Facts]) -> dict[str, Any]:
    selected = sorted(
        (place.name, place.closed)
        for node in nodes
        for place in node.endpoints.values()
        if any(applies(rule, place.subject) for rule in reading.rules)
    )
    remarks = [f for n in [*nodes][:1] for f in pods_meant(n.known, reading.rules, n.pod_cidrs)]
    return {
        "kind": source.kind.value,
        "namespace": source.namespace,
        "name": source.name,
        "valid": reading.valid,
        "audit": any(rule.audit for rule in reading.rules),
        "endpoints": [name for name, _ in selected],
        "closed": [{"endpoint": name, "reason": why} for name, why in selected if why],
        "errors": _findings(reading.errors),
        "warnings": _findings((*reading.warnings, *remarks)),
        "passesBy": _findings(remarks),
        "notEnforced": _findings(reading.unenforced),
    }


def _findings(findings: Iterable[Finding]) -> list[dict[str, str]]:
    return [{"path": finding.path, "reason": finding.reason} for finding in findings]


def _rows(found: list[dict[str, Any]]) -> list[list[str]]:
    rows = [["KIND", "NAMESPACE", "NAME", "VALID", "MODE", "ENDPOINTS", "REMARKS"]]
    for about in found:
        said = [f"{f['path']}: {f['reason']}" for f in about["errors"]]
        said += [f"not enforced: {f['path']}: {f['reason']}" for f in about["notEnforced"]]
        said += [f"{c['endpoint']} is closed: {c['reason']}" for c in about["closed"]]
        said += [f"pods are passed by: {f['reason']}" for f in about["passesBy"]]
        shut = not about["valid"]
        mode = "audit" if about["audit"] else "closed" if shut else "enforce"
        first = [
            *(about["kind"], about["namespace"] or "-", about["name"], str(about["valid"])),
            *(mode, str(len(about["endpoints"])), said[0] if said else ""),
        ]
        rows += output.continued(first, 6, said[1:])
    return rows


def _used(node: Facts) -> Iterable[tuple[Selector | CidrPeer, set[int], list[str]]]:
    table = node.table()
    users: dict[Selector | CidrPeer, list[str]] = {}
    for rule in table.rules():
        if any(applies(rule, place.subject) for place in node.endpoints.values()):
            for peer in (p for part in rule.rules for p in part.peers or ()):
                for who in node.known.expand(peer):
                    users.setdefault(who, []).append(str(rule.origin))
    for who, members in table.selectors():
        yield who, members, users.get(who, [])


def _selector_rows(found: list[dict[str, Any]]) -> list[list[str]]:
    rows = [["SELECTOR", "POLICIES", "USERS", "IDENTITIES"]]
    for row in found:
        numbers = [str(number) for number in row["identities"]]
        policies = ", ".join(sorted(set(row["policies"])))
        first = [row["selector"], policies, str(row["users"]), numbers[0] if numbers else ""]
        rows += output.continued(first, 3, numbers[1:])
    return rows


def _term(r: Requirement) -> str:
    key = f"{r.source}:{r.key}"
    match r.operator:
        case Operator.EXISTS:
            return key
        case Operator.DOES_NOT_EXIST:
            return f"!{key}"
        case Operator.IN if len(r.values) == 1:
            return f"{key}={r.values[0]}"
    return f"{key} {'in' if r.operator is Operator.IN else 'not in'} ({', '.join(r.values)})"


def peer_text(peer: Peer) -> str:
    """One peer of a rule, in a line."""
    match peer:
        case Selector():
            return ", ".join(map(_term, peer.requirements)) or "everything"
        case CidrPeer():
            holes = ", ".join(map(str, peer.excepts))
            return f"{peer.prefix} except {holes}" if holes else str(peer.prefix)
        case CidrGroupPeer():
            return f"CIDR group {peer.name or peer_text(peer.selector or Selector())}"
    named = peer.name or peer_text(peer.selector or Selector())
    return f"service {peer.namespace or '*'}/{named}"


def _part(part: DirectionRule) -> dict[str, Any]:
    ports = None
    if part.ports is not None:
        ports = [
            {
                "protocol": PROTOCOLS.get(item.protocol, str(item.protocol)),
                **({"name": item.name} if item.name else {"first": item.first, "last": item.last}),
            }
            for item in part.ports
        ]
    return {
        "direction": part.direction.name.lower(),
        "deny": part.deny,
        "peers": None if part.peers is None else [peer_text(peer) for peer in part.peers],
        "ports": ports,
        "notEnforced": part.unenforced,
    }


def _rule(rule: PolicyRule) -> dict[str, Any]:
    return {
        "index": rule.origin.index,
        "subject": peer_text(rule.subject),
        "onNodes": rule.on_nodes,
        "defaultDeny": [way.name.lower() for way in Direction if way in rule.default_deny],
        "closed": rule.closed,
        "parts": [_part(part) for part in rule.rules],
    }

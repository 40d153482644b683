"""``isthmus policy whatif``: which verdicts would change, on what is running now. Adapter."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click

from cli import cluster, options, output, policy_flows, rest
from cli.policy_explain import WORDS, names_of
from cli.policy_files import GROUP_KIND, VERSIONS, documents, judge, source_of
from cli.policy_source import Where, all_nodes
from policy.explain import PROTOCOLS, port_text
from policy.facts import EndpointFact, Facts
from policy.known import CidrGroup
from policy.objects import cidr_group
from policy.objects.read import Source
from policy.oracle import applies
from policy.selectors import cidr_labels, prefix_of
from policy.table import PolicyTable
from policy.wanted import LAST
from policy.whatif import Difference, compare, missing_prefixes, points

Changes = list[tuple[Facts, Difference]]
MAX_PEERS = 3  # named in a line of text


@click.command()
@options.command
@rest.option
@click.option(
    "-f", "--filename", "files", multiple=True, required=True, metavar="FILE",
    help="File or directory; - for standard input. Repeatable.",
)  # fmt: skip
@click.option("--delete", is_flag=True, help="As if these objects were deleted.")
@click.option(
    "--flows", "flows_file", metavar="FILE",
    help="Judge recorded flows (JSON lines of Hubble; - is standard input) instead of all pairs.",
)  # fmt: skip
@click.option("--exit-code", is_flag=True, help="Exit 1 when a verdict changes.")
@output.option
def whatif(
    context: str,
    kubeconfig: str,
    namespace: str,
    host: str,
    files: tuple[str, ...],
    delete: bool,
    flows_file: str | None,
    exit_code: bool,
    how: str,
) -> None:
    """Verdicts that would change if the policies in files were applied.

    Asked are all endpoints of the cluster, against all identities that their nodes know, at the
    ports that rules name, and one port of TCP, UDP and ICMP that none names. On a node,
    with the agent's socket, its endpoints only. Nothing is changed.
    """
    found = [document for _, document in documents(files)]
    wanted = [d for d in found if isinstance(d, dict) and d.get("kind") in VERSIONS]
    if not wanted:
        raise click.ClickException(f"there is no policy in {', '.join(files)}")
    where = Where(context, kubeconfig, namespace, rest.given(host))
    flows = policy_flows.read(flows_file) if flows_file is not None else None

    async def work() -> int:
        nodes = await all_nodes(where)
        if flows is not None:
            tables = [_tables(node, wanted, delete) for node in nodes]
            judged = policy_flows.judge(tables, flows)
            if how == "json":
                click.echo(output.as_json([policy_flows.as_json(*one) for one in judged]))
            else:
                click.echo("\n".join(policy_flows.lines(judged, flows)))
            return 1 if judged and exit_code else 0
        changes = [found for node in nodes for found in _changes(node, wanted, delete)]
        if how == "json":
            click.echo(output.as_json([_as_json(*change) for change in changes]))
        else:
            click.echo("\n".join(_lines(nodes, changes)))
        return 1 if changes and exit_code else 0

    cluster.run(work())


def _tables(
    node: Facts, wanted: Sequence[Any], delete: bool
) -> tuple[Facts, PolicyTable, PolicyTable]:
    """As the node is and as it would be, with numbers for prefixes that only new rules name."""
    after = _with(node, wanted, delete)
    node, after = _numbered(node, after)
    return node, node.table(), after.table()


def _changes(node: Facts, wanted: Sequence[Any], delete: bool) -> list[tuple[Facts, Difference]]:
    node, old, new = _tables(node, wanted, delete)
    changed = set(old.rules()) ^ set(new.rules())
    every = set(old.rules()) | set(new.rules())
    found: list[Difference] = []
    for place in node.endpoints.values():
        if any(applies(rule, place.subject) for rule in changed):
            mine = [rule for rule in every if applies(rule, place.subject)]
            found += compare(old, new, place.name, points(mine, _names(node, place)))
    return [(node, change) for change in found]


def _names(node: Facts, place: EndpointFact) -> dict[tuple[str, int], set[int]]:
    """The numbers that names of ports may mean at an endpoint."""
    named = {key: set(numbers) for key, numbers in node.known.pod_ports.items()}
    for name, protocol, port in place.subject.ports:
        named.setdefault((name.lower(), protocol), set()).add(port)
    return named


def _with(node: Facts, wanted: Sequence[Any], delete: bool) -> Facts:
    sources = {(s.kind, s.namespace, s.name): s for s in node.sources}
    groups = dict(node.known.groups)
    for document in wanted:
        _refuse(document, node)
        if document["kind"] == GROUP_KIND:
            name = document["metadata"]["name"]
            groups.pop(name, None)
            if not delete:
                labels = document["metadata"].get("labels") or {}
                read = cidr_group.read(name, labels, document.get("spec"))
                groups[name] = CidrGroup(read.prefixes, read.labels)
            continue
        source: Source = source_of(document)
        key = (source.kind, source.namespace, source.name)
        sources.pop(key, None)
        if not delete:
            sources[key] = source
    known = replace(node.known, groups=groups)
    return replace(node, sources=tuple(sources.values()), known=known)


def _refuse(document: Any, node: Facts) -> None:
    judged = judge("", document, node.settings)
    assert judged is not None
    if not judged.valid:
        first = (*judged.errors, *judged.unknown)[0]
        raise click.ClickException(
            f"{judged.kind} {judged.name} would be refused: {first}: see `isthmus policy validate`"
        )


def _numbered(node: Facts, after: Facts) -> tuple[Facts, Facts]:
    """Prefixes that only the new rules name have no identity yet."""
    tables: list[PolicyTable] = [node.table(), after.table()]
    known = [p for labels in node.identities.values() if (p := prefix_of(labels)) is not None]
    identities = dict(node.identities)
    for offset, prefix in enumerate(missing_prefixes(tables, known)):
        identities[LAST - offset] = cidr_labels(prefix)
    return replace(node, identities=identities), replace(after, identities=identities)


def _as_json(node: Facts, change: Difference) -> dict[str, Any]:
    def origin(which: Any) -> dict[str, Any] | None:
        if which is None:
            return None
        return {"kind": which.kind, "namespace": which.namespace, "name": which.name,
                "index": which.index}  # fmt: skip

    at = node.pod(change.endpoint)
    return {
        "cluster": node.settings.cluster,
        "node": node.node,
        "endpoint": change.endpoint,
        "identity": at.identity if at else None,
        "direction": change.direction.name.lower(),
        "peers": [{"identity": n, "labels": node.identities[n].strings()} for n in change.peers],
        "protocol": change.protocol,
        "port": change.port,
        "otherPorts": change.others,
        "before": WORDS[change.before],
        "after": WORDS[change.after],
        "ruleBefore": origin(change.rule_before),
        "ruleAfter": origin(change.rule_after),
    }


def _lines(nodes: Sequence[Facts], changes: Changes) -> list[str]:
    endpoints = sum(len(node.endpoints) for node in nodes)
    if not changes:
        return [f"no verdict changes ({endpoints} endpoints on {len(nodes)} nodes)"]
    told: dict[str, list[str]] = {}
    for node, change in changes:
        told.setdefault(_line(node, change), []).append(change.endpoint)
    lines = [f"{', '.join(sorted(names))}: {line}" for line, names in told.items()]
    return [*lines, f"{len(changes)} changes ({endpoints} endpoints on {len(nodes)} nodes)"]


def _line(node: Facts, change: Difference) -> str:
    who = [names_of(node.identities[n], n) for n in change.peers[:MAX_PEERS]]
    more = len(change.peers) - len(who)
    peers = "; ".join(who) + (f"; and {more} more" if more > 0 else "")
    side = "from" if change.direction.name == "INGRESS" else "to"
    return (
        f"{change.direction.name.lower()} {_port(change)} {side} {peers}: "
        f"{_verdict(change.before, change.rule_before)} -> "
        f"{_verdict(change.after, change.rule_after)}"
    )


def _port(change: Difference) -> str:
    if change.others and change.protocol in (6, 17):
        return f"other ports of {PROTOCOLS[change.protocol]}"
    return port_text(change.protocol, change.port)


def _verdict(verdict: Any, rule: Any) -> str:
    return WORDS[verdict] + (f" ({rule})" if rule else "")

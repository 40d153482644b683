"""``isthmus policy whatif``: which verdicts would change, on what is running now. Adapter."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from cli import cluster, options, output, policy_flows, rest
from cli.policy_files import GROUP_KIND, VERSIONS, documents, judge, source_of
from cli.policy_source import Where, all_nodes
from cli.policy_text import names_of, turn_json, turn_text
from model.labels import Labels
from policy.explain import PROTOCOLS, port_text
from policy.facts import Facts
from policy.known import CidrGroup
from policy.objects import cidr_group
from policy.objects.read import Source
from policy.trial import Change, ObjectKey, Readings, Trial, key_of, try_out
from policy.whatif import Difference, compare

Changes = list[tuple[Facts, Trial, Difference]]
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

    async def work() -> int:
        nodes = await all_nodes(where)
        reader, flows = Readings(), None
        if flows_file is not None:
            by_address = any(node.options.cidr_modes for node in nodes)
            flows = policy_flows.read(flows_file, by_address)
        trials = [(node, try_out(node, _change(node, wanted, delete), reader)) for node in nodes]
        if flows is not None:
            return 1 if _tell_flows(trials, flows, how) and exit_code else 0
        changes = [(node, trial, d) for node, trial in trials for d in _differences(trial)]
        if how == "json":
            click.echo(output.as_json([_as_json(*change) for change in changes]))
        else:
            click.echo("\n".join(_lines(nodes, changes)))
        return 1 if changes and exit_code else 0

    cluster.run(work())


def _tell_flows(trials: Sequence[tuple[Facts, Trial]], flows: Any, how: str) -> int:
    judged = policy_flows.judge(trials, flows)
    if how == "json":
        click.echo(output.as_json([policy_flows.as_json(*one) for one in judged]))
    else:
        click.echo("\n".join(policy_flows.lines(judged, flows)))
    return len(judged)


def _differences(trial: Trial) -> list[Difference]:
    return [
        found
        for name, ports in trial.asked.items()
        for found in compare(trial.before, trial.after, trial.identities, name, ports)
    ]


def _change(node: Facts, wanted: Sequence[Any], delete: bool) -> Change:
    puts: dict[ObjectKey, Source] = {}
    groups: dict[str, CidrGroup | None] = {}
    for document in wanted:
        _refuse(document, node)
        if document["kind"] == GROUP_KIND:
            name = document["metadata"]["name"]
            labels = document["metadata"].get("labels") or {}
            read = cidr_group.read(name, labels, document.get("spec"))
            groups[name] = None if delete else CidrGroup(read.prefixes, read.labels)
            continue
        source: Source = source_of(document)
        puts[key_of(source)] = source
    if delete:
        return Change(drops=tuple(puts), groups=groups)
    return Change(tuple(puts.values()), groups=groups)


def _refuse(document: Any, node: Facts) -> None:
    judged = judge("", document, node.settings)
    assert judged is not None
    if not judged.valid:
        first = (*judged.errors, *judged.unknown)[0]
        raise click.ClickException(
            f"{judged.kind} {judged.name} would be refused: {first}: see `isthmus policy validate`"
        )


def _as_json(node: Facts, trial: Trial, change: Difference) -> dict[str, Any]:
    at = node.pod(change.endpoint)
    return {
        "cluster": node.settings.cluster,
        "node": node.node,
        "endpoint": change.endpoint,
        "identity": at.identity if at else None,
        "direction": change.direction.name.lower(),
        "peers": [{"identity": n, "labels": trial.identities[n].strings()} for n in change.peers],
        "protocol": change.protocol,
        "port": change.port,
        "otherPorts": change.others,
        **turn_json(change.before, change.after, change.rule_before, change.rule_after),
    }


def _lines(nodes: Sequence[Facts], changes: Changes) -> list[str]:
    endpoints = sum(len(node.endpoints) for node in nodes)
    if not changes:
        return [f"no verdict changes ({endpoints} endpoints on {len(nodes)} nodes)"]
    told: dict[str, list[str]] = {}
    for _, trial, change in changes:
        told.setdefault(_line(trial.identities, change), []).append(change.endpoint)
    lines = [f"{', '.join(sorted(names))}: {line}" for line, names in told.items()]
    return [*lines, f"{len(changes)} changes ({endpoints} endpoints on {len(nodes)} nodes)"]


def _line(identities: Mapping[int, Labels], change: Difference) -> str:
    who = [names_of(identities[n], n) for n in change.peers[:MAX_PEERS]]
    more = len(change.peers) - len(who)
    peers = "; ".join(who) + (f"; and {more} more" if more > 0 else "")
    side = "from" if change.direction.name == "INGRESS" else "to"
    turn = turn_text(change.before, change.after, change.rule_before, change.rule_after)
    return f"{change.direction.name.lower()} {_port(change)} {side} {peers}: {turn}"


def _port(change: Difference) -> str:
    if change.others and change.protocol in (6, 17):
        return f"other ports of {PROTOCOLS[change.protocol]}"
    return port_text(change.protocol, change.port)

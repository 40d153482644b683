"""``isthmus policy whatif``: which verdicts would change, on what is running now. Adapter."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click

from cli import cluster, options, output, rest
from cli.policy_explain import WORDS, names_of
from cli.policy_files import GROUP_KIND, VERSIONS, documents, judge, source_of
from cli.policy_source import Where, all_worlds
from policy.explain import PROTOCOLS, port_text
from policy.known import CidrGroup
from policy.objects import cidr_group
from policy.objects.read import Source
from policy.oracle import applies
from policy.selectors import cidr_labels, prefix_of
from policy.table import PolicyTable
from policy.wanted import LAST
from policy.whatif import Difference, compare, missing_prefixes, points
from policy.world import Place, World

Changes = list[tuple[World, Difference]]
MAX_PEERS = 3  # named in a line of text


@click.command()
@options.command
@rest.option
@click.option(
    "-f", "--filename", "files", multiple=True, required=True, metavar="FILE",
    help="File or directory; - for standard input. Repeatable.",
)  # fmt: skip
@click.option("--delete", is_flag=True, help="As if these objects were deleted.")
@click.option("--exit-code", is_flag=True, help="Exit 1 when a verdict changes.")
@output.option
def whatif(
    context: str,
    kubeconfig: str,
    namespace: str,
    host: str,
    files: tuple[str, ...],
    delete: bool,
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
        worlds = await all_worlds(where)
        changes = [
            (world, change) for world in worlds for change in _changes(world, wanted, delete)
        ]
        if how == "json":
            click.echo(output.as_json([_as_json(*change) for change in changes]))
        else:
            click.echo("\n".join(_lines(worlds, changes)))
        return 1 if changes and exit_code else 0

    cluster.run(work())


def _changes(world: World, wanted: Sequence[Any], delete: bool) -> list[Difference]:
    after = _with(world, wanted, delete)
    _number(world, after)
    old, new = world.table(), after.table()
    changed = set(old.rules()) ^ set(new.rules())
    every = set(old.rules()) | set(new.rules())
    found: list[Difference] = []
    for name, place in sorted(world.places.items()):
        if any(applies(rule, place.subject) for rule in changed):
            mine = [rule for rule in every if applies(rule, place.subject)]
            found += compare(old, new, name, points(mine, _names(world, place)))
    return found


def _names(world: World, place: Place) -> dict[tuple[str, int], set[int]]:
    """The numbers that names of ports may mean at an endpoint."""
    named = {key: set(numbers) for key, numbers in world.known.pod_ports.items()}
    for name, protocol, port in place.subject.ports:
        named.setdefault((name.lower(), protocol), set()).add(port)
    return named


def _with(world: World, wanted: Sequence[Any], delete: bool) -> World:
    sources = {(s.kind, s.namespace, s.name): s for s in world.sources}
    groups = dict(world.known.groups)
    for document in wanted:
        _refuse(document, world)
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
    known = replace(world.known, groups=groups)
    return replace(world, sources=list(sources.values()), known=known)


def _refuse(document: Any, world: World) -> None:
    judged = judge("", document, world.settings)
    assert judged is not None
    if not judged.valid:
        first = (*judged.errors, *judged.unknown)[0]
        raise click.ClickException(
            f"{judged.kind} {judged.name} would be refused: {first}: see `isthmus policy validate`"
        )


def _number(world: World, after: World) -> None:
    """Prefixes that only the new rules name have no identity yet."""
    tables: list[PolicyTable] = [world.table(), after.table()]
    known = [p for labels in world.identities.values() if (p := prefix_of(labels)) is not None]
    for offset, prefix in enumerate(missing_prefixes(tables, known)):
        world.identities[LAST - offset] = after.identities[LAST - offset] = cidr_labels(prefix)


def _as_json(world: World, change: Difference) -> dict[str, Any]:
    def origin(which: Any) -> dict[str, Any] | None:
        if which is None:
            return None
        return {"kind": which.kind, "namespace": which.namespace, "name": which.name,
                "index": which.index}  # fmt: skip

    return {
        "cluster": world.cluster,
        "node": world.node,
        "endpoint": change.endpoint,
        "identity": world.places[change.endpoint].identity,
        "direction": change.direction.name.lower(),
        "peers": [{"identity": n, "labels": world.identities[n].strings()} for n in change.peers],
        "protocol": change.protocol,
        "port": change.port,
        "otherPorts": change.others,
        "before": WORDS[change.before],
        "after": WORDS[change.after],
        "ruleBefore": origin(change.rule_before),
        "ruleAfter": origin(change.rule_after),
    }


def _lines(worlds: Sequence[World], changes: Changes) -> list[str]:
    endpoints = sum(len(world.places) for world in worlds)
    if not changes:
        return [f"no verdict changes ({endpoints} endpoints on {len(worlds)} nodes)"]
    lines = []
    for world, change in changes:
        who = [names_of(world.identities[n], n) for n in change.peers[:MAX_PEERS]]
        more = len(change.peers) - len(who)
        peers = "; ".join(who) + (f"; and {more} more" if more > 0 else "")
        side = "from" if change.direction.name == "INGRESS" else "to"
        lines.append(
            f"{change.endpoint}: {change.direction.name.lower()} {_port(change)} {side} {peers}: "
            f"{_verdict(change.before, change.rule_before)} -> "
            f"{_verdict(change.after, change.rule_after)}"
        )
    return [*lines, f"{len(changes)} changes ({endpoints} endpoints on {len(worlds)} nodes)"]


def _port(change: Difference) -> str:
    if change.others and change.protocol in (6, 17):
        return f"other ports of {PROTOCOLS[change.protocol]}"
    return port_text(change.protocol, change.port)


def _verdict(verdict: Any, rule: Any) -> str:
    return WORDS[verdict] + (f" ({rule})" if rule else "")

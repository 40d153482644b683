"""``isthmus policy whatif --flows``: recorded flows judged again, by the policies as they would be.

Takes lines of JSON as `isthmus hubble record` and `hubble observe -o jsonpb` write them. Adapter.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from cli.policy_text import names_of, turn_json, turn_text
from model.policy_map import Direction
from policy.by_address import ByAddress
from policy.explain import port_text
from policy.facts import Facts
from policy.trial import Trial
from policy.whatif import Recorded, Replayed, replay

_PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132, "ICMPv4": 1, "ICMPv6": 58}
Judged = tuple[Facts, Replayed]


def read(file: str, by_address: bool = False) -> Counter[Recorded]:
    """How often each was seen, replies and what has no protocol left out.

    ``by_address``: what is alike but for its addresses is counted apart. Raises
    ``click.ClickException`` naming the line.
    """
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file} cannot be read: {error}") from error
    found: Counter[Recorded] = Counter()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            said = msgspec.json.decode(line)
            flow = said.get("flow", said if "source" in said else None)
            one = recorded(flow, by_address) if flow is not None else None
        except (AttributeError, TypeError, ValueError) as error:
            raise click.ClickException(
                f"{file}, line {number} is no flow: {error}: use what `hubble observe -o jsonpb` "
                "or `isthmus hubble record` writes"
            ) from error
        if one is not None:
            found[one] += 1
    return found


def recorded(flow: Mapping[str, Any], by_address: bool = False) -> Recorded | None:
    """What policy asks about; ``None``: a reply, a translation, or of no protocol it knows."""
    layer = flow.get("l4") or {}
    name = next((name for name in _PROTOCOLS if name in layer), None)
    if name is None or flow.get("is_reply") or flow.get("Type") == "SOCK":
        return None
    said = layer[name]
    port = said.get("type" if name.startswith("ICMP") else "destination_port", 0)
    source, destination = flow.get("source") or {}, flow.get("destination") or {}
    ip = flow.get("IP") or {}
    return Recorded(
        _pod(source),
        _pod(destination),
        int(source.get("identity", 0)),
        int(destination.get("identity", 0)),
        _PROTOCOLS[name],
        int(port),
        *((ip.get("source", ""), ip.get("destination", "")) if by_address else ()),
    )


def _pod(end: Mapping[str, Any]) -> str:
    return f"{end.get('namespace', '')}/{end['pod_name']}" if end.get("pod_name") else ""


def judge(trials: Iterable[tuple[Facts, Trial]], flows: Counter[Recorded]) -> list[Judged]:
    """At every node, for its own endpoints."""
    return [
        (node, found)
        for node, trial in trials
        for found in replay(
            trial.before,
            trial.after,
            {e.name: e.identity for e in node.endpoints.values()},
            flows,
            ByAddress(node.options, trial.identities),
        )
    ]


def as_json(node: Facts, found: Replayed) -> dict[str, Any]:
    """One flow at one of its sides."""
    return {
        "cluster": node.settings.cluster,
        "node": node.node,
        "endpoint": found.endpoint,
        "direction": found.direction.name.lower(),
        "peer": {"pod": found.peer_name or None, "identity": found.peer},
        "protocol": found.protocol,
        "port": found.port,
        "flows": found.seen,
        **turn_json(found.before, found.after, found.rule_before, found.rule_after),
    }


def lines(judged: list[Judged], flows: Counter[Recorded]) -> list[str]:
    """For people."""
    told = []
    for node, found in judged:
        labels = node.identities.get(found.peer)
        who = found.peer_name or (names_of(labels, found.peer) if labels else str(found.peer))
        side = "from" if found.direction is Direction.INGRESS else "to"
        turn = turn_text(found.before, found.after, found.rule_before, found.rule_after)
        told.append(
            f"{found.endpoint}: {found.direction.name.lower()} "
            f"{port_text(found.protocol, found.port)} {side} {who}, {found.seen} flows: {turn}"
        )
    total = sum(flows.values())
    changed = sum(found.seen for _, found in judged)
    return [*told, f"{changed} verdicts of {total} recorded flows change"]

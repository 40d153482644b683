"""A map of services as JSON and as a graph for Graphviz. Pure."""

import html
import json
import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from cli.hubble_text import safe
from hubble.service_map import Card, Link, Map

_FONT: Final = "DejaVu Sans, Helvetica, Arial, sans-serif"
_INK, _MUTED, _LINE = "#1f2933", "#616e7c", "#9aa5b1"
_CLUSTERS: Final = ("#f0f6ff", "#fff8ec", "#f1fbf4", "#fbf1fa", "#f2f4f7")
_CARDS: Final = {"pod": "#ffffff", "world": "#e4e7eb", "unknown": "#fdf2f2"}
_OTHER_CARD: Final = "#eef2f6"
# By what is worst on a link: colour, style.
_GOOD, _BAD, _AUDIT, _PART = "#2f855a", "#c53030", "#b7791f", "#c05621"
_LINES_MAX: Final = 4  # of ports on one arrow


def document(found: Map) -> str:
    """Nodes and links; a link names its ends in both ways that tools know."""
    made = {
        "nodes": [_node(card) for card in found.cards],
        "links": [_link(link) for link in found.links],
        "leftOut": found.left_out,
    }
    return json.dumps(made, indent=2, ensure_ascii=False)


def _node(card: Card) -> dict[str, Any]:
    return {
        "id": card.id,
        "name": card.name,
        "kind": card.kind,
        "group": "/".join(part for part in (card.cluster, card.namespace) if part) or card.kind,
        "cluster": card.cluster,
        "namespace": card.namespace,
        "identities": sorted(card.identities),
        "workloads": [{"kind": kind, "name": name} for kind, name in sorted(card.workloads)],
        "services": sorted(card.services),
        "pods": sorted(card.pods),
        "labels": sorted(card.labels),
        "dnsNames": sorted(card.dns_names),
    }


def _link(link: Link) -> dict[str, Any]:
    counts = link.counts
    made: dict[str, Any] = {
        "id": link.id,
        "source": link.source,
        "target": link.destination,
        "value": counts.flows,
        "sourceId": link.source,
        "destinationId": link.destination,
        "destinationPort": link.port,
        "ipProtocol": link.protocol,
        "flowAmount": counts.flows,
        "verdicts": dict(sorted(counts.verdicts.items())),
        "verdict": _verdict(link),
        "isEncrypted": counts.is_encrypted,
        "bytesTransfered": counts.bytes,
    }
    if counts.drop_reasons:
        made["dropReasons"] = dict(sorted(counts.drop_reasons.items()))
    if counts.statuses:
        made["httpStatuses"] = {str(code): n for code, n in sorted(counts.statuses.items())}
    if counts.latencies:
        made["latencyNs"] = {
            "min": counts.latency_min_ns,
            "max": counts.latency_max_ns,
            "avg": counts.latency_sum_ns // counts.latencies,
        }
    return made


def _verdict(link: Link) -> str:
    """The gravest; of a link of which only answers were seen: forwarded."""
    for name in ("DROPPED", "ERROR", "AUDIT", "REDIRECTED"):
        if link.counts.verdicts[name]:
            return name
    return "FORWARDED"


def dot(found: Map) -> str:
    """A graph: a frame for each cluster, in it one for each namespace; an arrow for two cards."""
    names = {card.id: f"n{number}" for number, card in enumerate(found.cards)}
    lines = [
        "digraph services {",
        "  graph [rankdir=LR, nodesep=0.35, ranksep=1.1, pad=0.4, splines=true, compound=true,",
        f'         bgcolor="#ffffff", fontname="{_FONT}", fontsize=13, fontcolor="{_MUTED}"];',
        f'  node [shape=box, style="rounded,filled", color="{_LINE}", fontname="{_FONT}",',
        f'        fontsize=12, fontcolor="{_INK}", margin="0.18,0.10", penwidth=1.2];',
        f'  edge [fontname="{_FONT}", fontsize=9, fontcolor="{_MUTED}", arrowsize=0.7];',
    ]
    tree: dict[str, dict[str, list[Card]]] = defaultdict(lambda: defaultdict(list))
    for card in found.cards:
        tree[card.cluster][card.namespace].append(card)
    for number, (cluster, namespaces) in enumerate(sorted(tree.items())):
        colour = _CLUSTERS[number % len(_CLUSTERS)]
        lines += _frame(cluster, namespaces, names, f"c{number}", colour)
    arrows: dict[tuple[str, str], list[Link]] = defaultdict(list)
    for link in found.links:
        arrows[link.source, link.destination].append(link)
    most = max((sum(x.counts.flows for x in group) for group in arrows.values()), default=1)
    for (source, destination), group in sorted(arrows.items()):
        lines.append(_arrow(names[source], names[destination], group, most))
    return "\n".join([*lines, "}", ""])


def _frame(
    cluster: str,
    namespaces: Mapping[str, list[Card]],
    names: Mapping[str, str],
    place: str,
    colour: str,
) -> list[str]:
    if not cluster:
        return [_card(card, names) for cards in namespaces.values() for card in cards]
    lines = [
        f"  subgraph cluster_{place} {{",
        f'    label={_text(cluster)}; labeljust=l; style="rounded,filled"; penwidth=1.2;',
        f'    color="{_LINE}"; fillcolor="{colour}"; margin=14;',
    ]
    for number, (namespace, cards) in enumerate(sorted(namespaces.items())):
        inner = [f"  {_card(card, names)}" for card in cards]
        if namespace:
            lines += [
                f"    subgraph cluster_{place}_{number} {{",
                f'      label={_text(namespace)}; labeljust=l; style="rounded,dashed";',
                f'      color="{_LINE}"; fontsize=11; margin=12; penwidth=1;',
                *(f"  {line}" for line in inner),
                "    }",
            ]
        else:
            lines += inner
    return [*lines, "  }"]


def _card(card: Card, names: Mapping[str, str]) -> str:
    under = _under(card)
    label = f"<b>{_html(card.name)}</b>"
    if under:
        label += f'<br/><font point-size="9" color="{_MUTED}">{_html(under)}</font>'
    fill = _CARDS.get(card.kind, _OTHER_CARD)
    tip = f"{card.id} ({', '.join(str(number) for number in sorted(card.identities))})"
    return f'  {names[card.id]} [label=<{label}>, fillcolor="{fill}", tooltip={_text(tip)}];'


def _under(card: Card) -> str:
    """The second line of a card."""
    if card.kind != "pod":
        return "" if card.name == card.kind else card.kind
    kinds = sorted({kind for kind, _ in card.workloads})
    pods = f"{len(card.pods)} pod{'s' if len(card.pods) != 1 else ''}" if card.pods else ""
    services = sorted(name.partition("/")[2] for name in card.services)
    shown = f"svc {services[0]}{' …' if len(services) > 1 else ''}" if services else ""
    return " · ".join(part for part in (*kinds[:1], pods, shown) if part)


def _arrow(source: str, destination: str, links: list[Link], most: int) -> str:
    flows = sum(link.counts.flows for link in links)
    bad = sum(x.counts.verdicts["DROPPED"] + x.counts.verdicts["ERROR"] for x in links)
    audit = sum(link.counts.verdicts["AUDIT"] for link in links)
    colour, style = _GOOD, "solid"
    if bad:
        colour, style = (_BAD, "dashed") if bad == flows else (_PART, "solid")
    elif audit:
        colour = _AUDIT
    width = 1 + 2.5 * math.log1p(flows) / max(math.log1p(most), 1)
    order = sorted(links, key=lambda link: -link.counts.flows)
    lines = [_port(link) for link in order[:_LINES_MAX]]
    if len(order) > _LINES_MAX:
        lines.append(f"and {len(order) - _LINES_MAX} more")
    if any(link.counts.is_encrypted for link in links):
        lines.append("encrypted")
    label = "<br/>".join(_html(line) for line in lines)
    tip = _text("; ".join(_tip(link) for link in order[:20]))
    return (
        f'  {source} -> {destination} [label=<{label}>, color="{colour}", style={style}, '
        f"penwidth={width:.1f}, tooltip={tip}, labeltooltip={tip}];"
    )


def _port(link: Link) -> str:
    name = link.protocol.replace("_V4", "v4").replace("_V6", "v6")
    shown = f"{name} {link.port}" if link.port else name
    verdict = _verdict(link)
    return shown if verdict in ("FORWARDED", "REDIRECTED") else f"{shown} {verdict.lower()}"


def _tip(link: Link) -> str:
    verdicts = ", ".join(f"{n} {name.lower()}" for name, n in sorted(link.counts.verdicts.items()))
    reasons = ", ".join(sorted(link.counts.drop_reasons))
    latency = ""
    if link.counts.latencies:
        mean_ms = link.counts.latency_sum_ns / link.counts.latencies / 1e6
        latency = f", {mean_ms:.1f} ms on average"
    return f"{_port(link)}: {verdicts}{f' ({reasons})' if reasons else ''}{latency}"


def _html(text: str) -> str:
    return html.escape(safe(text))


def _text(text: str) -> str:
    """A quoted string of Graphviz."""
    quoted = safe(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'

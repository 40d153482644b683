"""What a cluster loses when it stops reading another. Pure: answers of an agent in, lines out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SHOWN = 5
_COUNTS = {
    "nodes": "num-nodes",
    "endpoints": "num-endpoints",
    "identities": "num-identities",
    "services": "num-shared-services",
}


@dataclass(frozen=True, slots=True)
class Losses:
    """What disappears, as one agent has it now."""

    cluster: str
    known: bool  # an agent answered
    nodes: int = 0
    endpoints: int = 0
    identities: int = 0
    services: int = 0
    without_backend: tuple[str, ...] = ()  # local services that lose their last ones
    fewer: tuple[str, ...] = field(default=())  # local services that keep others


def losses(
    cluster: str, statuses: Sequence[Mapping[str, Any]], services: Sequence[Mapping[str, Any]]
) -> Losses:
    """Of agents' states, and of one agent's services."""
    remotes = [
        remote
        for status in statuses
        for remote in (status.get("cluster-mesh") or {}).get("clusters") or []
        if remote.get("name") == cluster
    ]
    counts = {
        what: max((int(r.get(key) or 0) for r in remotes), default=0)
        for what, key in _COUNTS.items()
    }
    theirs: dict[str, set[bool]] = {}  # service -> are its backends the other cluster's
    for service in services:
        spec = service.get("spec") or {}
        flags = spec.get("flags") or {}
        name = f"{flags.get('namespace', '')}/{flags.get('name', '')}"
        for backend in spec.get("backend-addresses") or []:
            theirs.setdefault(name, set()).add(backend.get("cluster") == cluster)
    return Losses(
        cluster,
        bool(remotes),
        without_backend=tuple(sorted(n for n, found in theirs.items() if found == {True})),
        fewer=tuple(sorted(n for n, found in theirs.items() if found == {True, False})),
        **counts,
    )


def lines(own: str, found: Losses) -> list[str]:
    """What a person should read before saying yes."""
    head = f"⚠️  Cluster {own} will forget cluster {found.cluster}"
    if not found.known:
        return [f"{head}: no agent answers, so what it knows of it is not known"]
    out = [
        f"{head}:",
        f"  - {found.nodes} nodes, {found.endpoints} endpoints, {found.identities} identities, "
        f"{found.services} services",
    ]
    if found.without_backend:
        number = len(found.without_backend)
        what = "service loses its" if number == 1 else "services lose their"
        out.append(f"  - {number} local {what} last backends: {_some(found.without_backend)}")
    if found.fewer:
        number = len(found.fewer)
        what = "service loses" if number == 1 else "services lose"
        out.append(f"  - {number} local {what} some backends and will go on with others")
    if not found.without_backend and not found.fewer:
        out.append("  - no local service has a backend there")
    return out


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")

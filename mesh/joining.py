"""May two clusters be joined? Pure: what both say of themselves in, a problem each out.

The one home of these rules: ``connect``, the doctor, both sides of a join, and declared peers.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from model.address import Prefix
from model.peer import Peer


@dataclass(frozen=True, slots=True)
class Problem:
    """Why two clusters may not be joined; as text it is one sentence."""

    check: str  # which rule: a word for scripts
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.found}: {self.remedy}"


def problems(own: Peer, other: Peer, connected: Mapping[str, int]) -> list[Problem]:
    """Why they may not; ``connected`` are the clusters of ``own`` with their IDs (0: unknown)."""
    return [*pair(own, other), *clashes(own.name, other.name, other.id, connected)]


def clashes(own: str, other: str, number: int, connected: Mapping[str, int]) -> list[Problem]:
    """What the clusters that ``own`` is connected to leave no room for."""
    found = []
    for name, taken in connected.items():
        if not taken:
            continue
        if name == other and taken != number:
            text = (
                f"cluster {own} is already connected to a cluster {name} with ID {taken}, "
                f"and this one has ID {number}"
            )
            remedy = "disconnect that one first, or install this one with another --cluster-name"
            found.append(Problem("cluster-id", text, remedy))
        elif name != other and taken == number:
            text = f"cluster {other} has ID {number}, as has {name}, which {own} is already "
            remedy = "install it with another --cluster-id"
            found.append(Problem("cluster-id", f"{text}connected to", remedy))
    return found


def pair(a: Peer, b: Peer) -> Iterator[Problem]:
    """What two clusters have alike, or not alike, so that they cannot be in one mesh."""
    both = f"clusters {a.name} and {b.name}"
    if a.name == b.name:
        found = f"both clusters are named {a.name}"
        yield Problem("cluster-name", found, "install one of them with another --cluster-name")
    if a.id and a.id == b.id:
        remedy = "install one of them with another --cluster-id"
        yield Problem("cluster-id", f"{both} both have ID {a.id}", remedy)
    if a.max_connected != b.max_connected:
        found = f"{both}: max-connected-clusters is {a.max_connected} and {b.max_connected}"
        yield Problem("max-connected-clusters", found, "set both to the same")
    if a.tunnel and b.tunnel and a.tunnel != b.tunnel:
        found = f"{both}: tunnel-protocol is {a.tunnel!r} and {b.tunnel!r}"
        yield Problem("tunnel-protocol", found, "set both to the same")
    clash = overlap(a.pod_cidrs, b.pod_cidrs)
    if clash is not None:
        found = f"{both}: pod CIDRs {clash[0]} and {clash[1]} overlap"
        yield Problem("pod-cidr", found, "build one of the clusters with other pod CIDRs")


def overlap(ours: Iterable[Prefix], theirs: Iterable[Prefix]) -> tuple[Prefix, Prefix] | None:
    """One prefix of each side that have an address in common; families have none.

    Sorted and swept, because a peer may name thousands: each against each would be its lever.
    """
    rows = sorted([(*_span(p), 0, p) for p in ours] + [(*_span(p), 1, p) for p in theirs])
    # Side and family -> the span that reaches furthest.
    last: dict[tuple[int, int], tuple[int, Prefix]] = {}
    for first, end, side, prefix in rows:
        met = last.get((1 - side, prefix.version))
        if met is not None and met[0] >= first:
            return (prefix, met[1]) if side == 0 else (met[1], prefix)
        own = (side, prefix.version)
        if own not in last or last[own][0] < end:
            last[own] = (end, prefix)
    return None


def _span(prefix: Prefix) -> tuple[int, int]:
    first, last = prefix[:16], (1 << (128 - prefix[16])) - 1
    return int.from_bytes(first), int.from_bytes(first) | last

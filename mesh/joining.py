"""May two clusters be joined? Pure: what both say of themselves in, a sentence per problem out."""

from collections.abc import Iterable, Iterator, Mapping

from model.address import Prefix
from model.peer import Peer


def problems(own: Peer, other: Peer, connected: Mapping[str, int]) -> list[str]:
    """Why they may not; ``connected`` are the clusters of ``own`` with their IDs (0: unknown)."""
    return [*_pair(own, other), *clashes(own.name, other.name, other.id, connected)]


def clashes(own: str, other: str, number: int, connected: Mapping[str, int]) -> list[str]:
    """What the clusters that ``own`` is connected to leave no room for."""
    found = []
    for name, taken in connected.items():
        if not taken:
            continue
        if name == other and taken != number:
            found.append(
                f"cluster {own} is already connected to a cluster {name} with ID {taken}, "
                f"and this one has ID {number}: disconnect that one first, or install this one "
                "with another --cluster-name"
            )
        elif name != other and taken == number:
            found.append(
                f"cluster {other} has ID {number}, as has {name}, which {own} is "
                "already connected to: install it with another --cluster-id"
            )
    return found


def _pair(a: Peer, b: Peer) -> Iterator[str]:
    if a.name == b.name:
        yield (f"both clusters are named {a.name}: install one of them with another --cluster-name")
    if a.id == b.id:
        yield (
            f"clusters {a.name} and {b.name} both have ID {a.id}: "
            "install one of them with another --cluster-id"
        )
    if a.max_connected != b.max_connected:
        yield (
            f"clusters {a.name} and {b.name}: max-connected-clusters is {a.max_connected} and "
            f"{b.max_connected}: set both to the same"
        )
    if a.tunnel and b.tunnel and a.tunnel != b.tunnel:
        yield (
            f"clusters {a.name} and {b.name}: tunnel-protocol is {a.tunnel!r} and {b.tunnel!r}: "
            "set both to the same"
        )
    clash = overlap(a.pod_cidrs, b.pod_cidrs)
    if clash is not None:
        yield (
            f"clusters {a.name} and {b.name}: pod CIDRs {clash[0]} and {clash[1]} overlap: "
            "build one of the clusters with other pod CIDRs"
        )


def overlap(ours: Iterable[Prefix], theirs: Iterable[Prefix]) -> tuple[Prefix, Prefix] | None:
    """One prefix of each side that have an address in common.

    Sorted and swept, because a peer may name thousands: each against each would be its lever.
    """
    rows = sorted([(*_span(p), 0, p) for p in ours] + [(*_span(p), 1, p) for p in theirs])
    last: dict[int, tuple[int, Prefix]] = {}  # side -> the span that reaches furthest
    for first, end, side, prefix in rows:
        met = last.get(1 - side)
        if met is not None and met[0] >= first:
            return (prefix, met[1]) if side == 0 else (met[1], prefix)
        if side not in last or last[side][0] < end:
            last[side] = (end, prefix)
    return None


def _span(prefix: Prefix) -> tuple[int, int]:
    first, last = prefix[:16], (1 << (128 - prefix[16])) - 1
    return int.from_bytes(first), int.from_bytes(first) | last

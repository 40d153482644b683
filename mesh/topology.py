"""Backends near a client: on its node, in its zone, or meant for that zone. Pure.

Narrows what there is to choose from, before clusters are chosen. Where clusters have ranks or
weights each is narrowed for itself, so that nearness never moves traffic between clusters that
somebody ordered; else all backends are one set. A set without a near backend is left as it is.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from mesh.pools import OURS, Owner, Run
from model.local_service import Proximity
from model.service import Backend, Zone


class Place(NamedTuple):
    """Where the clients are: this node, and its zone (empty: not known)."""

    node: str = ""
    zone: str = ""


def narrowed(
    runs: Sequence[Run],
    proximity: Proximity,
    here: Place,
    zone_of: Callable[[Backend], Zone],
    group_of: Callable[[Owner], str],
) -> list[Run]:
    """Runs with their near active backends only; ``group_of``: who is narrowed together."""
    if proximity is Proximity.ONLY_NODE:
        return [_with(r, [b for b in r.active if on(b, here)]) for r in runs if r.owner == OURS]
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(group_of(run.owner), []).append(run)
    keep: dict[Owner, Run] = {}
    for members in groups.values():
        near = _near([b for r in members for b in r.active], proximity, here, zone_of)
        for run in members:
            keep[run.owner] = _with(run, [b for b in run.active if b.address in near])
    return [keep[run.owner] for run in runs]


def _near(
    backends: Sequence[Backend],
    proximity: Proximity,
    here: Place,
    zone_of: Callable[[Backend], Zone],
) -> set[bytes]:
    """Addresses; all of them where none is near."""
    every = {bytes(b.address) for b in backends}
    if proximity is Proximity.NODE:
        found = {bytes(b.address) for b in backends if on(b, here)}
        if found:
            return found
    if proximity is Proximity.HINTED and not all(zone_of(b).hints for b in backends):
        return every
    return {bytes(b.address) for b in backends if _is_for(zone_of(b), here)} or every


def on(backend: Backend, here: Place) -> bool:
    """Whether it is on this node; nodes of other clusters may have the same name."""
    return not backend.cluster_id and backend.node == here.node


def _is_for(zone: Zone, here: Place) -> bool:
    return bool(here.zone) and here.zone in (zone.hints or (zone.name,))


def _with(run: Run, active: list[Backend]) -> Run:
    made = Run(run.owner)
    made.active = active
    return made

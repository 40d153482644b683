"""How an endpoint's policy rows become others while packets look them up. Pure.

A packet meets at most one row of a group, the longest that covers it; a group is one identity and
direction. When a change touches only groups of named identities, or only those of anybody, each
packet sees one group change, and an order of single writes exists in which it goes from its old
verdict to its new one in one step (docs/adr/0147). Otherwise the rows are replaced as a whole.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from model.policy_map import ANY_IDENTITY, PolicyEntry, PolicyKey

PolicyRows = Mapping[PolicyKey, PolicyEntry]

# Above this a new trie is cheaper than changing the old one row by row.
_LARGE = 1024


@dataclass(frozen=True, slots=True)
class InPlace:
    """Rows to write, in this order, and then rows to remove, in this order."""

    write: tuple[PolicyKey, ...]
    remove: tuple[PolicyKey, ...]


def plan(old: PolicyRows, new: PolicyRows, room: int) -> InPlace | None:
    """Single writes that lead from ``old`` to ``new``; ``None``: only a swap is safe.

    ``room`` is how many rows the trie takes.
    """
    added = [key for key in new if key not in old]
    changed = [key for key, entry in new.items() if key in old and old[key] != entry]
    removed = [key for key in old if key not in new]
    if len(old) + len(added) > room or len(added) + len(changed) + len(removed) > _LARGE:
        return None
    if not _one_group_for_each_packet((*added, *changed, *removed)):
        return None
    # What is added comes first, the longest ahead: it hides what it replaces at once. What is
    # removed goes last, the shortest ahead: it hides what is under it to the end.
    added.sort(key=lambda key: -key.bits)
    removed.sort(key=lambda key: key.bits)
    return InPlace((*added, *changed), tuple(removed))


def _one_group_for_each_packet(touched: Iterable[PolicyKey]) -> bool:
    kinds = {(key.direction, key.identity == ANY_IDENTITY) for key in touched}
    return len(kinds) == len({direction for direction, _ in kinds})

"""Which backend stands in which slot of one frontend. Pure.

Slots have no order: the first ``selectable`` are drawn from, the others are only there. So a
backend that goes is replaced by the last of its kind, and a change moves two or three slots however
many there are (ADR 0111). Places count from 0; the slot of the maps is one more.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress, count
from operator import is_not
from typing import TypeVar

T = TypeVar("T")

Others = Mapping[int, tuple[int, int]]  # by place: who else is drawn there, and its share


@dataclass(slots=True)
class Slots:
    """What the maps hold for one frontend. Numbers are those of backends; 0 is a hole."""

    numbers: list[int] = field(default_factory=list)
    selectable: int = 0
    has_master: bool = False
    flags: int = 0
    others: Others = field(default_factory=dict)
    _places: dict[int, int] | None = None  # made when it is first needed

    def places(self) -> dict[int, int]:
        """Where each backend stands."""
        if self._places is None:
            self._places = {number: place for place, number in enumerate(self.numbers)}
        return self._places

    @property
    def orderly(self) -> bool:
        """No holes, and nobody twice: as we leave it, if nobody interrupts us."""
        return len(self.places()) == len(self.numbers) and 0 not in self.places()

    def move(self, moves: "Moves") -> None:
        """Have numbers at places. Only where it is ``orderly``."""
        places, numbers, total = self.places(), self.numbers, moves.total
        old = {numbers[place] for place in moves.numbers if place < len(numbers)}
        for number in old.union(numbers[total:]):
            del places[number]
        del numbers[total:]
        numbers += [0] * (total - len(numbers))
        for place, number in moves.numbers.items():
            numbers[place] = number
            places[number] = place
        self.selectable = moves.selectable


@dataclass(frozen=True, slots=True)
class Difference:
    """Numbers that come to, and go from, those that are drawn and the others."""

    chosen_gone: Sequence[int] = ()
    chosen_new: Sequence[int] = ()
    others_gone: Sequence[int] = ()
    others_new: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Moves:
    """Who has to stand where, by place, and how many places there are then."""

    numbers: Mapping[int, int]
    selectable: int
    total: int


def moves(held: Slots, change: Difference) -> Moves:
    """As few as it takes. Only where ``held`` is ``orderly``."""
    numbers, places = held.numbers, held.places()
    before, before_all = held.selectable, len(numbers)
    after = before + len(change.chosen_new) - len(change.chosen_gone)
    total = after + before_all - before + len(change.others_new) - len(change.others_gone)
    gone = sorted(places[number] for number in (*change.chosen_gone, *change.others_gone))
    is_gone = set(gone)

    def stay(start: int, stop: int) -> Iterable[int]:
        return (numbers[p] for p in range(start, stop) if p not in is_gone)

    free = [p for p in gone if p < min(before, after)]
    free += range(before, after)
    coming = [*change.chosen_new, *stay(after, before)]
    made = dict(zip(free, coming, strict=True))
    free = [p for p in gone if max(before, after) <= p < total]
    free += (*range(after, min(before, total)), *range(max(before_all, after), total))
    coming = [*change.others_new, *stay(before, min(after, before_all))]
    coming += stay(max(before, total), before_all)
    made.update(zip(free, coming, strict=True))
    return Moves(made, after, total)


def arrange(held: Sequence[int], chosen: Sequence[int], others: Sequence[int]) -> list[int]:
    """All places anew: whoever stands in its part already keeps its place."""
    made: list[int] = []
    for wanted in (chosen, others):
        here = held[len(made) : len(made) + len(wanted)]
        left = dict.fromkeys(wanted)
        if len(left) < len(wanted):
            made += wanted  # somebody twice: as it comes
            continue
        part = [number if left.pop(number, 0) is None else 0 for number in here]
        part += [0] * (len(wanted) - len(part))
        coming = iter(left)
        made += (number or next(coming) for number in part)
    return made


def difference(old: Sequence[T], new: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    """The part of either that lies between what both begin and end with, by identity."""
    most = min(len(old), len(new))
    start = next(compress(count(), map(is_not, old, new)), most)
    most -= start
    end = min(next(compress(count(), map(is_not, reversed(old), reversed(new))), most), most)
    return old[start : len(old) - end], new[start : len(new) - end]

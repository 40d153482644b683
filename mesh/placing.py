"""Addresses in parts of a limited size, such that few parts change when few addresses do. Pure."""

from collections.abc import Collection, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def place(wanted: Iterable[T], parts: Sequence[Collection[T]], size: int) -> list[list[T]]:
    """Each of ``wanted`` once, in parts of ``size`` at most.

    What stands in one of ``parts`` stays there; what is new takes the first free place. The result
    has at least as many parts as there were; those that are not needed any more are empty.
    """
    rest = dict.fromkeys(wanted)
    placed: list[list[T]] = []
    for part in parts:
        kept = [one for one in part if one in rest][:size]
        for one in kept:
            del rest[one]
        placed.append(kept)
    new = list(rest)
    for kept in placed:
        room = max(0, size - len(kept))
        kept += new[:room]
        new = new[room:]
    placed += [new[first : first + size] for first in range(0, len(new), size)]
    return placed

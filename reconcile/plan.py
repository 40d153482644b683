"""What must change for one table to become another. Pure.

One diff for every table of the outside world: kernel maps, routes, keys of a store. It is printable
and sorted, so the same world gives the same plan in every run.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Plan(Generic[K, V]):
    """Rows to write and rows to remove, each in order of key."""

    upserts: tuple[tuple[K, V], ...] = ()
    deletes: tuple[K, ...] = ()

    @property
    def empty(self) -> bool:
        """True when there is nothing to do."""
        return not self.upserts and not self.deletes


def everything(_key: object, _value: object) -> bool:
    """The ``owned`` of a table that holds rows of ours only."""
    return True


def natural(key: Any) -> Any:
    """The ``order`` of keys that have one of their own."""
    return key


def plan(
    desired: Iterable[tuple[K, V]],
    actual: Mapping[K, V],
    owned: Callable[[K, V], bool] = everything,
    order: Callable[[K], Any] = str,
) -> Plan[K, V]:
    """Diff two tables. A row that is not ours (``owned`` is false) is never deleted.

    ``order`` gives keys a place.
    """
    wanted: set[K] = set()
    upserts: list[tuple[K, V]] = []
    for key, value in desired:
        wanted.add(key)
        # Most unchanged rows are shared objects, which need no comparison by value.
        if key not in actual or (actual[key] is not value and actual[key] != value):
            upserts.append((key, value))
    deletes = [k for k, v in actual.items() if k not in wanted and owned(k, v)]
    return Plan(
        tuple(sorted(upserts, key=lambda row: order(row[0]))), tuple(sorted(deletes, key=order))
    )

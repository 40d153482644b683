"""What the convergence loop expects of a table of the outside world. Pure."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Target(Protocol[K, V]):
    """A kernel map, a set of routes, the keys of a store.

    All writes are idempotent; deleting what is absent is no error. Rows fail alone: a write returns
    the errors by key and raises ``OSError`` only when the table as a whole cannot be reached.
    """

    async def read(self) -> Mapping[K, V]:
        """Every row that is ours."""
        ...

    async def upsert(self, rows: Sequence[tuple[K, V]]) -> Mapping[K, OSError]:
        """Create or replace rows, in the given order. Returns the rows that failed."""
        ...

    async def delete(self, keys: Collection[K]) -> Mapping[K, OSError]:
        """Remove rows. Returns the rows that failed."""
        ...

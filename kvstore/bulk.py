"""Rows as they come, by the thousand: what a mirror asks of a store. Pure.

Keys and values are bytes, nothing is decoded, and no object of ours is made per row.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Protocol

from kvstore.port import Store


class RawRow(Protocol):
    """A row of the store's own message."""

    @property
    def key(self) -> bytes: ...

    @property
    def value(self) -> bytes: ...

    @property
    def lease(self) -> int: ...


class BulkStore(Store, Protocol):
    """A store that also reads and writes raw rows."""

    @property
    def cluster_id(self) -> int: ...

    @property
    def endpoint(self) -> str: ...

    def pages(self, prefix: str) -> AsyncIterator[tuple[int, Sequence[RawRow]]]:
        """All rows below a prefix at one revision, in key order, page by page."""
        ...

    def raw_watch(
        self, prefix: str, revision: int
    ) -> AsyncGenerator[tuple[int, Sequence[tuple[bytes, bytes | None]]]]:
        """What changes from ``revision`` on (``None``: gone), whole revisions up to the one given.

        Ends as ``watch`` does.
        """
        ...

    async def write(self, rows: Mapping[bytes, bytes | None], leases: Mapping[bytes, int]) -> None:
        """One transaction: put each row under its lease, delete those that are ``None``."""
        ...

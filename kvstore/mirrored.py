"""Our copy of one remote cluster, as it stands in our own store. Adapter over the port.

Keys and values go in as bytes. Every key hangs on a lease, so that the copy vanishes some time
after its writer has; leases of an earlier run of ours are kept alive with the keys on them.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from kvstore.bulk import BulkStore
from kvstore.leases import KEYS_PER_LEASE
from kvstore.observed import OBSERVED
from kvstore.port import (
    MAX_TXN_OPS,
    ClusterIdChangedError,
    LeaseNotFoundError,
    NoSpaceError,
    StoreError,
    UnavailableError,
)
from reconcile.tasks import TaskGroup

log = logging.getLogger(__name__)

LEASE_TTL_S = 15 * 60
TXN_BYTES = 1_000_000  # below etcd's limit of 1.5 MiB per request
IN_FLIGHT = 4  # transactions under way: the store writes its log while we make the next
_STORE_WIDE = (UnavailableError, ClusterIdChangedError, NoSpaceError, LeaseNotFoundError)

Rows = Mapping[bytes, bytes | None]


class CopyLostError(Exception):
    """Our own store failed: a matter of ours, and not of the remote cluster whose copy it is."""


class Copy:
    """Writes rows under leases. One per remote cluster and connection to our store."""

    def __init__(self, store: BulkStore, ttl_s: int = LEASE_TTL_S) -> None:
        self._store = store
        self._ttl_s = ttl_s
        self._lease_of: dict[bytes, int] = {}
        self._used: dict[int, int] = {}  # lease -> keys on it
        self._granting = asyncio.Lock()
        self.writes = 0
        self.refused: dict[bytes, str] = {}  # rows that the store does not take

    async def listed(self, prefix: str) -> dict[bytes, bytes | None]:
        """What the copy holds below a prefix; ``None``: it must be written again under a lease."""
        found: dict[bytes, bytes | None] = {}
        try:
            async for _, rows in self._store.pages(prefix):
                for row in rows:
                    key = row.key
                    self._bind(key, row.lease)
                    found[key] = row.value if row.lease else None
        except StoreError as error:
            raise CopyLostError(str(error)) from error
        return found

    async def row(self, key: str) -> bytes | None:
        """One row of the copy, if it hangs on a lease."""
        try:
            found = await self._store.get(key)
        except StoreError as error:
            raise CopyLostError(str(error)) from error
        self._bind(key.encode(), found.lease if found else 0)
        return found.value if found and found.lease else None

    async def write(self, rows: Rows) -> None:
        """Write all rows; on return each is written, or refused by itself."""
        batches = _batches(rows)
        workers = min(IN_FLIGHT, len(rows) // MAX_TXN_OPS + 1)
        async with TaskGroup() as tasks:
            for _ in range(workers):
                tasks.create_task(self._work(batches))

    async def _work(self, batches: Iterator[Rows]) -> None:
        for batch in batches:
            try:
                await self._transaction(batch)
            except StoreError as error:
                raise CopyLostError(str(error)) from error

    async def _transaction(self, batch: Rows) -> None:
        """Write a batch; when the store refuses it, halve it until the guilty row is alone."""
        fresh = [k for k, v in batch.items() if v is not None and k not in self._lease_of]
        if fresh:
            await self._lease(fresh)
        try:
            await self._store.write(batch, self._lease_of)
        except _STORE_WIDE:
            raise
        except StoreError as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                rows = list(batch.items())
                await self._transaction(dict(rows[:middle]))
                await self._transaction(dict(rows[middle:]))
                return
            key = next(iter(batch))
            self._bind(key, 0)
            self.refused[key] = str(error)
            log.warning('event=refused key=%s why="%s"', key.decode(errors="replace"), error)
            return
        self.writes += len(batch)
        for key, value in batch.items():
            if value is None:
                self._bind(key, 0)
        if self.refused:
            for key in batch:
                self.refused.pop(key, None)

    async def _lease(self, keys: Sequence[bytes]) -> None:
        async with self._granting:
            lease = next((i for i, n in self._used.items() if n + len(keys) <= KEYS_PER_LEASE), 0)
            lease = lease or await self._store.grant(self._ttl_s)
            self._used[lease] = self._used.get(lease, 0) + len(keys)
        self._lease_of.update(dict.fromkeys(keys, lease))

    def _bind(self, key: bytes, lease: int) -> None:
        before = self._lease_of.pop(key, 0)
        if before:
            self._used[before] -= 1
        if lease:
            self._lease_of[key] = lease
            self._used[lease] = self._used.get(lease, 0) + 1

    async def remove(self, prefix: str) -> None:
        """Delete everything below a prefix."""
        try:
            await self._store.delete(prefix, prefix=True)
        except StoreError as error:
            raise CopyLostError(str(error)) from error
        head = prefix.encode()
        for key in [k for k in self._lease_of if k.startswith(head)]:
            self._bind(key, 0)

    async def keep(self) -> None:
        """Keep the leases alive, until the store fails or one has expired."""
        while True:
            for lease, used in list(self._used.items()):
                try:
                    if used:
                        await self._store.keep_alive(lease)
                    elif lease in self._used and not self._used[lease]:
                        del self._used[lease]
                        await self._store.revoke(lease)
                except StoreError as error:
                    OBSERVED.ran("kvstore-leases", ok=False)
                    raise CopyLostError(str(error)) from error
            OBSERVED.ran("kvstore-leases", ok=True)
            await asyncio.sleep(self._ttl_s / 3)

    async def guard(self, key: str, wanted: "Wanted") -> None:
        """Notice at once when the store goes away, or somebody touches the announcement."""
        try:
            async for _ in self._store.watch(key, 0, exact=True):
                row = await self._store.get(key)
                if wanted.value is not None and (row is None or row.value != wanted.value):
                    self._bind(key.encode(), 0)
                    await self.write({key.encode(): wanted.value})
        except StoreError as error:
            raise CopyLostError(str(error)) from error


class Wanted:
    """The value a guarded key must have; ``None``: anything."""

    value: bytes | None = None


def _batches(rows: Rows) -> Iterator[Rows]:
    """Parts that fit one transaction each."""
    items = iter(rows.items())
    while part := list(islice(items, MAX_TXN_OPS)):
        batch: dict[bytes, bytes | None] = {}
        size = 0
        for key, value in part:
            size += len(key) + len(value or b"")
            if batch and size > TXN_BYTES:
                yield batch
                batch, size = {}, len(key) + len(value or b"")
            batch[key] = value
        yield batch

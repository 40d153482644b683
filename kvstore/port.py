"""What Isthmus asks of a key-value store. Pure: the contract, its values and its errors.

``kvstore.etcd`` keeps it over gRPC; ``tests/conformance/test_kvstore.py`` holds a real etcd to it.
Keys are text, values are bytes. All errors are ``OSError``: nothing is retried here.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias

import msgspec


class StoreError(OSError):
    """The store refused or did not answer; the text names the operation and the store."""


class UnavailableError(StoreError):
    """No answer: connection refused, timed out, TLS failed, or no leader."""


class CompactedError(StoreError):
    """The revision asked for is gone: read everything again."""

    def __init__(self, message: str, compact_revision: int) -> None:
        super().__init__(message)
        self.compact_revision = compact_revision


class ClusterIdChangedError(StoreError):
    """Another etcd answers on this connection: revisions mean nothing any more."""


class PermissionDeniedError(StoreError):
    """The user of our certificate may not do this."""


class NoSpaceError(StoreError):
    """The store's quota is used up; it serves reads only."""


class LeaseNotFoundError(StoreError):
    """The lease has expired, and its keys with it."""


class KeyValue(msgspec.Struct, frozen=True, gc=False):
    """A row with its history in revisions."""

    key: str
    value: bytes
    create_revision: int = 0
    mod_revision: int = 0
    version: int = 0
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All rows of a prefix at one revision, ordered by key."""

    revision: int
    rows: tuple[KeyValue, ...]
    more: bool = False  # cut off by a limit
    count: int = 0  # all rows of the range, whatever the limit


class Put(msgspec.Struct, frozen=True):
    """A row was created or changed."""

    row: KeyValue
    previous: KeyValue | None = None

    @property
    def key(self) -> str:
        """Of the row."""
        return self.row.key

    @property
    def at(self) -> int:
        """The revision of the change."""
        return self.row.mod_revision


class Delete(msgspec.Struct, frozen=True):
    """A row is gone."""

    key: str
    revision: int
    previous: KeyValue | None = None

    @property
    def at(self) -> int:
        """The revision of the change."""
        return self.revision


Event: TypeAlias = Put | Delete


class Batch(msgspec.Struct, frozen=True):
    """Events of one or more whole revisions, and how far the watch has come."""

    revision: int
    events: tuple[Event, ...]  # empty: progress only


class Field(Enum):
    """What a comparison looks at."""

    MOD_REVISION = "mod"  # 0: the key does not exist
    CREATE_REVISION = "create"
    VERSION = "version"


@dataclass(frozen=True, slots=True)
class Compare:
    """True when the field of the key equals the number."""

    key: str
    field: Field
    equals: int


@dataclass(frozen=True, slots=True)
class PutOp:
    """Write a row."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class DeleteOp:
    """Remove a row, or with ``prefix`` all rows below a prefix."""

    key: str
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class GetOp:
    """Read a row inside a transaction."""

    key: str


Op: TypeAlias = PutOp | DeleteOp | GetOp

MAX_TXN_OPS = 128  # etcd's own default limit


@dataclass(frozen=True, slots=True)
class TxnResult:
    """Which branch ran, at which revision, and what its reads found (in order of the GetOps)."""

    succeeded: bool
    revision: int
    reads: tuple[KeyValue | None, ...] = ()


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """The answer of one member."""

    version: str
    revision: int
    db_size_bytes: int
    cluster_id: int


class Store(Protocol):
    """A connection to one etcd. Safe to use from many tasks."""

    async def get(self, key: str, *, within: str = "") -> KeyValue | None:
        """One row, or ``None``; ``within`` as for ``range``."""
        ...

    async def range(
        self,
        prefix: str,
        *,
        limit: int = 0,
        revision: int = 0,
        start: str = "",
        keys_only: bool = False,
        within: str = "",
    ) -> Snapshot:
        """Rows below ``prefix`` in key order, from ``start`` on, at ``revision`` (0: now).

        With ``limit`` 0 everything is read, in pages pinned to the first page's revision.
        ``within`` is a wider prefix with few rows for each who asks: when many ask at the same
        time for all that is below something of it, it is read once for all of them, if it may be.
        """
        ...

    async def put(self, key: str, value: bytes, lease: int = 0) -> int:
        """Write one row; the revision."""
        ...

    async def delete(self, key: str, *, prefix: bool = False) -> int:
        """Remove a row or a prefix; the revision. Deleting what is absent is no error."""
        ...

    async def txn(
        self,
        then: Sequence[Op],
        *,
        compare: Sequence[Compare] = (),
        otherwise: Sequence[Op] = (),
    ) -> TxnResult:
        """At most ``MAX_TXN_OPS`` operations at one revision, if all comparisons hold."""
        ...

    def watch(
        self,
        prefix: str,
        revision: int,
        *,
        previous: bool = False,
        progress: bool = False,
        exact: bool = False,
        within: str = "",
        take: Callable[[Batch], bool] | None = None,
    ) -> AsyncIterator[Batch]:
        """Everything that happens below ``prefix`` from ``revision`` on (0: from now on).

        With ``exact`` one key is watched, which needs permission for this key only. ``within`` is
        a wider prefix that may be read as a whole: one watch of it serves all who name it, and
        what comes fast may come a tenth of a second later, together. Whoever waits for the next
        batch may be asked to ``take`` it in the moment it is read: one that is taken (true) does
        not come out of the iterator.

        Ends only by an error: ``CompactedError``, ``ClusterIdChangedError``, ``UnavailableError``,
        ``PermissionDeniedError``. The first batch is empty and says that the watch stands.
        """
        ...

    async def grant(self, ttl_s: int) -> int:
        """A new lease."""
        ...

    async def keep_alive(self, lease: int) -> int:
        """Prolong a lease; its new time to live in seconds. Raises ``LeaseNotFoundError``."""
        ...

    async def revoke(self, lease: int) -> None:
        """End a lease and delete its keys."""
        ...

    async def compact(self, revision: int) -> None:
        """Forget history before a revision."""
        ...

    async def status(self) -> StoreStatus:
        """Version, revision, size."""
        ...

    async def close(self) -> None:
        """Drop the connection; running calls and watches fail with ``UnavailableError``."""
        ...


class AuthAdmin(Protocol):
    """Users and roles of one etcd. All calls are repeatable."""

    async def add_role(self, role: str) -> None:
        """Create it unless it exists."""
        ...

    async def grant_permission(
        self, role: str, key: str, range_end: str, *, read: bool, write: bool
    ) -> None:
        """Permit a key (``range_end`` empty) or a range."""
        ...

    async def add_user(self, user: str) -> None:
        """Create a user without password, known by its certificate's common name."""
        ...

    async def delete_user(self, user: str) -> None:
        """Remove it if it exists."""
        ...

    async def grant_role(self, user: str, role: str) -> None:
        """Give a role to a user."""
        ...

    async def enable_auth(self) -> None:
        """From now on every call needs a user."""
        ...


def prefix_end(prefix: str) -> bytes:
    """The first key after all keys that begin with ``prefix``; ``\\0`` means "to the end"."""
    data = bytearray(prefix.encode())
    while data:
        if data[-1] < 0xFF:
            data[-1] += 1
            return bytes(data)
        data.pop()
    return b"\0"

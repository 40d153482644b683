"""Leases of one writer: each key that it writes hangs on one, and goes when the writer does."""

import logging
from collections.abc import Iterable, Sequence

from kvstore.port import LeaseNotFoundError, Op, PutOp, Store, StoreError

log = logging.getLogger(__name__)

KEYS_PER_LEASE = 1000


class Leases:
    """Which keys hang on which lease of one etcd."""

    def __init__(self, ttl_s: int) -> None:
        """``ttl_s``: how long keys stay when nobody prolongs their lease."""
        self._ttl_s = ttl_s
        self._of: dict[str, int] = {}
        self._keys: dict[int, set[str]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._of

    def bound(self) -> Sequence[str]:
        """Every key that hangs on one of these."""
        return tuple(self._of)

    def are(self, lease: int) -> bool:
        """Whether a lease is one of these."""
        return lease in self._keys

    def unbind(self, key: str) -> None:
        """The key is gone."""
        lease = self._of.pop(key, None)
        if lease is not None:
            self._keys[lease].discard(key)

    async def write(
        self, store: Store, rows: Iterable[tuple[str, bytes]], deletes: Sequence[Op] = ()
    ) -> int:
        """One transaction; how many operations. Raises ``StoreError``; nothing is bound then."""
        ops: list[Op] = list(deletes)
        bound = []
        for key, value in rows:
            lease = self._of.get(key)
            if lease is None:
                lease = await self._roomy(store)
                # Counted at once, or a large batch would overfill its lease.
                self._of[key] = lease
                self._keys[lease].add(key)
                bound.append(key)
            ops.append(PutOp(key, value, lease))
        if not ops:
            return 0
        try:
            await store.txn(ops)
        except StoreError:
            for key in bound:
                self.unbind(key)
            raise
        return len(ops)

    async def prolong(self, store: Store) -> set[str]:
        """Keep each lease alive; the keys of those that have expired, which are gone."""
        lost: set[str] = set()
        for lease in list(self._keys):
            try:
                await store.keep_alive(lease)
            except LeaseNotFoundError:
                gone = self._keys.pop(lease)
                lost |= gone
                for key in gone:
                    self._of.pop(key, None)
                log.warning("event=lease_expired lease=%x keys=%d", lease, len(gone))
        return lost

    async def _roomy(self, store: Store) -> int:
        for lease, bound in self._keys.items():
            if len(bound) < KEYS_PER_LEASE:
                return lease
        lease = await store.grant(self._ttl_s)
        self._keys[lease] = set()
        return lease

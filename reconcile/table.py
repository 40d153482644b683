"""One table of the outside world and the way it is brought to what is wanted.

Level-triggered: ``mark`` only says that a key may have changed; what it should be is looked up when
a round runs, so an event that is lost, doubled or late costs nothing. A row fails alone and is
tried again by itself, with its own back-off, which ends when the wanted row changes. No row is
removed before ``allow_prune``: until every input has spoken, absence means nothing. From time to
time the target is read and compared as a whole, because others write there as well.

Rounds of one table never overlap; ``reconcile.loop`` sees to that and to the order among tables.
"""

import asyncio
import math
from collections.abc import Callable, Collection, Iterable
from typing import Any, Generic, Protocol, TypeVar

from reconcile import backoff
from reconcile.plan import everything, plan
from reconcile.port import Target
from reconcile.status import RowFailure, TableStatus

K = TypeVar("K")
V_co = TypeVar("V_co", covariant=True)
V = TypeVar("V")

FULL_READ_S = 120.0


class Desired(Protocol[K, V_co]):
    """The wanted table: always the latest, never a queue of changes."""

    def get(self, key: K, /) -> V_co | None:
        """The row of a key; ``None``: there should be none."""
        ...

    def items(self) -> Iterable[tuple[K, V_co]]:
        """All rows."""
        ...


class Table(Generic[K, V]):
    """State of one target; see the module's docstring for its promises."""

    def __init__(
        self,
        name: str,
        target: Target[K, V],
        desired: Desired[K, V],
        *,
        clock: Callable[[], float],
        draw: Callable[[], float],
        owned: Callable[[K, V], bool] = everything,
        full_read_s: float = FULL_READ_S,
        order: Callable[[K], Any] = str,
    ) -> None:
        """``order`` gives keys a place within a round."""
        self.name = name
        self.status = TableStatus(name)
        self._target = target
        self._desired = desired
        self._clock, self._draw = clock, draw
        self._owned, self._order = owned, order
        self._full_read_s = full_read_s
        self._actual: dict[K, V] = {}
        self._dirty: set[K] = set()
        self._removals: set[K] = set()
        self._failing: dict[K, tuple[RowFailure, V | None]] = {}
        self._full_due_s: float | None = None  # None: at once
        self._resting_until_s = 0.0
        self._held = False
        self._failures_in_a_row = 0
        self._revision = 0
        self._started = 0
        self._attempted = 0
        self._progress = asyncio.Event()
        self.wake: Callable[[], None] = _nobody
        self.hurry: Callable[[], None] = _nobody  # somebody waits for the next round
        self.soon: Callable[[], None] = _nobody  # the next round's gap is to be short

    @property
    def revision(self) -> int:
        """Grows with every mark."""
        return self._revision

    @property
    def pruning(self) -> bool:
        """Whether rows may be removed."""
        return self.status.pruning

    def mark(self, key: K) -> None:
        """The wanted row of a key may have changed."""
        self._dirty.add(key)
        self._revision += 1
        self.wake()

    def mark_each(self, keys: Collection[K]) -> None:
        """``mark`` for many."""
        if keys:
            self._dirty.update(keys)
            self._revision += 1
            self.wake()

    def touch(self) -> None:
        """Something the wanted rows follow from has changed: have a round find out what."""
        self._revision += 1
        self.wake()

    def mark_all(self) -> None:
        """Compare the whole table in the next round."""
        self._full_due_s = None
        self._revision += 1
        self.wake()

    @property
    def held(self) -> bool:
        """Between ``hold`` and ``release``."""
        return self._held

    def hold(self) -> None:
        """Do nothing until ``release``: rows that are made of several inputs need all of them."""
        self._held = True

    def release(self) -> None:
        """End of ``hold``."""
        self._held = False
        self.mark_all()

    def allow_prune(self) -> None:
        """Every input is in sync: what is not wanted may go. Takes effect with a full read."""
        if not self.status.pruning:
            self.status.pruning = True
            self.mark_all()

    async def attempted(self, revision: int) -> None:
        """Wait until a round that saw ``revision`` has ended, whether or not its rows worked."""
        while self._attempted < revision:
            self.hurry()
            await self._progress.wait()

    async def written(self, revision: int) -> None:
        """Wait until a round has ended that saw ``revision`` and after which no row fails."""
        await self.attempted(revision)
        while self.status.failing or self.status.error:
            await self._progress.wait()

    def actual(self, key: K) -> V | None:
        """The row that the target has, as far as is known."""
        return self._actual.get(key)

    def error(self, key: K) -> str:
        """Why a row fails; empty when it does not."""
        found = self._failing.get(key)
        return found[0].error if found else self.status.error

    def failing(self) -> dict[K, V]:
        """The wanted rows that cannot be written."""
        return {key: wanted for key, (_, wanted) in self._failing.items() if wanted is not None}

    def due_in_s(self) -> float:
        """Seconds until this table needs a round of its own accord; 0: now."""
        if self._held:
            return math.inf
        now = self._clock()
        moments = [self._full_due_s] if self._full_due_s is not None else [now]
        moments += [failure.next_try_s for failure, _ in self._failing.values()]
        if self._dirty or self._removals or self._started < self._revision:
            moments.append(now)
        return max(min(moments), self._resting_until_s) - now

    async def write(self) -> None:
        """First half of a round: rows that should be there."""
        self._started = self._revision
        try:
            await self._write()
        except OSError as error:
            self._unreachable(error)

    async def remove(self) -> None:
        """Second half of a round: rows that should not."""
        try:
            await self._remove()
        except OSError as error:
            self._unreachable(error)
        self.status.rounds += 1
        self.status.rows = len(self._actual)
        self._attempted = max(self._attempted, self._started)
        progress, self._progress = self._progress, asyncio.Event()
        progress.set()

    def _unreachable(self, error: OSError) -> None:
        """What the target holds is unknown now: rest, then read it again."""
        self._failures_in_a_row += 1
        self._full_due_s = None
        self._resting_until_s = self._clock() + backoff.delay_s(
            self._failures_in_a_row, self._draw()
        )
        self.status.error = str(error)

    def _resting(self) -> bool:
        return self._clock() < self._resting_until_s

    async def _write(self) -> None:
        if self._resting():
            return
        if self._full_due_s is None or self._clock() >= self._full_due_s:
            rows = await self._compare_all()
        else:
            rows = self._changed_rows()
        if rows:
            errors = await self._target.upsert(rows)
            self.status.written += len(rows) - len(errors)
            if not errors and not self._failing:
                self._actual.update(rows)
                return
            for key, value in rows:
                self._settle(key, value, errors.get(key))
                if key not in errors:
                    self._actual[key] = value

    async def _compare_all(self) -> list[tuple[K, V]]:
        self._dirty.clear()
        # Before the read, so that a request for another one during it is not lost.
        self._full_due_s = self._clock() + backoff.jittered_s(self._full_read_s, self._draw())
        self._actual = dict(await self._target.read())
        self.status.full_reads += 1
        self.status.error, self._failures_in_a_row = "", 0
        found = plan(self._desired.items(), self._actual, self._owned, self._order)
        self._removals = set(found.deletes) if self.status.pruning else set()
        wanted = {key for key, _ in found.upserts}
        for key in [k for k in self._failing if k not in wanted and k not in self._removals]:
            self._recovered(key)
        if not self._failing:
            return list(found.upserts)
        return [row for row in found.upserts if self._may_try(*row)]

    def _changed_rows(self) -> list[tuple[K, V]]:
        dirty, self._dirty = self._dirty, set()
        now = self._clock()
        dirty.update(k for k, (f, _) in self._failing.items() if f.next_try_s <= now)
        rows: list[tuple[K, V]] = []
        for key in self._sorted(dirty):
            value = self._desired.get(key)
            if value is None:
                # Before pruning is allowed the key is forgotten here: the full comparison that
                # comes with the permission finds it again.
                if key not in self._actual:
                    self._recovered(key)
                elif self.status.pruning:
                    self._removals.add(key)
                continue
            self._removals.discard(key)
            if key in self._failing or self._actual.get(key) != value:
                if self._may_try(key, value):
                    rows.append((key, value))
            else:
                self._recovered(key)
        return rows

    def _sorted(self, keys: Iterable[K]) -> list[K]:
        return sorted(keys, key=self._order)

    def _may_try(self, key: K, value: V | None) -> bool:
        """Not while a row rests after a failure, unless something else is wanted of it now."""
        found = self._failing.get(key)
        return found is None or found[0].next_try_s <= self._clock() or found[1] != value

    async def _remove(self) -> None:
        if self._resting() or not self._removals:
            return
        keys = []
        for key in self._sorted(self._removals):
            if self._desired.get(key) is not None:
                self._removals.discard(key)  # wanted again since
                self._dirty.add(key)
            else:
                # A row that rests after a failure comes back by itself when its time has come.
                self._removals.discard(key)
                if self._may_try(key, None):
                    keys.append(key)
        if not keys:
            return
        errors = await self._target.delete(keys)
        self.status.removed += len(keys) - len(errors)
        for key in keys:
            self._settle(key, None, errors.get(key))
            if key not in errors:
                self._actual.pop(key, None)

    def _settle(self, key: K, value: V | None, error: OSError | None) -> None:
        if error is None:
            self._recovered(key)
            return
        now = self._clock()
        self.status.failures += 1
        found = self._failing.get(key)
        if found is None or found[1] != value:
            failure = RowFailure(str(error), 0, now, now)
        else:
            failure = found[0]
        failure.attempts += 1
        failure.error = str(error)
        failure.next_try_s = now + backoff.delay_s(failure.attempts, self._draw())
        self._failing[key] = (failure, value)
        self.status.failing[str(key)] = failure

    def _recovered(self, key: K) -> None:
        if self._failing and self._failing.pop(key, None) is not None:
            self.status.failing.pop(str(key), None)


def _nobody() -> None:
    """Before a loop has taken the table nobody needs to be woken."""

"""Changes that come faster than a cluster's pace: the latest of each key, later. Adapter."""

import asyncio
import itertools
from collections.abc import Callable, Collection, Iterable, Sequence

from kvstore.allowance import Pace
from kvstore.duties import Duties
from kvstore.mirror import Told

PART_ROWS = 512  # handed over at once, between which others have their turn: about 5 ms


class Late:
    """What waits outlives a connection: what a mirror has told once, it does not tell again."""

    def __init__(
        self,
        pace: Pace,
        clock: Callable[[], float],
        hand_over: Callable[[str, str, Sequence[Told]], None],
        on_count: Callable[[int], None],
    ) -> None:
        """``hand_over`` takes a type, the prefix its rows came under, and rows; ``on_count`` hears
        how many wait; ``clock`` tells seconds."""
        self._pace, self._clock = pace, clock
        self._hand_over, self._on_count = hand_over, on_count
        self._rows: dict[tuple[str, str], tuple[str, bytes | None]] = {}
        self._duties: Duties  # of the connection that stands
        self._busy = False

    def __bool__(self) -> bool:
        return bool(self._rows)

    def put(self, resource: str, prefix: str, rows: Iterable[Told]) -> None:
        """To be handed over as soon as the pace allows. Only while a connection stands."""
        for name, data in rows:
            self._rows[resource, name] = (prefix, data)
        self._on_count(len(self._rows))
        self._go_on()

    def forget(self, resource: str, names: Iterable[str]) -> None:
        """Something newer is known of them."""
        if self._rows:
            for name in names:
                self._rows.pop((resource, name), None)
            self._on_count(len(self._rows))

    def drop(self, resources: Collection[str] | None = None) -> None:
        """Everything of these types, or of all."""
        for key in [k for k in self._rows if resources is None or k[0] in resources]:
            del self._rows[key]
        self._on_count(len(self._rows))

    def begin(self, duties: Duties) -> None:
        """A connection stands. What worked for the last one is over, begun or not."""
        self._duties, self._busy = duties, False
        self._go_on()

    def _go_on(self) -> None:
        if self._rows and not self._busy:
            self._busy = True
            self._duties.begin(self._work())

    async def _work(self) -> None:
        try:
            while self._rows:
                count = min(len(self._rows), PART_ROWS)
                if not self._pace.take(count, self._clock()):
                    await asyncio.sleep(self._pace.wait_s(count))
                    continue
                for key in list(itertools.islice(self._rows, count)):
                    prefix, data = self._rows.pop(key)
                    self._hand_over(key[0], prefix, [(key[1], data)])
                self._on_count(len(self._rows))
                await asyncio.sleep(0)
        finally:
            self._busy = False

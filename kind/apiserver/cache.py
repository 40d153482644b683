"""Every object in memory, fed by one watch of the store, fanned out to the watchers. Adapter.

In: the rows of the store at start, then its events in order of revision. Out: reads as of
``Cache.revision`` and ``Event`` queues. All methods run on one event loop and none of them awaits
between reading and changing state, so readers always see a whole revision.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from kind.apiserver.errors import ApiError, expired
from kind.apiserver.objects import Obj
from kind.apiserver.selectors import Selection

HISTORY_EVENTS = 4096  # per table; a watch that resumes from before them gets 410
QUEUE_EVENTS = 50_000  # a watcher further behind than this is cut off with 410
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict).decode


class Item:
    """One object at one revision; ``obj`` carries its resourceVersion and is never changed."""

    __slots__ = ("_raw", "obj", "revision")

    def __init__(self, obj: Obj, revision: int) -> None:
        obj["metadata"]["resourceVersion"] = str(revision)
        self.obj = obj
        self.revision = revision
        self._raw: bytes | None = None

    @classmethod
    def decode(cls, value: bytes, revision: int) -> "Item":
        return cls(_decode(value), revision)

    @property
    def raw(self) -> bytes:
        """The JSON of ``obj``, made once."""
        if self._raw is None:
            self._raw = _encode(self.obj)
        return self._raw

    def copy(self) -> Obj:
        """A copy that may be changed."""
        out: Obj = _decode(self.raw)
        return out

    def at(self, revision: int) -> "Item":
        """The same object as of another revision: what a DELETED event carries."""
        obj = dict(self.obj)
        obj["metadata"] = dict(obj["metadata"])
        return Item(obj, revision)


class Event:
    """One change of one object."""

    __slots__ = ("_gone", "_lines", "item", "previous", "revision")

    def __init__(self, revision: int, item: Item | None, previous: Item | None) -> None:
        self.revision = revision
        self.item = item  # None: deleted
        self.previous = previous
        self._lines: dict[str, bytes] = {}
        self._gone: Item | None = None

    def seen_by(self, selection: Selection) -> tuple[str, Item] | None:
        """Type and object for a watcher, ``None`` when neither state is selected."""
        now = self.item is not None and (selection.everything or selection.matches(self.item.obj))
        before = self.previous is not None and (
            selection.everything or selection.matches(self.previous.obj)
        )
        if now:
            assert self.item is not None
            return ("MODIFIED" if before else "ADDED"), self.item
        if before:
            assert self.previous is not None
            if self._gone is None:
                self._gone = self.previous.at(self.revision)
            return "DELETED", self._gone
        return None

    def line(self, selection: Selection) -> bytes:
        """The JSON line of the event, encoded once for all watchers; empty when not selected."""
        seen = self.seen_by(selection)
        if seen is None:
            return b""
        kind, item = seen
        line = self._lines.get(kind)
        if line is None:
            line = self._lines[kind] = event_line(kind, item.raw)
        return line


def event_line(kind: str, raw: bytes) -> bytes:
    """One line of a watch stream."""
    return b'{"type":"' + kind.encode() + b'","object":' + raw + b"}\n"


class Watcher:
    """One client's queue of events; ``wake`` is set when there is something to read."""

    __slots__ = ("ended", "events", "progress", "selection", "wake")

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.events: deque[Event] = deque()
        self.wake = asyncio.Event()
        self.ended: ApiError | None = None
        self.progress = 0  # revision up to which everything is in ``events`` or was read

    def offer(self, event: Event) -> None:
        if len(self.events) >= QUEUE_EVENTS:
            self.end(expired(self.events[0].revision, event.revision))
            return
        self.events.append(event)
        self.wake.set()

    def end(self, why: ApiError) -> None:
        self.ended = self.ended or why
        self.wake.set()


@dataclass(slots=True)
class Table:
    """The objects of one resource, by ``namespace/name`` (or ``name``)."""

    items: dict[str, Item] = field(default_factory=dict)
    history: deque[Event] = field(default_factory=deque)
    floor: int = 0  # events at or below are not in ``history``
    watchers: set[Watcher] = field(default_factory=set)

    def apply(self, name: str, item: Item | None, revision: int) -> Event | None:
        previous = self.items.get(name)
        if item is None:
            if previous is None:
                return None
            del self.items[name]
        else:
            self.items[name] = item
        event = Event(revision, item, previous)
        self.history.append(event)
        if len(self.history) > HISTORY_EVENTS:
            self.floor = self.history.popleft().revision
        for watcher in self.watchers:
            watcher.offer(event)
        return event


class Cache:
    """All tables at one revision."""

    def __init__(self) -> None:
        self.revision = 0
        self._tables: dict[str, Table] = {}
        self._start = 0
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    def table(self, name: str) -> Table:
        found = self._tables.get(name)
        if found is None:
            found = self._tables[name] = Table(floor=self._start)
        return found

    def load(self, rows: Iterable[tuple[str, str, Item]], revision: int) -> None:
        """Replace everything: at start, and after the store forgot what we had not read.

        Watchers are ended with 410, so that clients list again.
        """
        for table in self._tables.values():
            for watcher in table.watchers:
                watcher.end(expired(self.revision, revision))
        self._tables = {}
        self._start = revision
        for table_name, name, item in rows:
            self.table(table_name).items[name] = item
        self.advance(revision)

    def apply(self, table: str, name: str, item: Item | None, revision: int) -> Event | None:
        """One event of the store. ``advance`` follows when its revision is complete."""
        return self.table(table).apply(name, item, revision)

    def advance(self, revision: int) -> None:
        """All events up to this revision have been applied."""
        self.revision = max(self.revision, revision)
        ready = [f for r, f in self._waiters if r <= self.revision]
        self._waiters = [(r, f) for r, f in self._waiters if r > self.revision]
        for future in ready:
            if not future.done():
                future.set_result(None)

    async def wait_for(self, revision: int, timeout_s: float = 3.0) -> None:
        """Until the cache has seen a revision. Raises ``ApiError`` 504."""
        if self.revision >= revision:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((revision, future))
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            raise ApiError(
                504,
                "Timeout",
                f"Timeout: Too large resource version: {revision}, current: {self.revision}",
                {
                    "causes": [
                        {
                            "reason": "ResourceVersionTooLarge",
                            "message": "Too large resource version",
                        }
                    ],
                    "retryAfterSeconds": 1,
                },
            ) from None

    def get(self, table: str, name: str) -> Item | None:
        return self.table(table).items.get(name)

    def select(self, table: str, selection: Selection) -> Iterator[tuple[str, Item]]:
        """In order of name."""
        items = self.table(table).items
        for name in sorted(items):
            item = items[name]
            if selection.everything or selection.matches(item.obj):
                yield name, item

    @contextmanager
    def watch(self, table: str, selection: Selection, after: int) -> Iterator[Watcher]:
        """Events after a revision, without a gap. Raises ``ApiError`` 410 when not kept."""
        rows = self.table(table)
        if after < rows.floor:
            raise expired(after, rows.floor)
        watcher = Watcher(selection)
        watcher.progress = after
        for event in rows.history:
            if event.revision > after:
                watcher.offer(event)
        rows.watchers.add(watcher)
        try:
            yield watcher
        finally:
            rows.watchers.discard(watcher)

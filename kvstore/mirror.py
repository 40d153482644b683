"""A copy of a prefix, kept by list and watch: what changed, and what vanished unseen. Pure.

The protocol: ``snapshot`` (or its parts) with a full listing, then ``event`` for everything after
its revision; a new listing whenever the watch was lost. Rows that a new listing lacks come out as
deletions. What is told is named without the prefix.
"""

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from kvstore.port import Batch, Event, KeyValue, Put

Told: TypeAlias = tuple[str, bytes | None]  # name and value; ``None``: gone


class Mirror:
    """Which rows there are, by key, with the revision in which each last changed."""

    __slots__ = ("_floor", "_listed", "_prefix", "_rows")

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix  # of every key
        # By the rest of the key; as bytes, which take a quarter less than text.
        self._rows: dict[bytes, int] = {}
        self._floor = 0
        self._listed: set[bytes] | None = None  # by the listing in hand

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: str) -> bool:
        return self._name(key) in self._rows

    def _name(self, key: str) -> bytes:
        return key[len(self._prefix) :].encode("utf-8", "surrogateescape")

    @property
    def prefix(self) -> str:
        """Where the rows lie."""
        return self._prefix

    def at(self, key: str) -> int | None:
        """The revision in which a row last changed; ``None``: there is no such row."""
        return self._rows.get(self._name(key))

    def keys(self) -> Iterator[str]:
        """All keys."""
        return (self._prefix + _text(name) for name in self._rows)

    def forget_revisions(self) -> None:
        """Another store may answer from now on: its revisions mean nothing to ours.

        The rows stay; the next listing hands each one out again.
        """
        self._rows = dict.fromkeys(self._rows, 0)
        self._floor = 0

    def move(self, prefix: str) -> None:
        """The same rows lie below another prefix from now on."""
        self._prefix = prefix

    def snapshot(self, rows: Iterable[KeyValue], revision: int) -> list[Told]:
        """Take a full listing at ``revision``; returns what is new, changed, or (None) gone."""
        self.begin_listing()
        return [*self.listed(rows), *self.end_listing(revision)]

    def begin_listing(self) -> None:
        """A listing comes in parts: ``listed`` for each, then ``end_listing``.

        One that is broken off has done no harm: what it told is known, and nothing is gone.
        """
        self._listed = set()

    def listed(self, rows: Iterable[KeyValue]) -> list[Told]:
        """Take a part; returns what is new or changed."""
        changes: list[Told] = []
        known, listed, skip, last = self._rows, self._listed, len(self._prefix), 0
        assert listed is not None, "begin_listing comes first"
        for row in rows:
            text, at = row.key[skip:], row.mod_revision
            name = text.encode("utf-8", "surrogateescape")
            listed.add(name)
            if known.get(name, 0) != at:
                if at == last:
                    at = last  # the number of a row before: most rows were written with others
                known[name] = last = at
                changes.append((text, row.value))
        return changes

    def end_listing(self, revision: int) -> list[Told]:
        """All of it has been taken; returns what is gone."""
        gone = self._rows.keys() - (self._listed or set())
        for name in gone:
            del self._rows[name]
        self._floor = revision
        self._listed = None
        return [(_text(name), None) for name in sorted(gone)]

    def event(self, event: Event) -> Told | None:
        """Take one watch event; ``None`` when it says nothing new."""
        told = self.events((event,))
        return told[0] if told else None

    def events(self, events: Iterable[Event]) -> list[Told]:
        """Take watch events; returns what is new, changed, or (None) gone."""
        rows, floor, skip = self._rows, self._floor, len(self._prefix)
        told: list[Told] = []
        for event in events:
            if isinstance(event, Put):
                row = event.row
                text, at, value = row.key[skip:], row.mod_revision, row.value
            else:
                text, at, value = event.key[skip:], event.revision, None
            name = text.encode("utf-8", "surrogateescape")
            # Compared with the snapshot and the key's own row, never with the last event: one
            # transaction gives several keys the same revision.
            if at <= floor or at <= rows.get(name, 0):
                continue
            if value is not None:
                rows[name] = at
            elif rows.pop(name, None) is None:
                continue
            told.append((text, value))
        return told


class Heard:
    """How far a watch has come."""

    __slots__ = ("revision",)

    def __init__(self, revision: int) -> None:
        self.revision = revision

    def hear(self, batch: Batch) -> bool:
        """Note it. False, and nothing noted: something is older than what was heard before."""
        before = last = self.revision
        for event in batch.events:
            at = event.at
            if at < before:
                return False
            if at > last:
                last = at
        self.revision = last
        return True


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")

"""Whether a mirror still is what the store holds: keys and revisions only. Adapter over the port.

A watch is fallible, and whatever it loses stays lost. What is said here of a key is true at some
moment during the call: changes under way look like differences until they have come.
"""

import asyncio
from dataclasses import dataclass

from kvstore.mirror import Mirror
from kvstore.port import Delete, Event, KeyValue, Put, Store

PAGE_ROWS = 5_000
AT_ONCE = 256  # more differences than this are better read as a whole


@dataclass(frozen=True, slots=True)
class Found:
    """A key whose row in the store is not the mirror's."""

    key: str
    row: KeyValue | None
    revision: int  # of the store, when it was looked at

    @property
    def event(self) -> Event:
        """What the mirror has missed."""
        return Delete(self.key, self.revision) if self.row is None else Put(self.row)


Suspects = dict[str, int | None]  # keys, and of which revision the mirror's row was


async def suspects(store: Store, prefix: str, mirror: Mirror, admits_new: bool) -> Suspects:
    """Keys that seem to differ; with ``admits_new`` also those that the mirror does not have."""
    found: Suspects = {}
    known = revision = 0
    start = ""
    while True:
        page = await store.range(
            prefix, limit=PAGE_ROWS, revision=revision, start=start, keys_only=True
        )
        revision = revision or page.revision
        for row in page.rows:
            at = mirror.at(row.key)
            known += at is not None
            if at != row.mod_revision and (admits_new or at is not None):
                found[row.key] = at
        if not page.more:
            break
        start = page.rows[-1].key + "\0"
        await asyncio.sleep(0)
    if known < len(mirror):
        found |= {key: mirror.at(key) for key in await _vanished(store, prefix, mirror)}
    return found


async def _vanished(store: Store, prefix: str, mirror: Mirror) -> set[str]:
    """Only when keys are missing: a set of all keys is large."""
    gone, start = set(mirror.keys()), ""
    while True:
        page = await store.range(prefix, limit=PAGE_ROWS, start=start, keys_only=True)
        gone.difference_update(row.key for row in page.rows)
        if not page.more:
            return gone
        start = page.rows[-1].key + "\0"


async def confirmed(store: Store, unlike: Suspects, mirror: Mirror) -> list[Found]:
    """Those of the keys that still differ and of which no watch has told since, with their rows."""
    found = []
    for key, known in sorted(unlike.items()):
        if mirror.at(key) != known:
            continue  # its watch works: what differs now has come since, and will be told
        reply = await store.range(key, limit=1)  # the key itself is the first of its prefix
        if mirror.at(key) != known:
            continue  # what it has told meanwhile may be newer than the answer
        row = next((row for row in reply.rows if row.key == key), None)
        if known != (row.mod_revision if row else None):
            found.append(Found(key, row, reply.revision))
    return found

"""Reading a ring for one caller: back to where it begins, forwards, and on as events come. Adapter.

Reading pauses often, so that many readers share the process, and waits for its caller to take what
was read. A caller who is overtaken by the ring is told how many records it lost, at most once a
second (``HUBBLE_RING_BUFFER``), and at the latest when its stream ends.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hubble.query import Span, start_number
from hubble.ring import RECORD_LOST, Entry, Follower
from hubble.rpc_server import Call
from hubble.source import Source
from wire.hubble import flow_pb2

LOSS_INTERVAL_S: Final = 1.0
_CHUNK: Final = 128  # records between two pauses: a few ms of decoding
_BATCH_BYTES: Final = 64 << 10  # sent at once


@dataclass(frozen=True, slots=True)
class Reading:
    """What one caller reads."""

    span: Span
    types: frozenset[int] | None  # of records worth reading; ``None``: all
    read: Callable[[Entry], bytes | None]  # the answer; ``None``: not wanted
    lost: Callable[[flow_pb2.LostEvent, int], bytes | None]  # the answer to a loss at a time in ns
    has_filter: bool = True  # ``read`` may not want a record of these types


class _Losses:
    """Records that were overwritten before this caller came to them."""

    def __init__(self) -> None:
        self._number, self._first_ns, self._last_ns = 0, 0, 0
        self._told_s = float("-inf")

    @property
    def pending(self) -> bool:
        return self._number > 0

    def add(self, number: int) -> None:
        if number:
            self._last_ns = time.time_ns()
            self._first_ns = self._first_ns if self._number else self._last_ns
            self._number += number

    def due(self, now_s: float, *, final: bool = False) -> tuple[flow_pb2.LostEvent, int] | None:
        """The event to tell now, and its time."""
        if not self._number or not (final or now_s - self._told_s >= LOSS_INTERVAL_S):
            return None
        event = flow_pb2.LostEvent(
            source=flow_pb2.LostEventSource.HUBBLE_RING_BUFFER, num_events_lost=self._number
        )
        event.first.FromNanoseconds(self._first_ns)
        event.last.FromNanoseconds(self._last_ns)
        self._number, self._told_s = 0, now_s
        return event, self._last_ns


class Reader:
    """One caller's way through the ring."""

    def __init__(self, source: Source, reading: Reading, call: Call) -> None:
        self._source = source
        self._ring = source.ring
        self._reading = reading
        self._call = call
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._losses = _Losses()

    async def run(self) -> None:
        """Send all that is asked for; returns when that is over; ``RpcError``."""
        span, newest = self._reading.span, self._ring.newest
        begin = start_number(span, self._ring)
        if begin is None and not self._reading.has_filter:
            # Where to begin is known without decoding: the caller gets the first answers at once.
            begin = self._number_of_last(span.number)
            await self._forwards(begin, None if span.follow else newest, None)
        elif begin is None:
            over = await self._send_last(newest)
            if span.follow and not over:
                await self._forwards(newest + 1, None, None)
        elif span.follow:
            await self._forwards(begin, None, None)
        else:
            await self._forwards(begin, newest, span.number or None)
        self._tell_losses(final=True)
        await self._flush()

    def _answer(self, entry: Entry) -> tuple[bytes | None, bool]:
        """The answer to a record if it is wanted, and does it count."""
        kind = entry.record[0]
        if kind == RECORD_LOST:
            event = self._source.decode(entry)
            if not isinstance(event, flow_pb2.LostEvent):
                return None, False
            return self._reading.lost(event, entry.time_ns), False
        types = self._reading.types
        if types is not None and kind not in types:
            return None, False
        return self._reading.read(entry), True

    def _number_of_last(self, wanted: int) -> int:
        """Of the record from which on there are so many of the types asked for; else the oldest."""
        ring, types = self._ring, self._reading.types
        number = ring.newest + 1
        if wanted >= ring.capacity:
            return ring.oldest
        while wanted and (entry := ring.at(number - 1)) is not None:
            number -= 1
            kind = entry.record[0]
            wanted -= kind != RECORD_LOST and (types is None or kind in types)
        return number

    async def _send_last(self, newest: int) -> bool:
        """The last ``number`` that match, oldest first. Did one come after ``until``?"""
        span = self._reading.span
        found: list[tuple[int, bytes]] = []
        wanted, number = span.number, newest
        while wanted and (entry := self._ring.at(number)) is not None:
            answer, counts = self._answer(entry)
            if answer is not None:
                found.append((entry.time_ns, answer))
                wanted -= counts
            number -= 1
            if number % _CHUNK == 0:
                await asyncio.sleep(0)
        for time_ns, answer in reversed(found):
            if span.until_ns is not None and time_ns > span.until_ns:
                return True
            await self._add(answer)
        await self._flush()
        return False

    async def _forwards(self, begin: int, last: int | None, limit: int | None) -> None:
        """On from ``begin``: up to ``last`` or for ever, ``limit`` answers or all."""
        woken = asyncio.Event()
        forget = self._ring.watch(woken.set) if last is None else None
        follower = Follower(self._ring, begin)
        try:
            while True:
                woken.clear()
                lost, entries = follower.take(_CHUNK)
                self._losses.add(lost)
                for entry in entries:
                    if last is not None and entry.number > last:
                        return
                    kept, over = self._judge(entry)
                    if over:
                        return
                    if kept is None:
                        continue
                    await self._add(kept[0])
                    limit = limit - kept[1] if limit is not None else None
                    if limit == 0:
                        return
                self._tell_losses()
                if len(entries) == _CHUNK:
                    await asyncio.sleep(0)
                    continue
                await self._flush()
                if last is not None:
                    return
                await self._wait(woken)
        finally:
            if forget is not None:
                forget()

    def _judge(self, entry: Entry) -> tuple[tuple[bytes, bool] | None, bool]:
        """(answer, does it count) if the record is wanted; and is the stream over."""
        span, is_loss = self._reading.span, entry.record[0] == RECORD_LOST
        if not is_loss:
            if span.until_ns is not None and entry.time_ns > span.until_ns:
                return None, True
            if span.since_ns is not None and entry.time_ns < span.since_ns:
                return None, False
        answer, counts = self._answer(entry)
        return (None if answer is None else (answer, counts)), False

    async def _wait(self, woken: asyncio.Event) -> None:
        if not self._losses.pending:
            await woken.wait()
            return
        try:
            async with asyncio.timeout(LOSS_INTERVAL_S):
                await woken.wait()
        except TimeoutError:
            self._tell_losses()
            await self._flush()

    def _tell_losses(self, *, final: bool = False) -> None:
        due = self._losses.due(time.monotonic(), final=final)
        if due is not None:
            answer = self._reading.lost(*due)
            if answer is not None:
                self._batch.append(answer)

    async def _add(self, answer: bytes) -> None:
        self._batch.append(answer)
        self._batch_bytes += len(answer)
        if self._batch_bytes >= _BATCH_BYTES:
            await self._flush()

    async def _flush(self) -> None:
        if self._batch:
            batch, self._batch, self._batch_bytes = self._batch, [], 0
            await self._call.send(*batch)

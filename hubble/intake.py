"""From the kernel's ring into ours. Adapter.

A thread takes what is there, sleeps for some milliseconds, and takes again: however many events
come, it wakes at most some two hundred times a second, and while a reader is served the kernel's
ring is emptied all the same. What does not fit between the thread and the event loop is counted, as
is what did not fit into the kernel's ring; both become records where they happened.
"""

import asyncio
import logging
import threading
import time
from collections import Counter
from pathlib import Path

from datapath.events import EventReader, open_events, pinned_ring_id
from hubble.ring import SOURCE_KERNEL, SOURCE_QUEUE, Lost, Ring, lost_record

log = logging.getLogger("isthmus.hubble.intake")

PAUSE_S = 0.005
IDLE_S = 0.5  # how long the end of the thread, a new ring and losses may go unnoticed
LOSS_LOG_S = 30.0

Batch = list[tuple[int, bytes]]


class Losses:
    """What counters say since they were last asked."""

    def __init__(self, reader: EventReader) -> None:
        self._reader = reader
        self._before = self._by_cpu()

    def _by_cpu(self) -> Counter[int]:
        found: Counter[int] = Counter()
        for counts in self._reader.lost().values():
            found.update(dict(enumerate(counts)))
        return found

    def new(self) -> list[Lost]:
        """One for each CPU that lost any."""
        now = self._by_cpu()
        new, self._before = now - self._before, now
        return [Lost(SOURCE_KERNEL, cpu, number) for cpu, number in sorted(new.items())]


class Intake:
    """Feeds ``ring`` from the ring that is pinned at ``pin_dir``. Run it in an event loop."""

    def __init__(self, ring: Ring, pin_dir: Path, queue_size: int) -> None:
        self._ring, self._pin_dir, self._queue_size = ring, pin_dir, queue_size
        self._lock = threading.Lock()
        self._queue: Batch = []
        self._dropped = 0  # of the queue, not told yet
        self._stopping = threading.Event()
        self._logged_s = -LOSS_LOG_S
        self.lost: Counter[int] = Counter()  # by source, ever
        self.is_open = False

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def fail(error: Exception) -> None:
            if not ended.done():
                ended.set_exception(error)

        def work() -> None:
            try:
                self._work(loop)
            except Exception as error:  # whatever it is, it ends the process
                loop.call_soon_threadsafe(fail, error)

        thread = threading.Thread(target=work, name="intake", daemon=True)
        thread.start()
        try:
            await ended
        finally:
            self._stopping.set()
            await asyncio.to_thread(thread.join)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stopping.is_set():
            reader = open_events(self._pin_dir)
            if reader is None:
                self._stopping.wait(IDLE_S)  # no agent has been here yet
                continue
            log.info("event=events-opened map=%d", reader.map_id)
            self.is_open = True
            try:
                self._read(reader, loop)
            finally:
                self.is_open = False
                reader.close()

    def _read(self, reader: EventReader, loop: asyncio.AbstractEventLoop) -> None:
        """Until another ring takes its place."""
        losses = Losses(reader)
        looked_s = time.monotonic()
        while not self._stopping.is_set():
            if reader.wait(IDLE_S):
                self._put(reader.take(), loop)
                self._stopping.wait(PAUSE_S)
            if time.monotonic() - looked_s < IDLE_S:
                continue
            looked_s = time.monotonic()
            self._tell(losses.new(), loop)
            if pinned_ring_id(self._pin_dir) != reader.map_id:
                self._put(reader.take(), loop)
                self._tell(losses.new(), loop)
                return

    def _put(self, batch: Batch, loop: asyncio.AbstractEventLoop) -> None:
        if not batch:
            return
        with self._lock:
            was_empty = not self._queue
            room = self._queue_size - len(self._queue)
            if was_empty:  # one take is never too much: the kernel's ring bounds it
                room = len(batch)
            self._queue += batch[: max(room, 0)]
            self._dropped += len(batch) - min(len(batch), max(room, 0))
        if was_empty:
            loop.call_soon_threadsafe(self._deliver)

    def _tell(self, lost: list[Lost], loop: asyncio.AbstractEventLoop) -> None:
        if not lost:
            return
        now_ns = time.time_ns()
        with self._lock:
            self._queue += [(now_ns, lost_record(one)) for one in lost]
        for one in lost:
            self.lost[one.source] += one.number
        loop.call_soon_threadsafe(self._deliver)
        self._log()

    def _deliver(self) -> None:
        """In the event loop."""
        with self._lock:
            batch, self._queue = self._queue, []
            dropped, self._dropped = self._dropped, 0
        if dropped:
            self.lost[SOURCE_QUEUE] += dropped
            batch.append((time.time_ns(), lost_record(Lost(SOURCE_QUEUE, 0, dropped))))
            self._log()
        self._ring.extend(batch)

    def _log(self) -> None:
        now_s = time.monotonic()
        if now_s - self._logged_s >= LOSS_LOG_S:
            self._logged_s = now_s
            log.warning(
                "event=events-lost kernel=%d queue=%d: more happens than is taken; "
                "see monitor-aggregation",
                self.lost[SOURCE_KERNEL],
                self.lost[SOURCE_QUEUE],
            )

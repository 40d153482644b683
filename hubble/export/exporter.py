"""Flows into files: one feed of the ring, decoded once for all exports that want it. Adapter.

The file of exports is read again every five seconds: exports begin, end and change by themselves.
docs/adr/0207
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Iterable

from hubble.config import HubbleConfig
from hubble.export.lines import Lines
from hubble.export.rotating import open_target
from hubble.export.settings import Export, checked, parse_file
from hubble.export.writer import Writer
from hubble.feed import Feed
from hubble.filters import compile_filters, event_types
from hubble.node import NodeSource
from hubble.ring import RECORD_LOST, Entry
from hubble.source import Message
from hubble.watched_file import WatchedFile
from reconcile.tasks import TaskGroup
from telemetry.metrics import Counter, Family, family
from wire.hubble import flow_pb2 as f

log = logging.getLogger("isthmus.hubble.export")

FILE_INTERVAL_S = 5.0
_UPKEEP_S = 0.1
_CHUNK = 64  # records between two pauses: some ten milliseconds


class _Running:
    """One export while it runs."""

    def __init__(self, export: Export, node: str) -> None:
        self.export = export
        self.lines = Lines(export, node)
        self.writer = Writer(export.name, open_target(export.path, export.rotation))
        self._wanted = compile_filters(export.include, export.exclude)
        self._types = event_types(export.include) if export.include else None
        self._flushed_s = time.monotonic()

    def is_over(self, now_ns: int) -> bool:
        return self.export.end_ns is not None and now_ns >= self.export.end_ns

    def wants(self, entry: Entry) -> bool:
        """May the record pass, as far as its type tells?"""
        return self._types is None or entry.record[0] in self._types

    def take(self, message: Message, time_ns: int) -> None:
        if self.is_over(time_ns) or not self._passes(message):
            return
        self.writer.put(self.lines.put(message, time_ns))

    def _passes(self, message: Message) -> bool:
        if isinstance(message, f.Flow):
            return self._wanted is None or self._wanted(message)
        return not self.export.include  # a filter of flows holds for nothing else

    def upkeep(self, now_s: float) -> None:
        due = now_s - self._flushed_s >= self.export.interval_s
        if self.lines.counts_together and due:
            self._flushed_s = now_s
            self.writer.put(self.lines.flush())

    def stop(self) -> None:
        self.writer.put(self.lines.flush())
        self.writer.end()


class Exporter:
    """All exports of a node."""

    def __init__(self, config: HubbleConfig, source: NodeSource) -> None:
        self._config, self._source = config, source
        path = config.hubble_flowlogs_config_path
        self._file = WatchedFile(path) if path else None
        self._looked_s, self._refused = float("-inf"), ""
        self._running: dict[str, _Running] = {}
        self._dynamic: tuple[Export, ...] = ()
        self._woken = asyncio.Event()
        self._feed = Feed(source.ring, self._woken.set)
        self._operations = Counter(("op",))
        self._hash, self._applied_s = 0, 0.0
        self._writers: dict[str, list[Writer]] = {}  # ever, by name; the last one writes

    async def run(self) -> None:
        """Until cancelled; what waits for the disk is written before it ends."""
        try:
            async with TaskGroup() as tasks:
                for export in self._config.exports:
                    self._start(export, tasks)
                tasks.create_task(self._take(), name="export")
                tasks.create_task(self._keep(tasks), name="export-upkeep")
        finally:
            self._feed.close()
            for running in self._running.values():
                running.writer.put(running.lines.flush())
            for writers in self._writers.values():
                for writer in writers:
                    writer.finish()

    def _start(self, export: Export, tasks: TaskGroup) -> None:
        running = _Running(export, self._source.names.self.node)
        tasks.create_task(running.writer.run(), name=f"export-{export.name}")
        self._running[export.name] = running
        self._writers.setdefault(export.name, []).append(running.writer)

    async def _take(self) -> None:
        while True:
            self._woken.clear()
            while entries := self._feed.take(_CHUNK):
                self._put(entries)
                await asyncio.sleep(0)
            await self._woken.wait()

    def _put(self, entries: Iterable[Entry]) -> None:
        active = list(self._running.values())
        for entry in entries:
            wanting = [one for one in active if one.wants(entry) or entry.record[0] == RECORD_LOST]
            if not wanting:
                continue
            message = self._source.decode(entry)
            if message is not None:
                for one in wanting:
                    one.take(message, entry.time_ns)

    async def _keep(self, tasks: TaskGroup) -> None:
        while True:
            now_s = time.monotonic()
            if self._file is not None and now_s - self._looked_s >= FILE_INTERVAL_S:
                self._looked_s = now_s
                self._read(self._file, tasks)
            for running in self._running.values():
                running.upkeep(now_s)
            await asyncio.sleep(_UPKEEP_S)

    def _read(self, file: WatchedFile, tasks: TaskGroup) -> None:
        try:
            data = file.changed()
            if data is None:
                return
            wanted = parse_file(data, self._config.export_rotation)
            checked((*self._config.exports, *wanted))
        except (OSError, ValueError) as error:
            self._operations.add("failure")
            if str(error) != self._refused:
                self._refused = str(error)
                log.warning('event=exports-kept file=%s error="%s"', file.path, error)
            return
        self._refused = ""
        self._apply(wanted, tasks)
        digest = hashlib.sha256(data).digest()
        self._hash, self._applied_s = int.from_bytes(digest[:6], "big"), time.time()

    def _apply(self, wanted: tuple[Export, ...], tasks: TaskGroup) -> None:
        before = {one.name: one for one in self._dynamic}
        after = {one.name: one for one in wanted}
        for name in before.keys() - after.keys():
            self._stop(name)
            self._operations.add("remove")
        for name, export in after.items():
            if before.get(name) == export:
                continue
            if name in before:
                self._stop(name)
            self._start(export, tasks)
            self._operations.add("update" if name in before else "add")
        self._dynamic = wanted
        log.info("event=exports-configured names=%s", ",".join(after))

    def _stop(self, name: str) -> None:
        self._running.pop(name).stop()

    def _sums(self, name: str) -> tuple[int, dict[str, int]]:
        """Lines written and lost under this name."""
        writers = self._writers[name]
        lost = {why: sum(w.lost[why] for w in writers) for why in ("queue", "disk")}
        return sum(w.written for w in writers), lost

    def families(self) -> list[Family]:
        """What exports say of themselves."""
        now_ns = time.time_ns()
        up = {r.export.name: not r.is_over(now_ns) for r in self._running.values()}
        dynamic = [up[one.name] for one in self._dynamic]
        sums = {name: self._sums(name) for name in self._writers}
        return [
            family(
                "hubble_dynamic_exporter_exporters_total",
                "gauge",
                "Exports of the file, by whether they are written",
                [
                    ({"status": "active"}, sum(dynamic)),
                    ({"status": "inactive"}, len(dynamic) - sum(dynamic)),
                ],
            ),
            family(
                "hubble_dynamic_exporter_up",
                "gauge",
                "1: the export is written, 0: its time is over",
                [({"name": one.name}, up[one.name]) for one in self._dynamic],
            ),
            self._operations.family(
                "hubble_dynamic_exporter_reconfigurations_total", "Changes of the file, by kind"
            ),
            family(
                "hubble_dynamic_exporter_config_hash",
                "gauge",
                "Of the file as it was last applied",
                [({}, self._hash)],
            ),
            family(
                "hubble_dynamic_exporter_config_last_applied",
                "gauge",
                "When the file was last applied, seconds since 1970; 0: never",
                [({}, self._applied_s)],
            ),
            family(
                "hubble_exporter_lines_total",
                "counter",
                "Lines written",
                [({"name": name}, written) for name, (written, _) in sums.items()],
            ),
            family(
                "hubble_exporter_lost_lines_total",
                "counter",
                "Lines that could not be written: the disk was slow (queue), or refused them",
                [
                    ({"name": name, "reason": why}, number)
                    for name, (_, lost) in sums.items()
                    for why, number in lost.items()
                ],
            ),
            family(
                "hubble_exporter_lost_records_total",
                "counter",
                "Records that came while exports were behind",
                [({}, self._feed.lost)],
            ),
        ]

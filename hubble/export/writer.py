"""The lines of one export on their way to the disk. Adapter.

``put`` never waits: lines gather up to a size, a thread writes them, and what finds no room or
cannot be written is counted and said.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable

from hubble.export.rotating import RotatingFile, StandardOutput

log = logging.getLogger("isthmus.hubble.export")

ROOM_BYTES = 8 << 20
_LOG_S = 30.0
_AGAIN_S = 1.0  # after a failure


class Writer:
    """For one target. Run it in an event loop."""

    def __init__(self, name: str, target: RotatingFile | StandardOutput) -> None:
        self.name, self._target = name, target
        self._lines: list[bytes] = []
        self._bytes = 0
        self._woken = asyncio.Event()
        self._logged_s = float("-inf")
        self._ending = False
        self.written = 0  # lines
        self.lost: Counter[str] = Counter()  # lines, by why: queue, disk

    def put(self, lines: Iterable[bytes]) -> None:
        """To be written soon."""
        for line in lines:
            if self._bytes + len(line) > ROOM_BYTES:
                self.lost["queue"] += 1
                self._say("the disk is slower than flows come")
                continue
            self._lines.append(line)
            self._bytes += len(line)
        self._woken.set()

    def end(self) -> None:
        """No more is put: ``run`` returns when all is written, or cannot be."""
        self._ending = True
        self._woken.set()

    async def run(self) -> None:
        """Until ``end`` or cancelled."""
        while not self._ending or self._lines:
            await self._woken.wait()
            self._woken.clear()
            if not await self._write() and not self._ending:
                await asyncio.sleep(_AGAIN_S)
        self._target.close()

    def finish(self) -> None:
        """After ``run`` was cancelled: write what waits. Blocking."""
        lines, self._lines = self._lines, []
        if lines:
            self._write_now(lines)
        self._target.close()

    async def _write(self) -> bool:
        lines, self._lines, self._bytes = self._lines, [], 0
        return await asyncio.to_thread(self._write_now, lines) if lines else True

    def _write_now(self, lines: list[bytes]) -> bool:
        try:
            self._target.write(b"".join(lines))
        except OSError as error:
            self.lost["disk"] += len(lines)
            self._say(str(error))
            return False
        self.written += len(lines)
        return True

    def _say(self, why: str) -> None:
        now_s = time.monotonic()
        if now_s - self._logged_s >= _LOG_S:
            self._logged_s = now_s
            log.warning(
                'event=export-lost name=%s queue=%d disk=%d error="%s"',
                self.name,
                self.lost["queue"],
                self.lost["disk"],
                why,
            )

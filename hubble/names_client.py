"""Follows the agent's names. Adapter.

While the agent is away what it said last stays true. It begins anew when it is back.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp

from hubble.names import Names
from wire import names as wire

log = logging.getLogger("isthmus.hubble.names")

RETRY_S = (0.2, 5.0)
SILENCE_S = 30.0  # three times the agent's heartbeat
LINE_MAX_BYTES = 4 << 20


class NamesClient:
    """Feeds ``names`` from the agent's socket; ``on_line`` is told each line before it counts."""

    def __init__(
        self, names: Names, socket: Path, on_line: Callable[[wire.Line, int], None]
    ) -> None:
        self._names, self._socket, self._on_line = names, socket, on_line
        self._error = ""
        self.connected = False

    async def run(self) -> None:
        """Until cancelled."""
        pause_s = RETRY_S[0]
        while True:
            try:
                await self._follow()
            except (OSError, aiohttp.ClientError, TimeoutError, ValueError) as error:
                self._report(str(error) or type(error).__name__)
            if self.connected:
                pause_s = RETRY_S[0]
            self.connected = False
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_S[1])

    def _report(self, error: str) -> None:
        if error != self._error:
            log.warning('event=no-names socket=%s error="%s"', self._socket, error)
        self._error = error

    async def _follow(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE_S)
        connector = aiohttp.UnixConnector(str(self._socket))
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get(f"http://agent{wire.PATH}") as response,
        ):
            if response.status != 200:
                raise ValueError(f"the agent answers {response.status}: is it of this version?")
            rest = b""
            begun = False
            async for chunk in response.content.iter_any():
                whole, _, rest = (rest + chunk).rpartition(b"\n")
                if len(rest) > LINE_MAX_BYTES:
                    raise ValueError(f"a line of over {LINE_MAX_BYTES} bytes")
                if not begun and whole:
                    self._names.begin()
                    begun = True
                self._take(whole)
        raise ValueError("the agent ended the stream")

    def _take(self, lines: bytes) -> None:
        now_ns = time.time_ns()
        for line in wire.decode(lines):
            if isinstance(line, wire.Synced):
                log.info("event=names-synced")
                self.connected, self._error = True, ""
            self._on_line(line, now_ns)
            self._names.apply(line, now_ns)

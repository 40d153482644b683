"""A TCP listener whose certificates may come late and change. Adapter.

Files are looked at every second. While those that must be there are not, nobody is listening; when
they change, connections that come after that meet the new ones and those that are open go on. To
listen anew would turn away whoever connects just then.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hubble.rpc_server import server_tls

log = logging.getLogger("isthmus.hubble.tls")

LOOK_S: Final = 1.0


def present(files: tuple[Path, ...]) -> tuple[Path, ...]:
    """Those that are there: clusters that join bring the others' authorities with them."""
    return tuple(path for path in files if path.is_file())


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """Who the server is; whose clients it serves (no authorities named: anybody)."""

    certificate: Path
    key: Path
    authorities: tuple[Path, ...] = ()  # one of them suffices
    protocol: str = "h2"  # as ALPN calls it

    def stamps(self) -> tuple[tuple[Path, float], ...]:
        """What changes when a file does; empty: what must be there is not."""
        needed, known = (self.certificate, self.key), present(self.authorities)
        if present(needed) != needed or (self.authorities and not known):
            return ()
        return tuple((path, path.stat().st_mtime) for path in (*needed, *known))

    def context(self) -> ssl.SSLContext:
        """``OSError`` (``ssl.SSLError`` is one) when a file cannot be used."""
        context = server_tls(self.certificate, self.key, present(self.authorities))
        context.set_alpn_protocols([self.protocol])
        return context


Listen = Callable[[str | None, int, ssl.SSLContext | None], Awaitable[asyncio.Server]]


class Listener:
    """Keeps a server listening on TCP; without ``files`` in the clear."""

    def __init__(
        self, listen: Listen, host: str | None, port: int, files: ServerFiles | None
    ) -> None:
        """``listen``: the server's, on an address with TLS or without."""
        self._listen_on, self._host, self.port, self._files = listen, host, port, files
        self._listening: asyncio.Server | None = None
        self._context: ssl.SSLContext | None = None  # for those who come from now on
        self._stamps: tuple[tuple[Path, float], ...] = ()
        self._said = ""

    async def run(self) -> None:
        """Until cancelled; ``OSError``: the address cannot be had."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Listen, or show other certificates from now on, if it is time to."""
        if self._files is None:
            if self._listening is None:
                await self._listen(None)
            return
        stamps = self._files.stamps()
        if not stamps:
            self._say(f"{self._files.certificate}, its key or the authorities are not there")
            return
        if stamps == self._stamps:
            return
        try:
            context = self._files.context()
        except (OSError, ValueError) as error:
            self._say(str(error))
            return
        self._stamps, self._context = stamps, context
        if self._listening is None:
            # Without tickets, so that whoever comes back is looked at again.
            context.num_tickets = 0
            context.sni_callback = self._take_newest
            await self._listen(context)
        else:
            self._said = ""
            log.info("event=certificate port=%d", self.port)

    def _take_newest(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """Called for each connection, also for one that names no server."""
        if self._context is not None:
            connection.context = self._context

    async def _listen(self, context: ssl.SSLContext | None) -> None:
        self._listening = await self._listen_on(self._host, self.port, context)
        self.port = int(self._listening.sockets[0].getsockname()[1])
        self._said = ""
        log.info("event=listening port=%d tls=%s", self.port, context is not None)

    def close(self) -> None:
        """Take no more connections."""
        if self._listening is not None:
            self._listening.close()

    def _say(self, why: str) -> None:
        if why != self._said:
            self._said = why
            kept = "those before are kept" if self._listening else "nobody is served until they are"
            log.warning('event=no-certificate error="%s": %s', why, kept)

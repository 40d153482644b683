"""The socket on which proxies tell of their requests. Adapter.

Unix, SOCK_SEQPACKET, a record per message. A proxy never waits for us longer than it takes to read;
what is too much or makes no sense is counted, logged now and then, and hurts nobody else.
"""

import asyncio
import logging
import socket
import time
from pathlib import Path

from hubble.access_log import AccessLog
from hubble.ring import SOURCE_QUEUE, Lost, Ring, lost_record
from wire.access_log import RECORD_MAX_BYTES, AccessLogError

log = logging.getLogger("isthmus.hubble.access-log")

CONNECTIONS_MAX = 64
_AT_ONCE = 64  # messages of one connection before others get their turn
_TELL_S = 1.0
_LOG_S = 30.0


class AccessLogSocket:
    """Records of all proxies into the ring. Run it in an event loop."""

    def __init__(self, path: Path, access_log: AccessLog, ring: Ring) -> None:
        self._path, self._access_log, self._ring = path, access_log, ring
        self._connections: set[socket.socket] = set()
        self._told_lost = 0
        self._logged_s = -_LOG_S

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.setblocking(False)
            listening.bind(str(self._path))
            self._path.chmod(0o660)
            listening.listen()
            loop.add_reader(listening, self._accept, listening, loop)
            try:
                while True:
                    await asyncio.sleep(_TELL_S)
                    self._tell_losses()
            finally:
                loop.remove_reader(listening)
                for one in tuple(self._connections):
                    self._close(one, loop)
                self._path.unlink(missing_ok=True)

    def _accept(self, listening: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        try:
            connection, _ = listening.accept()
        except OSError:  # it went away again
            return
        if len(self._connections) >= CONNECTIONS_MAX:
            self._warn(f"{CONNECTIONS_MAX} proxies are connected: one more is turned away")
            connection.close()
            return
        connection.setblocking(False)
        self._connections.add(connection)
        loop.add_reader(connection, self._read, connection, loop)

    def _close(self, connection: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(connection)
        self._connections.discard(connection)
        connection.close()

    def _read(self, connection: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        records = []
        for _ in range(_AT_ONCE):
            try:
                message = connection.recv(RECORD_MAX_BYTES + 1)
            except BlockingIOError:
                break
            except OSError:
                message = b""
            if not message:
                self._close(connection, loop)
                break
            now_ns = time.time_ns()
            try:
                record = self._access_log.take(message, now_ns)
            except AccessLogError as error:
                self._warn(str(error))
                continue
            if record is not None:
                records.append((now_ns, record))
        self._ring.extend(records)

    def _tell_losses(self) -> None:
        lost = self._access_log.lost - self._told_lost
        if lost:
            self._told_lost += lost
            self._ring.extend([(time.time_ns(), lost_record(Lost(SOURCE_QUEUE, 0, lost)))])
            self._warn("more records come than are taken")

    def _warn(self, reason: str) -> None:
        now_s = time.monotonic()
        if now_s - self._logged_s >= _LOG_S:
            self._logged_s = now_s
            log.warning(
                'event=access-log socket=%s bad=%d lost=%d last="%s"',
                self._path,
                self._access_log.bad,
                self._access_log.lost,
                reason,
            )

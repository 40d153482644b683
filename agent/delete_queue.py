"""DELs that came while no agent listened. Adapter.

The plugin writes ``<name>.delete`` under a shared lock on ``lockfile``, after it has found the
socket dead. We take the lock exclusively, work the queue off, and let go once the socket listens:
a DEL is either in the queue before, or finds us.
"""

# ruff: noqa: ASYNC240  (a few small local files, before anything is served)

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec

from agent.cni_types import CniError

log = logging.getLogger("isthmus.agent.cni")

LIMIT = 256  # files; the plugin refuses more
_RETRY_S = 0.05
_LOCK_TIMEOUT_S = 15.0  # a plugin holds it for 10 s at most


class Queued(msgspec.Struct, frozen=True, rename="kebab"):
    """A queued DEL."""

    container_id: str
    ifname: str = "eth0"


@contextlib.asynccontextmanager
async def drained(
    directory: Path, delete: Callable[[str, str], Awaitable[None]]
) -> AsyncIterator[int]:
    """Work the queue off and hold it shut until the block ends. Yields how many were worked."""
    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory / "lockfile", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        await _lock(handle)
        count = 0
        for path in sorted(directory.glob("*.delete")):
            await _work(path, delete)
            count += 1
        yield count
    finally:
        os.close(handle)


async def _lock(handle: int) -> None:
    """Without the lock we go on: a DEL that is lost is made good by the runtime's next one."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if loop.time() > deadline:
                log.warning("event=delete-queue-locked: a plugin does not let go of it")
                return
            await asyncio.sleep(_RETRY_S)


async def _work(path: Path, delete: Callable[[str, str], Awaitable[None]]) -> None:
    try:
        queued = msgspec.json.decode(path.read_bytes(), type=Queued)
    except (OSError, msgspec.MsgspecError) as error:
        log.warning('event=delete-ignored path=%s error="%s"', path, error)
    else:
        try:
            await delete(queued.container_id, queued.ifname)
        except CniError as error:
            # It stays for the next start; the others, and this start, go on.
            log.warning('event=delete-failed path=%s error="%s"', path, error)
            return
        log.info("event=delete-from-queue container=%s", queued.container_id)
    path.unlink(missing_ok=True)

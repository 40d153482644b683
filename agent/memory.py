"""How the process takes memory and gives it back. Adapter (the C library, the collector)."""

import asyncio
import asyncio.sslproto
import ctypes
import gc
import logging
from collections.abc import Callable, Iterable

from kvstore.status import RemoteStatus

log = logging.getLogger("isthmus.agent")

# Objects made before the collector looks at the young ones again, and how often it looks at the
# older: what an agent learns stays, and a look at it for each 700 new ones is a third of its start.
GC_THRESHOLDS = (50_000, 20, 50)
# Until the mesh is read it does not look at all, but not longer than this: clusters that do not
# answer leave cycles behind (errors), though not more than what they would have said.
LEARNING_S = 60.0

# glibc raises the first by itself when something large is freed: pages of listings would then lie
# on the heap, between what stays for ever. Below it blocks come and go too often for the kernel; so
# does the heap's end below the second.
MMAP_THRESHOLD_BYTES, TRIM_THRESHOLD_BYTES = 1 << 20, 8 << 20
# Threads take turns anyway, and a heap for each of them is as many heaps with holes.
ARENAS = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8

# Each connection of asyncio's has a buffer for what comes encrypted, 256 KiB of its own accord; an
# agent has one for each kind of object that it follows. A TLS record is 16 KiB at most.
TLS_BUFFER_BYTES = 64 << 10

LOOK_S, LIMIT_S = 2.0, 600.0


def settle() -> None:
    """Before anything is learnt."""
    gc.set_threshold(*GC_THRESHOLDS)
    rest_collector()
    c_library = ctypes.CDLL(None)
    c_library.mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
    c_library.mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
    c_library.mallopt(_M_ARENA_MAX, ARENAS)
    asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES


def rest_collector() -> None:
    """While the mesh is read: what comes stays, and a look at it finds nothing."""
    gc.disable()
    asyncio.get_running_loop().call_later(LEARNING_S, wake_collector)


def wake_collector() -> None:
    """From now on; what is there by now counts as old, and nothing is looked at for that."""
    if not gc.isenabled():
        gc.freeze()
        gc.unfreeze()
        gc.enable()


async def give_back(statuses: Callable[[], Iterable[RemoteStatus]]) -> None:
    """Holes in the heap, once: when all clusters have been read, or after ten minutes.

    What comes later comes row by row and fits into what is free.
    """
    loop = asyncio.get_running_loop()
    until_s = loop.time() + LIMIT_S
    while True:
        await asyncio.sleep(LOOK_S)
        if loop.time() >= until_s or all(status.ready for status in statuses()):
            break
    await asyncio.sleep(LOOK_S)  # what was read is on its way to the kernel
    wake_collector()
    began = loop.time()
    ctypes.CDLL(None).malloc_trim(0)
    log.info("event=heap-trimmed ms=%.1f", 1000 * (loop.time() - began))

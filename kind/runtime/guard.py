"""The runtime's twin: waits for its end and takes its place. Adapter.

Runtime and kubelet start each other again; killed one shortly after the other, nobody would. The
guard is a fork of the runtime that does nothing but wait, and the runtime replaces a killed guard,
so that only killing both within milliseconds leaves the node without.
"""

import contextlib
import os
import select
from collections.abc import Sequence

from kind.runtime import spawn

LAST_FD = 4096  # more than a runtime has open; those above would be closed by the exec anyway


def start(again: Sequence[str]) -> int:
    """Fork the guard of the calling process; ``again`` is the command that starts a new one."""
    parent = os.getpid()
    watched = os.pidfd_open(parent)
    pid = os.fork()
    if pid:
        os.close(watched)
        return pid
    try:
        spawn.reset_signals()
        os.setsid()
        # Not the lock, not the listening socket: both must be free when the runtime is gone.
        os.closerange(3, watched)
        os.closerange(watched + 1, LAST_FD)
        poll = select.poll()
        poll.register(watched, select.POLLIN)
        with contextlib.suppress(InterruptedError):
            poll.poll()
        os.execv(again[0], list(again))
    finally:
        os._exit(1)

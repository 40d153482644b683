"""Entry of the node's runtime; started by the lab, and by the kubelet when it is gone. Adapter.

    python -I -S kind/runtime/__main__.py NODE_DIRECTORY

All it must know is in ``runtime.json`` of the node's directory, so that whoever finds it missing
can start it.
"""

import fcntl
import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    """Read the settings, serve for ever."""
    # Isolated from site-packages for a start of milliseconds; only the checkout is importable.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from kind.runtime import guard, records, server, spawn

    directory = Path(sys.argv[1])
    lock = os.open(directory / "runtime.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # another one was started at the same moment
    settings = json.loads((directory / "runtime.json").read_text())
    spawn.join_cgroup(settings["cgroup"])
    node = spawn.Node(
        root=settings["root"],
        scratch=settings["scratch"],
        keep=settings["keep"],
        cgroup_mount=settings["cgroup_mount"],
    )
    store = records.Store(str(directory / "containers"))
    again = [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(directory)]
    socket_path = str(directory / "runtime.sock")
    server.Runtime(node, socket_path, store, time.monotonic, lambda: guard.start(again)).serve()


if __name__ == "__main__":
    main()

"""Show a log file, all of it or its end, once or as it grows. Adapter."""

import sys
import time
from pathlib import Path

from kind.lab import find
from kind.lab.topology import LabError, Topology

LOOK_S = 0.2


def of_service(lab: Topology, target: str) -> Path | None:
    """The log of ``NODE/SERVICE``; ``None`` when the first part is no node."""
    name, _, service = target.partition("/")
    node = find.node(lab, name)
    if node is None:
        return None
    known = sorted(path.stem for path in (node.directory / "logs").glob("*.log"))
    if service == "runtime":
        return node.directory / "runtime.log"
    if service not in known:
        raise LabError(f"say which process: {', '.join(f'{name}/{item}' for item in known)}")
    return node.directory / "logs" / f"{service}.log"


def show(path: Path, tail: int, follow: bool) -> None:
    """Write a log to standard output; with ``follow`` until interrupted. Raises LabError."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise LabError(f"nothing was written to {path} yet") from None
    with file:
        if tail >= 0:
            lines = file.read().splitlines(keepends=True)
            sys.stdout.buffer.write(b"".join(lines[len(lines) - tail :] if tail else []))
        while True:
            data = file.read(1 << 16)
            if data:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            elif follow:
                time.sleep(LOOK_S)
            else:
                return

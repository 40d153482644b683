"""What the runtime is told to run, and what it knows about it; as JSON on disk and on the socket.

Adapter to the state directory. A record is written whole and renamed into place, so that a killed
runtime finds each of its containers either as it was or as it is.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kind.runtime.namespaces import Bind

HOST, NODE, CONTAINER = "host", "node", "container"

# Of everything that is started. A log must be seen when it is written. As our image, a lab has no
# public authorities: nobody needs them, and each process would take 60 ms to read them.
ENVIRONMENT = {
    "HOME": "/root",
    "PYTHONUNBUFFERED": "1",
    "SSL_CERT_FILE": os.devnull,
    "SSL_CERT_DIR": os.devnull,
}


@dataclass(frozen=True, slots=True)
class Launch:
    """A process to start, with the view of the system it gets."""

    id: str
    argv: list[str]
    env: dict[str, str]
    cgroup: str  # absolute directory, made when missing
    log: str  # file that receives both outputs
    view: str = (
        HOST  # HOST: as it is; NODE: chroot to the node's root; CONTAINER: a root of its own
    )
    netns: str = ""  # path; empty: the runtime's
    cwd: str = "/"
    hostname: str = ""
    binds: list[Bind] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)  # written into a container's root
    restart: bool = False  # a service of the node: started again when it ends


@dataclass(slots=True)
class Record:
    """One started process and its fate."""

    launch: Launch
    pid: int = 0
    start_ticks: int = 0  # of the process, so that a reused pid is not taken for it
    state: str = "created"  # created, running, exited
    exit_code: int | None = None  # None while running, or when nobody saw the end
    started_at: float = 0.0
    finished_at: float = 0.0
    restarts: int = 0
    message: str = ""  # why it could not be started

    def as_json(self) -> dict[str, Any]:
        """The record as plain values."""
        return asdict(self)


def launch_from(raw: dict[str, Any]) -> Launch:
    """Read a launch from plain values; unknown fields are a programming error and raise."""
    binds = [Bind(**item) for item in raw.get("binds", [])]
    return Launch(**{**raw, "binds": binds})


def record_from(raw: dict[str, Any]) -> Record:
    """Read a record from plain values."""
    return Record(**{**raw, "launch": launch_from(raw["launch"])})


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 when there is none or it is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


class Store:
    """Records as files of one directory."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)
        self._directory.mkdir(parents=True, exist_ok=True)

    def load(self) -> dict[str, Record]:
        """All records; a file that does not decode is left out, its process ends with the lab."""
        found = {}
        for path in self._directory.glob("*.json"):
            try:
                record = record_from(json.loads(path.read_text()))
            except (ValueError, TypeError, KeyError):
                continue
            found[record.launch.id] = record
        return found

    def save(self, record: Record) -> None:
        """Write one record in one step."""
        path = self._directory / f"{record.launch.id}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(record.as_json()))
        os.replace(temporary, path)

    def remove(self, name: str) -> None:
        """Forget one record; none is no error."""
        (self._directory / f"{name}.json").unlink(missing_ok=True)

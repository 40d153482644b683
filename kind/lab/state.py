"""A lab's memory: what was asked for, by whom, and the lock of what changes it. Adapter."""

import contextlib
import fcntl
import getpass
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from kind.lab import host, topology
from kind.lab.topology import LabError, Topology


@dataclass(frozen=True, slots=True)
class LabRecord:
    """What ``up`` writes down first."""

    name: str
    clusters: int
    nodes: int
    underlay_mtu: int
    ports: list[int]  # on 127.0.0.1, one per cluster: its API server
    created: str
    by: str  # user and checkout
    kube_assets: str = ""
    ipv6: bool = False

    def topology(self) -> Topology:
        """The lab's layout."""
        return topology.build(
            self.name, self.clusters, self.nodes, self.underlay_mtu, ipv6=self.ipv6
        )


def whoami() -> str:
    """Who starts a lab, for the message that the next one gets."""
    checkout = Path(__file__).resolve().parents[2]
    return f"{getpass.getuser()} from {checkout}"


@contextlib.contextmanager
def locked(lab: str) -> Iterator[None]:
    """Hold the lab's lock. Raises LabError with the holder when another command has it."""
    topology.LABS_DIRECTORY.mkdir(parents=True, exist_ok=True)
    path = topology.lock_path(lab)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 4096, 0).decode(errors="replace").strip() or "another command"
            raise LabError(f"lab {lab!r} is being changed by {holder}; wait for it") from None
        if not path.exists() or path.stat().st_ino != os.fstat(fd).st_ino:
            # The lab was removed, and its lock with it, between our open and our lock.
            raise LabError(f"lab {lab!r} was being removed just now; repeat the command")
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"pid {os.getpid()} ({whoami()})\n".encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(fd, 0)
            if not remains(lab):
                path.unlink(missing_ok=True)
    finally:
        os.close(fd)


def save(record: LabRecord) -> None:
    """Write the record into the lab's directory."""
    path = record.topology().directory / "lab.json"
    path.write_text(json.dumps(asdict(record), indent=1))


def load(lab: str) -> LabRecord:
    """Read a lab's record. Raises LabError when there is no such lab, or only remains of one."""
    path = topology.LABS_DIRECTORY / lab / "lab.json"
    try:
        return LabRecord(**json.loads(path.read_text()))
    except FileNotFoundError:
        if remains(lab):
            raise LabError(
                f"lab {lab!r} is only half there ({', '.join(remains(lab))}); "
                f"remove it: isthmus lab down {lab}"
            ) from None
        raise LabError(f"there is no lab {lab!r}; start it: isthmus lab up {lab}") from None


def remains(lab: str) -> list[str]:
    """What of a lab is in the system, in words; empty when nothing is."""
    found = []
    names = host.netns_of(lab)
    if names:
        found.append(f"{len(names)} network namespaces such as {names[0]}")
    cgroup = host.cgroup_of(lab)
    if cgroup.exists():
        found.append(f"cgroup {cgroup} with {len(host.processes_of(lab))} processes")
    directory = topology.LABS_DIRECTORY / lab
    if directory.exists():
        found.append(f"directory {directory}")
    return found


def refuse_if_present(lab: str) -> None:
    """Raises LabError when the names of the lab are taken, with who has them and the remedy."""
    found = remains(lab)
    if not found:
        return
    owner = ""
    with contextlib.suppress(LabError, ValueError, TypeError):
        record = load(lab)
        owner = f", started {record.created} by {record.by}"
    raise LabError(
        f"lab {lab!r} exists already{owner}: {'; '.join(found)}. "
        f"Remove it with: isthmus lab down {lab}, or choose another name: isthmus lab up NAME"
    )


def names() -> list[str]:
    """All labs of this machine that have left anything behind."""
    found: set[str] = set()
    if topology.LABS_DIRECTORY.exists():
        found |= {path.name for path in topology.LABS_DIRECTORY.iterdir() if path.is_dir()}
    prefix = topology.CGROUP_PREFIX
    with contextlib.suppress(LabError, OSError):
        for path in Path(host.cgroup_mount()).glob(f"{prefix}*"):
            found.add(path.name.removeprefix(prefix))
    return sorted(name for name in found if remains(name))

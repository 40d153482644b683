"""Remove a lab, whatever of it is there. Adapter.

Everything is found by name and by cgroup: nothing of what ``up`` remembered is needed, so a half
started or broken lab goes as well, and a second ``down`` finds nothing to do. Processes are ended
only when they are in the lab's cgroup.
"""

from dataclasses import dataclass

from kind.lab import host


@dataclass(frozen=True, slots=True)
class Removed:
    """What was there."""

    processes: int
    namespaces: int
    mounts: int

    @property
    def anything(self) -> bool:
        """False when there was nothing to do."""
        return bool(self.processes or self.namespaces or self.mounts)


def remove(lab: str) -> Removed:
    """Remove a lab; the caller holds its lock. Raises LabError when something refuses to go."""
    processes = host.end_processes(lab)
    namespaces = host.remove_netns(lab)
    mounts = host.remove_directory(lab)
    return Removed(processes, namespaces, mounts)

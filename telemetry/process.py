"""What the kernel says of this process: CPU, memory, descriptors. Adapter."""

import os
import resource
from pathlib import Path

from telemetry.metrics import Family, family

_PAGE = os.sysconf("SC_PAGESIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


def families(prefix: str) -> list[Family]:
    """``<prefix>process_…``, as Prometheus' client libraries name them."""
    own = Path("/proc/self")
    pages = (own / "statm").read_text().split()
    # Behind the program's name, which may hold anything: the 20th field is the start, in ticks.
    started = int((own / "stat").read_text().rpartition(")")[2].split()[19]) / _TICKS
    booted = next(
        int(line.split()[1])
        for line in Path("/proc/stat").read_text().splitlines()
        if line.startswith("btime")
    )
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def one(name: str, text: str, value: float, kind: str = "gauge") -> Family:
        return family(f"{prefix}process_{name}", kind, text, [({}, value)])

    return [
        one("cpu_seconds_total", "CPU time spent", used.ru_utime + used.ru_stime, "counter"),
        one("virtual_memory_bytes", "Address space", int(pages[0]) * _PAGE),
        one("resident_memory_bytes", "Memory in use", int(pages[1]) * _PAGE),
        one("open_fds", "Open file descriptors", len(os.listdir("/proc/self/fd"))),
        one("max_fds", "File descriptors that may be open", most),
        one("start_time_seconds", "When the process began, since 1970", booted + started),
    ]

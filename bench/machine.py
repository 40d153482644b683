"""How quick the machine is just now, so that absolute figures of two days can be compared.

A figure in CPU seconds of an agent with hundreds of megabytes follows the time of a read from
memory, which neighbours change several times over, and hardly that of a loop.
"""

import os
import platform
import random
import subprocess
import sys
from time import perf_counter

ROWS, READS, RUNS = 2_000_000, 200_000, 5


def told() -> str:
    """Kernel, processors, a step of a loop, a read of a random row among millions (nanoseconds)."""
    kernel = platform.release().split("-")[0]
    child = subprocess.run(  # its memory is not to stay with the bench
        [sys.executable, "-m", "bench.machine"], stdout=subprocess.PIPE, text=True, check=True
    )
    return f"Linux {kernel}, {os.cpu_count()} CPUs, {child.stdout.strip()}"


def _measured() -> str:
    rows = {number: number for number in range(ROWS)}
    keys = [random.randrange(ROWS) for _ in range(READS)]
    steps, reads = [], []
    for _ in range(RUNS):
        begun = perf_counter()
        sum(range(10 * READS))
        steps.append((perf_counter() - begun) / (10 * READS))
        begun = perf_counter()
        for key in keys:
            rows[key]
        reads.append((perf_counter() - begun) / READS)
    return f"step {1e9 * min(steps):.1f} ns, read {1e9 * min(reads):.0f} ns"


if __name__ == "__main__":
    print(_measured())

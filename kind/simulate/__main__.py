"""``python -m kind.simulate REQUEST``: a rehearsal inside an enclosure that is there already.

The report is one JSON object on standard output; exit code 1 when something is wrong.
"""

import asyncio
import os
import signal
import sys

import msgspec

from kind.simulate import enclosure
from kind.simulate.processes import SimulationError
from kind.simulate.progress import Bars
from kind.simulate.rehearsal import Rehearsal, Request, keep_logs


def main() -> int:
    """The exit code. As the first process of its namespace nobody else ends what we started."""
    request = msgspec.json.decode(sys.argv[1], type=Request)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one outside is told as well, and ends us
    enclosure.furnish(own_run=True)
    with Bars() as bars:
        rehearsal = Rehearsal(request, bars)
        try:
            asyncio.run(rehearsal.run())
        except* (SimulationError, OSError) as group:
            rehearsal.report.errors += [str(error) for error in _leaves(group)]
        finally:
            if request.keep_logs:
                keep_logs(request.keep_logs)
    sys.stdout.write(rehearsal.report.as_json() + "\n")
    sys.stdout.flush()
    return 0 if rehearsal.report.ok else 1


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


if __name__ == "__main__":
    os._exit(main())  # its children end with it

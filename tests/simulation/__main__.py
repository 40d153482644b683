"""``python -m tests.simulation --seed N``: a seed's story again; ``--count N`` from there on."""

import argparse
import logging
import sys
import time

from tests.simulation.play import Failure, play


def main() -> int:
    """1 when a seed fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--quiet", action="store_true", help="only what fails")
    parser.add_argument("--log", action="store_true", help="the parts' own log, too")
    options = parser.parse_args()
    logging.basicConfig(level=logging.DEBUG if options.log else logging.CRITICAL)
    failed = 0
    for seed in range(options.seed, options.seed + options.count):
        start = time.monotonic()
        try:
            lines = play(seed, aloud=not options.quiet)
        except Failure as failure:
            failed += 1
            print(failure, flush=True)
        else:
            took_s = time.monotonic() - start
            print(f"seed {seed}: well, {len(lines)} events, {took_s:.2f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

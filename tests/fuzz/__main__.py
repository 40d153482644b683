"""``python -m tests.fuzz [--seconds S] [--seed N] [--target NAME]``: almost right bytes in.

Ends with 1 at the first bytes that make a decoder raise another error than its own, read otherwise
what it wrote itself, or take longer than a second; prints them in hex.
"""

import argparse
import random
import sys
import time

from tests.fuzz.run import Finding, fuzz
from tests.fuzz.targets import TARGETS


def main() -> None:
    """Every target gets the same share of the time."""
    parser = argparse.ArgumentParser(prog="fuzz")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() & 0xFFFFFFFF)
    parser.add_argument("--target", choices=sorted(TARGETS), action="append")
    options = parser.parse_args()
    names = options.target or sorted(TARGETS)
    for name in names:
        until = time.monotonic() + options.seconds / len(names)
        try:
            count = fuzz(TARGETS[name], random.Random(options.seed), until_s=until)
        except Finding as found:
            sys.exit(f"{name} (seed {options.seed}): {found}")
        print(f"{name:16} {count:8} values")


if __name__ == "__main__":
    main()

"""``python -m bench NAME…``: measure, one JSON line per figure; ``all`` measures everything.

``--record`` also rewrites the measured figures in ``bench/RESULTS.md``.
"""

import importlib
import sys

from bench import machine, results

NAMES = (
    "encrypt",
    *("datapath", "lb", "propagation", "agent", "failover", "kvstoremesh"),
    *("mesh250", "mesh1m", "publish", "bigservice", "policy", "policycore", "policyapply"),
    "policytrial",
    "hubble",
    "observer",
)


def main(argv: list[str]) -> int:
    """Exit status: 0, or 2 for an unknown name."""
    record = "--record" in argv
    names = [a for a in argv if a != "--record"]
    if names == ["all"]:
        names = list(NAMES)
    unknown = [n for n in names if n not in NAMES]
    if unknown or not names:
        print(f"usage: python -m bench [--record] all | {' | '.join(NAMES)}", file=sys.stderr)
        return 2
    for name in names:
        where = machine.told() if record else ""
        for figure in importlib.import_module(f"bench.{name}").measure():
            print(figure.line(), flush=True)
            if record:
                results.record(figure, where)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

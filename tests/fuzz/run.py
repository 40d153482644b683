"""The loop of the fuzzer."""

import random
import time

from tests.fuzz.mutate import mutated
from tests.fuzz.targets import Target

PATIENCE_S = 1.0  # of one value; the machine may be busy
SEED_BYTES = 4096  # mutations multiply


class Finding(AssertionError):
    """Bytes that a decoder does not treat as it promises."""


def one(target: Target, data: bytes) -> bool:
    """Whether a value was accepted. Raises ``Finding``."""
    began = time.process_time()
    try:
        target.run(data)
        good = True
    except target.errors:
        good = False
    except Exception as error:
        raise Finding(f"{type(error).__name__}: {error}\n{data.hex()}") from error
    if time.process_time() - began > PATIENCE_S:
        raise Finding(f"took more than {PATIENCE_S} s\n{data.hex()}")
    return good


def fuzz(
    target: Target, rng: random.Random, *, rounds: int = 0, until_s: float = float("inf")
) -> int:
    """``rounds`` values (0: until ``until_s``). What is accepted becomes a seed as well."""
    seeds = list(target.seeds)
    for seed in seeds:
        if not one(target, seed):
            raise Finding(f"the seed itself is refused: {seed!r}")
    count = 0
    while (not rounds or count < rounds) and time.monotonic() < until_s:
        data = mutated(seeds, rng, target.ways)
        if one(target, data) and len(data) < SEED_BYTES and len(seeds) < 200:
            seeds.append(data)
        count += 1
    return count

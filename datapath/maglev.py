"""Maglev: which backend a flow's hash leads to, nearly unchanged when backends come and go. Pure.

Every node builds the same table from the same backends, so a flow that changes its way into the
cluster keeps its backend. (Eisenbud et al., NSDI 2016, section 3.4.)
"""

import hashlib
from array import array
from collections.abc import Iterator, Mapping
from heapq import heapify, heapreplace

_EMPTY = 0xFFFFFFFF


def build(
    backends: Mapping[str, int], size: int, weights: Mapping[str, int] | None = None
) -> "array[int]":
    """A table of ``size`` backend ids. ``backends``: a name that all nodes share, to the id here.

    ``size`` is a prime, well above 100 times the number of backends for an even share.
    ``weights`` by the same names: a backend with twice the weight takes a turn twice as often.
    """
    table = array("I", [_EMPTY]) * size
    if not backends:
        return array("I", bytes(4 * size))
    at, skips = [], []
    names = sorted(backends)
    for name in names:
        digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
        at.append(int.from_bytes(digest[:8], "big") % size)
        skips.append(int.from_bytes(digest[8:], "big") % (size - 1) + 1)
    ids = [backends[name] for name in names]
    left = size
    for turn in _turns([weights[name] for name in names] if weights else [1] * len(names)):
        place, skip = at[turn], skips[turn]
        while table[place] != _EMPTY:
            place = (place + skip) % size
        table[place] = ids[turn]
        at[turn] = (place + skip) % size
        left -= 1
        if not left:
            break
    return table


def _turns(weights: list[int]) -> Iterator[int]:
    """Whose turn it is, for ever: round after round when all are alike."""
    if len(set(weights)) == 1:
        while True:
            yield from range(len(weights))
    highest = max(weights)
    # The next turn of each, in whole numbers so that all nodes agree to the last place.
    pauses = [(highest << 32) // weight for weight in weights]
    due = [(pause, n) for n, pause in enumerate(pauses)]
    heapify(due)
    while True:
        moment, n = due[0]
        heapreplace(due, (moment + pauses[n], n))
        yield n

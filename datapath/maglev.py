"""Maglev: which backend a flow's hash leads to, nearly unchanged when backends come and go. Pure.

Every node builds the same table from the same backends, so a flow that changes its way into the
cluster keeps its backend. (Eisenbud et al., NSDI 2016, section 3.4.)
"""

import hashlib
from array import array
from collections.abc import Mapping

_EMPTY = 0xFFFFFFFF


def build(backends: Mapping[str, int], size: int) -> "array[int]":
    """A table of ``size`` backend ids. ``backends``: a name that all nodes share, to the id here.

    ``size`` is a prime, well above 100 times the number of backends for an even share.
    """
    table = array("I", [_EMPTY]) * size
    if not backends:
        return array("I", bytes(4 * size))
    turns = []
    for name in sorted(backends):
        digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
        offset = int.from_bytes(digest[:8], "big") % size
        skip = int.from_bytes(digest[8:], "big") % (size - 1) + 1
        turns.append([offset, skip, backends[name]])
    left = size
    while True:
        for turn in turns:
            at, skip, backend = turn
            while table[at] != _EMPTY:
                at = (at + skip) % size
            table[at] = backend
            turn[0] = (at + skip) % size
            left -= 1
            if not left:
                return table

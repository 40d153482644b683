"""Which addresses are this cluster's own, so that no peer may speak for them. Pure."""

from collections import Counter
from collections.abc import Iterable

from model.address import Address, Prefix


def _supernets(prefix: Prefix) -> Iterable[tuple[int, int, int]]:
    """The prefix and everything that contains it, as (version, length, bits)."""
    bits, width = int(prefix.network_address), prefix.max_prefixlen
    for length in range(prefix.prefixlen, -1, -1):
        shift = width - length
        yield prefix.version, length, bits >> shift << shift


class LocalPrefixes:
    """Pod prefixes of this cluster's nodes. A question costs the length of an address."""

    def __init__(self) -> None:
        self._own: Counter[Prefix] = Counter()
        self._exact: set[tuple[int, int, int]] = set()
        self._lengths: Counter[tuple[int, int]] = Counter()  # of those in ``_exact``
        self._covering: Counter[tuple[int, int, int]] = Counter()

    def add(self, prefix: Prefix) -> bool:
        """True when it was not known."""
        self._own[prefix] += 1
        if self._own[prefix] > 1:
            return False
        self._exact.add(next(iter(_supernets(prefix))))
        self._lengths[prefix.version, prefix.prefixlen] += 1
        self._covering.update(_supernets(prefix))
        return True

    def remove(self, prefix: Prefix) -> bool:
        """True when it is not known any more."""
        self._own[prefix] -= 1
        if self._own[prefix] > 0:
            return False
        del self._own[prefix]
        self._exact.discard(next(iter(_supernets(prefix))))
        self._lengths -= Counter([(prefix.version, prefix.prefixlen)])
        for key in _supernets(prefix):
            self._covering[key] -= 1
            if not self._covering[key]:
                del self._covering[key]
        return True

    def overlap(self, prefix: Prefix) -> Prefix | None:
        """One of ours that shares addresses with ``prefix``."""
        if not self._own:
            return None
        containing = list(_supernets(prefix))
        if any(key in self._exact for key in containing) or containing[0] in self._covering:
            return min(
                (p for p in self._own if p.version == prefix.version and p.overlaps(prefix)),
                key=str,
            )
        return None

    def contains(self, address: Address) -> bool:
        """Whether an address lies in one of ours. Asked of every backend of every peer."""
        bits, width = int(address), address.max_prefixlen
        return any(
            (version, length, bits >> width - length << width - length) in self._exact
            for version, length in self._lengths
            if version == address.version
        )

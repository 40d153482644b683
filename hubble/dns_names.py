"""Which names pods have looked addresses up by. Pure; times are ns since 1970.

A flow to an address outside is shown with the name its pod asked for. Flows are read long after
they happened, so a name is kept for an hour at least, whatever its lifetime is.
"""

from collections import OrderedDict
from collections.abc import Iterable

KEPT_MIN_S = 3600
ADDRESSES_MAX = 1 << 16  # pairs of a pod and an address; those told of longest ago go first
NAMES_MAX = 32  # of one address
_FORGET_NS = 60 * 10**9
EARLY_NS = 10**9  # packets are faster than the record of the answer that they follow


class DnsNames:
    """Fed with answers, asked for flows."""

    def __init__(self) -> None:
        self.revision = 0  # grows when a name is learnt that was not known
        self._forgot_ns = 0
        self._names: OrderedDict[tuple[int, bytes], dict[str, tuple[int, int]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._names)

    def learn(
        self, endpoint: int, name: str, addresses: Iterable[bytes], ttl_s: int, now_ns: int
    ) -> None:
        """The pod with this number was answered that the name has these addresses."""
        name = name.rstrip(".").lower()
        until_ns = now_ns + max(ttl_s, KEPT_MIN_S) * 10**9
        for address in addresses:
            key = endpoint, address
            names = self._names.setdefault(key, {})
            self._names.move_to_end(key)
            self.revision += name not in names
            since_ns, _ = names.pop(name, (now_ns - EARLY_NS, 0))
            names[name] = since_ns, until_ns
            if len(names) > NAMES_MAX:
                del names[next(iter(names))]
        while len(self._names) > ADDRESSES_MAX:
            self._names.popitem(last=False)

    def get(self, endpoint: int, address: bytes, at_ns: int) -> list[str]:
        """The names that the pod knew the address by, sorted."""
        known = self._names.get((endpoint, address))
        if not known:
            return []
        return sorted(n for n, (since, until) in known.items() if since <= at_ns <= until)

    def forget(self, before_ns: int) -> None:
        """Nobody will ask for times before this. Cheap: looks at the names once a minute only."""
        if before_ns - self._forgot_ns < _FORGET_NS:
            return
        self._forgot_ns = before_ns
        for key, names in list(self._names.items()):
            for name in [n for n, (_, until_ns) in names.items() if until_ns < before_ns]:
                del names[name]
            if not names:
                del self._names[key]

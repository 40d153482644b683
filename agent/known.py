"""Identities enter the kernel once policy has rows for them. Pure.

A number whose labels nobody has told yet, or whose rows are not written yet, is shown to the
programs as identity 0: "somebody's, and we do not know whose". That is neither the world nor
somebody else, and passes only where nothing is forbidden.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from mesh.ipcache import Ipcache
from model.address import MAPPED_BITS, Prefix, is_host
from model.endpoint import EndpointId, LocalEndpoint
from model.identity import NumericIdentity, ReservedIdentity
from model.ipcache import IpcacheEntry, Source
from reconcile.table import Desired

UNKNOWN = NumericIdentity(ReservedIdentity.UNKNOWN)


class KnownIdentities:
    """Numbers that policy has rows for, and who waits for the others.

    Until the first are added everybody passes as he is: the kernel holds what a former life wrote,
    and a start does not take it back.
    """

    def __init__(self) -> None:
        self._numbers: set[int] | None = None
        self._prefixes: dict[int, dict[Prefix, None]] = {}  # that wait, by number
        self._endpoints: dict[int, dict[EndpointId, None]] = {}
        self.on_prefix: Callable[[Prefix], None] = lambda prefix: None
        self.on_endpoint: Callable[[EndpointId], None] = lambda number: None

    def add(self, numbers: set[int]) -> None:
        """Their rows are written; who waited is told. After the first call only these pass."""
        if self._numbers is None:
            self._numbers = set()
        self._numbers |= numbers
        for number in numbers:
            for prefix in self._prefixes.pop(number, ()):
                self.on_prefix(prefix)
            for endpoint in self._endpoints.pop(number, ()):
                self.on_endpoint(endpoint)

    def discard(self, number: int) -> None:
        """Nobody says any more what it stands for."""
        if self._numbers is not None:
            self._numbers.discard(number)

    def __contains__(self, number: int) -> bool:
        return self._numbers is None or number in self._numbers

    def waiting(self) -> int:
        """How many numbers somebody waits for."""
        return len(self._prefixes)

    def entry(self, prefix: Prefix, row: IpcacheEntry) -> IpcacheEntry:
        """The row as the kernel may have it."""
        numbers = self._numbers
        if numbers is None or row.identity in numbers or row.identity == UNKNOWN:
            return row
        self._prefixes.setdefault(row.identity, {})[prefix] = None
        return IpcacheEntry(UNKNOWN, row.tunnel_endpoint, row.encrypt_key, row.cluster_id)

    def endpoint(self, row: LocalEndpoint) -> LocalEndpoint:
        """The row as the kernel may have it."""
        if row.identity in self:
            return row
        self._endpoints.setdefault(row.identity, {})[row.id] = None
        return replace(row, identity=UNKNOWN)


class KnownIpcache:
    """The ipcache with known identities only, and no prefix of a policy inside a pod CIDR.

    What a CIDR rule names is outside of the clusters: an address of a pod CIDR whose pod is not
    known stays unknown, whatever rule names it.
    """

    def __init__(self, ipcache: Ipcache, own: Collection[Prefix], known: KnownIdentities) -> None:
        self._ipcache, self._own, self._known = ipcache, own, known

    def get(self, prefix: Prefix, /) -> IpcacheEntry | None:
        """The wanted row."""
        best = self._ipcache.winner(prefix)
        if best is None or (best.owner.source is Source.GENERATED and self._in_pod_cidr(prefix)):
            return None
        return self._known.entry(prefix, best.claim.entry)

    def items(self) -> Iterator[tuple[Prefix, IpcacheEntry]]:
        """All wanted rows."""
        for prefix, best in self._ipcache.winners():
            if best.owner.source is not Source.GENERATED or not self._in_pod_cidr(prefix):
                yield prefix, self._known.entry(prefix, best.claim.entry)

    def _in_pod_cidr(self, prefix: Prefix) -> bool:
        if any(own.covers(prefix) for own in self._own):
            return True
        widest = MAPPED_BITS if prefix.version == 4 else 0
        for length in range(prefix.length - 1, widest, -1):
            free = 128 - length
            around = Prefix((prefix.bits >> free << free).to_bytes(16) + bytes((length,)))
            row = None if is_host(around) else self._ipcache.get(around)
            if row is not None and row.tunnel_endpoint is not None:
                return True
        return False


class KnownEndpoints:
    """The endpoints of this node with known identities only."""

    def __init__(self, endpoints: Desired[EndpointId, LocalEndpoint], known: KnownIdentities):
        self._endpoints, self._known = endpoints, known

    def get(self, number: EndpointId, /) -> LocalEndpoint | None:
        """The wanted row."""
        found = self._endpoints.get(number)
        return self._known.endpoint(found) if found is not None else None

    def items(self) -> Iterator[tuple[EndpointId, LocalEndpoint]]:
        """All wanted rows."""
        for number, found in self._endpoints.items():
            yield number, self._known.endpoint(found)

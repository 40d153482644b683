"""Which addresses are this cluster's own, so that no peer may speak for them. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from mesh.problems import Violation
from model.address import Address, Prefix
from model.cluster import ClusterName
from model.node import Node, NodeName

V = TypeVar("V")
POD_PREFIX, NODE_ADDRESS, SERVICE_ADDRESS = "pod prefix", "node address", "service address"


class Covering(Generic[V]):
    """Values by prefix. Who covers an address costs as many look-ups as lengths are in use."""

    def __init__(self) -> None:
        self._tables: dict[int, dict[int, dict[int, V]]] = {4: {}, 6: {}}  # version, length, bits

    def get(self, prefix: Prefix) -> V | None:
        """The value of exactly this prefix."""
        table = self._tables[prefix.version].get(prefix.prefixlen)
        return table.get(_bits(prefix)) if table else None

    def set(self, prefix: Prefix, value: V) -> None:
        """Put or replace."""
        table = self._tables[prefix.version].setdefault(prefix.prefixlen, {})
        table[_bits(prefix)] = value

    def pop(self, prefix: Prefix) -> None:
        """It must be there."""
        table = self._tables[prefix.version][prefix.prefixlen]
        del table[_bits(prefix)]
        if not table:
            del self._tables[prefix.version][prefix.prefixlen]

    def covering(self, version: int, bits: int, length: int) -> Iterator[V]:
        """Values of the prefixes that contain ``bits``/``length``."""
        width = 32 if version == 4 else 128
        for known, table in self._tables[version].items():
            if known <= length and (value := table.get(bits >> width - known)) is not None:
                yield value

    def inside(self, prefix: Prefix) -> Iterator[V]:
        """Values of the prefixes that lie in ``prefix``, itself included; costs a walk."""
        for known, table in self._tables[prefix.version].items():
            if known == prefix.prefixlen:
                if (value := table.get(_bits(prefix))) is not None:
                    yield value
            elif known > prefix.prefixlen:
                shift, wanted = known - prefix.prefixlen, _bits(prefix)
                yield from (v for bits, v in table.items() if bits >> shift == wanted)


def _bits(prefix: Prefix) -> int:
    return int(prefix.network_address) >> prefix.max_prefixlen - prefix.prefixlen


def _supernets(prefix: Prefix) -> Iterable[tuple[int, int, int]]:
    """The prefix and everything that contains it, as (version, length, bits)."""
    bits = _bits(prefix)
    for length in range(prefix.prefixlen, -1, -1):
        yield prefix.version, length, bits >> prefix.prefixlen - length


class LocalPrefixes:
    """What is this cluster's own: pod prefixes, node addresses, service addresses."""

    def __init__(self) -> None:
        self._own: Counter[tuple[Prefix, str]] = Counter()
        self._exact: Covering[tuple[Prefix, str]] = Covering()
        self._around: Counter[tuple[int, int, int]] = Counter()

    def add(self, prefix: Prefix, kind: str = POD_PREFIX) -> bool:
        """True when it was not known."""
        self._own[prefix, kind] += 1
        if self._own[prefix, kind] > 1:
            return False
        if self._exact.get(prefix) is None:
            self._exact.set(prefix, (prefix, kind))
        self._around.update(_supernets(prefix))
        return True

    def remove(self, prefix: Prefix, kind: str = POD_PREFIX) -> bool:
        """True when it is not known any more."""
        self._own[prefix, kind] -= 1
        if self._own[prefix, kind] > 0:
            return False
        del self._own[prefix, kind]
        other = next((k for k in _KINDS if (prefix, k) in self._own), "")
        if other:
            self._exact.set(prefix, (prefix, other))
        else:
            self._exact.pop(prefix)
        for key in _supernets(prefix):
            self._around[key] -= 1
            if not self._around[key]:
                del self._around[key]
        return True

    def overlap(self, prefix: Prefix) -> Prefix | None:
        """One of ours that shares addresses with ``prefix``."""
        found = self._overlap(prefix)
        return found[0] if found else None

    def _overlap(self, prefix: Prefix) -> tuple[Prefix, str] | None:
        if not self._own:
            return None
        bits = int(prefix.network_address)
        for found in self._exact.covering(prefix.version, bits, prefix.prefixlen):
            return found
        if (prefix.version, prefix.prefixlen, _bits(prefix)) in self._around:
            return min(self._exact.inside(prefix), key=str)
        return None

    def contains(self, address: Address) -> bool:
        """Whether an address lies in one of ours."""
        width = address.max_prefixlen
        return any(True for _ in self._exact.covering(address.version, int(address), width))

    def refuses(
        self, cluster: ClusterName, prefix: Prefix, host: Address | None = None
    ) -> Violation | None:
        """Why a cluster may not speak for a prefix behind ``host``. Here: because it is ours."""
        del host
        found = self._overlap(prefix)
        if found is None:
            return None
        ours, kind = found
        return Violation(
            f"own-{kind.replace(' ', '-')}",
            cluster,
            f"cluster {cluster} claims {prefix}, which lies in this cluster's {kind} {ours}: "
            "give the clusters address ranges that do not overlap",
        )

    def refuses_backend(self, cluster: ClusterName, address: Address) -> Violation | None:
        """Why a cluster may not offer an address as a backend; ours is judged by ``contains``."""
        del cluster, address
        return None

    def declare(self, node: Node) -> bool:
        """A peer's node is new or has changed; whether it may claim what it says."""
        del node
        return True

    def withdraw(self, cluster: ClusterName, name: NodeName) -> None:
        """A peer's node is gone."""

    def at_home(self, cluster: ClusterName, prefix: Prefix, host: Address) -> bool:
        """Whether changes of the node behind ``host`` are told by its own pod prefixes."""
        del cluster, prefix, host
        return True


_KINDS = (POD_PREFIX, NODE_ADDRESS, SERVICE_ADDRESS)

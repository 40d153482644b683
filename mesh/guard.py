"""Which addresses are this cluster's own, so that no peer may speak for them. Pure."""

from collections import Counter
from collections.abc import Iterator
from typing import Generic, TypeVar

from mesh.blocks import Block, Blocks, cut
from mesh.problems import Violation
from model.address import MAPPED_BITS, Address, Prefix
from model.cluster import ClusterName
from model.node import Node, NodeName

V = TypeVar("V")
Speaker = tuple[ClusterName, tuple[Address, ...]]  # with the nodes it may put addresses behind
NOBODY: Speaker = (ClusterName(""), ())  # nothing is sure: ask in full
POD_PREFIX, NODE_ADDRESS, SERVICE_ADDRESS = "pod prefix", "node address", "service address"


class Covering(Generic[V]):
    """Values by prefix. Who covers an address costs as many look-ups as lengths are in use."""

    def __init__(self) -> None:
        self._tables: dict[int, dict[bytes, V]] = {}  # by length

    def get(self, prefix: Prefix) -> V | None:
        """The value of exactly this prefix."""
        table = self._tables.get(prefix[16])
        return table.get(prefix) if table else None

    def set(self, prefix: Prefix, value: V) -> None:
        """Put or replace."""
        table = self._tables.setdefault(prefix[16], {})
        table[prefix] = value

    def pop(self, prefix: Prefix) -> None:
        """It must be there."""
        table = self._tables[prefix[16]]
        del table[prefix]
        if not table:
            del self._tables[prefix[16]]

    def covering(self, what: Prefix | Address) -> list[V]:
        """Values of the prefixes that contain a prefix or an address, itself included."""
        length = what[16] if len(what) > 16 else 128
        return [
            value
            for known, table in self._tables.items()
            if known <= length and (value := table.get(cut(what, known))) is not None
        ]

    def inside(self, prefix: Prefix) -> Iterator[V]:
        """Values of the prefixes that lie in ``prefix``, itself included; costs a walk."""
        length = prefix[16]
        for known, table in self._tables.items():
            if known == length:
                if (value := table.get(prefix)) is not None:
                    yield value
            elif known > length:
                yield from (v for inner, v in table.items() if cut(inner, length) == prefix)


def _supernets(prefix: Prefix) -> Iterator[tuple[int, int]]:
    """The prefix and everything of its family that contains it, as (length, first bits)."""
    bits, end = prefix.bits, MAPPED_BITS if prefix.version == 4 else 0
    for length in range(prefix[16], end - 1, -1):
        yield length, bits >> 128 - length


class LocalPrefixes:
    """What is this cluster's own: pod prefixes, node addresses, service addresses."""

    def __init__(self) -> None:
        self._own: Counter[tuple[Prefix, str]] = Counter()
        self._exact: Covering[tuple[Prefix, str]] = Covering()
        self._around: Counter[tuple[int, int]] = Counter()
        self._blocks = Blocks()

    def add(self, prefix: Prefix, kind: str = POD_PREFIX) -> bool:
        """True when it was not known."""
        self._own[prefix, kind] += 1
        if self._own[prefix, kind] > 1:
            return False
        if self._exact.get(prefix) is None:
            self._exact.set(prefix, (prefix, kind))
            self._blocks.add(prefix)
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
            self._blocks.discard(prefix)
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
        if self._blocks.apart(prefix) or not self._own:
            return None
        found = self._exact.covering(prefix)
        if found:
            return found[0]
        if (prefix[16], prefix.bits >> 128 - prefix[16]) in self._around:
            return min(self._exact.inside(prefix), key=str)
        return None

    def contains(self, address: Address) -> bool:
        """Whether an address lies in one of ours."""
        return bool(self._exact.covering(address))

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

    def sole_speaker(self, block: Block) -> Speaker:
        """Who surely may say anything of every address in a block, and be ``at_home``."""
        del block
        return NOBODY

    def at_home(self, cluster: ClusterName, prefix: Prefix, host: Address) -> bool:
        """Whether changes of the node behind ``host`` are told by its own pod prefixes."""
        del cluster, prefix, host
        return True


_KINDS = (POD_PREFIX, NODE_ADDRESS, SERVICE_ADDRESS)

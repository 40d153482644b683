"""What one remote cluster may cost us: rows, bytes, changes per second. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from wire.etcd import keys
from wire.etcd.errors import RemoteWireError

KIB, MIB = 1 << 10, 1 << 20


def _rows() -> dict[str, int]:
    return {
        keys.NODES: 10_000,
        keys.IDENTITIES: 65_536,
        keys.IP: 1_000_000,
        keys.SERVICES: 50_000,
        keys.SERVICE_EXPORTS: 50_000,
        keys.ENDPOINT_SLICES: 100_000,
    }


def _value_bytes() -> dict[str, int]:
    return {
        keys.NODES: 512 * KIB,  # Kubernetes lets annotations alone have 256 KiB
        keys.IDENTITIES: 64 * KIB,
        keys.IP: 16 * KIB,
        keys.SERVICES: 1536 * KIB,  # what etcd takes at most
        keys.SERVICE_EXPORTS: 512 * KIB,
        keys.ENDPOINT_SLICES: 256 * KIB,  # compressed: a full one takes 3 KiB
    }


def _all_bytes() -> dict[str, int]:
    return {
        keys.NODES: 64 * MIB,
        keys.IDENTITIES: 64 * MIB,
        keys.SERVICES: 64 * MIB,
        keys.SERVICE_EXPORTS: 64 * MIB,
        keys.ENDPOINT_SLICES: 16 * MIB,  # compressed
    }


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds for one remote cluster, by type."""

    rows: Mapping[str, int] = field(default_factory=_rows)
    value_bytes: Mapping[str, int] = field(default_factory=_value_bytes)
    all_bytes: Mapping[str, int] = field(default_factory=_all_bytes)  # addresses: by rows
    rows_per_s: int = 2_000  # changes that are taken over in the long run
    burst_rows: int = 20_000  # and at once, before that counts
    relist_gap_s: float = 1.0  # between two full listings of one type over one connection
    compare_s: float = 600.0  # between two compares with the store, keys only; 0: none
    compare_grace_s: float = 2.0  # what a watch may be late without being wrong


class Purse:
    """Bytes that the values of one cluster take, by name."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._sizes: dict[str, dict[str, int]] = {r: {} for r in limits.all_bytes}
        self._sums = dict.fromkeys(limits.all_bytes, 0)

    def most_bytes(self, resource: str) -> int:
        """Of one value."""
        return self._limits.value_bytes[resource]

    def check(self, resource: str, name: str, data: bytes, key: str) -> None:
        """Raises ``RemoteWireError`` when a value is larger than there is room for."""
        most = self._limits.value_bytes.get(resource)
        if most is not None and len(data) > most:
            raise RemoteWireError(key, f"{len(data)} bytes, more than the {most} of a value")
        if resource in self._sums:
            after = self._sums[resource] + len(data) - self._sizes[resource].get(name, 0)
            if after > self._limits.all_bytes[resource]:
                raise RemoteWireError(
                    key,
                    f"no room: the {resource} of this cluster would take {after} bytes, more than "
                    f"{self._limits.all_bytes[resource]}",
                )

    def keep(self, resource: str, name: str, size: int) -> None:
        """A value was taken over; 0: it is gone."""
        if resource not in self._sums:
            return
        sizes = self._sizes[resource]
        self._sums[resource] += size - sizes.pop(name, 0)
        if size:
            sizes[name] = size


class Pace:
    """A bucket that fills by time: how long whoever has taken too much has to wait."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._left, self._at_s = burst, 0.0

    def take(self, count: int, now_s: float) -> bool:
        """Take ``count`` if there are as many, or the bucket is full."""
        self._left = min(self._burst, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._left < count and self._left < self._burst:
            return False
        self._left -= count
        return True

    def wait_s(self, count: int) -> float:
        """Until ``take`` of as many succeeds, from its last call on."""
        return max(0.0, (min(count, self._burst) - self._left) / self._per_s)

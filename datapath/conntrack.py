"""The conntrack map: listing, garbage collection, removal of an address. Adapter.

The map is an LRU, so collection is not needed for correctness; it keeps live flows from being
pushed out by dead ones. Time is CLOCK_MONOTONIC in seconds, as the programs count it.
"""

from datapath import encoding as e
from datapath.kernel_table import KernelTable
from datapath.kernel_thread import KernelThread
from model.address import Address, pack
from wire.bpf import layouts


class Conntrack:
    """Flows known to this node."""

    def __init__(self, thread: KernelThread, table: KernelTable) -> None:
        self._thread = thread
        self._table = table

    async def entries(self) -> list[e.ConntrackEntry]:
        """Every entry, expired ones too."""
        return await self._thread.call(entries, self._table)

    async def collect_garbage(self, now_s: int) -> int:
        """Remove what expired before ``now_s``. Returns how many."""
        return await self._thread.call(self._collect, now_s)

    async def flush_address(self, address: Address) -> int:
        """Remove every flow from or to an address that belongs to another pod from now on."""
        return await self._thread.call(self._flush, pack(address))

    def _collect(self, now_s: int) -> int:
        expired = [
            key
            for key, value in self._table.rows()
            if layouts.ConntrackValue.parse(value).expires_s < now_s
        ]
        return self._remove(expired)

    def _flush(self, address: bytes) -> int:
        return self._remove(
            [
                key
                for key, _ in self._table.rows()
                if address in layouts.CONNTRACK_KEY.unpack(key)[:2]
            ]
        )

    def _remove(self, keys: list[bytes]) -> int:
        errors = self._table.remove(keys)
        if errors:
            raise next(iter(errors.values()))
        return len(keys)


def entries(table: KernelTable) -> list[e.ConntrackEntry]:
    """Every entry; blocking."""
    return [e.parse_conntrack(key, value) for key, value in table.rows()]

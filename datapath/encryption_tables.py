"""What the programs know of encryption, as ``Target`` tables. Adapter.

``encrypt-via``: nodes that another device than ist_wg0 encrypts for, while keys change. ``nodes``:
numbers and IPsec keys of other nodes. ``strict``: prefixes whose traffic never leaves in clear
text. All state is touched in the kernel thread only.
"""

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from datapath import encoding as e
from datapath.kernel_table import KernelTable
from datapath.kernel_thread import KernelThread
from datapath.tables import ThreadedTarget
from model.address import Address, Prefix, pack, unpack
from wire.bpf import layouts

_IFINDEX = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class NodeRow:
    """What the programs know of another node."""

    node_id: int  # this node's own number for it, from 1 to 65535
    key_id: int  # of IPsec, that we send with; 0: in clear text


class EncryptViaTable(ThreadedTarget[Address, int]):
    """Address of a node → ifindex of the device that encrypts for it."""

    def __init__(self, thread: KernelThread, table: KernelTable) -> None:
        super().__init__(thread)
        self._table = table

    def read_now(self) -> dict[Address, int]:
        return {unpack(key): _IFINDEX.unpack(value)[0] for key, value in self._table.rows()}

    def upsert_now(self, rows: Sequence[tuple[Address, int]]) -> dict[Address, OSError]:
        written = self._table.write([(pack(a), _IFINDEX.pack(index)) for a, index in rows])
        return {unpack(key): error for key, error in written.items()}

    def delete_now(self, keys: Collection[Address]) -> dict[Address, OSError]:
        return {
            unpack(k): error for k, error in self._table.remove([pack(a) for a in keys]).items()
        }


class StrictTable(ThreadedTarget[Prefix, bool]):
    """Prefixes of strict mode; every value is true."""

    def __init__(self, thread: KernelThread, table: KernelTable) -> None:
        super().__init__(thread)
        self._table = table

    def read_now(self) -> dict[Prefix, bool]:
        return {e.parse_ipcache_prefix_key(key): True for key, _ in self._table.rows()}

    def upsert_now(self, rows: Sequence[tuple[Prefix, bool]]) -> dict[Prefix, OSError]:
        errors = self._table.write([(e.ipcache_prefix_key(p), b"\1") for p, _ in rows])
        return {e.parse_ipcache_prefix_key(key): error for key, error in errors.items()}

    def delete_now(self, keys: Collection[Prefix]) -> dict[Prefix, OSError]:
        errors = self._table.remove([e.ipcache_prefix_key(p) for p in keys])
        return {e.parse_ipcache_prefix_key(key): error for key, error in errors.items()}


class NodeTable(ThreadedTarget[Address, NodeRow]):
    """Address of another node → its number and the key of IPsec that we send with."""

    def __init__(self, thread: KernelThread, table: KernelTable) -> None:
        super().__init__(thread)
        self._table = table

    def read_now(self) -> dict[Address, NodeRow]:
        rows = ((key, layouts.NodeValue.parse(value)) for key, value in self._table.rows())
        return {unpack(key): NodeRow(row.id, row.key) for key, row in rows}

    def upsert_now(self, rows: Sequence[tuple[Address, NodeRow]]) -> dict[Address, OSError]:
        encoded = [
            (pack(address), layouts.NodeValue(row.node_id, row.key_id).pack())
            for address, row in rows
        ]
        return {unpack(key): error for key, error in self._table.write(encoded).items()}

    def delete_now(self, keys: Collection[Address]) -> dict[Address, OSError]:
        return {
            unpack(k): error for k, error in self._table.remove([pack(a) for a in keys]).items()
        }

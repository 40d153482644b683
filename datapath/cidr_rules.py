"""Prefixes of rules, and the numbers whose rows are about the mesh's addresses there. Adapter."""

import struct
from collections.abc import Collection, Sequence

from datapath import encoding as e
from datapath.kernel_table import KernelTable
from datapath.kernel_thread import KernelThread
from datapath.tables import ThreadedTarget
from model.address import Prefix

_NUMBER = struct.Struct("=I")


class CidrRulesTable(ThreadedTarget[Prefix, int]):
    """The trie that policy asks by address where `policy-cidr-match-mode` says so."""

    def __init__(self, thread: KernelThread, table: KernelTable) -> None:
        super().__init__(thread)
        self._table = table

    def read_now(self) -> dict[Prefix, int]:
        return {
            e.parse_ipcache_prefix_key(key): _NUMBER.unpack(value)[0]
            for key, value in self._table.rows()
        }

    def upsert_now(self, rows: Sequence[tuple[Prefix, int]]) -> dict[Prefix, OSError]:
        errors = self._table.write([(e.ipcache_prefix_key(p), _NUMBER.pack(n)) for p, n in rows])
        return {e.parse_ipcache_prefix_key(key): error for key, error in errors.items()}

    def delete_now(self, keys: Collection[Prefix]) -> dict[Prefix, OSError]:
        errors = self._table.remove([e.ipcache_prefix_key(p) for p in keys])
        return {e.parse_ipcache_prefix_key(key): error for key, error in errors.items()}

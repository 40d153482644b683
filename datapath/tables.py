"""Kernel maps as ``Target`` tables of the model: ipcache, endpoints, host addresses. Adapter.

All state is touched as ``KernelThread`` has it: by one function at a time.
"""

import errno
import socket
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from datapath import encoding as e
from datapath.kernel_table import KernelTable
from datapath.kernel_thread import KernelThread
from model.address import Address, Prefix, is_host, pack, unpack
from model.endpoint import EndpointId, LocalEndpoint
from model.identity import NumericIdentity
from model.ipcache import IpcacheEntry

BRIEF_ROWS = 128

K = TypeVar("K")
V = TypeVar("V")


class ThreadedTarget(ABC, Generic[K, V]):
    """A ``Target`` whose blocking work happens in the adapter's thread."""

    def __init__(self, thread: KernelThread) -> None:
        self._thread = thread

    async def read(self) -> Mapping[K, V]:
        """Every row that is ours."""
        return await self._thread.call(self.read_now)

    async def upsert(self, rows: Sequence[tuple[K, V]]) -> Mapping[K, OSError]:
        """Create or replace rows, in the given order. Returns the rows that failed."""
        if self.is_brief(rows):
            return await self._thread.call_brief(self.upsert_now, rows)
        return await self._thread.call(self.upsert_now, rows)

    async def delete(self, keys: Collection[K]) -> Mapping[K, OSError]:
        """Remove rows. Returns the rows that failed."""
        if self.is_brief_removal(keys):
            return await self._thread.call_brief(self.delete_now, keys)
        return await self._thread.call(self.delete_now, keys)

    def is_brief(self, rows: Sequence[tuple[K, V]]) -> bool:
        """Whether it surely takes less than a millisecond to write rows."""
        del rows
        return False

    def is_brief_removal(self, keys: Collection[K]) -> bool:
        """Whether it surely takes less than a millisecond to remove rows."""
        del keys
        return False

    @abstractmethod
    def read_now(self) -> dict[K, V]:
        """As ``read``; blocking, in the kernel thread only."""

    @abstractmethod
    def upsert_now(self, rows: Sequence[tuple[K, V]]) -> dict[K, OSError]:
        """As ``upsert``; blocking, in the kernel thread only."""

    @abstractmethod
    def delete_now(self, keys: Collection[K]) -> dict[K, OSError]:
        """As ``delete``; blocking, in the kernel thread only."""


class IpcacheTable(ThreadedTarget[Prefix, IpcacheEntry]):
    """Hosts in the exact-match map, shorter prefixes in the trie behind it."""

    def __init__(self, thread: KernelThread, hosts: KernelTable, prefixes: KernelTable) -> None:
        super().__init__(thread)
        self._hosts, self._prefixes = hosts, prefixes

    @property
    def room(self) -> tuple[int, int]:
        """How many hosts and how many shorter prefixes the maps take."""
        return self._hosts.max_entries, self._prefixes.max_entries

    def is_brief(self, rows: Sequence[tuple[Prefix, IpcacheEntry]]) -> bool:
        """A row takes two microseconds."""
        return len(rows) <= BRIEF_ROWS

    def is_brief_removal(self, keys: Collection[Prefix]) -> bool:
        """So does the end of one."""
        return len(keys) <= BRIEF_ROWS

    def read_now(self) -> dict[Prefix, IpcacheEntry]:
        found: dict[Prefix, IpcacheEntry] = {}
        for key, value in self._prefixes.rows():
            found[e.parse_ipcache_prefix_key(key)] = e.parse_ipcache_value(value)
        for key, value in self._hosts.rows():
            found[_host(key)] = e.parse_ipcache_value(value)
        return found

    def upsert_now(self, rows: Sequence[tuple[Prefix, IpcacheEntry]]) -> dict[Prefix, OSError]:
        hosts = [(p[:16], e.ipcache_value(row)) for p, row in rows if is_host(p)]
        others = [(e.ipcache_prefix_key(p), e.ipcache_value(r)) for p, r in rows if not is_host(p)]
        errors = {_host(k): error for k, error in self._hosts.write(hosts).items()}
        for key, error in self._prefixes.write(others).items():
            errors[e.parse_ipcache_prefix_key(key)] = error
        return errors

    def delete_now(self, keys: Collection[Prefix]) -> dict[Prefix, OSError]:
        errors: dict[Prefix, OSError] = {}
        for host, table in ((True, self._hosts), (False, self._prefixes)):
            names = {_ipcache_key(p): p for p in keys if is_host(p) is host}
            errors |= {names[k]: error for k, error in table.remove(list(names)).items()}
        return errors


def _ipcache_key(prefix: Prefix) -> bytes:
    return prefix[:16] if is_host(prefix) else e.ipcache_prefix_key(prefix)


def _host(key: bytes) -> Prefix:
    return Prefix(key + b"\x80")


class HostAddressTable(ThreadedTarget[Address, NumericIdentity]):
    """Addresses of the node itself: what is sent to them goes to the host's stack."""

    def __init__(self, thread: KernelThread, endpoints: KernelTable) -> None:
        super().__init__(thread)
        self._endpoints = endpoints

    def read_now(self) -> dict[Address, NumericIdentity]:
        rows = ((k, e.EndpointRow.parse(v)) for k, v in self._endpoints.rows())
        return {unpack(k): NumericIdentity(r.identity) for k, r in rows if _is_host_row(r)}

    def upsert_now(self, rows: Sequence[tuple[Address, NumericIdentity]]) -> dict[Address, OSError]:
        encoded = [
            (pack(a), e.EndpointRow(0, i, 0, e.ENDPOINT_HOST, bytes(6), bytes(6)).pack())
            for a, i in rows
        ]
        return {unpack(k): error for k, error in self._endpoints.write(encoded).items()}

    def delete_now(self, keys: Collection[Address]) -> dict[Address, OSError]:
        ours = [pack(a) for a in keys if a in self.read_now()] if keys else []
        return {unpack(k): error for k, error in self._endpoints.remove(ours).items()}


class AddressSet(ThreadedTarget[Address, bool]):
    """A set of addresses; every value is true."""

    def __init__(self, thread: KernelThread, table: KernelTable) -> None:
        super().__init__(thread)
        self._table = table

    def read_now(self) -> dict[Address, bool]:
        return {unpack(key): True for key, _ in self._table.rows()}

    def upsert_now(self, rows: Sequence[tuple[Address, bool]]) -> dict[Address, OSError]:
        errors = self._table.write([(pack(address), b"\1") for address, _ in rows])
        return {unpack(key): error for key, error in errors.items()}

    def delete_now(self, keys: Collection[Address]) -> dict[Address, OSError]:
        errors = self._table.remove([pack(address) for address in keys])
        return {unpack(key): error for key, error in errors.items()}


def _is_host_row(row: e.EndpointRow) -> bool:
    return bool(row.flags & e.ENDPOINT_HOST)


class EndpointTable(ThreadedTarget[EndpointId, LocalEndpoint]):
    """Pods of this node: one row per address, one per interface."""

    def __init__(
        self, thread: KernelThread, endpoints: KernelTable, interfaces: KernelTable
    ) -> None:
        super().__init__(thread)
        self._endpoints, self._interfaces = endpoints, interfaces
        self._written: dict[EndpointId, LocalEndpoint] = {}

    def read_now(self) -> dict[EndpointId, LocalEndpoint]:
        addresses, interfaces = self._by_id()
        found: dict[EndpointId, LocalEndpoint] = {}
        for number in addresses.keys() | interfaces.keys():
            rows = (dict(addresses.get(number, ())), dict(interfaces.get(number, ())))
            written = self._written.get(number)
            if written is not None and rows == _encode(written):
                found[number] = written
                continue
            decoded = _decode(number, *rows)
            # Rows that contradict one another must equal nothing that is wanted.
            whole = rows == _encode(decoded)
            found[number] = decoded if whole else _without_interface(decoded)
        return found

    def _by_id(
        self,
    ) -> tuple[
        dict[EndpointId, list[tuple[bytes, bytes]]], dict[EndpointId, list[tuple[bytes, bytes]]]
    ]:
        addresses: dict[EndpointId, list[tuple[bytes, bytes]]] = {}
        interfaces: dict[EndpointId, list[tuple[bytes, bytes]]] = {}
        for key, value in self._endpoints.rows():
            row = e.EndpointRow.parse(value)
            if not _is_host_row(row):
                addresses.setdefault(EndpointId(row.id), []).append((key, value))
        for key, value in self._interfaces.rows():
            number = EndpointId(e.InterfaceRow.parse(value).endpoint_id)
            interfaces.setdefault(number, []).append((key, value))
        return addresses, interfaces

    def upsert_now(
        self, rows: Sequence[tuple[EndpointId, LocalEndpoint]]
    ) -> dict[EndpointId, OSError]:
        addresses, interfaces = self._by_id()
        errors: dict[EndpointId, OSError] = {}
        for number, endpoint in rows:
            wanted_addresses, wanted_interfaces = _encode(endpoint)
            # The interface first: when others can reach the pod, it must be able to answer.
            failed = self._interfaces.write(list(wanted_interfaces.items()))
            failed |= self._endpoints.write(list(wanted_addresses.items()))
            stale = [k for k, _ in addresses.get(number, ()) if k not in wanted_addresses]
            failed |= self._endpoints.remove(stale)
            stale = [k for k, _ in interfaces.get(number, ()) if k not in wanted_interfaces]
            failed |= self._interfaces.remove(stale)
            if failed:
                errors[number] = next(iter(failed.values()))
            else:
                self._written[number] = endpoint
        return errors

    def delete_now(self, keys: Collection[EndpointId]) -> dict[EndpointId, OSError]:
        addresses, interfaces = self._by_id()
        errors: dict[EndpointId, OSError] = {}
        for number in keys:
            self._written.pop(number, None)
            failed = self._endpoints.remove([k for k, _ in addresses.get(number, ())])
            failed |= self._interfaces.remove([k for k, _ in interfaces.get(number, ())])
            if failed:
                errors[number] = next(iter(failed.values()))
        return errors


def _encode(endpoint: LocalEndpoint) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    value = e.EndpointRow(
        endpoint.ifindex, endpoint.identity, endpoint.id, 0, endpoint.mac, endpoint.host_mac
    ).pack()
    interface = e.InterfaceRow(
        _first(endpoint.addresses, 4),
        _first(endpoint.addresses, 6),
        endpoint.identity,
        endpoint.id,
        endpoint.mac,
        endpoint.host_mac,
    ).pack()
    return (
        {pack(address): value for address in endpoint.addresses},
        {e.number_key(endpoint.ifindex): interface},
    )


def _first(addresses: Iterable[Address], version: int) -> bytes:
    return next((pack(a) for a in addresses if a.version == version), bytes(16))


def _decode(
    number: EndpointId, addresses: Mapping[bytes, bytes], interfaces: Mapping[bytes, bytes]
) -> LocalEndpoint:
    """Best effort: the first row of each kind speaks for all."""
    found = sorted((unpack(k) for k in addresses), key=lambda a: (a.version, int(a)))
    row = next((e.EndpointRow.parse(v) for v in addresses.values()), None)
    if row is None:
        key, value = next(iter(interfaces.items()))
        interface = e.InterfaceRow.parse(value)
        row = e.EndpointRow(
            e.parse_number_key(key),
            interface.identity,
            number,
            0,
            interface.mac,
            interface.node_mac,
        )
    return LocalEndpoint(
        id=number,
        identity=NumericIdentity(row.identity),
        ifindex=row.ifindex,
        interface=_interface_name(row.ifindex),
        mac=row.mac,
        host_mac=row.node_mac,
        addresses=tuple(found),
    )


def _interface_name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.ENODEV):
            raise
        return ""


def _without_interface(endpoint: LocalEndpoint) -> LocalEndpoint:
    return LocalEndpoint(
        endpoint.id, endpoint.identity, 0, "", endpoint.mac, endpoint.host_mac, endpoint.addresses
    )

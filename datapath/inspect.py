"""What the pinned maps hold, for people: read-only, and without an agent. Adapter; blocking.

Every function takes the pin directory and returns plain rows, ordered for reading. A map that is
not pinned is ``FileNotFoundError`` that says what to do.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datapath import conntrack, map_names, metrics, pins, policy
from datapath import encoding as e
from datapath.kernel_table import KernelTable
from datapath.metrics import Counter
from datapath.policy_encoding import Traffic
from model.address import Address, Prefix, host_prefix, unpack
from model.ipcache import IpcacheEntry
from model.policy_map import PolicyEntry, PolicyKey
from model.service import BackendState, Frontend, Protocol


@contextmanager
def _table(pin_dir: Path, name: str) -> Iterator[KernelTable]:
    path = pins.map_pin(pin_dir, name)
    fd = pins.open_pinned(path)
    if fd is None:
        raise FileNotFoundError(
            errno.ENOENT, f"map {path} does not exist: has the agent run on this node?"
        )
    table = KernelTable(fd, name)
    try:
        yield table
    finally:
        table.close()


def ipcache(pin_dir: Path) -> dict[Prefix, IpcacheEntry]:
    """Prefixes with their identities, by address."""
    found: dict[Prefix, IpcacheEntry] = {}
    with _table(pin_dir, map_names.IPCACHE) as table:
        for key, value in table.rows():
            found[host_prefix(unpack(key))] = e.parse_ipcache_value(value)
    with _table(pin_dir, map_names.IPCACHE_PREFIXES) as table:
        for key, value in table.rows():
            found[e.parse_ipcache_prefix_key(key)] = e.parse_ipcache_value(value)
    order = sorted(found, key=lambda p: (p.version, int(p.network_address), p.prefixlen))
    return {prefix: found[prefix] for prefix in order}


@dataclass(frozen=True, slots=True)
class EndpointLine:
    """One address of this node: a pod's, or the host's own."""

    address: Address
    endpoint_id: int  # 0: the host
    identity: int
    ifindex: int
    mac: bytes
    node_mac: bytes
    host: bool


def endpoints(pin_dir: Path) -> list[EndpointLine]:
    """Addresses that are delivered on this node."""
    with _table(pin_dir, map_names.ENDPOINTS) as table:
        rows = [(unpack(k), e.EndpointRow.parse(v)) for k, v in table.rows()]
    rows.sort(key=lambda row: (row[0].version, int(row[0])))
    return [
        EndpointLine(
            address,
            row.id,
            row.identity,
            row.ifindex,
            row.mac,
            row.node_mac,
            bool(row.flags & e.ENDPOINT_HOST),
        )
        for address, row in rows
    ]


@dataclass(frozen=True, slots=True)
class BackendLine:
    """One slot of a frontend."""

    slot: int
    backend_id: int
    selectable: bool
    # None: the row of the backend is missing, which is worth a look
    address: Address | None
    port: int
    protocol: Protocol | None
    state: BackendState | None
    cluster_id: int


@dataclass(frozen=True, slots=True)
class ServiceLine:
    """One frontend with its slots."""

    frontend: Frontend
    revnat_id: int
    selectable: int
    affinity_timeout_s: int  # 0: no session affinity
    maglev: bool
    backends: tuple[BackendLine, ...]


def services(pin_dir: Path) -> list[ServiceLine]:
    """Frontends by address and port."""
    known = backends(pin_dir)
    masters: dict[Frontend, e.ServiceRow] = {}
    slots: dict[Frontend, dict[int, int]] = {}
    with _table(pin_dir, map_names.SERVICES) as table:
        for key, value in table.rows():
            frontend, slot = e.parse_service_key(key)
            if slot:
                slots.setdefault(frontend, {})[slot] = e.SlotRow.parse(value).backend_id
            else:
                masters[frontend] = e.ServiceRow.parse(value)
    order = sorted(masters, key=lambda f: (f.address.version, int(f.address), f.port, f.protocol))
    return [
        ServiceLine(
            frontend,
            masters[frontend].revnat_id,
            masters[frontend].selectable,
            masters[frontend].affinity_timeout_s,
            bool(masters[frontend].flags & e.SERVICE_MAGLEV),
            tuple(
                _backend_line(slot, number, slot <= masters[frontend].selectable, known)
                for slot, number in sorted(slots.get(frontend, {}).items())
            ),
        )
        for frontend in order
    ]


def _backend_line(
    slot: int, number: int, selectable: bool, backends: dict[int, e.BackendRow]
) -> BackendLine:
    row = backends.get(number)
    if row is None:
        return BackendLine(slot, number, selectable, None, 0, None, None, 0)
    return BackendLine(
        slot, number, selectable, row.address, row.port, row.protocol, row.state, row.cluster_id
    )


def backends(pin_dir: Path) -> dict[int, e.BackendRow]:
    """Every backend by its number, those that no frontend uses too."""
    with _table(pin_dir, map_names.BACKENDS) as table:
        found = {e.parse_number_key(k): e.BackendRow.parse(v) for k, v in table.rows()}
    return dict(sorted(found.items()))


def reverse_translations(pin_dir: Path) -> dict[int, tuple[Address, int]]:
    """Address and port that replies are given back as their source, by number."""
    with _table(pin_dir, map_names.REVNAT) as table:
        found = {e.parse_number_key(k): e.parse_revnat_value(v) for k, v in table.rows()}
    return dict(sorted(found.items()))


def flows(pin_dir: Path) -> list[e.ConntrackEntry]:
    """Conntrack entries, by source, destination and ports; expired ones too."""
    with _table(pin_dir, map_names.CONNTRACK) as table:
        found = conntrack.entries(table)
    return sorted(
        found,
        key=lambda c: (
            *(c.source.version, int(c.source), int(c.destination)),
            *(c.protocol, c.source_port, c.destination_port, c.scope),
        ),
    )


def policies(pin_dir: Path) -> dict[int, dict[PolicyKey, tuple[PolicyEntry, Traffic]]]:
    """Rows of every endpoint's policy map with what they matched, by endpoint number."""
    with _table(pin_dir, map_names.POLICY) as table:
        return dict(sorted(policy.all_traffic(table).items()))


def counters(pin_dir: Path) -> list[Counter]:
    """Forward and drop counters, summed over CPUs."""
    with (
        _table(pin_dir, map_names.METRICS) as drops,
        _table(pin_dir, map_names.FORWARDED) as forwarded,
    ):
        return metrics.read_metrics(drops, forwarded)

"""Services as rows of maps: numbers for backends and frontends, and the order of writes. Pure.

Numbers live as long as what they stand for, because conntrack entries carry them: an unchanged
backend keeps its number, and a number is not given again while a flow may remember it.

Order (bpf/lib/abi/service.h): what is referred to before what refers to it; the master row last, so
that the program never counts a slot that is not there. Shrinking begins with the master instead.
"""

import errno
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from datapath import alias
from datapath import encoding as e
from model.address import Address
from model.cluster import ClusterId
from model.service import (
    Backend,
    Frontend,
    LoadBalancer,
    Protocol,
    Selection,
    ServiceName,
)

LAST_REVNAT_ID = 0xFFFF  # what conntrack has room for


class Map(IntEnum):
    """The maps of a service, in the order in which growing writes them."""

    BACKENDS = 0
    SERVICES = 1
    AFFINITY_MATCH = 2
    MAGLEV = 3
    REVNAT = 4


@dataclass(frozen=True, slots=True)
class Operation:
    """One write (or, without a value, one removal), on behalf of a frontend."""

    map: Map
    key: bytes
    value: bytes | None  # of a Maglev table: what it is built from (``maglev_backends``)
    owner: Frontend


# By slot, of those that share it: who else is drawn there, and how often (``datapath.alias``).
_Others = tuple[tuple[int, int, int], ...]
# What a Maglev table is built from: numbers and (if they differ) weights, by name.
MaglevBackends = tuple[dict[str, int], dict[str, int]]


@dataclass(frozen=True, slots=True)
class BackendKey:
    """What makes two backends the same one."""

    address: Address
    port: int
    protocol: Protocol
    cluster_id: ClusterId


@dataclass(frozen=True, slots=True)
class _Held:
    """What the maps hold for one frontend."""

    master: bool
    count: int
    backends: tuple[int, ...]  # by slot; those behind ``count`` only keep their flows
    flags: int
    others: "_Others" = ()  # numbers of backends


def backend_key(backend: Backend) -> BackendKey:
    """The identity of a backend."""
    return BackendKey(backend.address, backend.port, backend.protocol, backend.cluster_id)


@dataclass
class ServiceRows:
    """What the maps hold, and the numbers in use."""

    known: dict[Map, dict[bytes, bytes]] = field(
        default_factory=lambda: {number: {} for number in Map}
    )
    written: dict[Frontend, LoadBalancer] = field(default_factory=dict)
    _held: dict[Frontend, _Held] = field(default_factory=dict)
    _revnat: dict[Frontend, int] = field(default_factory=dict)
    _taken: set[int] = field(default_factory=set)  # the numbers in ``_revnat``
    _backend_ids: dict[BackendKey, int] = field(default_factory=dict)
    _backend_keys: dict[int, BackendKey] = field(default_factory=dict)
    maglev_backends: dict[bytes, MaglevBackends] = field(default_factory=dict)  # by key of the map
    _users: dict[int, set[Frontend]] = field(default_factory=dict)
    _next_backend: int = 1
    _next_revnat: int = 1
    _remembered: frozenset[int] = frozenset()  # reverse NAT numbers that flows may still carry

    # Taking over what the maps hold

    def load(
        self,
        maps: Mapping[Map, Mapping[bytes, bytes]],
        remembered_backends: Collection[int] = (),
        remembered_revnats: Collection[int] = (),
    ) -> None:
        """Begin anew from the maps. ``remembered_*``: numbers that live flows carry."""
        tables = self.known[Map.MAGLEV]
        self.known = {number: dict(maps.get(number, {})) for number in Map}
        # What the kernel tells of a table is no more than that it is there.
        self.known[Map.MAGLEV] = {k: tables.get(k, b"") for k in self.known[Map.MAGLEV]}
        self._remembered = frozenset(remembered_revnats) | self._remembered
        backends = {
            e.parse_number_key(k): e.BackendRow.parse(v) for k, v in self._rows(Map.BACKENDS)
        }
        self._backend_ids = {
            BackendKey(b.address, b.port, b.protocol, b.cluster_id): number
            for number, b in backends.items()
        }
        self._backend_keys = {number: key for key, number in self._backend_ids.items()}
        self._users = {number: set() for number in backends}
        self._held, self._revnat = {}, {}
        masters, slots = self._parse_services()
        for frontend in masters.keys() | slots.keys():
            self._take_over(frontend, masters.get(frontend), slots.get(frontend, {}))
        self._taken = set(self._revnat.values())
        highest = max((*backends, *remembered_backends, self._next_backend - 1))
        self._next_backend = highest + 1
        self._next_revnat = max((*self._revnat.values(), self._next_revnat - 1)) + 1
        self.written = {
            f: lb for f, lb in self.written.items() if self._shape_of(f) == _wanted_shape(lb)
        }

    def _rows(self, number: Map) -> Iterable[tuple[bytes, bytes]]:
        return self.known[number].items()

    def _parse_services(
        self,
    ) -> tuple[dict[Frontend, e.ServiceRow], dict[Frontend, dict[int, e.SlotRow]]]:
        masters: dict[Frontend, e.ServiceRow] = {}
        slots: dict[Frontend, dict[int, e.SlotRow]] = {}
        for key, value in self._rows(Map.SERVICES):
            frontend, slot = e.parse_service_key(key)
            if slot == 0:
                masters[frontend] = e.ServiceRow.parse(value)
            else:
                slots.setdefault(frontend, {})[slot] = e.SlotRow.parse(value)
        return masters, slots

    def _take_over(
        self, frontend: Frontend, master: e.ServiceRow | None, slots: Mapping[int, e.SlotRow]
    ) -> None:
        row = master or e.ServiceRow()
        # A hole in the slots is from an interrupted write; 0 names no backend and differs from any.
        rows = [slots.get(n, e.SlotRow()) for n in range(1, max(slots, default=0) + 1)]
        backends = tuple(r.backend_id for r in rows)
        others = tuple(
            (slot, r.other_id, r.other_share) for slot, r in enumerate(rows, 1) if r.other_share
        )
        self._held[frontend] = _Held(
            master is not None, row.selectable, backends, row.flags, others
        )
        if row.revnat_id:
            self._revnat[frontend] = row.revnat_id
        for number in backends:
            if number:
                self._users.setdefault(number, set()).add(frontend)

    def table(self) -> dict[Frontend, LoadBalancer]:
        """Every frontend the maps hold.

        What maps cannot tell (names) is filled in where the rows are exactly as written; others
        come without names and equal nothing that is wanted, so that they are written again.
        """
        return {f: self.written.get(f) or self._decode(f) for f in self._held}

    def _shape_of(self, frontend: Frontend) -> "_Shape | None":
        held, number = self._held.get(frontend), self._revnat.get(frontend)
        if held is None or number is None or not held.master:
            return None
        known = self.known
        master = e.ServiceRow.parse(known[Map.SERVICES][e.service_key(frontend, 0)])
        if known[Map.REVNAT].get(e.number_key(number)) != e.revnat_value(frontend):
            return None
        rows = []
        for slot, backend in enumerate(held.backends, start=1):
            data = known[Map.BACKENDS].get(e.number_key(backend))
            if data is None:
                return None
            rows.append(e.BackendRow.parse(data))
            match = e.affinity_match_key(backend, number)
            is_matched = bool(master.flags & e.SERVICE_AFFINITY) and slot <= master.selectable
            if is_matched != (match in known[Map.AFFINITY_MATCH]):
                return None
        others = []
        for slot, other, share in held.others:
            data = known[Map.BACKENDS].get(e.number_key(other))
            if data is None:
                return None
            others.append((slot, e.BackendRow.parse(data), share))
        if master.flags & e.SERVICE_MAGLEV and e.number_key(number) not in known[Map.MAGLEV]:
            return None
        return _Shape(
            master.selectable,
            master.flags,
            master.affinity_timeout_s,
            tuple(rows),
            tuple(others),
        )

    def _decode(self, frontend: Frontend) -> LoadBalancer:
        held = self._held[frontend]
        data = self.known[Map.SERVICES].get(e.service_key(frontend, 0))
        master = e.ServiceRow.parse(data) if data else e.ServiceRow()
        backends = []
        for number in held.backends:
            row = self.known[Map.BACKENDS].get(e.number_key(number))
            if row is not None:
                b = e.BackendRow.parse(row)
                backends.append(
                    Backend(b.address, b.port, b.protocol, b.state, cluster_id=b.cluster_id)
                )
        return LoadBalancer(
            frontend=frontend,
            name=ServiceName("", ""),
            backends=tuple(backends),
            selectable=min(master.selectable, len(backends)),
            selection=Selection.MAGLEV if master.flags & e.SERVICE_MAGLEV else Selection.RANDOM,
            affinity_timeout_s=master.affinity_timeout_s,
        )

    # Numbers

    def revnat_id(self, frontend: Frontend) -> int:
        """The number of a frontend, given on first use. ``OSError(ENOSPC)`` when all are taken."""
        number = self._revnat.get(frontend)
        if number is not None:
            return number
        # First without those that a flow may remember, then, if need be, with them.
        for avoided in (self._remembered, frozenset[int]()):
            for step in range(LAST_REVNAT_ID):
                number = (self._next_revnat - 1 + step) % LAST_REVNAT_ID + 1
                if number not in self._taken and number not in avoided:
                    self._next_revnat = number + 1
                    self._revnat[frontend] = number
                    self._taken.add(number)
                    return number
        raise OSError(
            errno.ENOSPC, f"more than {LAST_REVNAT_ID} service ports on one node: remove services"
        )

    def backend_id(self, backend: Backend) -> int:
        """The number of a backend, given on first use and never again."""
        key = backend_key(backend)
        number = self._backend_ids.get(key)
        if number is None:
            number = self._backend_ids[key] = self._next_backend
            self._backend_keys[number] = key
            self._next_backend += 1
        return number

    # Writing

    def plan(self, wanted: Sequence[LoadBalancer]) -> list[list[Operation]]:
        """Phases of writes that make frontends so, leaving behind what ``plan_release`` removes."""
        phases: list[list[Operation]] = [[] for _ in range(len(Map) + 2)]
        for balancer in wanted:
            self._plan_one(balancer, phases)
        return [self._unknown(phase) for phase in phases]

    def _unknown(self, phase: Iterable[Operation]) -> list[Operation]:
        """Without what the maps hold already; the last write to one key stands for all."""
        last = {(op.map, op.key): op for op in phase}
        return [op for op in last.values() if self.known[op.map].get(op.key) != op.value]

    def _plan_one(self, balancer: LoadBalancer, phases: list[list[Operation]]) -> None:
        frontend = balancer.frontend
        number = self.revnat_id(frontend)
        ids = tuple(self.backend_id(b) for b in balancer.backends)
        for backend in ids:
            self._users.setdefault(backend, set()).add(frontend)
        flags = _flags(balancer)
        master = e.ServiceRow(
            affinity_timeout_s=balancer.affinity_timeout_s,
            selectable=balancer.selectable,
            revnat_id=number,
            flags=flags,
        )
        held = self._held.get(frontend)
        if held is not None and held.master and balancer.selectable < held.count:
            shrunk = master._replace(flags=held.flags).pack()
            phases[0].append(Operation(Map.SERVICES, e.service_key(frontend, 0), shrunk, frontend))
        add = phases[1].append
        for identifier, backend_value in zip(ids, balancer.backends, strict=True):
            row = _backend_row(backend_value)
            add(Operation(Map.BACKENDS, e.number_key(identifier), row.pack(), frontend))
        others = {slot: (ids[place], share) for slot, place, share in _others(balancer)}
        for slot, identifier in enumerate(ids, start=1):
            value = e.SlotRow(identifier, *others.get(slot, (0, 0)), number).pack()
            phases[2].append(
                Operation(Map.SERVICES, e.service_key(frontend, slot), value, frontend)
            )
        if flags & e.SERVICE_AFFINITY:
            for identifier in ids[: balancer.selectable]:
                key = e.affinity_match_key(identifier, number)
                phases[3].append(Operation(Map.AFFINITY_MATCH, key, b"\0", frontend))
        if flags & e.SERVICE_MAGLEV:
            key, found = e.number_key(number), _maglev_backends(balancer, ids)
            self.maglev_backends[key] = found
            phases[4].append(Operation(Map.MAGLEV, key, repr(found).encode(), frontend))
        phases[5].append(
            Operation(Map.REVNAT, e.number_key(number), e.revnat_value(frontend), frontend)
        )
        phases[6].append(
            Operation(Map.SERVICES, e.service_key(frontend, 0), master.pack(), frontend)
        )

    def owners(self, operation: Operation) -> set[Frontend]:
        """Whom a failure of this operation concerns: of a backend, all that use it."""
        users: set[Frontend] = set()
        if operation.map is Map.BACKENDS:
            users = self._users.get(e.parse_number_key(operation.key), set())
        return {operation.owner, *users}

    def applied(self, operation: Operation) -> None:
        """The kernel took it."""
        rows = self.known[operation.map]
        if operation.value is None:
            rows.pop(operation.key, None)
            if operation.map is Map.MAGLEV:
                self.maglev_backends.pop(operation.key, None)
        else:
            rows[operation.key] = operation.value

    def plan_release(self, done: Sequence[LoadBalancer]) -> list[list[Operation]]:
        """What written frontends no longer need: slots, matches, then backends nobody uses."""
        slots: list[Operation] = []
        freed: list[Operation] = []
        for balancer in done:
            frontend = balancer.frontend
            ids = tuple(self._backend_ids[backend_key(b)] for b in balancer.backends)
            held = self._held.get(frontend, _Held(False, 0, (), 0))
            selectable = ids[: balancer.selectable]
            kept = selectable if _flags(balancer) & e.SERVICE_AFFINITY else ()
            slots += self._drop_slots(frontend, range(len(ids) + 1, len(held.backends) + 1))
            slots += self._drop_matches(frontend, set(held.backends) | set(ids), kept)
            if not _flags(balancer) & e.SERVICE_MAGLEV:
                key = e.number_key(self._revnat[frontend])
                slots.append(Operation(Map.MAGLEV, key, None, frontend))
            freed += self._leave(frontend, set(held.backends) - set(ids))
            others = tuple((slot, ids[place], share) for slot, place, share in _others(balancer))
            self._held[frontend] = _Held(True, balancer.selectable, ids, _flags(balancer), others)
            self.written[frontend] = balancer
        return [self._unknown(slots), self._unknown(freed)]

    def plan_removal(self, frontends: Collection[Frontend]) -> list[list[Operation]]:
        """Phases that remove frontends: the master first, numbers last."""
        phases: list[list[Operation]] = [[], [], []]
        for frontend in frontends:
            held = self._held.pop(frontend, None)
            number = self._revnat.pop(frontend, None)
            self._taken.discard(number or 0)
            self.written.pop(frontend, None)
            if held is None:
                continue
            phases[0].append(Operation(Map.SERVICES, e.service_key(frontend, 0), None, frontend))
            phases[1] += self._drop_slots(frontend, range(1, len(held.backends) + 1))
            if number is not None:
                phases[1] += [
                    Operation(Map.AFFINITY_MATCH, e.affinity_match_key(b, number), None, frontend)
                    for b in held.backends
                ]
                phases[1].append(Operation(Map.MAGLEV, e.number_key(number), None, frontend))
                phases[2].append(Operation(Map.REVNAT, e.number_key(number), None, frontend))
            phases[2] += self._leave(frontend, held.backends)
        phases[2] += self._orphans(frontends)
        return [self._unknown(phase) for phase in phases]

    def _drop_slots(self, frontend: Frontend, slots: Iterable[int]) -> list[Operation]:
        return [
            Operation(Map.SERVICES, e.service_key(frontend, slot), None, frontend) for slot in slots
        ]

    def _drop_matches(
        self, frontend: Frontend, backends: Iterable[int], kept: Collection[int]
    ) -> list[Operation]:
        number = self._revnat[frontend]
        return [
            Operation(Map.AFFINITY_MATCH, e.affinity_match_key(b, number), None, frontend)
            for b in backends
            if b not in kept
        ]

    def _leave(self, frontend: Frontend, backends: Iterable[int]) -> list[Operation]:
        """Backends that this frontend was the last to use."""
        freed = []
        for number in backends:
            users = self._users.get(number)
            if users is None:
                continue
            users.discard(frontend)
            if not users:
                freed.append(self._forget(number, frontend))
        return freed

    def _forget(self, number: int, owner: Frontend) -> Operation:
        del self._users[number]
        key = self._backend_keys.pop(number, None)
        if key is not None and self._backend_ids.get(key) == number:
            del self._backend_ids[key]
        return Operation(Map.BACKENDS, e.number_key(number), None, owner)

    def _orphans(self, frontends: Collection[Frontend]) -> list[Operation]:
        """Backends and reverse NAT rows that an interrupted write left without a frontend."""
        owner = next(iter(frontends), None)
        if owner is None:
            return []
        unused = [number for number, users in self._users.items() if not users]
        used = {e.number_key(number) for number in self._revnat.values()}
        stale = [key for key in self.known[Map.REVNAT] if key not in used]
        return [self._forget(number, owner) for number in unused] + [
            Operation(Map.REVNAT, key, None, owner) for key in stale
        ]


@dataclass(frozen=True, slots=True)
class _Shape:
    """A frontend without numbers and names: what maps and model have in common."""

    selectable: int
    flags: int
    affinity_timeout_s: int
    backends: tuple[e.BackendRow, ...]
    others: tuple[tuple[int, e.BackendRow, int], ...]


def _flags(balancer: LoadBalancer) -> int:
    return (e.SERVICE_AFFINITY if balancer.affinity_timeout_s else 0) | (
        e.SERVICE_MAGLEV if balancer.selection is Selection.MAGLEV else 0
    )


def _backend_row(backend: Backend) -> e.BackendRow:
    return e.BackendRow(
        backend.address, backend.port, backend.protocol, backend.state, backend.cluster_id
    )


def _wanted_shape(balancer: LoadBalancer) -> _Shape:
    return _Shape(
        balancer.selectable,
        _flags(balancer),
        balancer.affinity_timeout_s,
        tuple(_backend_row(b) for b in balancer.backends),
        tuple(
            (slot, _backend_row(balancer.backends[place]), share)
            for slot, place, share in _others(balancer)
        ),
    )


def _others(balancer: LoadBalancer) -> _Others:
    """By slot: the place in ``backends`` of the other one, and its share."""
    return tuple(
        (slot, other, share)
        for slot, (other, share) in enumerate(alias.build(balancer.weights), start=1)
        if share
    )


def _maglev_backends(balancer: LoadBalancer, ids: Sequence[int]) -> MaglevBackends:
    """Names that every node gives the same backends, to the numbers they have here."""
    names = [
        f"{b.address}|{b.port}|{b.protocol}|{b.cluster_id}"
        for b in balancer.backends[: balancer.selectable]
    ]
    return dict(zip(names, ids, strict=False)), dict(zip(names, balancer.weights, strict=False))

"""Services as rows of maps, and the order of writes. Pure.

Order (bpf/lib/abi/service.h): what is referred to before what refers to it; the master row last, so
that the program never counts a slot that is not there. Shrinking begins with the master instead.

A frontend that was written before is compared with what is wanted now, by identity of its backends,
and only what lies between is planned (ADR 0111). A backend takes about 700 bytes here: its rows as
bytes, its number and its slot.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from datapath import alias
from datapath import encoding as e
from datapath.service_numbers import BackendKey, Numbers
from datapath.service_slots import Difference, Moves, Slots, arrange, difference, moves
from model.service import Backend, Frontend, LoadBalancer, Selection, ServiceName

SMALL_BACKENDS, SMALL_CHANGE = 2_000, 16  # of a frontend whose change is small


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
    value: bytes | None  # of a Maglev table: a sign of what it is built from (``maglev_backends``)
    owner: Frontend


# What a Maglev table is built from: numbers and (if they differ) weights, by name.
MaglevBackends = tuple[dict[str, int], dict[str, int]]


@dataclass(slots=True)
class _Planned:
    """What becomes of a frontend's slots, once its writes are done."""

    moves: Moves | None  # none: ``slots`` anew
    slots: Slots
    left: Collection[int]  # backends it does not lead to any more
    unmatched: Collection[int]  # that may be matched, and shall not be


@dataclass
class ServiceRows:
    """What the maps hold, and the numbers in use."""

    known: dict[Map, dict[bytes, bytes]] = field(
        default_factory=lambda: {number: {} for number in Map}
    )
    written: dict[Frontend, LoadBalancer] = field(default_factory=dict)
    maglev_backends: dict[bytes, MaglevBackends] = field(default_factory=dict)  # by key of the map
    _held: dict[Frontend, Slots] = field(default_factory=dict)
    _planned: dict[Frontend, _Planned] = field(default_factory=dict)
    _numbers: Numbers = field(default_factory=Numbers)
    _trusted: bool = False  # what we remember is what was written
    _is_orphaned: bool = False  # rows that belong to no frontend may be there

    # Taking over what the maps hold

    def distrust(self) -> None:
        """A write has failed: the next ``load`` begins anew."""
        self._trusted = False

    def load(
        self,
        maps: Mapping[Map, Mapping[bytes, bytes]],
        remembered_backends: Collection[int] = (),
        remembered_revnats: Collection[int] = (),
    ) -> None:
        """Begin anew from the maps. ``remembered_*``: numbers that live flows carry."""
        strange = [number for number in Map if not self._is_known(number, maps.get(number, {}))]
        if self._trusted and not strange:
            return
        touched = self._touched(strange, maps)
        tables = self.known[Map.MAGLEV]
        self.known = {number: dict(maps.get(number, {})) for number in Map}
        # What the kernel tells of a table is no more than that it is there.
        self.known[Map.MAGLEV] = {k: tables.get(k, b"") for k in self.known[Map.MAGLEV]}
        self._parse(remembered_backends, remembered_revnats)
        self.written = {
            f: b for f, b in self.written.items() if f in self._held and f not in touched
        }
        self._planned = {}
        self._trusted = self._is_orphaned = True

    def _is_known(self, number: Map, rows: Mapping[bytes, bytes]) -> bool:
        if number is Map.MAGLEV:
            return self.known[number].keys() == rows.keys()
        return self.known[number] == rows

    def _touched(
        self, strange: Iterable[Map], maps: Mapping[Map, Mapping[bytes, bytes]]
    ) -> set[Frontend]:
        """Frontends with rows that somebody else has changed."""
        found: set[Frontend | None] = set()
        for number in strange:
            known, rows = self.known[number], maps.get(number, {})
            keys = {k for k in known.keys() | rows.keys() if known.get(k) != rows.get(k)}
            for key in known.keys() ^ rows.keys() if number is Map.MAGLEV else keys:
                match number:
                    case Map.SERVICES:
                        found.add(e.parse_service_key(key)[0])
                    case Map.BACKENDS:
                        found.update(self._numbers.users(e.parse_number_key(key)))
                    case Map.AFFINITY_MATCH:
                        found.add(self._numbers.frontend_of(e.parse_affinity_match_key(key)[1]))
                    case Map.MAGLEV | Map.REVNAT:
                        found.add(self._numbers.frontend_of(e.parse_number_key(key)))
        return {frontend for frontend in found if frontend is not None}

    def _parse(
        self, remembered_backends: Collection[int], remembered_revnats: Collection[int]
    ) -> None:
        backends = {}
        for key, value in self.known[Map.BACKENDS].items():
            row = e.BackendRow.parse(value)
            found = BackendKey(row.address, row.port, row.protocol, row.cluster_id)
            backends[e.parse_number_key(key)] = found
        masters: dict[Frontend, e.ServiceRow] = {}
        slots: dict[Frontend, dict[int, e.SlotRow]] = {}
        for key, value in self.known[Map.SERVICES].items():
            frontend, slot = e.parse_service_key(key)
            if slot == 0:
                masters[frontend] = e.ServiceRow.parse(value)
            else:
                slots.setdefault(frontend, {})[slot - 1] = e.SlotRow.parse(value)
        self._held = {
            frontend: _slots(masters.get(frontend), slots.get(frontend, {}))
            for frontend in masters.keys() | slots.keys()
        }
        self._numbers.load(
            backends,
            {frontend: row.revnat_id for frontend, row in masters.items() if row.revnat_id},
            {f: (n for n in held.numbers if n) for f, held in self._held.items()},
            remembered_backends,
            remembered_revnats,
        )

    def table(self) -> dict[Frontend, LoadBalancer]:
        """Every frontend the maps hold.

        What maps cannot tell (names) is filled in where the rows are exactly as written; others
        come without names and equal nothing that is wanted, so that they are written again.
        """
        return {f: self.written.get(f) or self._decode(f) for f in self._held}

    def _decode(self, frontend: Frontend) -> LoadBalancer:
        held = self._held[frontend]
        data = self.known[Map.SERVICES].get(e.service_key(frontend, 0))
        master = e.ServiceRow.parse(data) if data else e.ServiceRow()
        backends = []
        for number in held.numbers:
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

    # Writing

    def is_small_change(self, balancer: LoadBalancer) -> bool:
        """Whether only a few rows of a frontend that is there will move."""
        before = self.written.get(balancer.frontend)
        return (
            before is not None
            and len(balancer.backends) <= SMALL_BACKENDS
            and abs(len(balancer.backends) - len(before.backends)) <= SMALL_CHANGE
            and balancer.selection is not Selection.MAGLEV
        )

    def plan(self, wanted: Sequence[LoadBalancer]) -> list[list[Operation]]:
        """Phases of writes that make frontends so, leaving behind what ``plan_release`` removes.

        ``OSError`` when there is no number for one of them.
        """
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
        number = self._numbers.frontend(frontend)
        flags = _flags(balancer)
        master = e.ServiceRow(
            affinity_timeout_s=balancer.affinity_timeout_s,
            selectable=balancer.selectable,
            revnat_id=number,
            flags=flags,
        )
        held = self._held.get(frontend) or Slots()
        # Until it is written, what it was is no measure any more.
        before = self.written.pop(frontend, None)
        self._planned.pop(frontend, None)
        if held.has_master and balancer.selectable < held.selectable:
            shrunk = master._replace(flags=held.flags).pack()
            phases[0].append(Operation(Map.SERVICES, e.service_key(frontend, 0), shrunk, frontend))
        if before is not None and _is_comparable(held, before, balancer):
            self._plan_change(balancer, before, held, number, phases)
        else:
            self._plan_all(balancer, held, number, phases)
        phases[5].append(
            Operation(Map.REVNAT, e.number_key(number), e.revnat_value(frontend), frontend)
        )
        phases[6].append(
            Operation(Map.SERVICES, e.service_key(frontend, 0), master.pack(), frontend)
        )

    def _plan_all(
        self, balancer: LoadBalancer, held: Slots, number: int, phases: list[list[Operation]]
    ) -> None:
        frontend, flags = balancer.frontend, _flags(balancer)
        ids = [self._numbers.backend(b) for b in balancer.backends]
        self._numbers.use(frontend, ids)
        chosen, others = ids[: balancer.selectable], ids[balancer.selectable :]
        slots = Slots(arrange(held.numbers, chosen, others), len(chosen), True, flags)
        if balancer.weights:
            weights = dict(zip(chosen, balancer.weights, strict=True))
            table = alias.build([weights[n] for n in slots.numbers[: len(chosen)]])
            slots.others = {
                place: (slots.numbers[other], share)
                for place, (other, share) in enumerate(table)
                if share
            }
        phases[1] += self._backend_rows(frontend, zip(ids, balancer.backends, strict=True))
        for place, identifier in enumerate(slots.numbers):
            row = e.SlotRow(identifier, *slots.others.get(place, (0, 0)), number)
            phases[2].append(_slot(frontend, place, row.pack()))
        if flags & e.SERVICE_AFFINITY:
            phases[3] += _matches(frontend, number, chosen, b"\0")
        if flags & e.SERVICE_MAGLEV:
            names = [_shared_name(b) for b in balancer.backends[: len(chosen)]]
            made = dict(zip(names, chosen, strict=True))
            given = dict(zip(names, balancer.weights, strict=bool(balancer.weights)))
            phases[4].append(self._maglev(frontend, number, (made, given)))
        kept = set(chosen) if flags & e.SERVICE_AFFINITY else set()
        known = {*held.numbers, *ids}
        self._planned[frontend] = _Planned(None, slots, {*held.numbers} - {*ids}, known - kept)

    def _plan_change(
        self,
        balancer: LoadBalancer,
        before: LoadBalancer,
        held: Slots,
        number: int,
        phases: list[list[Operation]],
    ) -> None:
        frontend, count = balancer.frontend, balancer.selectable
        old_chosen, new_chosen = difference(
            before.backends[: before.selectable], balancer.backends[:count]
        )
        old_others, new_others = difference(
            before.backends[before.selectable :], balancer.backends[count:]
        )
        change = Difference(
            *self._numbers_of(old_chosen, new_chosen), *self._numbers_of(old_others, new_others)
        )
        moved = moves(held, change)
        coming = {*change.chosen_new, *change.others_new}
        self._numbers.use(frontend, coming)
        same = {id(b) for some in (old_chosen, old_others) for b in some}
        fresh = [b for some in (new_chosen, new_others) for b in some if id(b) not in same]
        numbers = (self._numbers.backend(b) for b in fresh)
        phases[1] += self._backend_rows(frontend, zip(numbers, fresh, strict=True))
        for place, identifier in moved.numbers.items():
            phases[2].append(_slot(frontend, place, e.SlotRow(identifier, 0, 0, number).pack()))
        if held.flags & e.SERVICE_AFFINITY:
            phases[3] += _matches(frontend, number, change.chosen_new, b"\0")
        if held.flags & e.SERVICE_MAGLEV and (old_chosen or new_chosen):
            names = dict(self.maglev_backends[e.number_key(number)][0])
            for backend in old_chosen:
                del names[_shared_name(backend)]
            names |= {_shared_name(b): self._numbers.backend(b) for b in new_chosen}
            phases[4].append(self._maglev(frontend, number, (names, {})))
        left = {*change.chosen_gone, *change.others_gone} - coming
        self._planned[frontend] = _Planned(moved, held, left, change.chosen_gone)

    def _numbers_of(
        self, old: Iterable[Backend], new: Iterable[Backend]
    ) -> tuple[list[int], list[int]]:
        """Numbers of those that go and of those that come."""
        before = dict.fromkeys(map(self._numbers.backend, old))
        after = dict.fromkeys(map(self._numbers.backend, new))
        return [n for n in before if n not in after], [n for n in after if n not in before]

    def _backend_rows(
        self, frontend: Frontend, backends: Iterable[tuple[int, Backend]]
    ) -> Iterable[Operation]:
        for number, b in backends:
            row = e.BackendRow(b.address, b.port, b.protocol, b.state, b.cluster_id)
            yield Operation(Map.BACKENDS, e.number_key(number), row.pack(), frontend)

    def _maglev(self, frontend: Frontend, number: int, found: MaglevBackends) -> Operation:
        key = e.number_key(number)
        self.maglev_backends[key] = found
        sign = hash((frozenset(found[0].items()), frozenset(found[1].items())))
        return Operation(Map.MAGLEV, key, sign.to_bytes(8, signed=True), frontend)

    def owners(self, operation: Operation) -> set[Frontend]:
        """Whom a failure of this operation concerns: of a backend, all that use it."""
        users: Collection[Frontend] = ()
        if operation.map is Map.BACKENDS:
            users = self._numbers.users(e.parse_number_key(operation.key))
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
            planned, number = self._planned.pop(frontend), self._numbers.frontend(frontend)
            held = self._held.get(frontend) or Slots()
            total = planned.moves.total if planned.moves else len(planned.slots.numbers)
            slots += _gone_slots(frontend, range(total, len(held.numbers)))
            slots += _matches(frontend, number, planned.unmatched, None)
            if not _flags(balancer) & e.SERVICE_MAGLEV:
                slots.append(Operation(Map.MAGLEV, e.number_key(number), None, frontend))
            freed += _gone_backends(frontend, self._numbers.leave(frontend, planned.left))
            if planned.moves:
                held.move(planned.moves)
            else:
                self._held[frontend] = planned.slots
            self.written[frontend] = balancer
        return [self._unknown(slots), self._unknown(freed)]

    def plan_removal(self, frontends: Collection[Frontend]) -> list[list[Operation]]:
        """Phases that remove frontends: the master first, numbers last."""
        phases: list[list[Operation]] = [[], [], []]
        for frontend in frontends:
            held = self._held.pop(frontend, None)
            number = self._numbers.release_frontend(frontend)
            self.written.pop(frontend, None)
            if held is None:
                continue
            phases[0].append(Operation(Map.SERVICES, e.service_key(frontend, 0), None, frontend))
            phases[1] += _gone_slots(frontend, range(len(held.numbers)))
            if number is not None:
                phases[1] += _matches(frontend, number, held.numbers, None)
                phases[1].append(Operation(Map.MAGLEV, e.number_key(number), None, frontend))
                phases[2].append(Operation(Map.REVNAT, e.number_key(number), None, frontend))
            phases[2] += _gone_backends(frontend, self._numbers.leave(frontend, held.numbers))
        phases[2] += self._orphans(frontends)
        return [self._unknown(phase) for phase in phases]

    def _orphans(self, frontends: Collection[Frontend]) -> list[Operation]:
        """Backends and reverse NAT rows that an interrupted write left without a frontend."""
        owner = next(iter(frontends), None)
        if owner is None or not self._is_orphaned:
            return []
        self._is_orphaned = False
        used = {e.number_key(number) for number in self._numbers.frontends.values()}
        stale = [key for key in self.known[Map.REVNAT] if key not in used]
        return _gone_backends(owner, self._numbers.drop_unused()) + [
            Operation(Map.REVNAT, key, None, owner) for key in stale
        ]


def _slots(master: e.ServiceRow | None, rows: Mapping[int, e.SlotRow]) -> Slots:
    row = master or e.ServiceRow()
    # A hole in the slots is from an interrupted write; 0 names no backend and differs from any.
    found = [rows.get(place, e.SlotRow()) for place in range(max(rows, default=-1) + 1)]
    return Slots(
        [r.backend_id for r in found],
        row.selectable,
        master is not None,
        row.flags,
        {place: (r.other_id, r.other_share) for place, r in enumerate(found) if r.other_share},
    )


def _is_comparable(held: Slots, before: LoadBalancer, after: LoadBalancer) -> bool:
    """Whether a change can be planned by itself: shares concern every slot."""
    return not (
        after.weights
        or held.others
        or held.flags != _flags(after)
        or held.selectable != before.selectable
        or len(held.numbers) != len(before.backends)
        or not held.orderly
    )


def _flags(balancer: LoadBalancer) -> int:
    return (e.SERVICE_AFFINITY if balancer.affinity_timeout_s else 0) | (
        e.SERVICE_MAGLEV if balancer.selection is Selection.MAGLEV else 0
    )


def _slot(frontend: Frontend, place: int, value: bytes | None) -> Operation:
    return Operation(Map.SERVICES, e.service_key(frontend, place + 1), value, frontend)


def _gone_slots(frontend: Frontend, places: Iterable[int]) -> list[Operation]:
    return [_slot(frontend, place, None) for place in places]


def _gone_backends(frontend: Frontend, numbers: Iterable[int]) -> list[Operation]:
    return [Operation(Map.BACKENDS, e.number_key(n), None, frontend) for n in numbers]


def _matches(
    frontend: Frontend, number: int, backends: Iterable[int], value: bytes | None
) -> list[Operation]:
    return [
        Operation(Map.AFFINITY_MATCH, e.affinity_match_key(b, number), value, frontend)
        for b in backends
    ]


def _shared_name(backend: Backend) -> str:
    """A name that every node gives the same backend."""
    return f"{backend.address}|{backend.port}|{backend.protocol}|{backend.cluster_id}"

"""The order of service writes, checked after every single write of random histories."""

from dataclasses import dataclass, field
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapath import alias
from datapath import encoding as e
from datapath.service_rows import Map, Operation, ServiceRows
from model.address import parse_address
from model.cluster import ClusterId
from model.service import (
    Backend,
    BackendState,
    Frontend,
    LoadBalancer,
    Protocol,
    Selection,
    ServiceName,
)

FRONTENDS = [Frontend(parse_address(f"10.96.0.{n}"), 80, Protocol.TCP) for n in (1, 2, 3)]


@lru_cache
def backend(host: int) -> Backend:
    # The row of a backend is shared, so all frontends must mean the same state.
    address, state = parse_address(f"10.0.0.{host}"), BackendState(host % 2)
    return Backend(address, 8080, Protocol.TCP, state, cluster_id=ClusterId(1))


@st.composite
def balancers(draw: st.DrawFn) -> LoadBalancer:
    hosts = draw(st.lists(st.integers(1, 9), unique=True, max_size=8))
    # Mostly the same objects again, as they come from the mesh; sometimes equal ones.
    make = draw(st.sampled_from((backend, backend, backend.__wrapped__)))
    backends = tuple(make(host) for host in hosts)
    selectable = draw(st.integers(0, len(backends)))
    weights = draw(st.lists(st.integers(1, 9), min_size=selectable, max_size=selectable))
    return LoadBalancer(
        draw(st.sampled_from(FRONTENDS)),
        ServiceName("default", "web"),
        backends,
        selectable,
        draw(st.sampled_from(list(Selection))),
        draw(st.sampled_from((0, 60))),
        draw(st.sampled_from((tuple(weights), ()))),
    )


steps = st.lists(
    st.one_of(
        st.lists(balancers(), min_size=1, max_size=3, unique_by=lambda b: b.frontend),
        st.sets(st.sampled_from(FRONTENDS), min_size=1),
        st.just("restart"),
    ),
    max_size=12,
)


@dataclass
class Maps:
    """Maps in memory that check what a program would meet after every write."""

    rows: dict[Map, dict[bytes, bytes]] = field(default_factory=lambda: {m: {} for m in Map})

    def run(self, planner: ServiceRows, phases: list[list[Operation]], stop_after: int) -> int:
        for phase in phases:
            for operation in phase:
                if stop_after == 0:
                    return 0
                stop_after -= 1
                if operation.value is None:
                    self.rows[operation.map].pop(operation.key, None)
                else:
                    self.rows[operation.map][operation.key] = operation.value
                planner.applied(operation)
                self.check()
        return stop_after

    def check(self) -> None:
        services = self.rows[Map.SERVICES]
        for key, value in services.items():
            frontend, slot = e.parse_service_key(key)
            master = e.ServiceRow.parse(value)
            if slot:
                continue
            assert self.rows[Map.REVNAT][e.number_key(master.revnat_id)] == e.revnat_value(frontend)
            for number in range(1, master.selectable + 1):
                row = e.SlotRow.parse(services[e.service_key(frontend, number)])
                assert e.number_key(row.backend_id) in self.rows[Map.BACKENDS]
                if row.other_share:
                    assert e.number_key(row.other_id) in self.rows[Map.BACKENDS]

    def exact(self, wanted: dict[Frontend, LoadBalancer], planner: ServiceRows) -> None:
        """Nothing is there that nobody needs, and session affinity and Maglev know the chosen."""
        services, matches, tables, slots = self.rows[Map.SERVICES], set(), {}, 0
        numbers = {
            e.BackendRow.parse(v).address: e.parse_number_key(k)
            for k, v in self.rows[Map.BACKENDS].items()
        }
        for frontend, balancer in wanted.items():
            master = e.ServiceRow.parse(services[e.service_key(frontend, 0)])
            chosen = [numbers[b.address] for b in balancer.backends[: balancer.selectable]]
            slots += 1 + len(balancer.backends)
            if balancer.affinity_timeout_s:
                matches |= {e.affinity_match_key(number, master.revnat_id) for number in chosen}
            if balancer.selection is Selection.MAGLEV:
                tables[e.number_key(master.revnat_id)] = sorted(chosen)
        used = {b.address for balancer in wanted.values() for b in balancer.backends}
        assert numbers.keys() == used
        assert len(services) == slots
        assert self.rows[Map.AFFINITY_MATCH].keys() == matches
        assert self.rows[Map.MAGLEV].keys() == tables.keys()
        found = {key: planner.maglev_backends.get(key) for key in tables}
        assert {k: sorted(f[0].values()) for k, f in found.items() if f} == {
            k: numbers for k, numbers in tables.items() if found[k]
        }

    def draws(self, balancer: LoadBalancer) -> list[float]:
        """How often each selectable backend comes up when its frontend's slots are drawn."""
        numbers = {
            e.BackendRow.parse(v).address: e.parse_number_key(k)
            for k, v in self.rows[Map.BACKENDS].items()
        }
        drawn: dict[int, float] = {}
        for slot in range(1, balancer.selectable + 1):
            value = self.rows[Map.SERVICES][e.service_key(balancer.frontend, slot)]
            row = e.SlotRow.parse(value)
            other = row.other_share / alias.DRAWS
            drawn[row.backend_id] = drawn.get(row.backend_id, 0) + 1 - other
            if other:
                drawn[row.other_id] = drawn.get(row.other_id, 0) + other
        chosen = balancer.backends[: balancer.selectable]
        return [drawn.get(numbers[b.address], 0) / balancer.selectable for b in chosen]


def shares(balancer: LoadBalancer) -> list[float]:
    weights = balancer.weights or (1,) * balancer.selectable
    return [weight / sum(weights) for weight in weights]


def shape(balancer: LoadBalancer) -> tuple[object, ...]:
    rows = [(b.address, b.port, b.state, b.cluster_id) for b in balancer.backends]
    # Slots have no order of their own, beside that of those that are drawn and the others.
    chosen, others = rows[: balancer.selectable], rows[balancer.selectable :]
    parts = sorted(chosen), sorted(others)
    return balancer.selectable, balancer.selection, balancer.affinity_timeout_s, parts


@settings(max_examples=200, deadline=None)
@given(steps, st.integers(0, 40))
def test_no_program_ever_counts_a_slot_that_is_not_there(history: list, kill_after: int) -> None:
    """After each write of any history, also one cut short by a kill, every counted slot leads to a

    backend (and so does its other one), and every master to its reverse translation; the last state
    is what was wanted, weights included.
    """
    maps, planner, wanted = Maps(), ServiceRows(), {}
    for step in history:
        if step == "restart":
            planner = ServiceRows()
            planner.load(maps.rows)
        elif isinstance(step, set):
            wanted = {f: b for f, b in wanted.items() if f not in step}
            maps.run(planner, planner.plan_removal(step), -1)
        else:
            wanted |= {b.frontend: b for b in step}
            if kill_after:  # killed in the middle, the next life does it again
                left = maps.run(planner, planner.plan(step), kill_after)
                if left == 0:
                    planner = ServiceRows()
                    planner.load(maps.rows)
                kill_after = 0
            maps.run(planner, planner.plan(step), -1)
            maps.run(planner, planner.plan_release(step), -1)
            maps.exact(wanted, planner)
    planner.load(maps.rows)
    found = planner.table()
    assert {f: shape(b) for f, b in found.items()} == {f: shape(b) for f, b in wanted.items()}
    for balancer in wanted.values():
        assert maps.draws(balancer) == pytest.approx(shares(balancer), abs=0.001)
    if not wanted:
        maps.run(planner, planner.plan_removal(FRONTENDS), -1)
        leftover = {m: rows for m, rows in maps.rows.items() if rows}
        assert leftover == {}


@settings(max_examples=100, deadline=None)
@given(steps)
def test_numbers_live_as_long_as_what_they_stand_for(history: list) -> None:
    """A backend that stays in use keeps its number through every history, restarts included."""
    maps, planner = Maps(), ServiceRows()
    for step in history:
        before = {v[:19] + v[20:]: k for k, v in maps.rows[Map.BACKENDS].items()}
        if step == "restart":
            planner = ServiceRows()
            planner.load(maps.rows)
        elif isinstance(step, set):
            maps.run(planner, planner.plan_removal(step), -1)
        else:
            maps.run(planner, planner.plan(step), -1)
            maps.run(planner, planner.plan_release(step), -1)
        after = {v[:19] + v[20:]: k for k, v in maps.rows[Map.BACKENDS].items()}
        assert {b: k for b, k in before.items() if b in after} == {
            b: k for b, k in after.items() if b in before
        }

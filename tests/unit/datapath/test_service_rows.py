"""Numbers of backends and frontends over updates and restarts."""

from dataclasses import replace

import pytest

from datapath import encoding as e
from datapath.service_rows import Map, ServiceRows
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

Rows = dict[Map, dict[bytes, bytes]]


def frontend(number: int) -> Frontend:
    return Frontend(parse_address(f"10.96.0.{number}"), 80, Protocol.TCP)


def backend(host: int, state: BackendState = BackendState.ACTIVE) -> Backend:
    address = parse_address(f"10.0.0.{host}")
    return Backend(address, 8080, Protocol.TCP, state, cluster_id=ClusterId(1))


def balancer(number: int, *hosts: int) -> LoadBalancer:
    backends = tuple(backend(h) for h in hosts)
    name = ServiceName("default", f"s{number}")
    return LoadBalancer(frontend(number), name, backends, len(backends))


def write(rows: ServiceRows, *wanted: LoadBalancer) -> int:
    """Apply everything; returns how many rows were written or removed."""
    count = 0
    for make in (rows.plan, rows.plan_release):
        for phase in make(wanted):
            for operation in phase:
                rows.applied(operation)
                count += 1
    return count


def remove(rows: ServiceRows, *frontends: Frontend) -> None:
    for phase in rows.plan_removal(frontends):
        for operation in phase:
            rows.applied(operation)


def numbers(rows: ServiceRows) -> dict[str, int]:
    return {
        str(e.BackendRow.parse(v).address): e.parse_number_key(k)
        for k, v in rows.known[Map.BACKENDS].items()
    }


def revnat_id(rows: ServiceRows, of: Frontend) -> int:
    return e.ServiceRow.parse(rows.known[Map.SERVICES][e.service_key(of, 0)]).revnat_id


def restarted(rows: ServiceRows, **remembered: list[int]) -> ServiceRows:
    again = ServiceRows()
    again.load(rows.known, **remembered)
    return again


def test_second_write_writes_nothing() -> None:
    """Writing what is there already touches no row."""
    rows = ServiceRows()
    assert write(rows, balancer(1, 1, 2)) > 0
    assert write(rows, balancer(1, 1, 2)) == 0


def test_restart_writes_nothing() -> None:
    """After a restart the wanted services, known again, change no row of the kernel."""
    rows = ServiceRows()
    write(rows, balancer(1, 1, 2), balancer(2, 2, 3))
    again = restarted(rows)
    assert write(again, balancer(1, 1, 2), balancer(2, 2, 3)) == 0
    assert again.table()[frontend(1)] == balancer(1, 1, 2)


def test_before_names_are_known_rows_equal_nothing_wanted() -> None:
    """Right after a restart the rows are there, but without names they ask to be written."""
    rows = ServiceRows()
    write(rows, balancer(1, 1, 2))
    found = restarted(rows).table()[frontend(1)]
    assert found != balancer(1, 1, 2)
    assert [b.address for b in found.backends] == [b.address for b in balancer(1, 1, 2).backends]


def test_backends_keep_their_numbers() -> None:
    """Adding and removing others leaves a backend's number alone, over a restart too."""
    rows = ServiceRows()
    write(rows, balancer(1, 1, 2, 3))
    before = numbers(rows)
    write(rows, balancer(1, 4, 2))
    rows = restarted(rows)
    write(rows, balancer(1, 5, 2, 1))
    after = numbers(rows)
    assert after["10.0.0.2"] == before["10.0.0.2"]
    assert after["10.0.0.1"] not in before.values()  # it was gone; a new life, a new number


def test_shared_backend_lives_as_long_as_one_service_uses_it() -> None:
    """A backend of two services goes with the second one."""
    rows = ServiceRows()
    write(rows, balancer(1, 1), balancer(2, 1))
    assert len(rows.known[Map.BACKENDS]) == 1
    remove(rows, frontend(1))
    assert list(numbers(rows)) == ["10.0.0.1"]
    remove(rows, frontend(2))
    assert all(not held for held in rows.known.values())


def test_numbers_that_flows_remember_are_not_given_again() -> None:
    """Numbers in conntrack are avoided, though no map holds them any more."""
    rows = restarted(ServiceRows(), remembered_backends=[41], remembered_revnats=[1, 2])
    write(rows, balancer(1, 1))
    assert numbers(rows) == {"10.0.0.1": 42}
    master = e.ServiceRow.parse(rows.known[Map.SERVICES][e.service_key(frontend(1), 0)])
    assert master.revnat_id == 3


def test_reverse_nat_numbers_go_round() -> None:
    """A freed number is given again only after all the others."""
    rows = ServiceRows()
    write(rows, balancer(1, 1))
    first = revnat_id(rows, frontend(1))
    remove(rows, frontend(1))
    write(rows, balancer(2, 1))
    assert revnat_id(rows, frontend(2)) == first + 1


def test_unselectable_backends_keep_their_slots_behind() -> None:
    """A terminating backend is not counted, but stays known, with its state."""
    rows = ServiceRows()
    wanted = replace(
        balancer(1, 1), backends=(backend(1), backend(2, BackendState.TERMINATING)), selectable=1
    )
    write(rows, wanted)
    found = restarted(rows).table()[frontend(1)]
    assert found.selectable == 1
    assert [b.state for b in found.backends] == [BackendState.ACTIVE, BackendState.TERMINATING]


def test_affinity_names_every_backend_once() -> None:
    """Session affinity knows which backends belong to the service; without it none are listed."""
    rows = ServiceRows()
    write(rows, replace(balancer(1, 1, 2), affinity_timeout_s=60))
    assert len(rows.known[Map.AFFINITY_MATCH]) == 2
    write(rows, replace(balancer(1, 2), affinity_timeout_s=60))
    assert len(rows.known[Map.AFFINITY_MATCH]) == 1
    write(rows, balancer(1, 2))
    assert rows.known[Map.AFFINITY_MATCH] == {}


def test_affinity_leads_to_selectable_backends_only() -> None:
    """A client that stuck to a backend leaves it when new connections may not take it any more."""
    rows = ServiceRows()
    write(rows, replace(balancer(1, 1, 2), affinity_timeout_s=60))
    write(rows, replace(balancer(1, 1, 2), affinity_timeout_s=60, selectable=1))
    (key,) = rows.known[Map.AFFINITY_MATCH]
    assert key[:4] == e.number_key(numbers(rows)["10.0.0.1"])
    assert (
        write(restarted(rows), replace(balancer(1, 1, 2), affinity_timeout_s=60, selectable=1)) == 0
    )


def test_weights_change_slots_and_nothing_else() -> None:
    """Three slots stay three slots; written twice or after a restart they are no news."""
    rows = ServiceRows()
    write(rows, balancer(1, 1, 2, 3))
    before = {key: dict(rows.known[key]) for key in Map}
    heavy = replace(balancer(1, 1, 2, 3), weights=(8, 1, 1))
    assert write(rows, heavy) == 2  # the light ones share their slots with the heavy one
    assert before.keys() == rows.known.keys()
    for number in Map:
        assert before[number].keys() == rows.known[number].keys()
    assert write(rows, heavy) == 0
    again = restarted(rows)
    assert write(again, heavy) == 0
    assert again.table()[frontend(1)] == heavy
    assert write(again, balancer(1, 1, 2, 3)) == 2
    assert rows.known[Map.BACKENDS] == before[Map.BACKENDS]


def test_rows_are_asked_for_again_when_weights_differ_in_the_kernel() -> None:
    """What is remembered as written counts only while the slots say the same."""
    rows = ServiceRows()
    heavy = replace(balancer(1, 1, 2), weights=(3, 1))
    write(rows, heavy)
    found = {number: dict(table) for number, table in rows.known.items()}
    for slot in (1, 2):
        key = e.service_key(frontend(1), slot)
        found[Map.SERVICES][key] = (
            e.SlotRow.parse(found[Map.SERVICES][key])._replace(other_share=0).pack()
        )
    rows.load(found)
    assert rows.table()[frontend(1)] != heavy


def test_maglev_table_is_made_of_the_weights() -> None:
    """The table is made anew when only weights change."""
    rows = ServiceRows()
    even = replace(balancer(1, 1, 2), selection=Selection.MAGLEV)
    write(rows, even)
    write(rows, replace(even, weights=(3, 1)))
    ((names, weights),) = rows.maglev_backends.values()
    assert sorted(weights.values()) == [1, 3]
    assert names.keys() == weights.keys()
    assert write(rows, replace(even, weights=(3, 1))) == 0


def test_maglev_table_comes_and_goes_with_the_choice() -> None:
    """The table is there while the service selects by it."""
    rows = ServiceRows()
    write(rows, replace(balancer(1, 1, 2), selection=Selection.MAGLEV))
    assert len(rows.known[Map.MAGLEV]) == 1
    write(rows, balancer(1, 1, 2))
    assert rows.known[Map.MAGLEV] == {}


def test_interrupted_write_leaves_nothing_for_ever() -> None:
    """Backends of a write that was killed before its slots go with the next removal."""
    rows = ServiceRows()
    for operation in rows.plan([balancer(1, 1, 2)])[1]:
        rows.applied(operation)
    again = restarted(rows)
    assert len(again.known[Map.BACKENDS]) == 2
    write(again, balancer(2, 3))
    remove(again, frontend(2))
    assert again.known[Map.BACKENDS] == {}


def thousands() -> list[Backend]:
    return [
        replace(backend(1), address=parse_address(f"10.1.{n // 250}.{n % 250}"))
        for n in range(5000)
    ]


@pytest.mark.parametrize("timeout_s", [0, 60])
def test_one_changed_backend_costs_one(timeout_s: int) -> None:
    """Of 5,000 one goes, one comes, one drains: a handful of rows, wherever they stand."""
    rows, all_of_them = ServiceRows(), thousands()
    whole = replace(balancer(1), affinity_timeout_s=timeout_s)

    def become(chosen: list[Backend], *others: Backend) -> int:
        backends = (*chosen, *others)
        return write(rows, replace(whole, backends=backends, selectable=len(chosen)))

    assert become(all_of_them) > 10_000
    for place in (0, 1, 2500, 4998, 4999):
        rest = all_of_them[:place] + all_of_them[place + 1 :]
        ending = replace(all_of_them[place], state=BackendState.TERMINATING)
        assert become(rest, ending) <= 8
        assert become(rest) <= 4
        assert become(all_of_them) <= 6
        assert become(all_of_them) == 0


def test_unchanged_maps_are_not_parsed_again() -> None:
    """Reading back what was written keeps what is known; what somebody else changed is seen."""
    rows = ServiceRows()
    write(rows, balancer(1, 1, 2), balancer(2, 3))
    maps = {number: dict(found) for number, found in rows.known.items()}
    rows.load(maps)
    assert rows.table() == {frontend(1): balancer(1, 1, 2), frontend(2): balancer(2, 3)}
    maps[Map.BACKENDS].pop(e.number_key(numbers(rows)["10.0.0.3"]))
    rows.load(maps)
    assert rows.table()[frontend(1)] == balancer(1, 1, 2)
    assert rows.table()[frontend(2)] != balancer(2, 3)
    assert write(rows, balancer(2, 3)) == 2  # its row, under a new number, and its slot

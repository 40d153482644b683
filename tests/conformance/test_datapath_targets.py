"""One suite for kernel tables: the contract of ``Target``, for the fake and the real ones."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest
from pyroute2 import IPRoute

from datapath.kernel_table import KernelTable
from datapath.policy import PolicyTable
from datapath.policy_plan import PolicyRows
from datapath.routes import Route, RouteTable
from datapath.service_rows import Map
from datapath.services import ServiceTable
from datapath.syscall import NO_PREALLOC, MapType
from datapath.tables import EndpointTable, HostAddressTable, IpcacheTable
from model.address import parse_address, parse_prefix
from model.cluster import ClusterId
from model.endpoint import EndpointId, LocalEndpoint
from model.identity import NumericIdentity
from model.ipcache import IpcacheEntry
from model.policy_map import Direction, PolicyEntry, PolicyKey
from model.service import Backend, Frontend, LoadBalancer, Protocol, ServiceName
from reconcile.port import Target
from tests.support.datapath import FakeTable, copy_of, kernel_thread, new_table, policy_table

ENTRIES = 64  # of the maps that the suite fills up


@dataclass
class Case:
    """A table under test, with rows that suit it."""

    target: Target[Any, Any]
    again: Callable[[], Target[Any, Any]]  # a second adapter of the same table, as after a restart
    row: Callable[[int], tuple[Any, Any]]
    changed: Callable[[Any], Any]
    capacity: int = ENTRIES
    tells_all: bool = True  # a second adapter reads values that are equal, not only keys


def _fake(_: ExitStack) -> Case:
    table: FakeTable[int, str] = FakeTable(capacity=ENTRIES)
    return Case(table, lambda: table, lambda n: (n, f"value {n}"), lambda v: v + "!")


def _ipcache_row(number: int) -> tuple[Any, IpcacheEntry]:
    entry = IpcacheEntry(NumericIdentity(70000 + number), parse_address("192.0.2.1"), 3, 7)
    kinds = (
        f"10.1.{number}.0/24",
        f"10.2.0.{number}/32",
        f"fd00::{number:x}/128",
        f"fd00:{number:x}::/64",
    )
    return parse_prefix(kinds[number % 4]), entry


def _ipcache(stack: ExitStack) -> Case:
    thread = stack.enter_context(kernel_thread())
    hosts = new_table(MapType.HASH, 16, 24, ENTRIES)
    prefixes = new_table(MapType.LPM_TRIE, 20, 24, ENTRIES, NO_PREALLOC)
    return Case(
        IpcacheTable(thread, hosts, prefixes),
        lambda: IpcacheTable(thread, copy_of(hosts), copy_of(prefixes)),
        _ipcache_row,
        lambda entry: msgspec.structs.replace(
            entry, tunnel_endpoint=None, identity=NumericIdentity(9)
        ),
        capacity=2 * ENTRIES,
    )


def _endpoint(number: int) -> LocalEndpoint:
    # Interface 1 exists everywhere, so that a second adapter can find its name.
    return LocalEndpoint(
        EndpointId(number + 1),
        NumericIdentity(70000 + number),
        1 if number == 0 else 1000 + number,
        "lo" if number == 0 else "",
        bytes([2, 0, 0, 0, 0, number % 256]),
        bytes([2, 1, 0, 0, 0, number % 256]),
        (parse_address(f"10.3.0.{number + 1}"), parse_address(f"fd00::{number + 1:x}")),
    )


def _endpoints(stack: ExitStack) -> Case:
    thread = stack.enter_context(kernel_thread())
    rows = new_table(MapType.HASH, 16, 24, 2 * ENTRIES)
    interfaces = new_table(MapType.HASH, 4, 56, ENTRIES)
    return Case(
        EndpointTable(thread, rows, interfaces),
        lambda: EndpointTable(thread, copy_of(rows), copy_of(interfaces)),
        lambda n: (EndpointId(n + 1), _endpoint(n)),
        lambda e: replace(e, identity=NumericIdentity(5), addresses=e.addresses[:1]),
    )


def _host_addresses(stack: ExitStack) -> Case:
    thread = stack.enter_context(kernel_thread())
    rows = new_table(MapType.HASH, 16, 24, ENTRIES)
    return Case(
        HostAddressTable(thread, rows),
        lambda: HostAddressTable(thread, copy_of(rows)),
        lambda n: (parse_address(f"192.0.2.{n}"), NumericIdentity(1)),
        lambda _: NumericIdentity(6),
    )


def service_tables() -> dict[Map, KernelTable]:
    return {
        Map.BACKENDS: new_table(MapType.HASH, 4, 24, 4 * ENTRIES),
        Map.SERVICES: new_table(MapType.HASH, 24, 16, 4 * ENTRIES),
        Map.AFFINITY_MATCH: new_table(MapType.HASH, 8, 1, 4 * ENTRIES),
        Map.MAGLEV: new_table(MapType.HASH, 4, 4, ENTRIES),
        Map.REVNAT: new_table(MapType.HASH, 4, 20, ENTRIES),
    }


def _service(number: int) -> tuple[Frontend, LoadBalancer]:
    frontend = Frontend(parse_address(f"10.96.0.{number + 1}"), 80, Protocol.TCP)
    backends = tuple(
        Backend(parse_address(f"10.4.{number}.{b}"), 8080, Protocol.TCP, cluster_id=ClusterId(b))
        for b in (1, 2)
    )
    name = ServiceName("default", f"service-{number}")
    return frontend, LoadBalancer(frontend, name, backends, 2, affinity_timeout_s=number % 2 * 60)


def _services(stack: ExitStack) -> Case:
    thread = stack.enter_context(kernel_thread())
    tables, flows = service_tables(), new_table(MapType.LRU_HASH, 40, 40, ENTRIES)
    return Case(
        ServiceTable(thread, tables, flows),
        lambda: ServiceTable(thread, {m: copy_of(t) for m, t in tables.items()}, copy_of(flows)),
        _service,
        lambda lb: replace(lb, backends=lb.backends[1:], selectable=1, affinity_timeout_s=30),
        tells_all=False,
    )


def _routes(stack: ExitStack) -> Case:
    thread = stack.enter_context(kernel_thread(own_network=True))
    thread.submit(_lo_up).result(timeout=30)
    return Case(
        RouteTable(thread),
        lambda: RouteTable(thread),
        lambda n: (
            parse_prefix(f"10.5.{n}.0/24" if n % 2 else f"fd05:{n:x}::/64"),
            Route("lo", None, 1400),
        ),
        lambda route: replace(route, mtu=1350),
    )


def _policy_rows(number: int) -> tuple[EndpointId, PolicyRows]:
    rows = {
        PolicyKey(0, Direction.EGRESS): PolicyEntry(),
        PolicyKey(70000 + number, Direction.INGRESS, 6, 80, 24): PolicyEntry(rule=number),
        PolicyKey(0, Direction.INGRESS, 17, 64, 18): PolicyEntry(deny=True, audit=number % 2 == 0),
    }
    return EndpointId(number + 1), rows


def _policy(stack: ExitStack) -> Case:
    thread = stack.enter_context(kernel_thread())
    endpoints = policy_table()
    return Case(
        PolicyTable(thread, endpoints),
        lambda: PolicyTable(thread, copy_of(endpoints)),
        _policy_rows,
        lambda rows: {**rows, PolicyKey(9, Direction.INGRESS): PolicyEntry(deny=True)},
    )


def _lo_up() -> None:
    with IPRoute() as ipr:
        ipr.link("set", index=1, state="up")


MAKERS = {
    "fake": _fake,
    "ipcache": _ipcache,
    "endpoints": _endpoints,
    "host addresses": _host_addresses,
    "services": _services,
    "policy": _policy,
    "routes": _routes,
}


# Routes: memory is the end. Policy: every number of an endpoint has its place.
BOUNDLESS = ("routes", "policy")


def _params(names: Iterable[str]) -> list[object]:
    return [pytest.param(k, marks=() if k == "fake" else pytest.mark.root) for k in names]


@pytest.fixture(params=_params(k for k in MAKERS if k not in BOUNDLESS))
def bounded(request: pytest.FixtureRequest) -> Iterator[Case]:
    with ExitStack() as stack:
        yield MAKERS[request.param](stack)


@pytest.fixture(params=_params(MAKERS))
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    with ExitStack() as stack:
        yield MAKERS[request.param](stack)


async def test_empty_table_reads_as_empty(case: Case) -> None:
    """A table that nobody wrote has no rows of ours."""
    assert await case.target.read() == {}


async def test_written_rows_are_read_back(case: Case) -> None:
    """What was written is what is read, exactly."""
    rows = dict(case.row(n) for n in range(8))
    assert await case.target.upsert(list(rows.items())) == {}
    assert await case.target.read() == rows


async def test_writes_are_idempotent(case: Case) -> None:
    """Writing the same rows again changes nothing and is no error."""
    rows = dict(case.row(n) for n in range(4))
    for _ in range(2):
        assert await case.target.upsert(list(rows.items())) == {}
        assert await case.target.read() == rows


async def test_a_row_is_replaced(case: Case) -> None:
    """A second value for a key takes the place of the first, and its neighbours stay."""
    rows = dict(case.row(n) for n in range(4))
    await case.target.upsert(list(rows.items()))
    key, value = case.row(2)
    rows[key] = case.changed(value)
    assert await case.target.upsert([(key, rows[key])]) == {}
    assert await case.target.read() == rows


async def test_deleted_rows_are_gone_and_absent_ones_no_error(case: Case) -> None:
    """Delete removes what is named; what was never there is no error."""
    rows = dict(case.row(n) for n in range(6))
    await case.target.upsert(list(rows.items()))
    gone = [case.row(n)[0] for n in (1, 4)]
    assert await case.target.delete([*gone, case.row(7)[0]]) == {}
    assert await case.target.read() == {k: v for k, v in rows.items() if k not in gone}
    assert await case.target.delete(gone) == {}


async def test_nothing_to_do_is_no_error(case: Case) -> None:
    """Empty writes are allowed."""
    assert await case.target.upsert([]) == {}
    assert await case.target.delete([]) == {}
    assert await case.target.read() == {}


async def test_everything_can_be_deleted(case: Case) -> None:
    """After all keys are deleted the table reads as empty, and can be filled again."""
    rows = dict(case.row(n) for n in range(8))
    for _ in range(2):
        assert await case.target.upsert(list(rows.items())) == {}
        assert await case.target.delete(list(rows)) == {}
        assert await case.target.read() == {}


async def test_second_adapter_sees_the_rows(case: Case) -> None:
    """Rows live in the kernel and not in us: after a restart they are all there."""
    rows = dict(case.row(n) for n in range(6))
    await case.target.upsert(list(rows.items()))
    again = case.again()
    found = await again.read()
    assert found.keys() == rows.keys()
    if case.tells_all:
        assert found == rows
    assert await again.upsert(list(rows.items())) == {}
    assert await again.read() == rows


async def test_second_adapter_can_delete(case: Case) -> None:
    """After a restart, rows that nobody wants any more can be removed."""
    rows = dict(case.row(n) for n in range(6))
    await case.target.upsert(list(rows.items()))
    again = case.again()
    assert await again.delete(list(rows)[:4]) == {}
    assert (await case.target.read()).keys() == set(list(rows)[4:])


async def test_rows_fail_alone_when_the_table_is_full(bounded: Case) -> None:
    """What fits is written; what does not is named with its error, and can be written later."""
    case = bounded
    rows = dict(case.row(n) for n in range(case.capacity + 8))
    errors = await case.target.upsert(list(rows.items()))
    assert errors
    assert all(isinstance(error, OSError) for error in errors.values())
    found = await case.target.read()
    assert {k: v for k, v in found.items() if k not in errors} == {
        k: v for k, v in rows.items() if k not in errors
    }
    kept = [k for k in rows if k not in errors]
    assert await case.target.delete(kept[: len(kept) // 2]) == {}
    late = list(errors)[:4]
    assert await case.target.upsert([(k, rows[k]) for k in late]) == {}
    found = await case.target.read()
    assert all(found[k] == rows[k] for k in late)

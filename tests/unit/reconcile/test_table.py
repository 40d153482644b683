"""The promises of ``reconcile.table`` and ``reconcile.loop``, against the table that passes the
conformance suite. Time is a number here, and no test waits for it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import pytest

from reconcile import backoff
from reconcile.loop import Loop
from reconcile.plan import plan
from reconcile.table import Table
from reconcile.tasks import TaskGroup
from tests.support import virtual_time
from tests.support.datapath import FakeTable, Fault


class World:
    """A wanted and an actual table with a clock in between."""

    def __init__(self, actual: dict[str, int], wanted: dict[str, int]) -> None:
        self.now = 0.0
        self.target: FakeTable[str, int] = FakeTable(actual)
        self.wanted = wanted
        self.table: Table[str, int] = Table(
            "t", self.target, self.wanted, clock=lambda: self.now, draw=lambda: 0.5
        )
        self.loop = Loop([self.table])

    async def settle(self, rounds: int = 30) -> None:
        """Rounds, each at the moment the table asks for."""
        for _ in range(rounds):
            await self.loop.round()
            self.now += max(self.table.due_in_s(), 0.0)
            if self.table.status.healthy and self.table.due_in_s() > 60:
                return

    def want(self, key: str, value: int | None) -> None:
        if value is None:
            self.wanted.pop(key, None)
        else:
            self.wanted[key] = value
        self.table.mark(key)


def test_plan_is_sorted_and_spares_strangers() -> None:
    """The same tables give the same plan; rows that are not ours are not deleted."""
    found = plan(
        {"b": 2, "a": 1, "same": 5}.items(),
        {"z": 9, "y": 8, "same": 5, "foreign": 7},
        lambda key, _: key != "foreign",
    )
    assert found.upserts == (("a", 1), ("b", 2))
    assert found.deletes == ("y", "z")
    assert not found.empty


@pytest.mark.parametrize("fault", list(Fault))
async def test_one_fault_then_converges(fault: Fault) -> None:
    """Whatever fails once, the table ends as wanted."""
    world = World({"a": 1, "z": 9}, {"a": 2, "b": 3})
    world.table.allow_prune()
    world.target.fault = fault
    for _ in range(3):
        await world.loop.round()
    world.target.fault = Fault.NONE
    world.now += backoff.LAST_S * 2
    await world.settle()
    assert world.target.rows == {"a": 2, "b": 3}
    assert world.table.status.healthy


async def test_a_row_fails_alone() -> None:
    """Others are written; the failing one is shown with its error and attempts, and rests longer
    each time; another wanted value is tried at once."""
    world = World({}, {"a": 1, "bad": 2})
    world.target.fault, world.target.faulty = Fault.UPSERT, {"bad"}
    await world.loop.round()
    assert world.target.rows == {"a": 1}
    assert world.table.status.failing["bad"].attempts == 1
    assert "bad" in world.table.error("bad")
    delays = []
    for _ in range(4):
        delays.append(world.table.due_in_s())
        world.now += world.table.due_in_s()
        await world.loop.round()
    assert delays == sorted(delays)
    assert delays[-1] > delays[0]
    world.target.fault = Fault.NONE
    world.want("bad", 3)
    await world.loop.round()
    assert world.target.rows == {"a": 1, "bad": 3}
    assert world.table.status.healthy


async def test_who_waits_for_rows_waits_for_the_failing_ones() -> None:
    """``attempted`` returns when a row has failed, ``written`` when it has recovered."""
    world = World({}, {"a": 1, "bad": 2})
    world.target.fault, world.target.faulty = Fault.UPSERT, {"bad"}
    async with TaskGroup() as tasks:
        waiting = tasks.create_task(world.table.written(world.table.revision))
        for _ in range(2):
            await world.loop.round()
            world.now += world.table.due_in_s()
            await asyncio.sleep(0)
            assert not waiting.done()
        await world.table.attempted(world.table.revision)
        world.target.fault = Fault.NONE
        await world.loop.round()
    assert world.target.rows == {"a": 1, "bad": 2}


async def test_a_failing_row_is_not_hammered() -> None:
    """Marks of an unchanged failing row do not shorten its rest."""
    world = World({}, {"bad": 2})
    world.target.fault, world.target.faulty = Fault.UPSERT, {"bad"}
    await world.loop.round()
    for _ in range(5):
        world.table.mark("bad")
        await world.loop.round()
    assert world.table.status.failing["bad"].attempts == 1


async def test_a_failing_removal_rests_and_returns() -> None:
    """A row that cannot be removed is tried again later and blocks nothing."""
    world = World({"old": 1}, {"a": 1})
    world.table.allow_prune()
    world.target.fault = Fault.DELETE
    await world.loop.round()
    assert world.target.rows == {"a": 1, "old": 1}
    assert world.table.due_in_s() > 0
    world.target.fault = Fault.NONE
    await world.settle()
    assert world.target.rows == {"a": 1}


async def test_nothing_goes_before_every_input_has_spoken() -> None:
    """Without permission rows are written and none is removed, whether marked or found."""
    world = World({"old": 1}, {})
    await world.loop.round()
    world.want("a", 1)
    await world.loop.round()
    world.want("a", None)
    await world.loop.round()
    assert world.target.rows == {"old": 1, "a": 1}
    world.table.allow_prune()
    await world.loop.round()
    assert world.target.rows == {}


async def test_a_held_table_does_nothing() -> None:
    """Rows made of several inputs wait for all of them."""
    world = World({"a": 1}, {"a": 2})
    world.table.hold()
    world.table.allow_prune()
    await world.loop.round()
    assert world.target.rows == {"a": 1}
    world.table.release()
    await world.loop.round()
    assert world.target.rows == {"a": 2}


async def test_what_others_change_is_found() -> None:
    """From time to time the target is read as a whole; a mark is not needed."""
    world = World({}, {"a": 1})
    world.table.allow_prune()
    await world.loop.round()
    world.target.rows.update({"a": 7, "stray": 1})
    await world.loop.round()
    assert world.target.rows["a"] == 7, "not read yet"
    world.now += world.table.due_in_s()
    await world.loop.round()
    assert world.target.rows == {"a": 1}


async def test_a_lost_target_is_read_again() -> None:
    """An unreachable table rests, says so, and is compared as a whole when it is back."""
    world = World({"a": 1}, {"a": 2})
    world.target.fault = Fault.READ
    await world.loop.round()
    assert "read" in world.table.status.error
    assert "degraded" in world.table.status.line(world.now)
    assert world.table.due_in_s() > 0
    world.target.fault = Fault.NONE
    await world.settle()
    assert world.target.rows == {"a": 2}
    assert world.table.status.line(world.now) == "ok, 1 rows"


async def test_an_attempt_can_be_awaited() -> None:
    """``attempted`` returns when a round has seen the mark, also when its row failed."""
    world = World({}, {})
    await world.loop.round()
    async with TaskGroup() as tasks:
        running = tasks.create_task(world.loop.run())
        world.want("a", 1)
        async with asyncio.timeout(5):
            await world.table.attempted(world.table.revision)
        assert world.target.rows == {"a": 1}
        world.target.fault = Fault.UPSERT
        world.want("b", 1)
        async with asyncio.timeout(5):
            await world.table.attempted(world.table.revision)
        assert world.table.error("b")
        running.cancel()


class SlowRead(FakeTable[str, int]):
    """Lets a test act in the middle of a read."""

    def __init__(self) -> None:
        super().__init__()
        self.reading, self.go = asyncio.Event(), asyncio.Event()

    async def read(self) -> dict[str, int]:
        self.reading.set()
        await self.go.wait()
        return dict(self.rows)


async def test_a_change_during_a_read_is_not_lost() -> None:
    """Marks, and requests to compare all, that come while the target is read are carried out."""
    target, wanted = SlowRead(), {"a": 1}
    table: Table[str, int] = Table("t", target, wanted, clock=lambda: 0.0, draw=lambda: 0.5)
    async with TaskGroup() as tasks:
        running = tasks.create_task(Loop([table]).run())
        await target.reading.wait()
        wanted["b"] = 2
        table.mark("b")
        table.allow_prune()
        revision = table.revision
        target.go.set()
        async with asyncio.timeout(5):
            await table.attempted(revision)
        running.cancel()
    assert target.rows == {"a": 1, "b": 2}


def test_changes_that_keep_coming_are_written_together() -> None:
    """The first at once; then in rounds with a gap, except for who waits for a row."""
    wanted: dict[str, int] = {}
    target: FakeTable[str, int] = FakeTable({})

    async def changes() -> None:
        clock = asyncio.get_running_loop().time
        table: Table[str, int] = Table("t", target, wanted, clock=clock, draw=lambda: 0.5)
        async with TaskGroup() as tasks:
            running = tasks.create_task(Loop([table], 0.03).run())
            table.mark("first")
            await table.attempted(table.revision)
            await asyncio.sleep(1.0)
            rounds = table.status.rounds
            for number in range(300):
                wanted[str(number)] = number
                table.mark(str(number))
                await asyncio.sleep(0.001)
                assert number or target.rows == {"0": 0}
            assert 10 <= table.status.rounds - rounds <= 12
            assert len(target.rows) > 260
            await asyncio.sleep(0.031)
            assert target.rows == wanted
            asked_s = clock()
            for number in range(300, 310):
                wanted[str(number)] = number
                table.mark(str(number))
                await table.attempted(table.revision)
                assert target.rows == wanted
            assert clock() - asked_s < 0.001
            running.cancel()

    virtual_time.run(changes())


@pytest.mark.parametrize(("takes_s", "rounds"), [(0.005, 40), (0.02, 10), (0.2, 2)])
def test_long_rounds_keep_long_gaps(takes_s: float, rounds: int) -> None:
    """A gap is four times as long as its round, and 0.4 s at most: the loop is not always busy."""

    class Slow(FakeTable[str, int]):
        async def upsert(self, rows: Sequence[tuple[str, int]]) -> Mapping[str, OSError]:
            await asyncio.sleep(takes_s)
            return await super().upsert(rows)

    async def changes() -> None:
        clock = asyncio.get_running_loop().time
        wanted: dict[str, int] = {}
        table: Table[str, int] = Table("t", Slow({}), wanted, clock=clock, draw=lambda: 0.5)
        async with TaskGroup() as tasks:
            running = tasks.create_task(Loop([table], 0.01).run())
            for number in range(1000):
                wanted["a"] = number
                table.mark("a")
                await asyncio.sleep(0.001)
            assert abs(table.status.rounds - rounds) <= 2
            running.cancel()

    virtual_time.run(changes())


def test_what_is_for_soon_waits_as_long_as_a_round_took() -> None:
    """Not for the whole gap; who waits for a row does not wait at all."""

    class Slow(FakeTable[str, int]):
        async def upsert(self, rows: Sequence[tuple[str, int]]) -> Mapping[str, OSError]:
            await asyncio.sleep(0.02)
            return await super().upsert(rows)

    async def changes() -> None:
        clock = asyncio.get_running_loop().time
        wanted: dict[str, int] = {}
        target = Slow({})
        table: Table[str, int] = Table("t", target, wanted, clock=clock, draw=lambda: 0.5)

        async def took_s(number: int, say: Callable[[], None]) -> float:
            begun_s, wanted["a"] = clock(), number
            table.mark("a")
            say()
            while target.rows.get("a") != number:  # noqa: ASYNC110 (time is the test's own)
                await asyncio.sleep(0.001)
            return round(clock() - begun_s, 2)

        async with TaskGroup() as tasks:
            running = tasks.create_task(Loop([table], 0.01).run())
            await took_s(1, table.soon)
            assert await took_s(2, table.soon) == 0.04
            assert await took_s(3, lambda: None) == 0.10
            assert await took_s(4, table.hurry) == 0.02
            await asyncio.sleep(0.03)
            assert await took_s(5, table.soon) == 0.02
            running.cancel()

    virtual_time.run(changes())


async def test_tables_are_written_in_order_and_emptied_in_reverse() -> None:
    """What is referred to is there first and goes last."""
    order: list[str] = []

    class Noting(FakeTable[str, int]):
        def __init__(self, name: str) -> None:
            super().__init__({"old": 1})
            self.name = name

        async def upsert(self, rows):  # type: ignore[no-untyped-def]
            order.append(f"write {self.name}")
            return await super().upsert(rows)

        async def delete(self, keys):  # type: ignore[no-untyped-def]
            order.append(f"remove {self.name}")
            return await super().delete(keys)

    tables = [
        Table(name, Noting(name), {"new": 1}, clock=lambda: 0.0, draw=lambda: 0.5)
        for name in ("backends", "frontends")
    ]
    for table in tables:
        table.allow_prune()
    await Loop(tables).round()
    assert order == ["write backends", "write frontends", "remove frontends", "remove backends"]


def test_backoff_grows_to_a_cap_and_is_spread() -> None:
    """Never below half, never above the cap."""
    delays = [backoff.delay_s(n, 0.999) for n in range(1, 40)]
    assert delays == sorted(delays)
    assert delays[-1] <= backoff.LAST_S
    assert backoff.delay_s(1, 0.0) == backoff.FIRST_S / 2
    assert backoff.jittered_s(100, 0.0) == 80
    assert backoff.jittered_s(100, 1.0) == pytest.approx(120)


async def test_a_row_is_told_once_it_is_there() -> None:
    """``actual`` is of the target: neither what is wanted, nor what could not be written."""
    world = World({}, {"a": 1})
    assert world.table.actual("a") is None
    await world.settle()
    assert world.table.actual("a") == 1
    world.want("a", 2)
    assert world.table.actual("a") == 1
    world.target.fault = Fault.UPSERT
    await world.loop.round()
    assert world.table.actual("a") == 1

"""``kvstore.late``: the latest of each key, in turn, and over the end of a connection."""

import asyncio
from collections.abc import Sequence

import pytest

from kvstore.allowance import Pace
from kvstore.duties import Duties
from kvstore.late import PART_ROWS, Late
from kvstore.mirror import Told
from reconcile.tasks import TaskGroup
from tests.support.kube import until


class Bench:
    """What is handed over, and how many wait."""

    def __init__(self, pace: Pace | None = None) -> None:
        self.taken: list[tuple[str, str, Told]] = []
        self.waiting = 0
        pace = pace or Pace(1e9, 1e9)
        self.late = Late(pace, asyncio.get_running_loop().time, self._take, self._count)

    def _take(self, resource: str, prefix: str, rows: Sequence[Told]) -> None:
        self.taken += [(resource, prefix, row) for row in rows]

    def _count(self, waiting: int) -> None:
        self.waiting = waiting


async def test_the_latest_of_each_key_is_handed_over() -> None:
    bench = Bench()
    async with TaskGroup() as tasks:
        bench.late.begin(Duties(tasks))
        bench.late.put("ip", "p/", [("a", b"1"), ("b", b"1")])
        bench.late.put("ip", "q/", [("a", b"2")])
        assert (bench.waiting, bench.taken) == (2, [])
    assert bench.taken == [("ip", "q/", ("a", b"2")), ("ip", "p/", ("b", b"1"))]
    assert bench.waiting == 0
    assert not bench.late


async def test_what_is_known_anew_or_taken_back_does_not_come() -> None:
    bench = Bench()
    async with TaskGroup() as tasks:
        bench.late.begin(Duties(tasks))
        bench.late.put("ip", "p/", [("a", b"1"), ("b", b"1")])
        bench.late.put("services", "s/", [("a", b"1")])
        bench.late.put("nodes", "n/", [("a", b"1")])
        bench.late.forget("ip", ["b", "c"])
        bench.late.drop(("services",))
        assert bench.waiting == 2
    assert [row[:2] for row in bench.taken] == [("ip", "p/"), ("nodes", "n/")]
    bench.late.drop()
    assert bench.waiting == 0


async def test_others_have_their_turn_between_parts() -> None:
    bench = Bench()
    async with TaskGroup() as tasks:
        bench.late.begin(Duties(tasks))
        bench.late.put("ip", "p/", [(str(n), b"") for n in range(PART_ROWS + 1)])
        await asyncio.sleep(0)
        assert (len(bench.taken), bench.waiting) == (PART_ROWS, 1)
    assert len(bench.taken) == PART_ROWS + 1


async def test_what_waits_outlives_a_connection_that_ends_before_anything_began() -> None:
    """Another task of the connection fails in the same turn of the loop: the work is cancelled
    before its first step."""
    bench = Bench()

    async def fails() -> None:
        raise ConnectionError

    async def tells() -> None:
        bench.late.put("ip", "p/", [("a", b"1")])
        await asyncio.Event().wait()

    async def connection() -> None:
        async with TaskGroup() as tasks:
            bench.late.begin(Duties(tasks))
            tasks.create_task(fails())
            tasks.create_task(tells())

    with pytest.raises(ExceptionGroup):
        await connection()
    assert (bench.waiting, bench.taken) == (1, [])
    bench.late.drop(("services",))  # between two connections
    async with TaskGroup() as tasks:
        bench.late.begin(Duties(tasks))
    assert [row for _, _, row in bench.taken] == [("a", b"1")]


async def test_no_faster_than_the_pace() -> None:
    """A bucket of one that fills in a second of this clock: the second change waits, and comes."""
    bench = Bench(Pace(1.0, 1.0))
    async with TaskGroup() as tasks:
        bench.late.begin(Duties(tasks))
        bench.late.put("ip", "p/", [("a", b"1")])
        await until(lambda: bench.waiting == 0)
        bench.late.put("ip", "p/", [("b", b"1")])
        await asyncio.sleep(0)
        assert bench.waiting == 1
    assert [row for _, _, row in bench.taken] == [("a", b"1"), ("b", b"1")]

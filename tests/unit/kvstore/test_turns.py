"""``kvstore.turns``: no more at once than allowed, and nobody holds the others up."""

import asyncio

import pytest

from kvstore.turns import Turns
from reconcile.tasks import TaskGroup


async def test_no_more_than_allowed_at_once() -> None:
    """In the order in which they came."""
    turns, now, most, order = Turns(2, 60.0), 0, 0, []

    async def take(number: int) -> None:
        nonlocal now, most
        async with turns.one():
            now += 1
            most = max(most, now)
            order.append(number)
            await asyncio.sleep(0)
            now -= 1

    async with TaskGroup() as tasks:
        for number in range(10):
            tasks.create_task(take(number))
    assert most == 2
    assert order == list(range(10))


async def test_a_slow_one_gives_its_turn_away_once() -> None:
    """The next one goes on meanwhile; when the slow one ends there is no turn too many."""
    turns = Turns(1, 0.01)
    gate = asyncio.Event()

    async def slow() -> None:
        async with turns.one():
            await gate.wait()

    async with TaskGroup() as tasks:
        first = tasks.create_task(slow())
        await asyncio.sleep(0)
        async with turns.one():
            gate.set()
            await first
            third = tasks.create_task(slow())
            await asyncio.sleep(0)
            assert not third.done()


async def test_an_error_frees_the_turn() -> None:
    """So does being cancelled."""
    turns = Turns(1, 60.0)
    with pytest.raises(OSError, match="gone"):
        async with turns.one():
            raise OSError("gone")
    async with turns.one():
        pass

"""``kvstore.shared_listing``: one answer for many, as new as each of them may expect."""

import asyncio

import pytest

from kvstore.port import PermissionDeniedError, StoreError, UnavailableError
from kvstore.shared_listing import FROM, SharedListing
from reconcile.tasks import TaskGroup
from tests.support.together import together


class Shelf:
    """Something that is read; each read is numbered."""

    def __init__(self, error: StoreError | None = None) -> None:
        self.listing = SharedListing()
        self.reads, self.error = 0, error
        self.begun: asyncio.Queue[int] = asyncio.Queue()
        self.open = asyncio.Event()
        self.open.set()

    async def _read(self) -> int:
        self.reads += 1
        number = self.reads
        self.begun.put_nowait(number)
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return number

    async def ask(self) -> int | None:
        found: int | None = await self.listing.ask(self._read)
        return found

    async def all(self, count: int) -> list[int | Exception | None]:
        return await together(*(self.ask() for _ in range(count)))


async def test_many_are_answered_at_once() -> None:
    """By one read."""
    shelf = Shelf()
    assert await shelf.all(FROM) == [1] * FROM
    assert await shelf.all(FROM) == [2] * FROM


async def test_a_few_ask_by_themselves() -> None:
    """A listing for hundreds is more than they need."""
    shelf = Shelf()
    assert await shelf.all(FROM - 1) == [None] * (FROM - 1)
    assert shelf.reads == 0


async def test_who_comes_after_its_beginning_is_not_answered_by_a_read() -> None:
    """What was written before the question must be in the answer."""
    shelf = Shelf()
    shelf.open.clear()
    async with asyncio.timeout(10), TaskGroup() as tasks:
        first = tasks.create_task(shelf.all(FROM))
        assert await shelf.begun.get() == 1
        second = tasks.create_task(shelf.all(FROM))
        assert await shelf.begun.get() == 2
        shelf.open.set()
    assert first.result() == [1] * FROM
    assert second.result() == [2] * FROM


async def test_what_may_not_be_read_as_a_whole_is_read_one_by_one() -> None:
    """Any refusal may be for the whole only."""
    shelf = Shelf(PermissionDeniedError("not for you"))
    assert await shelf.all(FROM) == [None] * FROM
    assert shelf.reads == 1


async def test_a_store_that_does_not_answer_is_everybodys_error() -> None:
    """Nobody waits for it a second time."""
    shelf = Shelf(UnavailableError("gone"))
    found = await shelf.all(FROM)
    assert [type(one) for one in found] == [UnavailableError] * FROM
    assert shelf.reads == 1


@pytest.mark.parametrize("late", [False, True])
async def test_whoever_reads_for_all_may_leave(late: bool) -> None:
    """Before the read or within it: the others ask by themselves, and new ones as always."""
    shelf = Shelf()
    shelf.open.clear()
    async with asyncio.timeout(10), TaskGroup() as tasks:
        reader = tasks.create_task(shelf.ask())
        others = tasks.create_task(shelf.all(FROM))
        await asyncio.sleep(0)
        if late:
            await shelf.begun.get()
        reader.cancel()
        assert await others == [None] * FROM
        shelf.open.set()
        assert None not in await shelf.all(FROM)


async def test_whoever_waits_may_leave() -> None:
    """The others are answered."""
    shelf = Shelf()
    async with asyncio.timeout(10), TaskGroup() as tasks:
        asking = [tasks.create_task(shelf.ask()) for _ in range(FROM)]
        await asyncio.sleep(0)
        asking[3].cancel()
    assert [task.result() for task in asking if not task.cancelled()] == [1] * (FROM - 1)

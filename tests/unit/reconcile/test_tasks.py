"""What a group of tasks leaves behind in the task that waited for it."""

import asyncio

import pytest

from reconcile.tasks import TaskGroup


async def _fail() -> None:
    await asyncio.sleep(0)
    raise OSError("gone")


async def _failing_group(body_waits: bool) -> None:
    async with TaskGroup() as tasks:
        tasks.create_task(_fail())
        if body_waits:
            await asyncio.Event().wait()


async def _late() -> None:
    async with asyncio.timeout(0.001):
        await asyncio.Event().wait()


@pytest.mark.parametrize("body_waits", [False, True])
def test_a_failed_group_leaves_no_cancellation(body_waits: bool) -> None:
    """Whether its task fails in the body or while the group is being left, and again and again."""

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        for _ in range(3):
            with pytest.raises(ExceptionGroup):
                await _failing_group(body_waits)
            assert task.cancelling() == 0
            with pytest.raises(TimeoutError):
                await _late()

    asyncio.run(work())


@pytest.mark.parametrize("body_waits", [False, True])
def test_who_cancels_the_waiting_task_is_heard(body_waits: bool) -> None:
    """A cancellation from outside ends it, and stays counted."""

    async def waits() -> None:
        async with TaskGroup() as tasks:
            tasks.create_task(asyncio.Event().wait())
            if body_waits:
                await asyncio.Event().wait()

    async def work() -> None:
        async with TaskGroup() as tasks:
            task = tasks.create_task(waits())
            await asyncio.sleep(0.01)
            task.cancel()
        assert task.cancelled()
        assert task.cancelling() == 1

    asyncio.run(work())

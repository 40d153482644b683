"""Several at the same time, each with its own outcome."""

from collections.abc import Awaitable
from typing import TypeVar

from reconcile.tasks import TaskGroup

T = TypeVar("T")


async def together(*works: Awaitable[T]) -> list[T | Exception]:
    """What each of them returns or raises, in their order."""

    async def one(work: Awaitable[T]) -> T | Exception:
        try:
            return await work
        except Exception as error:  # whatever it is, it is what this one came to
            return error

    async with TaskGroup() as tasks:
        begun = [tasks.create_task(one(work)) for work in works]
    return [task.result() for task in begun]

"""Tasks that end together, in programs that go on afterwards."""

import asyncio
import sys
from types import TracebackType

_KEEPS_COUNT = sys.version_info >= (3, 13)


class TaskGroup(asyncio.TaskGroup):  # noqa: TID251
    """asyncio's; a group that failed leaves no cancellation counted against the task that waited.

    Before CPython 3.13 a group whose task fails while it is being left cancels the waiting task and
    does not take that back, so whatever that task does next seems to have been asked to stop: until
    3.11.4 each later ``asyncio.timeout`` in it ends in ``CancelledError`` in place of
    ``TimeoutError``, and a loop that is to try again for ever is silently over.
    """

    _parent_cancel_requested: bool  # asyncio's own: it has cancelled the waiting task

    async def __aexit__(
        self,
        et: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        settled = _KEEPS_COUNT or self._parent_cancel_requested
        try:
            await super().__aexit__(et, exc, tb)
        finally:
            task = asyncio.current_task()
            if not settled and self._parent_cancel_requested and task is not None:
                task.uncancel()
